//! A folder → the text of its manifests, in a fixed order.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    document,
    error::{Problem, Site},
};

/// One file: its name as in errors, and what it says.
pub(crate) struct Text {
    pub(crate) file: Arc<str>,
    pub(crate) text: String,
}

/// The manifests of a folder.
#[derive(Default)]
pub(crate) struct Found {
    /// In a fixed order.
    pub(crate) files: Vec<PathBuf>,
    /// Whether there is a link among what is there.
    pub(crate) links: bool,
    /// What cannot be looked at.
    pub(crate) problems: Vec<Problem>,
}

/// Finds every `.yaml`, `.yml` and `.json` below `root` (or `root` itself, where it is a file). Hidden files and
/// folders are left out.
pub(crate) fn find(root: &Path) -> Found {
    let mut found = Found::default();
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => walk(root, &mut BTreeSet::new(), &mut found),
        Ok(_) => found.files.push(root.to_owned()),
        Err(error) => found.problems.push(unreadable(root, &error)),
    }
    found
}

fn walk(folder: &Path, visited: &mut BTreeSet<PathBuf>, found: &mut Found) {
    match entries(folder, visited) {
        Err(error) => found.problems.push(unreadable(folder, &error)),
        Ok(paths) => {
            for path in paths {
                found.links |= path.is_symlink();
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_dir() => walk(&path, visited, found),
                    _ if is_manifest(&path) => found.files.push(path),
                    _ => {}
                }
            }
        }
    }
}

/// Whether a part of a path is hidden.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'))
}

/// What a folder holds, sorted; nothing the second time, so that links cannot lead in circles.
fn entries(folder: &Path, visited: &mut BTreeSet<PathBuf>) -> io::Result<Vec<PathBuf>> {
    if !visited.insert(fs::canonicalize(folder)?) {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}

pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// The text of one file; what is wrong with it goes to `problems`.
pub(crate) fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Option<Text> {
    let file: Arc<str> = path.to_string_lossy().into();
    let bytes = match read_bounded(path) {
        Ok(bytes) if bytes.len() > document::MAX_BYTES => {
            problems.push(document::too_large(&file));
            return None;
        }
        Ok(bytes) => bytes,
        Err(error) => {
            problems.push(unreadable(path, &error));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Text { file, text }),
        Err(error) => {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            problems.push(Site::syntax(&file, line, 1).problem("the file is not UTF-8"));
            None
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe or device would block, or never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let limit = u64::try_from(document::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Site::file(&path.to_string_lossy().into()).problem(format_args!("cannot be read: {error}"))
}
