//! Programs that somebody runs as workloads (`signet run`): pods that no manifest names.
//!
//! A program is a process that exists already; the node gives it a pod's network and identity, and takes them back when
//! it ends. The list is a file in the run directory, so that a restarted agent takes programs over like any pod.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use signet_cluster::{PodManifest, RestartPolicy, Snapshot};
use signet_identity::{Labels, Pod, PodName, validate_key, validate_value};
use signet_policy::Origin;

use crate::{error::Error, pods::namespace_labels};

/// Labels of one program.
const MAX_LABELS: usize = 64;

/// A program's identity, as its caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Program {
    /// The namespace; one that the manifests know.
    pub namespace: String,
    /// The name of its pod; nobody else's.
    pub pod: String,
    /// The labels of its pod.
    pub labels: Labels,
    /// The service account of its pod.
    pub service_account: String,
}

impl Program {
    fn name(&self) -> PodName {
        PodName { namespace: self.namespace.clone(), name: self.pod.clone() }
    }

    fn manifest(&self, snapshot: &Snapshot) -> PodManifest {
        PodManifest {
            pod: Pod {
                name: self.name(),
                labels: self.labels.clone(),
                namespace_labels: namespace_labels(snapshot, &self.namespace),
                service_account: self.service_account.clone(),
                addresses: vec![],
                ports: vec![],
                node: None,
                host_network: false,
            },
            uid: None,
            containers: vec![],
            token_volumes: vec![],
            restart: RestartPolicy::Never,
            annotations: BTreeMap::new(),
            origin: Origin { file: "signet run".into(), line: 1 },
            owner: None,
        }
    }
}

/// The programs of one node.
pub(crate) struct Programs {
    file: PathBuf,
    running: BTreeMap<PodName, Program>,
}

impl Programs {
    /// Those that an earlier run left, of which `alive` knows.
    pub(crate) fn open(run_dir: &Path, alive: impl Fn(&PodName) -> bool) -> Self {
        let file = run_dir.join("programs.json");
        let read = fs::read(&file).and_then(|bytes| Ok(serde_json::from_slice::<Vec<Program>>(&bytes)?));
        let listed = read.unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "programs of an earlier run are ended");
            }
            vec![]
        });
        let running = listed.into_iter().map(|p| (p.name(), p)).filter(|(name, _)| alive(name)).collect();
        Self { file, running }
    }

    pub(crate) fn contains(&self, name: &PodName) -> bool {
        self.running.contains_key(name)
    }

    /// Adds a program, if it can be one beside what the manifests say.
    ///
    /// # Errors
    /// What is wrong with it, or that it cannot be noted down.
    pub(crate) fn add(&mut self, program: &Program, snapshot: &Snapshot) -> Result<PodName, Error> {
        check(program, snapshot).map_err(Error::Program)?;
        let name = program.name();
        if self.contains(&name) || snapshot.pods.iter().any(|p| p.pod.name == name) {
            return Err(Error::Program(format!("there is a pod {name}: choose another name with --pod")));
        }
        self.running.insert(name.clone(), program.clone());
        self.store().inspect_err(|_| drop(self.running.remove(&name)))?;
        Ok(name)
    }

    /// Forgets programs that are over.
    ///
    /// # Errors
    /// If the list cannot be written; they are forgotten nevertheless.
    pub(crate) fn remove(&mut self, names: &[PodName]) -> Result<(), Error> {
        self.running.retain(|name, _| !names.contains(name));
        self.store()
    }

    /// The snapshot with the programs' pods in it. A pod of the manifests whose name a program has waits for its end.
    pub(crate) fn join(&self, snapshot: &Snapshot) -> Snapshot {
        let mut joined = snapshot.clone();
        if self.running.is_empty() {
            return joined;
        }
        let pods = Arc::make_mut(&mut joined.pods);
        pods.retain(|p| !self.contains(&p.pod.name));
        pods.extend(self.running.values().map(|p| Arc::new(p.manifest(snapshot))));
        pods.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
        joined
    }

    fn store(&self) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let next = self.file.with_extension("next");
            let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            serde_json::to_writer(&file, &self.running.values().collect::<Vec<_>>())?;
            file.sync_all()?;
            fs::rename(next, &self.file)
        };
        write().map_err(|source| Error::Host { what: "writing the list of programs", source })
    }
}

fn check(program: &Program, snapshot: &Snapshot) -> Result<(), String> {
    if program.labels.len() > MAX_LABELS {
        return Err(format!("{} labels; at most {MAX_LABELS}", program.labels.len()));
    }
    for (key, value) in &program.labels {
        validate_key(key).map_err(|e| e.to_string())?;
        validate_value(value).map_err(|e| e.to_string())?;
    }
    if !snapshot.namespaces.contains_key(&program.namespace) {
        let known: Vec<&str> = snapshot.namespaces.keys().map(String::as_str).collect();
        return Err(format!(
            "no manifest mentions the namespace {:?}: add it there, or choose one of: {}",
            program.namespace,
            known.join(", ")
        ));
    }
    if program.service_account.is_empty() || program.service_account.len() > 253 {
        return Err("the name of a service account has 1 to 253 characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use signet_cluster::Settings;

    use super::*;

    fn program(pod: &str) -> Program {
        Program {
            namespace: "shop".into(),
            pod: pod.into(),
            labels: [("app".to_owned(), "tool".to_owned())].into(),
            service_account: "default".into(),
        }
    }

    fn snapshot() -> Snapshot {
        let text =
            "kind: Pod\napiVersion: v1\nmetadata: {name: web, namespace: shop}\nspec: {containers: []}";
        Snapshot::from_texts(&[("test", text)], &Settings::default()).unwrap()
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        snapshot.pods.iter().map(|p| p.pod.name.to_string()).collect()
    }

    #[test]
    fn programs_outlive_the_agent_if_their_processes_do() {
        let dir = std::env::temp_dir().join(format!("signet-programs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut programs = Programs::open(&dir, |_| true);
        programs.add(&program("a"), &snapshot()).unwrap();
        programs.add(&program("b"), &snapshot()).unwrap();
        let again = Programs::open(&dir, |name| name.name == "b");
        assert_eq!(names(&again.join(&snapshot())), ["shop/b", "shop/web"]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_program_has_a_name_of_its_own_in_a_known_namespace_and_proper_labels() {
        let dir = std::env::temp_dir().join(format!("signet-program-names-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut programs = Programs::open(&dir, |_| true);
        let mut refused = |program: &Program| programs.add(program, &snapshot()).unwrap_err().to_string();
        assert!(refused(&program("web")).contains("there is a pod shop/web"));
        let elsewhere = Program { namespace: "other".into(), ..program("a") };
        assert!(refused(&elsewhere).contains("one of: shop"));
        let labels = [("a b".to_owned(), String::new())].into();
        assert!(refused(&Program { labels, ..program("a") }).contains("label key"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
