//! What `signet up` is told: options, then a configuration file, then defaults.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use signet_agent::{Config, Export, GatewayTls};
use signet_cluster::Settings;

use crate::filters::RawFilter;

/// Flows that can be kept in memory, at most.
const MAX_FLOWS: usize = 1 << 20;
/// What IPv6 needs, and what a veth can have.
const MTUS: std::ops::RangeInclusive<u32> = 1280..=65535;
/// Name servers that can be asked, at most.
const MAX_UPSTREAMS: usize = 16;

/// Arguments of `signet up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A configuration file (YAML). Its keys are these options in camelCase; options given here come before it.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// What can be said as an option and in the file. What neither says has the agent's default.
///
/// Paths of the file are relative to the file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Options {
    /// A folder of manifests; it is watched.
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Where what survives a reboot is kept. [default: /var/lib/signet]
    #[arg(long)]
    state: Option<PathBuf>,
    /// This node's name: pods that are another one's (`spec.nodeName`) are known here, and run there. [default: the host's]
    #[arg(long)]
    node: Option<String>,
    /// Where sockets, pods and their logs live. [default: /run/signet]
    #[arg(long)]
    run_dir: Option<PathBuf>,
    /// A folder on a BPF file system, where maps and links are pinned. [default: /sys/fs/bpf/signet]
    #[arg(long)]
    bpffs: Option<PathBuf>,
    /// Where the flow API listens. [default: 127.0.0.1:4245]
    #[arg(long)]
    flow_address: Option<SocketAddr>,
    /// Flows kept in memory, 1 to 1048576. [default: 4095]
    #[arg(long)]
    flows: Option<usize>,
    /// Megabytes of memory that kept flows may take, about: the oldest go earlier then. [default: no bound but their number]
    #[arg(long)]
    flows_memory: Option<u64>,
    /// Another node, as NAME=ADDRESS of its flow API: told to relays that ask this one (Hubble's Peer service).
    #[arg(long)]
    peer: Option<Vec<Named>>,
    /// The HTTPS URL that tokens of this node name as their issuer: what a cloud is told to trust, with the keys in
    /// jwks.json of the state folder. [default: one that is nobody's]
    #[arg(long)]
    issuer: Option<String>,
    /// The URL of a Redis or Valkey in which several nodes' model gateways count together. In the file, where it holds a
    /// password. [default: each node counts for itself]
    #[arg(long)]
    limits_store: Option<String>,
    /// Certificates, in PEM, one of which has to have signed the store's. [default: those that this host trusts]
    #[arg(long)]
    limits_store_ca: Option<PathBuf>,
    /// Whom the model gateway lets in: `egress`, pods alone; `ingress`, callers from outside the cluster as well, known by tokens
    /// over TLS. [default: egress]
    #[arg(long, value_enum)]
    gateway_mode: Option<GatewayMode>,
    /// The port of this node at which the model gateway is reached from outside, over TLS. [default: none]
    #[arg(long)]
    gateway_host_port: Option<u16>,
    /// The certificate that the model gateway serves TLS with, in PEM, with those that vouch for it behind it; read anew when it
    /// changes. [default: none]
    #[arg(long)]
    gateway_tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long)]
    gateway_tls_key: Option<PathBuf>,
    /// A file that flows are written to as JSON lines.
    #[arg(long)]
    export_file: Option<PathBuf>,
    /// Megabytes that it grows to before it is rotated, 1 to 1048576. [default: 10]
    #[arg(long)]
    export_file_max_size_mb: Option<u64>,
    /// Rotated files that are kept. [default: 5]
    #[arg(long)]
    export_file_max_backups: Option<usize>,
    /// Whether rotated files are compressed (gzip). [default: false]
    #[arg(long)]
    export_file_compress: Option<bool>,
    /// Only flows that match one of these are written: filters in JSON, as `signet observe --print-raw-filters` prints them.
    #[arg(long)]
    export_allowlist: Option<Vec<RawFilter>>,
    /// No flow that matches one of these is written.
    #[arg(long)]
    export_denylist: Option<Vec<RawFilter>>,
    /// The fields of a flow that are written, separated by commas. [default: all]
    #[arg(long, value_delimiter = ',')]
    export_fieldmask: Option<Vec<String>>,
    /// The ranges that pods get addresses from, at most one of each family. [default: 10.244.0.0/16 fd00:10:244::/64]
    #[arg(long)]
    pod_range: Option<Vec<IpNet>>,
    /// The ranges of other nodes' pods, where they are not within --pod-range: who is unknown in them is not the world.
    /// [default: none]
    #[arg(long)]
    cluster_range: Option<Vec<IpNet>>,
    /// The ranges that Services get their cluster addresses from, at most one of each family.
    /// [default: 10.96.0.0/16 fd00:10:96::/112]
    #[arg(long)]
    service_range: Option<Vec<IpNet>>,
    /// Who the cluster's name server asks for names of other domains: an address, or address:port; at most 16.
    /// [default: the host's name servers]
    #[arg(long)]
    dns_upstream: Option<Vec<NameServer>>,
    /// The MTU of the links of pods that are made, in bytes, 1280 to 65535. [default: that of the device that the cluster's
    /// network is reached by, an overlay's room left out]
    #[arg(long)]
    mtu: Option<u32>,
    /// Whether pods reach the world with this node's address. [default: true]
    #[arg(long)]
    masquerade: Option<bool>,
    /// Whether packets between two pods of this node go from one to the other past the node's stack, where nobody else has
    /// rules or programs on their way. Flows that live keep their way. [default: true]
    #[arg(long)]
    fast_path: Option<bool>,
    /// Whether policies hold where neither they nor their namespace say. [default: enforce]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Whether namespaces that do not say are RSVP-only. [default: false]
    #[arg(long)]
    default_deny: Option<bool>,
    /// Whether an ipBlock of a NetworkPolicy matches pods by their address. [default: true]
    #[arg(long)]
    ipblock_matches_pods: Option<bool>,
}

/// Whether policies hold.
#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// They do.
    Enforce,
    /// They are watched only.
    Audit,
}

/// Whom the model gateway lets in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GatewayMode {
    /// Pods, known by their packets.
    #[default]
    Egress,
    /// Callers from outside the cluster as well, known by their tokens over TLS.
    Ingress,
}

impl From<GatewayMode> for signet_gateway::Mode {
    fn from(mode: GatewayMode) -> Self {
        match mode {
            GatewayMode::Egress => Self::Egress,
            GatewayMode::Ingress => Self::Ingress,
        }
    }
}

/// A node and the address of its flow API.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Named(String, String);

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                Ok(Self(name.to_owned(), address.to_owned()))
            }
            _ => Err(format!("{text:?} is not NAME=ADDRESS")),
        }
    }
}

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A name server, on a name server's port where none is named.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct NameServer(SocketAddr);

impl std::str::FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        let address = alone.or_else(|_| text.parse()).map_err(|_| format!("{text:?} is no address"))?;
        Ok(Self(address))
    }
}

impl TryFrom<String> for NameServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl UpArgs {
    /// The folder of manifests, and everything else.
    ///
    /// # Errors
    /// What is wrong with the file or a value, and where.
    pub(crate) fn settle(&self) -> anyhow::Result<(PathBuf, Config)> {
        let file = match &self.config {
            Some(path) => signet_cluster::read_config::<Options>(path)?.relative_to(path.parent()),
            None => Options::default(),
        };
        let (given, file) = (&self.options, &file);
        let manifests = given.manifests.as_ref().or(file.manifests.as_ref());
        let manifests = manifests.context("--manifests: which folder is not said, nor in a --config")?;
        let config = settle(given, file);
        let pair = [
            given.gateway_tls_cert.as_ref().or(file.gateway_tls_cert.as_ref()),
            given.gateway_tls_key.as_ref().or(file.gateway_tls_key.as_ref()),
        ];
        let authorities = given.limits_store_ca.as_ref().or(file.limits_store_ca.as_ref());
        let limits_store_ca = authorities.map(|path| absolute(path)).transpose()?;
        let config = Config { gateway_tls: gateway_tls(pair)?, limits_store_ca, ..config };
        check(&config)?;
        Ok((manifests.clone(), config))
    }
}

impl Options {
    fn relative_to(mut self, folder: Option<&Path>) -> Self {
        for path in [
            &mut self.manifests,
            &mut self.state,
            &mut self.run_dir,
            &mut self.bpffs,
            &mut self.export_file,
            &mut self.limits_store_ca,
            &mut self.gateway_tls_cert,
            &mut self.gateway_tls_key,
        ] {
            if let (Some(path), Some(folder)) = (path, folder) {
                *path = folder.join(&*path);
            }
        }
        self
    }
}

/// The first that says something.
fn settle(given: &Options, file: &Options) -> Config {
    fn first<T: Clone>(given: &Option<T>, file: &Option<T>, default: T) -> T {
        given.clone().or_else(|| file.clone()).unwrap_or(default)
    }
    let default = Config::default();
    let servers = |servers: &Vec<NameServer>| servers.iter().map(|server| server.0).collect();
    let mode = match given.mode.or(file.mode) {
        Some(Mode::Audit) => signet_policy::Mode::Audit,
        Some(Mode::Enforce) | None => signet_policy::Mode::Enforce,
    };
    Config {
        node: first(&given.node, &file.node, default.node),
        run_dir: first(&given.run_dir, &file.run_dir, default.run_dir),
        state_dir: first(&given.state, &file.state, default.state_dir),
        bpffs: first(&given.bpffs, &file.bpffs, default.bpffs),
        ranges: first(&given.pod_range, &file.pod_range, default.ranges),
        cluster_ranges: first(&given.cluster_range, &file.cluster_range, default.cluster_ranges),
        service_ranges: first(&given.service_range, &file.service_range, default.service_ranges),
        dns_upstreams: given.dns_upstream.as_ref().or(file.dns_upstream.as_ref()).map(servers),
        settings: Settings {
            mode,
            default_deny: first(&given.default_deny, &file.default_deny, default.settings.default_deny),
            ipblock_matches_pods: first(
                &given.ipblock_matches_pods,
                &file.ipblock_matches_pods,
                default.settings.ipblock_matches_pods,
            ),
            ..default.settings
        },
        mtu: given.mtu.or(file.mtu),
        masquerade: first(&given.masquerade, &file.masquerade, default.masquerade),
        fast_path: first(&given.fast_path, &file.fast_path, default.fast_path),
        network: default.network,
        flow_address: given.flow_address.or(file.flow_address).or(default.flow_address),
        flows: first(&given.flows, &file.flows, default.flows),
        flows_memory: given.flows_memory.or(file.flows_memory).map(|mb| mb.saturating_mul(1_000_000)),
        manifests: default.manifests,
        issuer: first(&given.issuer, &file.issuer, default.issuer),
        limits_store: given.limits_store.clone().or_else(|| file.limits_store.clone()).map(Into::into),
        limits_store_ca: default.limits_store_ca,
        gateway_tls: default.gateway_tls,
        gateway_mode: first(&given.gateway_mode, &file.gateway_mode, GatewayMode::default()).into(),
        gateway_host_port: given.gateway_host_port.or(file.gateway_host_port),
        peers: nodes(given.peer.as_ref().or(file.peer.as_ref())),
        export: export(given, file),
    }
}

/// The gateway is another process, and may be in another folder.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

fn gateway_tls(pair: [Option<&PathBuf>; 2]) -> anyhow::Result<Option<GatewayTls>> {
    match pair {
        [None, None] => Ok(None),
        [Some(certificate), Some(key)] => {
            Ok(Some(GatewayTls { certificate: absolute(certificate)?, key: absolute(key)? }))
        }
        [Some(_), None] => anyhow::bail!("gateway TLS key: is required beside the certificate"),
        [None, Some(_)] => anyhow::bail!("gateway TLS cert: is required beside the key"),
    }
}

fn nodes(peers: Option<&Vec<Named>>) -> signet_flow::Nodes {
    peers.into_iter().flatten().map(|Named(name, address)| (name.clone(), address.clone())).collect()
}

fn export(given: &Options, file: &Options) -> Option<Export> {
    let filters =
        |filters: Option<&Vec<RawFilter>>| filters.into_iter().flatten().map(|f| f.0.clone()).collect();
    Some(Export {
        path: given.export_file.clone().or_else(|| file.export_file.clone())?,
        max_size_mb: given.export_file_max_size_mb.or(file.export_file_max_size_mb).unwrap_or(10),
        max_backups: given.export_file_max_backups.or(file.export_file_max_backups).unwrap_or(5),
        compress: given.export_file_compress.or(file.export_file_compress).unwrap_or(false),
        allow: filters(given.export_allowlist.as_ref().or(file.export_allowlist.as_ref())),
        deny: filters(given.export_denylist.as_ref().or(file.export_denylist.as_ref())),
        fields: given.export_fieldmask.clone().or_else(|| file.export_fieldmask.clone()).unwrap_or_default(),
    })
}

fn check(config: &Config) -> anyhow::Result<()> {
    for (name, ranges) in [("pod range", &config.ranges), ("service range", &config.service_ranges)] {
        let of = |v4: bool| ranges.iter().filter(|range| range.addr().is_ipv4() == v4).count();
        anyhow::ensure!(of(true) + of(false) > 0, "{name}: there must be one");
        anyhow::ensure!(of(true) <= 1 && of(false) <= 1, "{name}: at most one of each family");
    }
    let overlap = |a: &IpNet, b: &IpNet| a.contains(&b.network()) || b.contains(&a.network());
    let both = config
        .ranges
        .iter()
        .chain(&config.cluster_ranges)
        .find(|pods| config.service_ranges.iter().any(|s| overlap(pods, s)));
    if let Some(range) = both {
        anyhow::bail!("pod range {range} overlaps a service range: an address would be both");
    }
    anyhow::ensure!(
        (1..=MAX_FLOWS).contains(&config.flows),
        "flows: {} is not 1 to {MAX_FLOWS}",
        config.flows
    );
    if let Some(mtu) = config.mtu {
        anyhow::ensure!(MTUS.contains(&mtu), "mtu: {mtu} is not 1280 to 65535");
    }
    if let Some(export) = &config.export {
        let size = export.max_size_mb;
        anyhow::ensure!((1..=1 << 20).contains(&size), "export file max size: {size} is not 1 to 1048576");
        signet_flow::Filters::new(&export.allow, &export.deny).context("export")?;
        signet_flow::Mask::new(&export.fields).context("export")?;
    }
    let issuer = config.issuer.strip_prefix("https://").filter(|rest| !rest.is_empty());
    anyhow::ensure!(
        issuer.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/:".contains(&b))),
        "issuer: {:?} is not https://HOST, or with a path",
        config.issuer
    );
    let is_store = |url: &SecretString| {
        ["redis://", "rediss://", "unix:"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
    };
    anyhow::ensure!(
        config.limits_store.as_ref().is_none_or(is_store),
        "limits store: not redis://HOST, rediss://HOST or unix:PATH"
    );
    anyhow::ensure!(
        config.limits_store_ca.is_none() || config.limits_store.is_some(),
        "limits store CA: there is no limits store"
    );
    check_gateway(config)?;
    anyhow::ensure!(config.flows_memory != Some(0), "flows memory: 0 is none");
    let upstreams = config.dns_upstreams.as_ref().map_or(0, Vec::len);
    anyhow::ensure!(upstreams <= MAX_UPSTREAMS, "dns upstream: at most {MAX_UPSTREAMS}");
    Ok(())
}

/// Whoever calls from outside is known by a token, and a token is shown over TLS alone.
fn check_gateway(config: &Config) -> anyhow::Result<()> {
    let is_ingress = config.gateway_mode == signet_gateway::Mode::Ingress;
    anyhow::ensure!(
        !is_ingress || config.gateway_tls.is_some(),
        "gateway mode: ingress is over TLS alone: say gateway TLS cert and gateway TLS key as well"
    );
    if let Some(port) = config.gateway_host_port {
        anyhow::ensure!(port != 0, "gateway host port: 0 is not 1 to 65535");
        anyhow::ensure!(
            is_ingress,
            "gateway host port: in gateway mode egress nobody calls from outside: say gateway mode ingress as well"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: UpArgs,
    }

    fn settled(file: &str, options: &[&str]) -> Result<(PathBuf, Config), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signet.yaml");
        std::fs::write(&path, file).unwrap();
        let line =
            ["up", "--config", path.to_str().unwrap()].iter().chain(options).copied().collect::<Vec<_>>();
        let said = Line::parse_from(line).args.settle();
        said.map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    const FILE: &str = "manifests: m\nmode: audit\ndefaultDeny: true\npodRange: [10.1.0.0/16]\nmasquerade: false\nfastPath: false\n\
                        dnsUpstream: [192.0.2.53, '192.0.2.54:5353']\nflowAddress: 127.0.0.1:1\n";

    #[test]
    fn options_come_before_the_file_and_the_file_before_defaults() {
        let (manifests, config) =
            settled(FILE, &["--mode", "enforce", "--flow-address", "127.0.0.1:2"]).unwrap();
        assert!(manifests.is_absolute() && manifests.ends_with("m"), "relative to the file");
        assert_eq!(config.settings.mode, signet_policy::Mode::Enforce);
        assert!(config.settings.default_deny && !config.masquerade && !config.fast_path);
        assert_eq!(config.ranges, ["10.1.0.0/16".parse::<IpNet>().unwrap()]);
        assert_eq!(config.flow_address, Some("127.0.0.1:2".parse().unwrap()));
        let upstreams: Vec<String> =
            config.dns_upstreams.unwrap().iter().map(SocketAddr::to_string).collect();
        assert_eq!(upstreams, ["192.0.2.53:53", "192.0.2.54:5353"]);
        assert_eq!(config.service_ranges, Config::default().service_ranges);
    }

    #[test]
    fn an_export_is_settled_from_both() {
        let file = "manifests: m\nexportFile: flows.log\nexportFileMaxBackups: 2\n\
                    exportDenylist: ['{\"verdict\": [\"FORWARDED\"]}']\npeer: [b=192.0.2.2:4245]\nflowsMemory: 64\n";
        let (_, config) =
            settled(file, &["--export-file-compress", "true", "--export-fieldmask", "time,verdict"]).unwrap();
        let export = config.export.unwrap();
        assert!(export.path.is_absolute(), "relative to the file");
        assert_eq!((export.max_size_mb, export.max_backups, export.compress), (10, 2, true));
        assert_eq!(export.fields, ["time", "verdict"]);
        assert_eq!(export.deny[0].verdict, [1]);
        assert_eq!((config.flows_memory, config.peers["b"].as_str()), (Some(64_000_000), "192.0.2.2:4245"));
        for (bad, problem) in [
            ("exportFileMaxSizeMb: 0", "max size"),
            ("exportFieldmask: [sauce]", "export"),
            ("exportAllowlist: ['{\"sauce\": 1}']", "exportAllowlist[0]"),
            ("peer: [b]", "is not NAME=ADDRESS"),
        ] {
            let error = settled(&format!("manifests: m\nexportFile: f\n{bad}\n"), &[]).unwrap_err();
            assert!(error.contains(problem), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        let refused = |file: &str| settled(file, &[]).unwrap_err();
        let unknown = refused("manifests: m\nmasquarade: false\n");
        assert!(unknown.starts_with("/signet.yaml:2: document 1, masquarade: unknown field"), "{unknown}");
        assert!(refused("mode: maybe\n").starts_with("/signet.yaml:1: document 1, mode: "));
        assert!(
            refused("dnsUpstream: [here]\n")
                .contains(":1: document 1, dnsUpstream[0]: \"here\" is no address")
        );
        assert!(refused("node: a\n").contains("--manifests"));
        assert!(
            refused("manifests: m\npodRange: [10.1.0.0/16, 10.2.0.0/16]\n").contains("one of each family")
        );
        assert!(refused("manifests: m\npodRange: [10.96.0.0/12]\n").contains("overlaps"));
        assert!(refused("manifests: m\nflows: 0\n").contains("flows"));
        assert!(refused("manifests: m\nlimitsStoreCa: ca.pem\n").contains("there is no limits store"));
        assert!(refused("manifests: m\ngatewayTlsCert: c.pem\n").contains("gateway TLS key: is required"));
        let mode = refused("manifests: m\ngatewayMode: ingress\n");
        assert!(mode.contains("gateway mode: ingress") && mode.contains("gateway TLS cert"), "{mode}");
        let both = "manifests: m\ngatewayTlsCert: c.pem\ngatewayTlsKey: k.pem\ngatewayHostPort: 443\n";
        assert!(refused(both).contains("say gateway mode ingress"));
        let config = settled(&format!("{both}gatewayMode: ingress\n"), &[]).unwrap().1;
        assert_eq!(
            (config.gateway_mode, config.gateway_host_port),
            (signet_gateway::Mode::Ingress, Some(443))
        );
    }
}
