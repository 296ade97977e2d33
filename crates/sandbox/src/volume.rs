//! The files of a volume, which are replaced all at once while pods read them.
//!
//! ```text
//! VOLUME/token             -> ..data/token
//! VOLUME/..data            -> ..1764417600123456789
//! VOLUME/..1764417600123456789/token
//! ```
//! As kubelet writes them (its `AtomicWriter`), so that what watches `..data` there does so here.
//!
//! INVARIANT: whoever reads sees the files of one writing, never of two (`files_are_replaced_all_at_once`).
//! INVARIANT: nothing is written outside the volume (`no_file_is_written_outside_its_volume`).

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Component, Path},
    time::{SystemTime, UNIX_EPOCH},
};

/// What the names of a volume's own begin with.
const OWN: &str = "..";
const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// A file of a volume.
#[derive(Clone, Copy)]
pub struct VolumeFile<'f> {
    /// Where it is in the volume: relative, without `..`.
    pub path: &'f str,
    /// What it says: for the pod's user alone, which is root.
    pub contents: &'f str,
}

/// Replaces what is in a volume; its folder is made where it is missing.
pub(crate) fn write(folder: &Path, files: &[VolumeFile<'_>]) -> io::Result<()> {
    let tops = files.iter().map(|file| top(file.path)).collect::<io::Result<BTreeSet<OsString>>>()?;
    make_folder(folder)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let data = format!("{OWN}{}", since.as_nanos());
    let written = files.iter().try_for_each(|file| write_file(&folder.join(&data), file));
    let turned = written.and_then(|()| turn(folder, &data, &tops));
    // of a writing that came to nothing, nothing stays
    tidy(folder, &tops).and(turned)
}

/// A folder that others of the pod may enter.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)
}

/// The first part of a path that stays in its volume.
fn top(path: &str) -> io::Result<OsString> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let stays = !path.starts_with(OWN) && Path::new(path).components().all(is_plain);
    let first = Path::new(path).components().next().filter(|_| stays);
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no path in a volume"));
    first.map(|first| first.as_os_str().to_owned()).ok_or_else(outside)
}

fn write_file(data: &Path, VolumeFile { path, contents }: &VolumeFile<'_>) -> io::Result<()> {
    let path = data.join(path);
    path.parent().map_or(Ok(()), make_folder)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents.as_bytes())
}

/// From here on, this is what the volume says.
fn turn(folder: &Path, data: &str, tops: &BTreeSet<OsString>) -> io::Result<()> {
    make_folder(&folder.join(data))?;
    let next = folder.join(NEXT);
    absent(fs::remove_file(&next))?;
    symlink(data, &next)?;
    fs::rename(&next, folder.join(DATA))?;
    for top in tops {
        match symlink(Path::new(DATA).join(top), folder.join(top)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(())
}

/// Removes what `..data` does not lead to.
fn tidy(folder: &Path, tops: &BTreeSet<OsString>) -> io::Result<()> {
    let current = fs::read_link(folder.join(DATA)).unwrap_or_default();
    for entry in fs::read_dir(folder)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if name == DATA || name == current || (tops.contains(&name) && entry.exists()) {
            continue;
        }
        // a link is removed, not what it leads to
        absent(if entry.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(entry)
        } else {
            fs::remove_file(entry)
        })?;
    }
    Ok(())
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file<'f>(path: &'f str, contents: &'f str) -> VolumeFile<'f> {
        VolumeFile { path, contents }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("..1")).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        write(folder.path(), &[file("a", "a1"), file("x/b", "b1")]).unwrap();
        assert_eq!((read("a").as_str(), read("x/b").as_str()), ("a1", "b1"));
        let mode = fs::metadata(folder.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // who has the folder open sees the old files, all of them, to the end
        let old = fs::canonicalize(folder.path().join("..data")).unwrap();
        assert_eq!(fs::read_dir(&old).unwrap().count(), 2);
        write(folder.path(), &[file("a", "a2"), file("c", "c2")]).unwrap();
        assert_eq!((read("a").as_str(), read("c").as_str()), ("a2", "c2"));
        assert!(!old.exists(), "what was before is gone");
        assert_eq!(names(folder.path()), ["..data", "a", "c"]);
        write(folder.path(), &[]).unwrap();
        assert_eq!(names(folder.path()), ["..data"]);
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[file("a", "a1")]).unwrap();
        // a file in the place of a folder
        write(folder.path(), &[file("a", "a2"), file("a/b", "b2")]).unwrap_err();
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "a1");
        assert_eq!(names(folder.path()), ["..data", "a"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn no_file_is_written_outside_its_volume() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("v");
        for path in ["../x", "/x", "a/../../x", "..data", "", "..", "./../x"] {
            write(&folder, &[file("good", ""), file(path, "")]).unwrap_err();
        }
        assert!(!folder.exists() && fs::read_dir(above.path()).unwrap().next().is_none());
    }
}
