//! From a manifest to the kernel: a policy's file is edited, and the clock stops when the node says that the edit is in
//! force. The node runs in this process, in a network of its own, with its pods as processes.

use std::{fs, path::Path, time::Instant};

use signet_agent::{Config, Network, Up};

use crate::{
    Args, Effort,
    report::{Row, quantile},
    topology::{pod_init, wait},
};

pub(crate) fn run(args: &Args) -> anyhow::Result<Vec<Row>> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("bench: SKIPPED: change needs root");
        return Ok(vec![]);
    }
    let (pods, edits) = if args.effort() == Effort::Short { (2, 10) } else { (50, 1000) };
    let folder = tempfile::tempdir()?;
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests)?;
    fs::write(manifests.join("pods.yaml"), deployment(pods))?;
    write_policy(&manifests, 0)?;
    let id = std::process::id();
    let config = Config {
        run_dir: folder.path().join("run"),
        state_dir: folder.path().join("state"),
        bpffs: format!("/sys/fs/bpf/signet-bench-{id}").into(),
        network: Network::Own(vec![[172, 31, 255, 1].into()]),
        flow_address: None,
        ..Config::default()
    };
    let init = pod_init()?;
    let up = Up::start(config, &manifests, init)?;
    wait(&up)?;
    let mut milliseconds = vec![];
    for edit in 1..=edits {
        let start = Instant::now();
        write_policy(&manifests, edit)?;
        wait(&up)?;
        milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
    }
    up.stop()?;
    let subject = format!("one policy of {pods} pods");
    let row = |metric, share| Row::new("change", &subject, metric, quantile(&milliseconds, share), "ms");
    Ok(vec![row("until in force, P50", 0.5), row("until in force, P99", 0.99).at_most(5.0)])
}

fn deployment(pods: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: model, namespace: bench}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: model}}}}
  template:
    metadata: {{labels: {{app: model}}}}
    spec:
      containers:
      - {{name: model, image: none, command: [sleep, infinity]}}
---
apiVersion: v1
kind: Namespace
metadata: {{name: bench}}
"
    )
}

/// Each edit allows another port. The file is replaced at once, as editors and `kubectl` do.
fn write_policy(folder: &Path, edit: usize) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: model, namespace: bench}}
spec:
  podSelector: {{matchLabels: {{app: model}}}}
  policyTypes: [Ingress]
  ingress:
  - ports: [{{port: {}}}]
",
        1 + edit
    );
    let temporary = folder.with_file_name("policy.tmp");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, folder.join("policy.yaml"))?;
    Ok(())
}
