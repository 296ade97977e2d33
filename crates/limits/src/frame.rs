//! Records of the journal, as bytes and back.
//!
//! A record is its length, the complement of that, the CRC of what follows, and what follows. So the end of a file that was
//! torn off in a write is told from one that somebody damaged: a length that is whole, and longer than the file, is torn.
//!
//! INVARIANT: bytes are read as what was written, or not at all (`a_byte_that_changed_is_found`).

use std::sync::Arc;

use signet_model::{Measure, Period};

use crate::ledger::{Change, Changes};

/// Bytes of what stands before a record.
const HEAD: usize = 12;
/// Bytes of a change.
const CHANGE: usize = 24;
/// Changes of one record. Those of one call are fewer.
const MOST_CHANGES: usize = 4096;

const NAME: u8 = 1;
const CHANGED: u8 = 2;

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A counter has this number from here on.
    Name(u64, Measure, Arc<str>),
    /// These amounts changed, at once.
    Changed(Vec<Change>),
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    Frame(Frame, &'a [u8]),
    /// The file is over.
    End,
    /// The last write was not finished.
    Torn,
    /// This is not what was written.
    Damaged(&'static str),
}

/// Adds the records of a step.
pub(crate) fn write(changes: &Changes, out: &mut Vec<u8>) {
    for (number, measure, name) in &changes.named {
        record(out, |out| {
            out.push(NAME);
            out.extend(number.to_le_bytes());
            out.push(code(*measure));
            out.extend(name.as_bytes());
        });
    }
    for changed in changes.changed.chunks(MOST_CHANGES) {
        record(out, |out| {
            out.push(CHANGED);
            for Change { counter, slot, by } in changed {
                out.extend(counter.to_le_bytes());
                out.extend(slot.to_le_bytes());
                out.extend(by.to_le_bytes());
            }
        });
    }
}

/// Reads the next record.
pub(crate) fn next(bytes: &[u8]) -> Next<'_> {
    if bytes.is_empty() {
        return Next::End;
    }
    // what a machine that lost its power leaves of a write
    if bytes.iter().take(HEAD).all(|byte| *byte == 0) && bytes.iter().all(|byte| *byte == 0) {
        return Next::Torn;
    }
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Next::Torn };
    let word = |at: usize| {
        head.get(at..at + 4).map_or(0, |four| four.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
    };
    let (length, complement, crc) = (word(0), word(4), word(8));
    if length != !complement {
        return Next::Damaged("a length");
    }
    let Some((payload, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
    else {
        return Next::Torn;
    };
    if crc32fast::hash(payload) != crc {
        return Next::Damaged("a record");
    }
    frame(payload).map_or(Next::Damaged("a record of another version"), |frame| Next::Frame(frame, rest))
}

fn record(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; HEAD]);
    payload(out);
    let length = u32::try_from(out.len() - start - HEAD).unwrap_or(u32::MAX);
    let crc = crc32fast::hash(&out[start + HEAD..]);
    let head = [length, !length, crc].map(u32::to_le_bytes).concat();
    out[start..start + HEAD].copy_from_slice(&head);
}

fn frame(payload: &[u8]) -> Option<Frame> {
    let (kind, rest) = payload.split_first()?;
    match *kind {
        NAME => {
            let (number, rest) = rest.split_first_chunk()?;
            let (measure, name) = rest.split_first()?;
            let name = std::str::from_utf8(name).ok()?;
            Some(Frame::Name(u64::from_le_bytes(*number), measure_of(*measure)?, name.into()))
        }
        CHANGED if rest.len() % CHANGE == 0 => {
            rest.chunks_exact(CHANGE).map(change).collect::<Option<_>>().map(Frame::Changed)
        }
        _ => None,
    }
}

fn change(bytes: &[u8]) -> Option<Change> {
    let (counter, rest) = bytes.split_first_chunk()?;
    let (slot, rest) = rest.split_first_chunk()?;
    let (by, _) = rest.split_first_chunk()?;
    Some(Change {
        counter: u64::from_le_bytes(*counter),
        slot: u64::from_le_bytes(*slot),
        by: i64::from_le_bytes(*by),
    })
}

fn code(measure: Measure) -> u8 {
    match measure {
        Measure::Requests => 0,
        Measure::Tokens => 1,
        Measure::Concurrent => 2,
        Measure::Spend(Period::Hour) => 3,
        Measure::Spend(Period::Day) => 4,
        Measure::Spend(Period::Month) => 5,
    }
}

fn measure_of(code: u8) -> Option<Measure> {
    let all = [
        Measure::Requests,
        Measure::Tokens,
        Measure::Concurrent,
        Measure::Spend(Period::Hour),
        Measure::Spend(Period::Day),
        Measure::Spend(Period::Month),
    ];
    all.into_iter().find(|measure| self::code(*measure) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Changes {
        Changes {
            named: vec![(7, Measure::Spend(Period::Day), "a/b".into()), (8, Measure::Tokens, "".into())],
            changed: vec![
                Change { counter: 7, slot: u64::MAX, by: i64::MIN },
                Change { counter: 8, slot: 0, by: 1 },
            ],
        }
    }

    fn written() -> Vec<u8> {
        let mut bytes = vec![];
        write(&changes(), &mut bytes);
        bytes
    }

    fn read(mut bytes: &[u8]) -> (Vec<Frame>, Next<'_>) {
        let mut frames = vec![];
        loop {
            match next(bytes) {
                Next::Frame(frame, rest) => (frames.push(frame), bytes = rest).0,
                end => return (frames, end),
            }
        }
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let Changes { named, changed } = changes();
        let mut expected: Vec<Frame> =
            named.into_iter().map(|(n, m, name)| Frame::Name(n, m, name)).collect();
        expected.push(Frame::Changed(changed));
        assert_eq!(read(&written()), (expected, Next::End));
    }

    #[test]
    fn an_end_that_was_torn_off_is_told_from_damage() {
        let (bytes, whole) = (written(), read(&written()).0);
        let ends: Vec<usize> = (0..=bytes.len()).filter(|n| read(&bytes[..*n]).1 == Next::End).collect();
        assert_eq!(ends.len(), whole.len() + 1);
        for length in (0..bytes.len()).filter(|n| !ends.contains(n)) {
            assert_eq!(read(&bytes[..length]).1, Next::Torn, "{length}");
        }
        assert_eq!(read(&[bytes.clone(), vec![0; 5000]].concat()), (whole, Next::Torn));
    }

    #[test]
    fn a_byte_that_changed_is_found() {
        let (bytes, whole) = (written(), read(&written()).0);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let (frames, end) = read(&bytes);
                assert!(matches!(end, Next::Damaged(_)), "{at}: {end:?}");
                assert!(whole.starts_with(&frames), "{at}");
            }
        }
    }
}
