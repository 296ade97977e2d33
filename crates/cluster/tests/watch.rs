//! A watched folder tells of every change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail")]

use std::{fs, path::Path, time::Duration};

use signet_cluster::{Error, Settings, Snapshot, Watch, watch};

const LIMIT: Duration = Duration::from_secs(20);

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.pods.iter().map(|p| p.pod.name.name.as_str()).collect()
}

/// The first result that fits: a burst may be read in several parts.
fn wait(watch: &Watch, fits: impl Fn(&Result<Snapshot, Error>) -> bool) -> Result<Snapshot, Error> {
    loop {
        let result = watch.receiver().recv_timeout(LIMIT).expect("a result that fits");
        if fits(&result) {
            return result;
        }
    }
}

fn wait_for(watch: &Watch, expected: &[&str]) {
    let result = wait(watch, |result| result.as_ref().is_ok_and(|s| names(s) == expected));
    assert!(result.is_ok());
}

fn start(dir: &Path) -> Watch {
    watch(dir, Settings::default()).unwrap()
}

#[test]
fn the_first_result_is_the_folder_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), pod("a")).unwrap();
    let first = start(dir.path()).next().unwrap().unwrap();
    assert_eq!(names(&first), ["a"]);
}

#[test]
fn writes_renames_and_deletes_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let watch = start(dir.path());
    wait_for(&watch, &[]);
    let file = dir.path().join("a.yaml");
    fs::write(&file, pod("a")).unwrap();
    wait_for(&watch, &["a"]);
    let temporary = dir.path().join(".a.yaml.swp");
    fs::write(&temporary, pod("b")).unwrap();
    fs::rename(&temporary, &file).unwrap();
    wait_for(&watch, &["b"]);
    fs::remove_file(&file).unwrap();
    wait_for(&watch, &[]);
}

#[test]
fn new_folders_are_watched_too() {
    let dir = tempfile::tempdir().unwrap();
    let watch = start(dir.path());
    wait_for(&watch, &[]);
    let inner = dir.path().join("x/y");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("a.yaml"), pod("a")).unwrap();
    wait_for(&watch, &["a"]);
    fs::write(inner.join("b.yaml"), pod("b")).unwrap();
    wait_for(&watch, &["a", "b"]);
    fs::remove_dir_all(dir.path().join("x")).unwrap();
    wait_for(&watch, &[]);
}

#[test]
fn a_broken_file_is_an_error_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, pod("a")).unwrap();
    let watch = start(dir.path());
    wait_for(&watch, &["a"]);
    fs::write(&file, "kind: [\n").unwrap();
    assert!(wait(&watch, Result::is_err).is_err());
    fs::write(&file, pod("b")).unwrap();
    wait_for(&watch, &["b"]);
}

#[test]
fn reading_the_folder_is_not_a_change() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), pod("a")).unwrap();
    let watch = start(dir.path());
    wait_for(&watch, &["a"]);
    let quiet = watch.receiver().recv_timeout(Duration::from_millis(300));
    assert!(quiet.is_err(), "{quiet:?}");
}

#[test]
fn a_folder_that_is_not_there_cannot_be_watched() {
    let error = watch(Path::new("/nonexistent/manifests"), Settings::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/manifests: cannot be watched: "), "{error}");
}

#[test]
fn a_folder_that_is_replaced_is_watched_again() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("manifests");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.yaml"), pod("a")).unwrap();
    let watch = start(&dir);
    wait_for(&watch, &["a"]);
    let next = parent.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("b.yaml"), pod("b")).unwrap();
    fs::rename(&dir, parent.path().join("old")).unwrap();
    fs::rename(&next, &dir).unwrap();
    wait_for(&watch, &["b"]);
    fs::write(dir.join("c.yaml"), pod("c")).unwrap();
    wait_for(&watch, &["b", "c"]);
    fs::remove_dir_all(&dir).unwrap();
    assert!(wait(&watch, Result::is_err).is_err());
    fs::create_dir(&dir).unwrap();
    wait_for(&watch, &[]);
}
