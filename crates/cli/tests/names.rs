//! Names of other domains, and pods that are older than the cluster's name server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::fs;
use support::{
    node::{Node, wait_until},
    world::{V4, World},
};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: old, namespace: shop}
spec:
  containers:
    - {name: c, image: none, command: [sh, -c, "while sleep 0.1; do cat /etc/resolv.conf; getent hosts www.example.org; done"]}
"#;

const SERVICE: &str = r#"
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: out, namespace: shop}
spec: {type: ExternalName, externalName: www.example.org}
"#;

#[test]
fn pods_resolve_names_of_other_domains_also_those_that_are_older_than_the_name_server() {
    let Some(mut node) = Node::new("names", POD) else { return };
    let world = World::new();
    let zone = node.folder().join("world.json");
    let names = r#"{"domains":["example.org"],"names":{"www.example.org":[{"address":"192.0.2.80"}]}}"#;
    fs::write(&zone, names).unwrap();
    let listen = format!("{V4}:53");
    world.run(&[env!("CARGO_BIN_EXE_signet"), "dns", "--zone", zone.to_str().unwrap(), "--listen", &listen]);
    node.set_options(&["--dns-upstream", V4]);
    node.start_and_wait();
    let of_node = fs::read_to_string("/etc/resolv.conf").unwrap();
    let first = of_node.lines().next().unwrap_or_default();
    wait_until("it runs, with the node's name servers", || node.log("shop_old").contains(first));
    node.write("pods.yaml", &format!("{POD}{SERVICE}"));
    wait_until("it asks the cluster's", || {
        node.log("shop_old")
            .contains("nameserver 10.96.0.10\nnameserver fd00:10:96::a\nsearch shop.svc.cluster.local")
    });
    wait_until("it is answered", || node.log("shop_old").contains("192.0.2.80"));
    let ask = |name: &str| {
        let said = node.run(&["-n", "shop"], &["getent", "hosts", name]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    assert!(ask("out").contains("192.0.2.80"), "an alias is followed to the world");
    assert!(ask("web").contains(":96::") || ask("web").contains("10.96."));
    assert_eq!(ask("nobody.example.org"), "");
}
