//! Texts of manifests: a snapshot, or problems that say where they are; never a panic, and never without end.

use std::time::{Duration, Instant};

use serde_json::Value;
use signet_cluster::{On, Settings, Snapshot, selector_from_value};
use signet_testkit::{Rng, World, manifests};

use crate::{Held, ensure};

/// A text may take so long, on a machine with other things to do.
const AT_MOST: Duration = Duration::from_secs(5);

/// A text is a snapshot or an error with lines that it has.
///
/// # Errors
/// What does not hold.
pub fn reads(text: &str) -> Held {
    let started = Instant::now();
    let read = Snapshot::from_texts(&[("any.yaml", text)], &Settings::default());
    ensure(started.elapsed() < AT_MOST, || format!("it took {:?}", started.elapsed()))?;
    let Err(error) = read else { return Ok(()) };
    // for YAML each of these ends a line, and so does the end
    let lines = text.matches(['\n', '\r']).count() + 2;
    for line in error.to_string().lines().filter(|l| l.starts_with("any.yaml:")) {
        let number: usize = line.split(':').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        ensure((1..=lines).contains(&number), || format!("of {lines} lines: {line}"))?;
    }
    Ok(())
}

/// A value is a selector, or has faults that are named.
///
/// # Errors
/// What does not hold.
pub fn selects(value: &Value) -> Held {
    for on in [On::Pod, On::Namespace] {
        if let Err(faults) = selector_from_value(value, on) {
            ensure(!faults.is_empty(), || "refused without a fault".to_owned())?;
        }
    }
    Ok(())
}

pub(crate) fn hold(bytes: &[u8]) -> Held {
    reads(&String::from_utf8_lossy(bytes))?;
    serde_json::from_slice(bytes).map_or(Ok(()), |value| selects(&value))
}

/// The examples, and random worlds.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ai-cluster");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let texts: Vec<String> = files.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    // a search gets further with one document at a time
    let documents = texts.iter().flat_map(|text| text.split("\n---")).map(str::to_owned);
    let worlds = (0..8).map(|seed| manifests(&World::random(&mut Rng::new(seed))).text);
    let values = [
        r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"In","values":["a"]}]}"#,
        r#"{"matchExpressions":[{"key":"k8s:io.kubernetes.pod.namespace","operator":"Exists"}]}"#,
    ];
    documents.chain(worlds).chain(values.map(str::to_owned)).map(String::into_bytes).collect()
}
