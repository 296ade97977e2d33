//! One file -> what it says by itself; what all files say by themselves -> one snapshot.

use std::sync::Arc;

use crate::{
    document,
    error::{Error, Problem},
    gather::Gathered,
    object::Object,
    snapshot::{Settings, Snapshot},
    wire,
};

/// What one file says, without any other.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) gathered: Gathered,
    /// What means something only beside the objects of other files.
    late: Vec<Object>,
    problems: Vec<Problem>,
}

impl Part {
    pub(crate) fn of(file: &Arc<str>, text: &str, settings: &Settings) -> Self {
        let Self { mut gathered, mut late, mut problems } = Self::default();
        document::read(file, text, &mut problems, &mut |document, problems| {
            for object in Object::all_of(file, document, problems) {
                match wire::refers_to_others(&object) {
                    true => late.push(object),
                    false => wire::read(&object, settings, &mut gathered, problems),
                }
            }
        });
        Self { gathered, late, problems }
    }

    /// A file that cannot be read.
    pub(crate) fn unreadable(problems: Vec<Problem>) -> Self {
        Self { problems, ..Self::default() }
    }

    /// Whether it says something of pods and of nothing else, and nothing is wrong with it.
    pub(crate) fn is_pods_alone(&self) -> bool {
        self.gathered.is_pods_alone() && self.late.is_empty() && self.problems.is_empty()
    }
}

/// The snapshot of these files; `problems` are of no file.
///
/// # Errors
/// All problems of all files, if there is any.
pub(crate) fn merge<'a>(
    parts: impl Iterator<Item = &'a Part> + Clone,
    settings: &Settings,
    mut problems: Vec<Problem>,
) -> Result<Snapshot, Error> {
    let mut gathered = Gathered::default();
    for part in parts.clone() {
        problems.extend_from_slice(&part.problems);
        gathered.absorb(&part.gathered, &mut problems);
    }
    gathered.sort(settings);
    for object in parts.flat_map(|part| &part.late) {
        wire::read(object, settings, &mut gathered, &mut problems);
    }
    let snapshot = gathered.finish(settings, &mut problems);
    Error::of(problems).map_or(Ok(snapshot), Err)
}
