//! The example cluster's manifests, embedded: the demo needs nothing but the binary.

use std::{fs, io, path::Path};

macro_rules! example {
    ($($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../../../../examples/ai-cluster/", $file)))),+]
    };
}

const FILES: &[(&str, &str)] = example![
    "namespaces.yaml",
    "platform.yaml",
    "ai-workloads.yaml",
    "data.yaml",
    "policies-ai-workloads.yaml",
    "policies-data.yaml",
    "lab.yaml",
    "training.yaml",
    "models.yaml",
    "agents.yaml",
];

/// Where the manifests say that a node keeps its state, and its sockets.
const STATE: &str = "/var/lib/signet";
const RUN: &str = "/run/signet";

/// The file that the demo edits.
const MODEL_POLICY: &str = "policies-ai-workloads.yaml";

/// What is done to the model's policy while its traffic flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    /// The gateway is taken out.
    ShutOutTheGateway,
    /// As it was written.
    Undo,
    /// The gateway is taken out, but the policy is only audited.
    ShutOutTheGatewayInAudit,
}

/// Writes all of them into `folder`, for a node that keeps its state and its sockets elsewhere.
pub(crate) fn write(folder: &Path, state: &Path, run: &Path) -> io::Result<()> {
    let (state, run) = (state.display().to_string(), run.display().to_string());
    FILES.iter().try_for_each(|(name, text)| {
        fs::write(folder.join(name), text.replace(STATE, &state).replace(RUN, &run))
    })
}

/// Edits the model's policy, as an editor does it: a reader sees the old file or the new one.
pub(crate) fn edit(folder: &Path, edit: Edit) -> io::Result<()> {
    let original =
        FILES.iter().find(|(name, _)| *name == MODEL_POLICY).map(|(_, text)| *text).unwrap_or_default();
    let shut_out = original.replace("app: gateway", "app: nobody");
    let text = match edit {
        Edit::Undo => original.to_owned(),
        Edit::ShutOutTheGateway => shut_out,
        Edit::ShutOutTheGatewayInAudit => shut_out.replace(
            "  name: model-from-gateway\n",
            "  name: model-from-gateway\n  annotations:\n    signet.dev/mode: audit\n",
        ),
    };
    let next = folder.join(".next");
    fs::write(&next, text)?;
    fs::rename(next, folder.join(MODEL_POLICY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_leaves_manifests_that_read_and_say_something_else() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), Path::new(STATE), Path::new(RUN)).unwrap();
        let settings = signet_cluster::Settings::default();
        let read = || signet_cluster::Snapshot::read_dir(folder.path(), &settings).unwrap().policies;
        let original = read();
        edit(folder.path(), Edit::ShutOutTheGateway).unwrap();
        let shut_out = read();
        assert_ne!(original, shut_out);
        edit(folder.path(), Edit::ShutOutTheGatewayInAudit).unwrap();
        assert_ne!(shut_out, read());
        edit(folder.path(), Edit::Undo).unwrap();
        assert_eq!(original, read());
    }
}
