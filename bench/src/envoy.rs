//! What Signet replaces: an Envoy beside each of the two pods, with mutual TLS 1.3 between them. At its best: bare TCP
//! proxies that the client addresses directly, without redirection, HTTP filters, telemetry or a control plane.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use signet_sandbox::SandboxPod;

use crate::{
    tools::{Cpus, PORTS, Running, Target},
    topology::{CLIENT, Node, SERVER},
};

/// Where the client's Envoy listens, and where the server's: the number of the port is added.
const OUTBOUND: u16 = 15_001;
const INBOUND: u16 = 16_001;

/// Two Envoys at work.
pub(crate) struct Pair {
    pub(crate) envoys: [Running; 2],
    /// Keys and configurations.
    _folder: tempfile::TempDir,
}

/// Where a client behind the pair finds the servers.
pub(crate) fn target() -> Target {
    Target { host: Ipv4Addr::LOCALHOST, ports: std::array::from_fn(|i| OUTBOUND + i as u16) }
}

impl Pair {
    pub(crate) fn start(cpus: &Cpus, envoy: &Path, node: &Node) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        certificates(folder.path())?;
        let server = start(cpus, envoy, node.pod(SERVER)?, folder.path(), "server")?;
        let client = start(cpus, envoy, node.pod(CLIENT)?, folder.path(), "client")?;
        Ok(Self { envoys: [client, server], _folder: folder })
    }
}

fn start(cpus: &Cpus, envoy: &Path, pod: &SandboxPod, folder: &Path, side: &str) -> anyhow::Result<Running> {
    let file = folder.join(format!("{side}.json"));
    fs::write(&file, config(folder, side).to_string())?;
    let (envoy, file) = (envoy.to_string_lossy(), file.to_string_lossy());
    let command =
        [&*envoy, "-c", &file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"];
    let first = if side == "client" { OUTBOUND } else { INBOUND };
    let ports: [u16; 4] = std::array::from_fn(|i| first + i as u16);
    Running::start(cpus.inside(pod, &command)?, &ports)
}

fn config(folder: &Path, side: &str) -> Value {
    let numbers = 0..PORTS.len();
    let listeners: Vec<Value> = numbers.clone().map(|i| listener(folder, side, i)).collect();
    let clusters: Vec<Value> = numbers.map(|i| cluster(folder, side, i)).collect();
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

fn listener(folder: &Path, side: &str, i: usize) -> Value {
    let (address, port) = match side {
        "client" => (Ipv4Addr::LOCALHOST, OUTBOUND + i as u16),
        _ => (SERVER.1, INBOUND + i as u16),
    };
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": format!("t{i}"),
            "cluster": format!("c{i}"),
        },
    }]});
    if side == "server" {
        chain["transport_socket"] = tls(folder, side, "DownstreamTlsContext");
    }
    json!({ "name": format!("l{i}"), "address": socket(address, port), "filter_chains": [chain] })
}

fn cluster(folder: &Path, side: &str, i: usize) -> Value {
    let (address, port) = match side {
        "client" => (SERVER.1, INBOUND + i as u16),
        _ => (Ipv4Addr::LOCALHOST, PORTS[i]),
    };
    let name = format!("c{i}");
    let endpoint = json!({ "endpoint": { "address": socket(address, port) } });
    let endpoints = json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] });
    let mut cluster =
        json!({ "name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": endpoints });
    if side == "client" {
        cluster["transport_socket"] = tls(folder, side, "UpstreamTlsContext");
    }
    cluster
}

fn socket(address: Ipv4Addr, port: u16) -> Value {
    json!({ "socket_address": { "address": address.to_string(), "port_value": port } })
}

fn tls(folder: &Path, side: &str, context: &str) -> Value {
    let file = |name: String| json!({ "filename": folder.join(name) });
    let mut config = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}"),
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "tls_certificates": [{
                "certificate_chain": file(format!("{side}.crt")),
                "private_key": file(format!("{side}.key")),
            }],
            "validation_context": { "trusted_ca": file("ca.crt".to_owned()) },
        },
    });
    if side == "server" {
        config["require_client_certificate"] = true.into();
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}

/// An authority, and a certificate of each side.
fn certificates(folder: &Path) -> anyhow::Result<()> {
    for name in ["ca", "server", "client"] {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &format!("/CN={name}")]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
        if name != "ca" {
            openssl.args(["-CA", "ca.crt", "-CAkey", "ca.key"]);
        }
        let out = openssl.output().context("running openssl")?;
        ensure!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}
