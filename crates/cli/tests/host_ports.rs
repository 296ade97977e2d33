//! `hostPort`: a port of the node leads to a pod, from outside, from the node and from other pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use support::{
    node::{Node, wait_until},
    world::{V4, V6, World},
};

/// The node's, as a program outside and in the cluster knows it.
const NODE: [&str; 2] = ["192.0.2.1:8000", "[2001:db8::1]:8000"];
/// How long a dropped packet is waited for.
const SILENCE: Duration = Duration::from_millis(500);

/// A server with a port of the node's for TCP and one for UDP.
fn web(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\nspec:\n  containers:\n  \
         - name: c\n    image: none\n    command: [signet, workload, serve, --port, \"8080\"]\n    ports:\n    \
         - {{containerPort: 8080, hostPort: 8000}}\n    - {{containerPort: 5300, hostPort: 5353, protocol: UDP}}\n{more}"
    )
}

const CALLER: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: caller, namespace: shop}\nspec:\n  containers: [{name: c, image: none, \
                      command: [signet, workload, call, \"192.0.2.1:8000\", \"[2001:db8::1]:8000\", --every, \"50\"]}]\n";

fn policy(except: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: web}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n    \
         - ipBlock: {{cidr: 0.0.0.0/0, except: [{except}]}}\n    - ipBlock: {{cidr: '::/0'}}\n    - podSelector: {{}}\n"
    )
}

/// Which pod answers.
fn ask(address: &str) -> Result<String, ErrorKind> {
    let asked = || {
        let address: SocketAddr = address.parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.write_all(b"who\n")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim().trim_start_matches("who ").to_owned())
    };
    asked().map_err(|error: std::io::Error| error.kind())
}

#[test]
fn a_port_of_the_node_leads_to_its_pod_and_shows_it_who_calls() {
    let Some(mut node) = Node::new("host-ports", &web("web", "")) else { return };
    node.write("caller.yaml", CALLER);
    let world = World::new();
    world.serve(9000);
    node.start_and_wait();
    let seen = |address: &str| node.log("shop_web").contains(&format!("connection from {address}\n"));
    wait_until("the world is answered, and seen as itself", || {
        NODE.iter().all(|at| world.inside(|| ask(at)) == Ok("web".to_owned())) && seen(V4) && seen(V6)
    });
    let told = |source: &str, verdict: &str| {
        node.flows().iter().any(|f| {
            let flow = &f["flow"];
            flow["IP"]["source"] == source
                && flow["destination"]["pod_name"] == "web"
                && flow["verdict"] == verdict
                && flow["source"]["labels"].to_string().contains("reserved:world")
        })
    };
    wait_until("its flows say so", || told(V4, "FORWARDED") && told(V6, "FORWARDED"));

    // the node's own programs, but for what stays on loopback
    assert_eq!(NODE.map(|at| node.inside(|| ask(at))), [(); 2].map(|()| Ok("web".to_owned())));
    assert_eq!(node.inside(|| ask("127.0.0.1:8000")), Err(ErrorKind::ConnectionRefused));
    // pods, each as itself
    let addresses = node.endpoint("shop/caller").unwrap()["addresses"].clone();
    wait_until("another pod is answered", || {
        let ok = node.log("shop_caller").lines().filter(|line| line.starts_with("ok")).count();
        ok >= 4 && addresses.as_array().unwrap().iter().all(|a| seen(a.as_str().unwrap()))
    });

    let [server, client] = [
        node.inside_pod("shop_web", || UdpSocket::bind("0.0.0.0:5300").unwrap()),
        world.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap()),
    ];
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    client.connect("192.0.2.1:5353").unwrap();
    client.send(b"?").unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), V4.parse::<IpAddr>().unwrap());
    server.send_to(b"!", from).unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap(), 1);

    node.apply("policy.yaml", &policy(&format!("{V4}/32")));
    wait_until("policy holds", || world.inside(|| ask(NODE[0])) == Err(ErrorKind::TimedOut));
    assert_eq!(world.inside(|| ask(NODE[1])), Ok("web".to_owned()));
    wait_until("its flow says so", || told(V4, "DROPPED"));
    node.apply("policy.yaml", &policy("203.0.113.8/32"));
    wait_until("and holds no more", || world.inside(|| ask(NODE[0])) == Ok("web".to_owned()));
    node.signal(Signal::SIGTERM);
    if let Ok(said) = Command::new("nft").args(["list", "tables"]).output() {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "", "no table stays");
    }
}

/// What a pod gets from `client`, which sends on and on from one port.
fn receives(node: &Node, pod: &str, client: &UdpSocket) {
    let server = node.inside_pod(pod, || UdpSocket::bind("0.0.0.0:5300").unwrap());
    server.set_nonblocking(true).unwrap();
    wait_until("datagrams arrive", || {
        // what the node said of the last one, be it that nobody is there
        let _ = client.send(b"?");
        server.recv_from(&mut [0; 8]).is_ok_and(|(_, from)| from.ip() == V4.parse::<IpAddr>().unwrap())
    });
}

#[test]
fn a_port_of_the_node_follows_its_pods_and_is_closed_with_the_last() {
    let Some(mut node) = Node::new("host-ports-follow", &web("web", "")) else { return };
    node.set_options(&["--masquerade", "false"]);
    let world = World::new();
    world.serve(9000);
    node.start_and_wait();
    let all = |answer: &Result<String, ErrorKind>| NODE.iter().all(|at| world.inside(|| ask(at)) == *answer);
    let answered = |pod: &str| all(&Ok(pod.to_owned()));
    wait_until("the pod answers", || answered("web"));
    let client = world.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.connect("192.0.2.1:5353").unwrap();
    receives(&node, "shop_web", &client);
    node.apply("pods.yaml", &web("web", "status: {podIPs: [{ip: 10.244.9.9}, {ip: 'fd00:10:244::99'}]}\n"));
    wait_until("it answers under its new address", || {
        answered("web") && node.endpoint("shop/web").unwrap()["addresses"][0] == "10.244.9.9"
    });
    node.apply("pods.yaml", &web("next", ""));
    wait_until("another one answers", || answered("next"));
    receives(&node, "shop_next", &client);
    // an agent that takes over, leaves open what is open
    node.signal(Signal::SIGKILL);
    assert!(answered("next"));
    node.start_and_wait();
    assert!(answered("next"));

    node.write("second.yaml", &web("second", ""));
    wait_until("who claims it as well is refused", || {
        let place = "second.yaml:10: document 1, spec.containers[0].ports[0].hostPort: ";
        node.said().contains(&format!("{place}TCP 8000 of this node is the pod shop/next's already, at "))
    });
    assert!(answered("next"));
    node.remove("second.yaml");
    node.apply("pods.yaml", CALLER);
    wait_until("nobody is there any more", || all(&Err(ErrorKind::ConnectionRefused)));
}
