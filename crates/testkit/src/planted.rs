//! Bugs that are planted in a copy of the sources, to see whether a test finds them.

use std::{fs, io, path::Path};

/// What goes wrong, in which file, and how.
#[derive(Debug)]
pub struct Bug {
    /// What goes wrong, as a sentence.
    pub name: &'static str,
    /// In which file, below the folder of the sources.
    pub file: &'static str,
    /// What is there exactly once.
    pub text: &'static str,
    /// What stands there instead.
    pub bug: &'static str,
}

/// A bug, in a list of them.
pub const fn bug(name: &'static str, file: &'static str, text: &'static str, bug: &'static str) -> Bug {
    Bug { name, file, text, bug }
}

impl Bug {
    /// Writes `instead` where the text stands, in a copy of the sources.
    ///
    /// # Errors
    /// The file cannot be read or written, or the code moved on: the text is not there exactly once.
    pub fn plant(&self, sources: &Path, instead: &str) -> Result<(), String> {
        let Self { file, text, .. } = self;
        let path = sources.join(file);
        let failed = |e: io::Error| format!("{}: {e}", path.display());
        let source = fs::read_to_string(&path).map_err(failed)?;
        let found = source.matches(text).count();
        if found != 1 {
            return Err(format!("{file} has this {found} times, plant the bug anew: {text}"));
        }
        fs::write(&path, source.replace(text, instead)).map_err(failed)
    }
}

/// Copies a folder and all that is in it.
///
/// # Errors
/// Whatever reading or writing says.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
