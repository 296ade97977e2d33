//! A load: 10,000 packets a second, and connections that are kept and made.

use super::node::{Node, wait_until};

/// Who pours, who catches, and clients that keep their connection and that make one for each request.
pub(crate) const PODS: [(&str, &str); 5] = [
    ("server", "serve --port 8080"),
    ("catch", "catch --port 9000 --every 20"),
    ("kept", "stream server.shop.pod:8080 --every 2"),
    ("fresh", "call server.shop.pod:8080 --every 5"),
    ("pour", "pour catch.shop.pod:9000 --rate 10000"),
];

/// A pod with a role of `signet workload`.
pub(crate) fn pod(name: &str, command: &str) -> String {
    let command: Vec<String> =
        ["signet", "workload"].into_iter().chain(command.split(' ')).map(|w| format!("{w:?}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}, \
         load: 'true'}}}}\nspec: {{containers: [{{name: c, image: none, command: [{}]}}]}}\n",
        command.join(", ")
    )
}

/// The manifests of [`PODS`].
pub(crate) fn pods() -> String {
    PODS.iter().map(|(name, command)| pod(name, command)).collect()
}

/// Lets into `app` whoever `from` says, and always the pods of the load.
pub(crate) fn policy(app: &str, port: &str, from: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {app}, namespace: \
         shop}}\nspec:\n  podSelector: {{matchLabels: {{app: {app}}}}}\n  policyTypes: [Ingress]\n  ingress: [{{from: \
         [{from}], ports: [{port}]}}]\n"
    )
}

/// The pods of the load.
const LOAD: &str = "{podSelector: {matchLabels: {load: 'true'}}}";

/// Those of the load, and who else may come in.
pub(crate) fn policies(more: &str) -> String {
    let from = format!("{LOAD}{more}");
    policy("server", "{port: 8080}", &from) + &policy("catch", "{port: 9000, protocol: UDP}", &from)
}

/// Answers, and what went wrong.
pub(crate) struct Clients {
    pub(crate) answers: usize,
    pub(crate) wrong: Vec<String>,
}

/// Of those that keep their connection and those that make new ones.
pub(crate) fn clients(node: &Node) -> Clients {
    of_pods(node, &["kept", "fresh"])
}

/// Of these pods.
pub(crate) fn of_pods(node: &Node, pods: &[&str]) -> Clients {
    let logs: Vec<String> = pods.iter().map(|pod| node.log(&format!("shop_{pod}"))).collect();
    let lines: Vec<&str> = logs.iter().flat_map(|l| l.lines()).collect();
    let good = |l: &&&str| l.starts_with("ok") || l.starts_with("tick");
    let bad = |l: &&str| l.contains("failed") || l.contains("cut");
    Clients {
        answers: lines.iter().filter(good).count(),
        wrong: lines.iter().filter(|l| bad(l)).map(|l| (*l).to_owned()).collect(),
    }
}

/// What the last line of a catcher says: caught, and missing.
pub(crate) fn caught(node: &Node, pod: &str) -> (u64, u64) {
    let log = node.log(pod);
    let last = log.lines().rev().find(|l| l.starts_with("caught")).unwrap_or("caught 0 missing 0");
    let numbers: Vec<u64> = last.split(' ').filter_map(|w| w.parse().ok()).collect();
    (numbers[0], numbers[1])
}

/// Waits until the load went on for a while: so many more packets, and answers.
pub(crate) fn goes_on(node: &Node) {
    let (packets, answers) = (caught(node, "shop_catch").0, clients(node).answers);
    wait_until("packets and answers go on", || {
        caught(node, "shop_catch").0 >= packets + 5_000 && clients(node).answers >= answers + 50
    });
}
