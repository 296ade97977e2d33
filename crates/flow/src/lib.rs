//! One flow log: what the kernel and the gateway decided, kept, filtered and served to whoever asks.
//!
//! Input: event records of the kernel, and names for the numbers in them. Output: [`flow::Flow`]s of Hubble's API, so
//! that its clients work, with Signet's reason and rule beside them ([`FlowExtension`]). In order:
//! [`Sighting`] → [`Ring`] → [`Filters`] → [`serve`] → [`Client`] → [`to_json`] or [`line()`].
//!
//! INVARIANT: whoever pushes a flow never waits for whoever reads (`a_slow_reader_loses_only_its_own`).
//! INVARIANT: what was lost is said, to the reader that lost it (`a_slow_reader_is_told_how_many_flows_it_lost`).
//! INVARIANT: a filter that is not understood refuses the request (`a_value_that_a_field_cannot_have_is_named`).
//!
//! It refuses to know maps, Kubernetes and policies: [`Names`] is all that it sees of them.

mod call;
mod cel;
mod client;
mod enrich;
mod export;
mod extension;
mod fields;
mod filter;
mod following;
mod json;
mod labels;
mod layer4;
mod layer7;
mod mask;
mod merge;
mod peers;
mod print;
mod proto;
mod query;
mod reader;
mod relaying;
mod ring;
mod serve;
mod sighting;
mod value;

pub use call::Call;
pub use client::{Client, ClientError, Flows};
pub use enrich::response_of;
pub use export::{ExportConfig, ExportCounts, ExportEvent, export};
pub use extension::{FLOW_EXTENSION_URL, ask_for_extensions, asks_for_extensions, extension_of};
pub use filter::{FilterError, Filters};
pub use following::{PeersEvent, RelayNodes};
pub use json::{JsonError, to_json};
pub use mask::{Mask, MaskError};
pub use peers::{Nodes, Peers};
pub use print::{TABLE_HEADING, block, line, row};
pub use proto::{
    flow, observer, peer, relay,
    signet::{FlowExtension, ModelCall, Rule as ExtensionRule},
};
pub use reader::Reader;
pub use ring::{DEFAULT_CAPACITY, Record, Ring};
pub use serve::{DRAIN, Listen, Listeners, NodeInfo, ServeError, serve, serve_relay};
pub use sighting::{EndpointInfo, Names, Sighting};
