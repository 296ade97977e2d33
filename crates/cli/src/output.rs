//! How commands print, and what their exit codes mean.

/// Exit code: failed, or denied where a verdict was asked.
pub(crate) const DENIED: u8 = 1;
/// Exit code: wrong usage, or manifests that cannot be read.
pub(crate) const USAGE: u8 = 2;

/// Output formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}
