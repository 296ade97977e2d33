//! What traffic goes through: the same two pods, with something else attached each time.

use std::{
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use signet_agent::Config;
use signet_sandbox::SandboxPod;

use crate::{
    envoy::{self, Pair},
    policies::{self, Client, Nftables},
    tools::{self, Cpus, FORBIDDEN, PORTS, Running, Target},
    topology::{CLIENT, Node, Pod, SERVER},
};

pub(crate) const NONE: &str = "no program";
/// A twin of [`NONE`], built the same way.
pub(crate) const CONTROL: &str = "no program, again";
pub(crate) const ENVOY: &str = "Envoy pair, mTLS";
type Configure = fn(&mut Config);
/// Signet's paths, and how a node is told to take them; the last is what it does by default, and what goals are for.
pub(crate) const SIGNET: [(&str, Configure); 2] =
    [("Signet, slow path", |config| config.fast_path = false), ("Signet, fast path", |_| {})];
/// Between nodes there is one path.
pub(crate) const SIGNET_ACROSS: &str = "Signet";
const NFTABLES: [(&str, Nftables); 2] = [("nftables", Nftables::Rules), ("nftables, a set", Nftables::Set)];
/// A packet that policy drops is not answered; one that nothing drops is, at once.
const SILENCE: Duration = Duration::from_millis(300);
const BOTH: &[Pod] = &[CLIENT, SERVER];

/// Something that traffic goes through.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    pub(crate) envoys: Option<Pair>,
    /// They end before their pods do.
    _servers: Vec<Running>,
    /// The client's node, and the server's where it is another one.
    nodes: Vec<Node>,
}

impl Subject {
    fn new(cpus: &Cpus, name: &'static str, nodes: Vec<Node>) -> anyhow::Result<Self> {
        let server = nodes.last().context("no node")?;
        let servers = tools::servers(cpus, server.pod(SERVER)?)?;
        let target = Target { host: SERVER.1, ports: PORTS };
        let subject = Self { name, target, envoys: None, _servers: servers, nodes };
        let denied = subject.drops_the_forbidden()?;
        let is_plain = matches!(name, NONE | CONTROL | ENVOY);
        ensure!(
            denied != is_plain,
            "{name}: what no policy allows is {}dropped",
            if denied { "" } else { "not " }
        );
        Ok(subject)
    }

    /// Where the load comes from.
    pub(crate) fn client(&self) -> anyhow::Result<&SandboxPod> {
        self.nodes[0].pod(CLIENT)
    }

    fn drops_the_forbidden(&self) -> anyhow::Result<bool> {
        let address = SocketAddr::from((SERVER.1, FORBIDDEN));
        match self.nodes[0].inside_pod(CLIENT, || TcpStream::connect_timeout(&address, SILENCE))? {
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
            other => bail!("nobody listens on {address}, and yet: {other:?}"),
        }
    }
}

/// Both pods on one node, with so many policies. An Envoy pair where there is an Envoy.
pub(crate) fn on_one_node(cpus: &Cpus, count: usize, envoy: Option<&Path>) -> anyhow::Result<Vec<Subject>> {
    let plain = |name: &str| Node::plain(name, BOTH);
    let mut subjects = vec![
        Subject::new(cpus, NONE, vec![plain("none")?])?,
        Subject::new(cpus, CONTROL, vec![plain("again")?])?,
    ];
    let manifests = policies::manifests(count, Client::Pod);
    for (i, (name, configure)) in SIGNET.into_iter().enumerate() {
        let node = Node::signet(&format!("signet{i}"), BOTH, &manifests, configure)?;
        subjects.push(Subject::new(cpus, name, vec![node])?);
    }
    for (i, (name, how)) in NFTABLES.into_iter().enumerate() {
        let node = plain(&format!("nft{i}"))?;
        node.inside(|| nft(&policies::rule_set(count, how)))?;
        subjects.push(Subject::new(cpus, name, vec![node])?);
    }
    if let Some(envoy) = envoy {
        let mut subject = Subject::new(cpus, ENVOY, vec![plain("envoy")?])?;
        subject.envoys = Some(Pair::start(cpus, envoy, &subject.nodes[0])?);
        subject.target = envoy::target();
        subjects.push(subject);
    }
    Ok(subjects)
}

/// A node each, with a link between them, and one policy.
pub(crate) fn on_two_nodes(cpus: &Cpus) -> anyhow::Result<Vec<Subject>> {
    let joined = |client: Node, server: Node| {
        client.join(CLIENT, &server, SERVER)?;
        Ok::<_, anyhow::Error>(vec![client, server])
    };
    let plain = |a, b| joined(Node::plain(a, &[CLIENT])?, Node::plain(b, &[SERVER])?);
    let mut subjects = vec![
        Subject::new(cpus, NONE, plain("none-a", "none-b")?)?,
        Subject::new(cpus, CONTROL, plain("again-a", "again-b")?)?,
    ];
    let manifests = policies::manifests(1, Client::Address);
    let client = Node::signet("signet-a", &[CLIENT], "", |_| {})?;
    let server = Node::signet("signet-b", &[SERVER], &manifests, |_| {})?;
    subjects.push(Subject::new(cpus, SIGNET_ACROSS, joined(client, server)?)?);
    Ok(subjects)
}

/// Loads a rule set into the network of the calling thread.
fn nft(rules: &str) -> anyhow::Result<()> {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("running nft")?;
    child.stdin.take().context("nft has no input")?.write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "nft refuses the rules");
    Ok(())
}
