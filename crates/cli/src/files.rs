//! How many files the gateway may open: as many as its process is let, and for how many connections that is enough.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a connection takes: itself, and one to a provider.
const OF_EACH: u64 = 2;
/// Files beside those: what listens, the node, the journal, more streams than one on a connection of HTTP/2.
const BESIDE: u64 = 512;

/// Lets this process open as many files as it may: by default it is fewer, for the sake of `select`. For how many connections that is
/// enough, of so many; where it is for fewer, that is said.
pub(crate) fn room_for(connections: usize) -> usize {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            eprintln!("how many files may be opened is not known: {error}");
            return connections;
        }
    };
    let most = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            eprintln!("no more than {soft} files may be opened: {error}");
            soft
        }
    };
    let enough_for = enough_for(most).min(connections);
    if enough_for < connections {
        let wanted = connections as u64 * OF_EACH + BESIDE;
        eprintln!(
            "{most} files may be opened, which is enough for {enough_for} connections; {connections} take {wanted} \
             (LimitNOFILE= of the service, ulimit -Hn)"
        );
    }
    enough_for
}

/// As many connections as leave as many files for providers.
fn enough_for(files: u64) -> usize {
    usize::try_from((files.saturating_sub(BESIDE) / OF_EACH).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_as_many_files_for_providers() {
        assert_eq!(enough_for(33_280), 16_384);
        assert_eq!(enough_for(20_000), 9_744);
        assert_eq!(enough_for(100), 1);
    }
}
