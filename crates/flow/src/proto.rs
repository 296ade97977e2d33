//! What `proto/` says, as Rust: made by `cargo xtask codegen`, committed under `gen/`.
//!
//! Included, not declared as modules with paths, so that rustfmt leaves them as they were generated.

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $($file:literal),+) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::restriction,
            clippy::allow_attributes_without_reason,
            clippy::too_many_lines,
            reason = "generated; documented in proto/"
        )]
        pub mod $name {
            $(include!(concat!("gen/", $file));)+
        }
    };
}

generated!(
    /// Hubble's `flow` package: what happened to one packet or request, and filters on it.
    flow,
    "flow.rs",
    "flow.serde.rs"
);
generated!(
    /// Hubble's `observer` package: the API that flows are read through.
    observer,
    "observer.rs",
    "observer.serde.rs"
);
generated!(
    /// Hubble's `relay` package: the state of the nodes behind a relay.
    relay,
    "relay.rs",
    "relay.serde.rs"
);
generated!(
    /// Hubble's `peer` package: how a relay learns of the nodes.
    peer,
    "peer.rs"
);
generated!(
    /// What Signet says of a flow beyond Hubble's fields.
    signet,
    "signet.rs"
);
