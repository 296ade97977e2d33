//! Problems in manifests: all of them at once, each with the place that is at fault.
//!
//! Whose fault: the author of the manifests (or, for [`Place::File`], whoever keeps the folder). Reading the same
//! files again gives the same problems.

use std::{fmt, sync::Arc};

/// Everything that is wrong with a set of manifests. Its display is one line per problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    problems: Vec<Problem>,
}

/// One thing that is wrong: `FILE:LINE: document N, FIELD: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub site: Site,
    /// What is wrong there.
    pub message: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// Where in the file.
    pub place: Place,
}

/// How far into a file a [`Site`] points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole: it cannot be read.
    File,
    /// A field of a document.
    Field {
        /// The line, from 1.
        line: u32,
        /// The document, from 1; empty ones count.
        document: u32,
        /// The dotted path, as in `spec.ingress[0].ports[0].endPort`, or `syntax`.
        field: String,
    },
}

impl Error {
    /// An error of these problems, in the order of files and lines; `None` where there is no problem.
    pub(crate) fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by(|a, b| a.site.order().cmp(&b.site.order()));
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// An error of one problem.
    pub(crate) fn one(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }

    /// The problems, by file and line; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Site {
    /// The file as a whole.
    pub(crate) fn file(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), place: Place::File }
    }

    /// The syntax of a document.
    pub(crate) fn syntax(file: &Arc<str>, line: u32, document: u32) -> Self {
        let place = Place::Field { line, document, field: "syntax".to_owned() };
        Self { file: Arc::clone(file), place }
    }

    /// A problem at this place.
    pub fn problem(&self, message: impl fmt::Display) -> Problem {
        Problem { site: self.clone(), message: message.to_string() }
    }

    /// `FILE:LINE`, for messages that point at a second place.
    pub fn short(&self) -> String {
        match &self.place {
            Place::File => self.file.to_string(),
            Place::Field { line, .. } => format!("{}:{line}", self.file),
        }
    }

    /// The line, or 0 for the file as a whole.
    pub(crate) fn line(&self) -> u32 {
        match &self.place {
            Place::File => 0,
            Place::Field { line, .. } => *line,
        }
    }

    fn order(&self) -> (&str, u32) {
        (&self.file, self.line())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.site.place {
            Place::File => write!(f, "{}: ", OneLine(&self.site.file))?,
            Place::Field { line, document, field } => {
                let file = OneLine(&self.site.file);
                write!(f, "{file}:{line}: document {document}, {}: ", OneLine(field))?;
            }
        }
        OneLine(&self.message).fmt(f)
    }
}

/// Text with its control characters escaped: keys and values of a manifest must not forge lines of a report.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_debug()),
            false => write!(f, "{c}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: &str, line: u32, message: &str) -> Problem {
        let place = Place::Field { line, document: 2, field: "spec.a[0]".into() };
        Site { file: file.into(), place }.problem(message)
    }

    #[test]
    fn problems_are_one_line_each_in_the_order_of_files_and_lines() {
        let error =
            Error::of(vec![problem("b.yaml", 1, "y"), problem("a.yaml", 9, "x"), problem("a.yaml", 2, "w")]);
        let expected = "a.yaml:2: document 2, spec.a[0]: w\n\
                        a.yaml:9: document 2, spec.a[0]: x\n\
                        b.yaml:1: document 2, spec.a[0]: y";
        assert_eq!(error.unwrap().to_string(), expected);
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        assert_eq!(problem("f", 1, "a\nb").to_string(), "f:1: document 2, spec.a[0]: a\\nb");
    }
}
