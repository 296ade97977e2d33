//! What holds of any input that comes from outside: packets, events, manifests, selectors, policies, what clients of
//! the flow API ask, requests to models, their answers, and tokens.
//!
//! Input: bytes. Output: nothing, or what does not hold of them. Three look for bytes of which it does not: libFuzzer
//! (`./dev fuzz`), the generators of proptest (`tests/any_*.rs`), and ordinary tests over seeds and over every case that
//! was ever found (`tests/seeds_and_cases.rs`).

mod answers;
mod calls;
mod choices;
mod events;
mod filters;
mod manifests;
mod packets;
mod policies;
mod reading;
mod selectors;
mod tokens;

pub use answers::passes;
pub use calls::sends;
pub use events::{Layout, printable, translates};
pub use filters::{answers, asks};
pub use manifests::{reads, selects};
pub use packets::{Packets, SEEDS as ENDS, least};
pub use selectors::{keeps, order_is_nothing};
pub use tokens::counts;

/// What does not hold, in words.
pub type Held = Result<(), String>;

/// Holds one input against what must hold of all.
pub type Property = Box<dyn FnMut(&[u8]) -> Held>;

/// One kind of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Frames at the hooks of a pod.
    Packets,
    /// Records of the ring buffer, of this build and of another.
    Events,
    /// Texts of manifests.
    Manifests,
    /// Label selectors, and pods.
    Selectors,
    /// Clusters with their policies.
    Policies,
    /// What clients of the flow API send.
    Filters,
    /// Requests to models.
    Calls,
    /// Answers of models, in any chunks.
    Answers,
    /// Tokens that callers show.
    Tokens,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Packets,
        Self::Events,
        Self::Manifests,
        Self::Selectors,
        Self::Policies,
        Self::Filters,
        Self::Calls,
        Self::Answers,
        Self::Tokens,
    ];

    /// As `./dev fuzz` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Events => "events",
            Self::Manifests => "manifests",
            Self::Selectors => "selectors",
            Self::Policies => "policies",
            Self::Filters => "filters",
            Self::Calls => "calls",
            Self::Answers => "answers",
            Self::Tokens => "tokens",
        }
    }

    /// What must hold; none where this process cannot tell, since it may not load programs into the kernel.
    ///
    /// # Errors
    /// If the kernel does not take the programs.
    pub fn property(self) -> Result<Option<Property>, String> {
        Ok(Some(match self {
            Self::Packets => {
                let Some(mut packets) = Packets::load()? else { return Ok(None) };
                Box::new(move |bytes: &[u8]| packets.hold(bytes))
            }
            Self::Events => Box::new(events::hold),
            Self::Manifests => Box::new(manifests::hold),
            Self::Selectors => Box::new(selectors::hold),
            Self::Policies => Box::new(policies::hold),
            Self::Filters => Box::new(filters::hold),
            Self::Calls => Box::new(calls::hold),
            Self::Answers => Box::new(answers::hold),
            Self::Tokens => Box::new(tokens::hold),
        }))
    }

    /// Where a search begins.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Packets => packets::seeds(),
            Self::Events => events::seeds(),
            Self::Manifests => manifests::seeds(),
            Self::Selectors | Self::Policies => choices::seeds(),
            Self::Filters => filters::seeds(),
            Self::Calls => calls::seeds(),
            Self::Answers => answers::seeds(),
            Self::Tokens => tokens::seeds(),
        }
    }
}

/// An error that says what does not hold.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(what()) }
}
