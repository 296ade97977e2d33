//! A pod's manifest -> what runs in it, what its files say, and what its namespace is labelled.

use std::{fmt::Write as _, sync::Arc};

use signet_cluster::{Container, PodManifest, RestartPolicy, Snapshot, VolumeMount};
use signet_identity::{Labels, Pod, PodName};
use signet_policy::Origin;
use signet_sandbox::{Mount, Process};

/// The labels of a namespace, also of one that the manifests do not know.
pub(crate) fn namespace_labels(snapshot: &Snapshot, namespace: &str) -> Arc<Labels> {
    let known = snapshot.namespaces.get(namespace).map(|n| n.labels.clone());
    known.unwrap_or_else(|| {
        Arc::new([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())].into())
    })
}

/// A pod that the node adds to what the manifests say: one container, of the binary itself.
pub(crate) fn own_pod(
    snapshot: &Snapshot,
    name: PodName,
    labels: Labels,
    service_account: &str,
    container: Container,
) -> PodManifest {
    PodManifest {
        pod: Pod {
            labels,
            namespace_labels: namespace_labels(snapshot, &name.namespace),
            name,
            service_account: service_account.to_owned(),
            addresses: vec![],
            ports: vec![],
            node: None,
            host_network: false,
        },
        uid: None,
        containers: vec![container],
        token_volumes: vec![],
        restart: RestartPolicy::Always,
        annotations: [].into(),
        origin: Origin { file: "signet".into(), line: 1 },
        owner: None,
    }
}

/// Puts a pod where its name belongs.
pub(crate) fn insert(snapshot: &mut Snapshot, pod: PodManifest) {
    let pods = Arc::make_mut(&mut snapshot.pods);
    let place = pods.partition_point(|known| known.pod.name < pod.pod.name);
    pods.insert(place, Arc::new(pod));
}

/// What a pod runs: its first container's command, on the host's file system. Its image is not looked at.
pub(crate) fn process_of(manifest: &PodManifest) -> Process {
    let Some(container) = manifest.containers.first().filter(|c| !c.command.is_empty()) else {
        return Process::Idle;
    };
    let argv = container.command.iter().chain(&container.args).cloned().collect();
    let mut env = container.env.clone();
    // `signet` itself is among the programs that a manifest may name
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.display().to_string()));
    if let (Some(own), false) = (own, env.iter().any(|(key, _)| key == "PATH")) {
        let path = format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        env.push(("PATH".to_owned(), path));
    }
    let mount =
        |VolumeMount { volume, path }: &VolumeMount| Mount { volume: volume.clone(), target: path.into() };
    let mounts = container.mounts.iter().map(mount).collect();
    Process::Command { argv, env, working_dir: container.working_dir.as_ref().map(Into::into), mounts }
}

/// Names of pods: `<pod>.<namespace>.pod`.
pub(crate) fn hosts_file<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let mut out = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for pod in pods {
        for address in &pod.addresses {
            let _ = writeln!(out, "{address} {}.{}.pod", pod.name.name, pod.name.namespace);
        }
    }
    out
}
