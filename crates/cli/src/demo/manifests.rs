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
];

/// The file whose edit cuts a live connection.
pub(crate) const MODEL_POLICY: &str = "policies-ai-workloads.yaml";

/// Writes all of them into `folder`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

/// Takes the gateway out of the policy that lets it reach the model.
pub(crate) fn shut_out_the_gateway(folder: &Path) -> io::Result<()> {
    let path = folder.join(MODEL_POLICY);
    let text = fs::read_to_string(&path)?;
    let edited = text.replace("app: gateway", "app: nobody");
    if edited == text {
        return Err(io::Error::other("the example's policy does not name the gateway"));
    }
    // as editors do it: a reader sees the old file or the new one
    let next = folder.join(".next");
    fs::write(&next, edited)?;
    fs::rename(next, path)
}
