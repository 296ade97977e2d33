//! Pods, workloads and what surrounds them; folders of files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

use std::fs;

use signet_cluster::{Frontend, HostAddress, PodManifest, RestartPolicy, Settings, Snapshot, TargetPort};
use signet_identity::{NamedPort, Protocol};

fn read_all(texts: &[(&str, &str)]) -> Result<Snapshot, String> {
    Snapshot::from_texts(texts, &Settings::default()).map_err(|error| error.to_string())
}

fn read(text: &str) -> Snapshot {
    read_all(&[("m.yaml", text)]).unwrap()
}

fn problem(text: &str) -> String {
    read_all(&[("m.yaml", text)]).unwrap_err()
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.pods.iter().map(|p| p.pod.name.to_string()).collect()
}

fn object(api_version: &str, kind: &str, rest: &str) -> String {
    format!("---\napiVersion: {api_version}\nkind: {kind}\n{rest}\n")
}

fn workload(kind: &str, spec: &str) -> String {
    let group = if kind.ends_with("Job") { "batch/v1" } else { "apps/v1" };
    let template = "template: {metadata: {labels: {app: w}}, spec: {containers: [{name: c}]}}";
    object(group, kind, &format!("metadata: {{name: w, namespace: ml}}\nspec: {{{spec}{template}}}"))
}

fn only_pod(text: &str) -> PodManifest {
    let snapshot = read(text);
    assert_eq!(snapshot.pods.len(), 1);
    PodManifest::clone(&snapshot.pods[0])
}

const POD: &str = r"
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: ml
  labels: {app: web}
  annotations: {note: x}
  unheardOf: 1
spec:
  serviceAccountName: robot
  nodeName: n1
  restartPolicy: OnFailure
  initContainers:
  - {name: setup, ports: [{name: never, containerPort: 1}]}
  - {name: proxy, restartPolicy: Always, ports: [{name: admin, containerPort: 9901}]}
  containers:
  - name: main
    image: web:1
    command: [serve]
    args: [--port, '80']
    workingDir: /srv
    env:
    - {name: A, value: '1'}
    - {name: B, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: C}
    ports:
    - {name: http, containerPort: 80}
    - {name: dns, containerPort: 53, protocol: UDP}
    - {containerPort: 7000}
  - name: side
status:
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]
";

#[test]
fn a_pod_is_read_with_all_that_matters() {
    let PodManifest { pod, containers, restart, annotations, origin, owner, .. } = only_pod(POD);
    assert_eq!(pod.name.to_string(), "ml/web");
    assert_eq!(pod.namespace_labels["kubernetes.io/metadata.name"], "ml");
    assert_eq!(
        (pod.service_account.as_str(), pod.node.as_deref(), pod.host_network),
        ("robot", Some("n1"), false)
    );
    assert_eq!(pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    let port = |name: &str, protocol, port| NamedPort { name: name.into(), protocol, port };
    let expected =
        [port("http", Protocol::TCP, 80), port("dns", Protocol::UDP, 53), port("admin", Protocol::TCP, 9901)];
    assert_eq!(pod.ports, expected);
    assert_eq!(containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["main", "side", "proxy"]);
    let main = &containers[0];
    assert_eq!((main.command.join(" "), main.args.join(" ")), ("serve".into(), "--port 80".into()));
    assert_eq!(main.env, [("A".into(), "1".into()), ("C".into(), String::new())]);
    assert_eq!((main.image.as_deref(), main.working_dir.as_deref()), (Some("web:1"), Some("/srv")));
    assert_eq!((restart, annotations["note"].as_str(), owner), (RestartPolicy::OnFailure, "x", None));
    assert_eq!(origin.to_string(), "m.yaml:2");
}

#[test]
fn what_a_pod_does_not_say_has_the_defaults_of_kubernetes() {
    let pod = only_pod("apiVersion: v1\nkind: Pod\nmetadata: {name: a}").pod;
    assert_eq!((pod.name.namespace.as_str(), pod.service_account.as_str()), ("default", "default"));
    assert!(pod.addresses.is_empty() && pod.labels.is_empty() && pod.node.is_none() && !pod.host_network);
}

#[test]
fn workloads_are_the_pods_of_their_templates() {
    assert_eq!(names(&read(&workload("Deployment", ""))), ["ml/w-0"]);
    assert_eq!(names(&read(&workload("StatefulSet", "replicas: 3, "))), ["ml/w-0", "ml/w-1", "ml/w-2"]);
    assert_eq!(names(&read(&workload("ReplicaSet", "replicas: 0, "))), [""; 0]);
    assert_eq!(names(&read(&workload("Job", "parallelism: 2, completions: 5, "))), ["ml/w-0", "ml/w-1"]);
    let controller = workload("ReplicationController", "").replace("apps/v1", "v1");
    assert_eq!(names(&read(&controller)), ["ml/w-0"]);
    let pod = only_pod(&workload("Deployment", ""));
    assert_eq!((pod.owner.as_deref(), pod.pod.labels["app"].as_str()), (Some("Deployment/w"), "w"));
    assert_eq!(pod.restart, RestartPolicy::Always);
    assert_eq!(pod.origin.line, 2);
}

#[test]
fn a_cron_job_is_one_pod_of_its_inner_template() {
    let inner = "jobTemplate: {spec: {template: {metadata: {labels: {app: tick}}}}}, ";
    let text = workload("CronJob", inner)
        .replace(", template: {metadata: {labels: {app: w}}, spec: {containers: [{name: c}]}}", "");
    let pod = only_pod(&text);
    assert_eq!((pod.pod.name.to_string().as_str(), pod.pod.labels["app"].as_str()), ("ml/w-0", "tick"));
    assert_eq!(pod.restart, RestartPolicy::Never);
}

#[test]
fn a_daemon_set_has_a_pod_on_every_node() {
    let set = workload("DaemonSet", "");
    assert_eq!(names(&read(&set)), ["ml/w-0"]);
    let addresses =
        "status: {addresses: [{type: Hostname, address: b}, {type: InternalIP, address: 192.168.0.2}]}";
    let nodes = object("v1", "Node", &format!("metadata: {{name: b}}\n{addresses}"))
        + &object("v1", "Node", "metadata: {name: a, labels: {zone: z}}");
    let snapshot = read(&(set + &nodes));
    assert_eq!(names(&snapshot), ["ml/w-a", "ml/w-b"]);
    assert_eq!(snapshot.pods[1].pod.node.as_deref(), Some("b"));
    assert_eq!(snapshot.nodes[0].labels["zone"], "z");
    assert_eq!(snapshot.nodes[1].addresses, ["192.168.0.2".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn pods_of_stateful_sets_and_jobs_have_the_labels_that_kubernetes_adds() {
    let labels = |kind| only_pod(&workload(kind, "")).pod.labels;
    assert_eq!(labels("StatefulSet")["statefulset.kubernetes.io/pod-name"], "w-0");
    assert_eq!(labels("Job")["batch.kubernetes.io/job-name"], "w");
}

#[test]
fn a_workload_whose_children_are_there_is_not_expanded_again() {
    let owner = "ownerReferences: [{kind: StatefulSet, name: w, controller: true}]";
    let child = object("v1", "Pod", &format!("metadata: {{name: w-0, namespace: ml, {owner}}}"));
    let snapshot = read(&(workload("StatefulSet", "replicas: 2, ") + &child));
    assert_eq!(names(&snapshot), ["ml/w-0"]);
    assert_eq!(snapshot.pods[0].owner, None);
}

#[test]
fn the_number_of_pods_is_bounded() {
    for replicas in ["150001", "9223372036854775807"] {
        let found = problem(&workload("Deployment", &format!("replicas: {replicas}, ")));
        assert_eq!(found, "m.yaml:5: document 1, spec.replicas: a snapshot has at most 150000 pods");
    }
    assert!(
        problem(&workload("Deployment", "replicas: -1, ")).contains("spec.replicas: must not be negative")
    );
}

#[test]
fn namespaces_exist_by_being_referred_to_and_always_have_their_name_as_label() {
    let text =
        object("v1", "Namespace", "metadata: {name: a, labels: {kubernetes.io/metadata.name: lie, x: y}}")
            + &object("v1", "Pod", "metadata: {name: p, namespace: a}")
            + &object("networking.k8s.io/v1", "NetworkPolicy", "metadata: {name: p, namespace: b}");
    let snapshot = read(&text);
    assert_eq!(snapshot.namespaces.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(snapshot.namespaces["a"].labels["kubernetes.io/metadata.name"], "a");
    assert_eq!(snapshot.pods[0].pod.namespace_labels["x"], "y");
    assert_eq!(snapshot.namespaces["b"].labels.len(), 1);
}

#[test]
fn objects_that_are_there_twice_are_named_with_both_places() {
    let one = object("v1", "Pod", "metadata: {name: a}");
    let found = read_all(&[("a.yaml", one.as_str()), ("b.yaml", one.as_str())]).unwrap_err();
    assert_eq!(found, "b.yaml:4: document 1, metadata.name: Pod default/a is there twice, first at a.yaml:4");
    let twice = workload("Deployment", "") + &workload("StatefulSet", "");
    assert!(problem(&twice).contains("the pod ml/w-0 is there twice, first at m.yaml:4"));
    let policy = object("networking.k8s.io/v1", "NetworkPolicy", "metadata: {name: p}");
    assert!(problem(&(policy.clone() + &policy)).contains("NetworkPolicy default/p is there twice"));
}

#[test]
fn a_pod_cannot_have_the_address_of_a_node_unless_it_shares_its_network() {
    let manifests = |spec: &str| {
        format!(
            "kind: Node\napiVersion: v1\nmetadata: {{name: n}}\n\
             status: {{addresses: [{{type: InternalIP, address: 10.0.0.1}}]}}\n---\n\
             kind: Pod\napiVersion: v1\nmetadata: {{name: a}}\nspec: {spec}\nstatus: {{podIPs: [{{ip: 10.0.0.1}}]}}\n"
        )
    };
    let read = |spec: &str| Snapshot::from_texts(&[("m.yaml", &manifests(spec))], &Settings::default());
    read("{containers: [], hostNetwork: true}").unwrap();
    let refused = read("{containers: []}").unwrap_err().to_string();
    assert_eq!(refused, "m.yaml:10: document 2, status.podIPs: 10.0.0.1 is an address of the node n");
}

#[test]
fn two_pods_cannot_have_one_address_unless_they_share_the_network_of_a_node_or_have_ended() {
    let pod = |name: &str, spec: &str, status: &str| {
        object(
            "v1",
            "Pod",
            &format!("metadata: {{name: {name}}}\nspec: {{{spec}}}\nstatus: {{podIP: 10.0.0.1{status}}}"),
        )
    };
    let first = pod("a", "", "");
    let found = problem(&(first.clone() + &pod("b", "", "")));
    let expected = "m.yaml:12: document 2, status.podIP: \
                    10.0.0.1 is also the address of the pod default/a at m.yaml:6";
    assert_eq!(found, expected);
    assert_eq!(read(&(first.clone() + &pod("b", "hostNetwork: true", ""))).pods.len(), 2);
    let ended = read(&(first + &pod("b", "", ", phase: Succeeded")));
    assert!(ended.pods[1].pod.addresses.is_empty());
}

#[test]
fn addresses_of_a_pod_are_one_of_each_family() {
    let pod = |ips: &str| object("v1", "Pod", &format!("metadata: {{name: a}}\nstatus: {{podIPs: {ips}}}"));
    assert!(problem(&pod("[{ip: 10.0.0.1}, {ip: 10.0.0.2}]")).contains("status.podIPs[1].ip: "));
    assert!(problem(&pod("[{ip: nonsense}]")).contains("status.podIPs[0].ip: "));
}

#[test]
fn lists_are_flattened_with_their_lines_and_typed_items_need_no_kind() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: PodList\n  items:\n  - metadata: {name: a}\n  - metadata:\n      name: B\n";
    let found = problem(text);
    assert!(found.starts_with("m.yaml:9: document 1, items[0].items[1].metadata.name: "), "{found}");
    assert_eq!(names(&read(&text.replace("B", "b"))), ["default/a", "default/b"]);
    assert!(problem("apiVersion: v1\nkind: List\nitems: [1]").contains("document 1, items[0]: "));
    assert!(problem("apiVersion: v1\nkind: List\nitems: {}").contains("document 1, items: must be a list"));
    let rule = "metadata: {name: p}, spec: {ingress: [{ports: [{port: 0}]}]}";
    let found =
        problem(&format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- {{{rule}}}"));
    assert!(found.starts_with("m.yaml:4: document 1, items[0].spec.ingress[0].ports[0].port: "), "{found}");
}

#[test]
fn what_every_object_needs_is_required() {
    assert!(
        problem("apiVersion: v1\nmetadata: {name: a}").starts_with("m.yaml:1: document 1, kind: is required")
    );
    assert!(problem("kind: Pod\nmetadata: {name: a}").contains("document 1, apiVersion: is required"));
    assert!(problem("apiVersion: v1\nkind: Pod").contains("document 1, metadata.name: is required"));
    assert!(problem("apiVersion: v1\nkind: 3").contains("document 1, kind: must be a string"));
    assert!(problem("just text").contains("document 1, syntax: an object must be a mapping"));
    assert!(problem("- 1").contains("document 1, syntax: an object must be a mapping"));
}

#[test]
fn names_and_labels_are_checked() {
    for (meta, field) in [
        ("name: A", "metadata.name"),
        ("name: a, namespace: a.b", "metadata.namespace"),
        ("name: a, labels: {-x: y}", "metadata.labels.-x"),
        ("name: a, labels: {app.kubernetes.io/name: 'a b'}", "metadata.labels.app.kubernetes.io/name"),
        ("name: 3", "metadata.name"),
        ("name: a, labels: {x: true}", "metadata.labels.x"),
    ] {
        let found = problem(&object("v1", "Pod", &format!("metadata: {{{meta}}}")));
        assert!(found.starts_with(&format!("m.yaml:4: document 1, {field}: ")), "{found}");
    }
    let found = problem(&workload("Deployment", "").replace("app: w", "app: w!"));
    assert!(found.contains("spec.template.metadata.labels.app: "), "{found}");
}

#[test]
fn kinds_that_do_not_matter_are_ignored_whatever_they_hold() {
    let text = object("rbac.authorization.k8s.io/v1", "Role", "metadata: {name: 'system:x'}")
        + &object("kustomize.config.k8s.io/v1beta1", "Kustomization", "resources: [a]")
        + &object("networking.k8s.io/v1", "Ingress", "metadata: {name: i}")
        + &object("serving.knative.dev/v1", "Service", "spec: 1");
    assert_eq!(read(&text), Snapshot::default());
}

#[test]
fn services_have_ports_targets_and_a_frontend() {
    let service = |spec: &str| object("v1", "Service", &format!("metadata: {{name: s}}\nspec: {{{spec}}}"));
    let frontend = |spec: &str| read(&service(spec)).services[0].frontend.clone();
    assert_eq!(frontend("ports: []"), Frontend::Unassigned);
    assert_eq!(frontend("clusterIP: None, clusterIPs: [None]"), Frontend::Headless);
    assert_eq!(frontend("clusterIP: 10.96.0.1"), Frontend::ClusterIps(vec!["10.96.0.1".parse().unwrap()]));
    assert_eq!(frontend("type: ExternalName, externalName: a.b"), Frontend::ExternalName("a.b".into()));
    let ports = "selector: {a: b}, ports: [{port: 80}, {name: x, port: 1, targetPort: web}, {port: 2, targetPort: 3}]";
    let service = read(&service(ports)).services[0].clone();
    let targets: Vec<_> = service.ports.iter().map(|p| p.target.clone()).collect();
    assert_eq!(targets, [TargetPort::Number(80), TargetPort::Name("web".into()), TargetPort::Number(3)]);
    assert_eq!(service.selector.unwrap()["a"], "b");
}

#[test]
fn endpoint_slices_and_service_accounts_are_read() {
    let meta = "metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4";
    let ends = "endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]";
    let text =
        object("discovery.k8s.io/v1", "EndpointSlice", &format!("{meta}\n{ends}\nports: [{{port: 80}}]"))
            + &object("v1", "ServiceAccount", "metadata: {name: robot, namespace: ml}");
    let snapshot = read(&text);
    let slice = &snapshot.endpoint_slices[0];
    assert_eq!((slice.service.as_deref(), slice.addresses.len()), (Some("s"), 1));
    assert_eq!(slice.ports, [(None, Protocol::TCP, 80)]);
    assert_eq!(snapshot.service_accounts[0].name, "robot");
}

#[test]
fn the_order_of_files_does_not_matter() {
    let policy =
        |name: &str| object("networking.k8s.io/v1", "NetworkPolicy", &format!("metadata: {{name: {name}}}"));
    let (a, b) = (workload("Deployment", "replicas: 2, ") + &policy("b"), POD.to_owned() + &policy("a"));
    let forth = read_all(&[("a", a.as_str()), ("b", b.as_str())]).unwrap();
    let back = read_all(&[("b", b.as_str()), ("a", a.as_str())]).unwrap();
    assert_eq!(forth, back);
    assert_eq!(names(&forth), ["ml/w-0", "ml/w-1", "ml/web"]);
    assert_eq!(forth.policies.iter().map(|p| p.name.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn one_bad_file_leaves_no_snapshot_and_all_problems_are_named() {
    let bad = "kind: [\n";
    let found =
        read_all(&[("a.yaml", POD), ("b.yaml", bad), ("c.yaml", "x: 1\n---\nx: 1\nx: 2\n")]).unwrap_err();
    let starts = [
        "b.yaml:2: document 1, syntax: ",
        "c.yaml:1: document 1, apiVersion: is required",
        "c.yaml:1: document 1, kind: is required",
        "c.yaml:3: document 2, apiVersion: is required",
        "c.yaml:3: document 2, kind: is required",
        "c.yaml:4: document 2, x: the key is there twice, first on line 3",
    ];
    assert_eq!(found.lines().count(), starts.len(), "{found}");
    for (line, start) in found.lines().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn folders_are_read_to_the_bottom_without_what_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let pod = |name: &str| object("v1", "Pod", &format!("metadata: {{name: {name}}}"));
    fs::create_dir_all(dir.path().join("x/.git")).unwrap();
    for (path, name) in
        [("b.yml", "b"), ("x/a.yaml", "a"), ("x/.git/h.yaml", "h"), (".h.yaml", "i"), ("notes.txt", "j")]
    {
        fs::write(dir.path().join(path), pod(name)).unwrap();
    }
    fs::write(dir.path().join("c.json"), r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}}"#)
        .unwrap();
    let read = |path: &std::path::Path| Snapshot::read_dir(path, &Settings::default());
    assert_eq!(names(&read(dir.path()).unwrap()), ["default/a", "default/b", "default/c"]);
    assert_eq!(names(&read(&dir.path().join("b.yml")).unwrap()), ["default/b"]);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("x/loop")).unwrap();
    assert_eq!(read(dir.path()).unwrap().pods.len(), 3, "links do not lead in circles");
}

#[test]
fn files_that_cannot_be_read_are_problems_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
    let dangling = dir.path().join("b.yaml");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    let found = Snapshot::read_dir(dir.path(), &Settings::default()).unwrap_err().to_string();
    let expected = format!("{}:2: document 1, syntax: the file is not UTF-8", file.display());
    assert!(found.starts_with(&expected), "{found}");
    assert!(found.contains(&format!("{}: cannot be read: ", dangling.display())), "{found}");
    let missing = Snapshot::read_dir(&dir.path().join("no"), &Settings::default()).unwrap_err();
    assert!(missing.to_string().contains("/no: cannot be read: "), "{missing}");
}

/// A pod with this port, and more of its spec.
fn with_port(port: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{ports: [{{{port}}}]}}]{more}}}\n"
    )
}

#[test]
fn a_port_of_the_node_is_read_with_its_addresses_and_place() {
    let ports = |port: &str, more: &str| only_pod(&with_port(port, more)).containers[0].host_ports.clone();
    let read = ports("containerPort: 53, hostPort: 5353, protocol: UDP, hostIP: 192.0.2.1", "");
    let [port] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((port.protocol, port.port, port.container_port), (Protocol::UDP, 5353, 53));
    assert_eq!(port.address, HostAddress::Only("192.0.2.1".parse().unwrap()));
    assert_eq!(port.site.short(), "m.yaml:4");
    for (ip, address) in
        [("''", HostAddress::All), ("0.0.0.0", HostAddress::Ipv4), ("'::'", HostAddress::Ipv6)]
    {
        assert_eq!(ports(&format!("containerPort: 1, hostPort: 1, hostIP: {ip}"), "")[0].address, address);
    }
    assert!(ports("containerPort: 80, hostPort: 0", "").is_empty());
    assert!(ports("containerPort: 80, hostPort: 80", ", hostNetwork: true").is_empty());
}

#[test]
fn a_port_of_the_node_that_cannot_lead_anywhere_is_refused_with_its_place() {
    for (port, field, said) in [
        ("hostPort: 70000", "hostPort", "70000 is not a port: it must be between 1 and 65535"),
        ("hostPort: 1, protocol: SCTP", "hostPort", "over TCP or UDP, not over SCTP"),
        ("hostPort: 1, hostIP: here", "hostIP", "\"here\" is not an IP address"),
        ("hostPort: 1, hostIP: 127.0.0.1", "hostIP", "127.0.0.1 is a loopback address"),
    ] {
        let text = with_port(&format!("containerPort: 1, {port}"), "");
        let error = problem(&text);
        let place = format!("m.yaml:4: document 1, spec.containers[0].ports[0].{field}: ");
        assert!(error.starts_with(&place) && error.contains(said), "{error}");
    }
}
