//! A folder that is read again and again: what did not change is not read again, and a change of pods alone changes the pods
//! of the snapshot and nothing else.
//!
//! Whoever calls says which files may have changed. Where that is not known, or links lead from one name to another, all
//! are read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use signet_identity::PodName;

use crate::{
    error::{Error, Problem},
    files::{self, Found},
    gather::MAX_PODS,
    part::{Part, merge},
    snapshot::{PodManifest, Settings, Snapshot},
};

/// What may be other than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Whatever is there.
    Anything,
    /// What has one of these names: absolute paths.
    Named(BTreeSet<PathBuf>),
}

impl Changes {
    /// These as well.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Named(names), Self::Named(more)) => names.extend(more),
            (_, _) => *self = Self::Anything,
        }
    }
}

/// A folder and what was read of it.
///
/// INVARIANT: a snapshot is the one that a first reading of the same files gives
/// (`a_folder_that_is_read_again_says_what_a_first_reading_says`).
pub(crate) struct Reading {
    dir: PathBuf,
    settings: Settings,
    /// In the order of names; by their path as errors give it. None: nothing is read yet.
    parts: Option<BTreeMap<PathBuf, Part>>,
    /// What is wrong with the folder itself.
    problems: Vec<Problem>,
    /// Whether a name leads to another: what changes then is not told by its name.
    links: bool,
    /// Of the last reading, if nothing was wrong.
    last: Option<Standing>,
}

/// A snapshot, and what changing its pods has to respect.
struct Standing {
    snapshot: Snapshot,
    /// Whose each address is, of pods with a network of their own.
    owners: HashMap<IpAddr, PodName>,
    /// How many files refer to each namespace.
    referring: HashMap<String, usize>,
}

impl Reading {
    /// Nothing is read yet.
    pub(crate) fn of(dir: &Path, settings: Settings) -> Self {
        Self { dir: dir.to_owned(), settings, parts: None, problems: vec![], links: false, last: None }
    }

    /// What the folder says now.
    ///
    /// # Errors
    /// All problems of all files, if there is any.
    pub(crate) fn read(&mut self, changes: &Changes) -> Result<Snapshot, Error> {
        let last = self.last.take();
        let before = last.as_ref().map(|last| last.snapshot.clone());
        let standing = match self.read_named(changes) {
            Some(replaced) => last.and_then(|last| self.replace_pods(last, &replaced)),
            None => {
                self.read_all();
                None
            }
        };
        let standing = match standing {
            Some(standing) => standing,
            None => self.merge(before)?,
        };
        Ok(self.last.insert(standing).snapshot.clone())
    }

    /// Reads the files that changed, and says what they were. None: more may have changed than is told.
    fn read_named(&mut self, changes: &Changes) -> Option<Vec<(PathBuf, Part)>> {
        let Changes::Named(names) = changes else { return None };
        let files = self.parts.as_ref().filter(|_| !self.links && self.problems.is_empty());
        let files = files_among(names, &self.dir, files?)?;
        let parts = self.parts.as_mut()?;
        let read = |file: PathBuf| {
            let before = parts.remove(&file).unwrap_or_default();
            if fs::symlink_metadata(&file).is_ok() {
                parts.insert(file.clone(), read_part(&file, &self.settings));
            }
            (file, before)
        };
        Some(files.into_iter().map(read).collect())
    }

    fn read_all(&mut self) {
        let Found { files, links, problems } = files::find(&self.dir);
        (self.links, self.problems) = (links, problems);
        let part = |file: PathBuf| (file.clone(), read_part(&file, &self.settings));
        self.parts = Some(files.into_iter().map(part).collect());
    }

    /// All parts together; what is as it was before is the same value.
    fn merge(&mut self, before: Option<Snapshot>) -> Result<Standing, Error> {
        let parts = self.parts.get_or_insert_default();
        let mut snapshot = merge(parts.values(), &self.settings, self.problems.clone())?;
        if let Some(before) = before {
            snapshot.share(&before);
        }
        // the next time, these have the labels of their namespace already
        for placed in parts.values_mut().flat_map(|part| &mut part.gathered.pods) {
            let place = find(&snapshot.pods, &placed.item.pod.name);
            if let Some(pod) = place.ok().and_then(|place| snapshot.pods.get(place)) {
                placed.item = Arc::clone(pod);
            }
        }
        let mut referring: HashMap<String, usize> = HashMap::new();
        for namespace in parts.values().flat_map(|part| &part.gathered.referred) {
            *referring.entry(namespace.clone()).or_default() += 1;
        }
        let own = snapshot.pods.iter().filter(|p| !p.pod.host_network);
        let owners = own.flat_map(|p| p.pod.addresses.iter().map(|a| (*a, p.pod.name.clone()))).collect();
        Ok(Standing { snapshot, owners, referring })
    }

    /// The snapshot with other pods, where files that changed say and said nothing else. None: it takes more than that.
    fn replace_pods(&mut self, mut last: Standing, replaced: &[(PathBuf, Part)]) -> Option<Standing> {
        let parts = self.parts.as_mut()?;
        let alone = |(file, before): &(PathBuf, Part)| {
            before.is_pods_alone() && parts.get(file).is_none_or(Part::is_pods_alone)
        };
        if !replaced.iter().all(alone) {
            return None;
        }
        replaced.iter().try_for_each(|(_, before)| last.take_out(before))?;
        for (file, _) in replaced {
            if let Some(part) = parts.get_mut(file) {
                last.put_in(part)?;
            }
        }
        // a namespace that nobody refers to any more may be gone
        let all = last.referring.values().all(|files| *files > 0);
        (all && last.snapshot.pods.len() <= MAX_PODS).then_some(last)
    }
}

/// The manifests among names; none if it takes more than reading them to know what changed.
fn files_among(
    names: &BTreeSet<PathBuf>,
    dir: &Path,
    known: &BTreeMap<PathBuf, Part>,
) -> Option<BTreeSet<PathBuf>> {
    let root = std::path::absolute(dir).ok()?;
    let mut files = BTreeSet::new();
    for name in names {
        let below = name.strip_prefix(&root).ok()?;
        let path = dir.join(below);
        let is_file = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => true,
            // a folder, or a link
            Ok(_) => return None,
            Err(_) => known.contains_key(&path),
        };
        let folder = || known.range(path.clone()..).find(|(other, _)| **other != path);
        if !is_file && folder().is_some_and(|(other, _)| other.starts_with(&path)) {
            return None;
        }
        if is_file && files::is_manifest(&path) && !files::is_hidden(below) {
            files.insert(path);
        }
    }
    Some(files)
}

impl Standing {
    fn take_out(&mut self, part: &Part) -> Option<()> {
        for namespace in &part.gathered.referred {
            *self.referring.get_mut(namespace)? -= 1;
        }
        for placed in &part.gathered.pods {
            let pod = &placed.item.pod;
            let pods = Arc::make_mut(&mut self.snapshot.pods);
            pods.remove(find(pods, &pod.name).ok()?);
            pod.addresses.iter().filter(|_| !pod.host_network).for_each(|a| drop(self.owners.remove(a)));
        }
        Some(())
    }

    fn put_in(&mut self, part: &mut Part) -> Option<()> {
        for namespace in &part.gathered.referred {
            *self.referring.entry(namespace.clone()).or_default() += 1;
        }
        for placed in &mut part.gathered.pods {
            let labels = Arc::clone(&self.snapshot.namespaces.get(&placed.item.pod.name.namespace)?.labels);
            Arc::make_mut(&mut placed.item).pod.namespace_labels = labels;
            let pod = &placed.item.pod;
            let of_node = |a: &IpAddr| self.snapshot.nodes.iter().any(|node| node.addresses.contains(a));
            for address in pod.addresses.iter().filter(|_| !pod.host_network) {
                if of_node(address) || self.owners.insert(*address, pod.name.clone()).is_some() {
                    return None;
                }
            }
            let pods = Arc::make_mut(&mut self.snapshot.pods);
            let place = find(pods, &pod.name).err()?;
            pods.insert(place, Arc::clone(&placed.item));
        }
        Some(())
    }
}

impl Snapshot {
    /// Takes what is equal in `before` from there.
    fn share(&mut self, before: &Self) {
        for pod in Arc::make_mut(&mut self.pods) {
            let known = find(&before.pods, &pod.pod.name).ok().and_then(|i| before.pods.get(i));
            if let Some(known) = known.filter(|known| *known == pod) {
                *pod = Arc::clone(known);
            }
        }
        keep(&mut self.pods, &before.pods);
        keep(&mut self.policies, &before.policies);
        keep(&mut self.namespaces, &before.namespaces);
        keep(&mut self.nodes, &before.nodes);
        keep(&mut self.services, &before.services);
        keep(&mut self.endpoint_slices, &before.endpoint_slices);
        keep(&mut self.service_accounts, &before.service_accounts);
    }
}

fn keep<T: PartialEq>(now: &mut Arc<T>, before: &Arc<T>) {
    if now == before {
        *now = Arc::clone(before);
    }
}

/// The place of a pod, or where it would be.
fn find(pods: &[Arc<PodManifest>], name: &PodName) -> Result<usize, usize> {
    pods.binary_search_by(|pod| pod.pod.name.cmp(name))
}

fn read_part(path: &Path, settings: &Settings) -> Part {
    let mut problems = vec![];
    match files::read_file(path, &mut problems) {
        Some(text) => Part::of(&text.file, &text.text, settings),
        None => Part::unreadable(problems),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const FILES: [&str; 6] = ["a.yaml", "b.yaml", "c/d.yaml", "c/e.json", "f.yml", ".hidden.yaml"];

    fn pod(name: u8, namespace: u8, address: u8, label: u8) -> String {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{name}, namespace: n{namespace}, labels: {{l: v{label}}}}}\n\
             spec: {{hostNetwork: {}}}\nstatus: {{podIPs: [{{ip: 10.0.0.{address}}}]}}\n",
            address.is_multiple_of(7)
        )
    }

    /// One document: mostly pods, now and then anything else that a snapshot has, or nothing that can be read.
    fn document() -> impl Strategy<Value = String> {
        let n = || 0..4u8;
        prop_oneof![
            12 => (0..12u8, n(), 1..30u8, n()).prop_map(|(a, b, c, d)| pod(a, b, c, d)),
            1 => (n(), n()).prop_map(|(a, b)| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: n{a}, labels: {{t: v{b}}}}}\n")),
            1 => (n(), 1..30u8).prop_map(|(a, b)| format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: node-{a}}}\nstatus: {{addresses: [{{type: InternalIP, address: 10.0.0.{b}}}]}}\n")),
            1 => (n(), n(), n()).prop_map(|(a, b, c)| format!("---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: np{a}, namespace: n{b}}}\nspec: {{podSelector: {{matchLabels: {{l: v{c}}}}}}}\n")),
            1 => (n(), n(), 0..3u8).prop_map(|(a, b, c)| format!("---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: p{a}, namespace: n{b}}}\nspec: {{replicas: {c}, selector: {{}}, template: {{}}}}\n")),
            1 => n().prop_map(|a| format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{a}, namespace: n{a}}}\nspec: {{selector: {{l: v{a}}}, ports: [{{port: 80}}]}}\n")),
            1 => Just("---\n{".to_owned()),
        ]
    }

    /// A file, and what is in it then; nothing: it is gone.
    fn edits() -> impl Strategy<Value = Vec<(usize, Option<Vec<String>>)>> {
        let text = prop::option::weighted(0.9, prop::collection::vec(document(), 0..4));
        prop::collection::vec((0..FILES.len(), text), 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn a_folder_that_is_read_again_says_what_a_first_reading_says(edits in edits(), burst in 1..4usize) {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("c")).unwrap();
            let mut reading = Reading::of(dir.path(), Settings::default());
            let _empty = reading.read(&Changes::Anything);
            for edits in edits.chunks(burst) {
                let mut names = BTreeSet::new();
                for (file, text) in edits {
                    let path = dir.path().join(FILES[*file]);
                    match text {
                        Some(documents) => fs::write(&path, documents.concat()).unwrap(),
                        None => drop(fs::remove_file(&path)),
                    }
                    names.insert(path);
                }
                let first = Snapshot::read_dir(dir.path(), &Settings::default());
                prop_assert_eq!(reading.read(&Changes::Named(names)), first);
            }
        }
    }

    #[test]
    fn pods_that_did_not_change_are_the_same_values() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: String| fs::write(dir.path().join(file), text).unwrap();
        write("a.yaml", pod(1, 0, 1, 0));
        write("b.yaml", pod(2, 0, 2, 0));
        write("c.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: n0, labels: {a: b}}\n".to_owned());
        let mut reading = Reading::of(dir.path(), Settings::default());
        let first = reading.read(&Changes::Anything).unwrap();
        write("b.yaml", pod(2, 0, 2, 1));
        let names = BTreeSet::from([dir.path().join("b.yaml")]);
        for changes in [Changes::Named(names), Changes::Anything] {
            let next = reading.read(&changes).unwrap();
            assert!(
                Arc::ptr_eq(&first.pods[0], &next.pods[0]) && !Arc::ptr_eq(&first.pods[1], &next.pods[1])
            );
            assert!(Arc::ptr_eq(&first.namespaces, &next.namespaces), "{changes:?}");
        }
    }

    #[test]
    fn where_a_link_leads_elsewhere_everything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("a.yaml"), pod(1, 0, 1, 0)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("link")).unwrap();
        let mut reading = Reading::of(dir.path(), Settings::default());
        assert_eq!(reading.read(&Changes::Anything).unwrap().pods.len(), 1);
        fs::write(elsewhere.path().join("a.yaml"), pod(1, 0, 1, 3)).unwrap();
        let snapshot = reading.read(&Changes::Named(BTreeSet::new())).unwrap();
        assert_eq!(snapshot.pods[0].pod.labels["l"], "v3");
    }
}
