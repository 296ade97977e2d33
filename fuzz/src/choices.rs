//! Bytes as choices, for what is no text and has no encoding.

use signet_testkit::Rng;

/// Some hundred choices each, every one the same on every machine.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let of = |seed| {
        let mut rng = Rng::new(seed);
        (0..400).map(|_| rng.below(256) as u8).collect()
    };
    (0..24).map(of).collect()
}
