//! Two revisions of the pods -> what differs. What is one value in both is not looked at.

use std::{cmp::Ordering, sync::Arc};

use signet_cluster::PodManifest;

/// A pod as it was and as it is.
pub(crate) type Changed<'a> = (Option<&'a Arc<PodManifest>>, Option<&'a Arc<PodManifest>>);

/// What differs between two lists that are sorted by name.
pub(crate) fn difference<'a>(
    before: &'a [Arc<PodManifest>],
    now: &'a [Arc<PodManifest>],
) -> Vec<Changed<'a>> {
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    let mut changed = vec![];
    loop {
        match (before.peek(), now.peek()) {
            (None, None) => return changed,
            (Some(was), Some(is)) if Arc::ptr_eq(was, is) => {
                before.next();
                now.next();
            }
            (Some(was), Some(is)) => match was.pod.name.cmp(&is.pod.name) {
                Ordering::Less => changed.push((before.next(), None)),
                Ordering::Greater => changed.push((None, now.next())),
                Ordering::Equal if was == is => {
                    before.next();
                    now.next();
                }
                Ordering::Equal => changed.push((before.next(), now.next())),
            },
            (Some(_), None) => changed.push((before.next(), None)),
            (None, Some(_)) => changed.push((None, now.next())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use signet_cluster::{Settings, Snapshot};

    use super::*;

    /// Each in a file of its own: where a pod is written is part of it.
    fn pods(labels: &[(&str, &str)]) -> Snapshot {
        let pod = |(name, label): &(&str, &str)| {
            format!("kind: Pod\napiVersion: v1\nmetadata: {{name: {name}, labels: {{l: {label}}}}}\n")
        };
        let texts: Vec<String> = labels.iter().map(pod).collect();
        let named: Vec<(&str, &str)> =
            labels.iter().map(|(name, _)| *name).zip(texts.iter().map(String::as_str)).collect();
        Snapshot::from_texts(&named, &Settings::default()).unwrap()
    }

    #[test]
    fn pods_that_came_went_and_changed_are_told_and_others_are_not() {
        let before = pods(&[("a", "x"), ("b", "x"), ("c", "x"), ("e", "x")]);
        let now = pods(&[("b", "x"), ("c", "y"), ("d", "x"), ("e", "x")]);
        let name = |pod: Option<&Arc<PodManifest>>| pod.map(|p| p.pod.name.name.clone());
        let differ = difference(&before.pods, &now.pods);
        let differ: Vec<_> = differ.into_iter().map(|(was, is)| (name(was), name(is))).collect();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(differ, [(name("a"), None), (name("c"), name("c")), (None, name("d"))]);
        assert!(difference(&before.pods, &before.clone().pods).is_empty());
    }
}
