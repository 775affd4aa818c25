//! Write Godwit agents in Rust.
//!
//! An agent is a struct whose fields are its state, the trait [`Agent`], and one line that makes a component of it:
//!
//! ```
//! use godwit_guest::{Agent, AgentError, Host, Input, Reply};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Greeter {
//!     greeted: u64,
//! }
//!
//! impl Agent for Greeter {
//!     fn handle(&mut self, input: &Input, _host: &mut impl Host) -> Result<Reply, AgentError> {
//!         let Some(name) = input.text() else {
//!             return Ok(Reply::refused("malformed"));
//!         };
//!         self.greeted += 1;
//!         Ok(Reply::text(format!("hello {name}, you are number {}", self.greeted)))
//!     }
//! }
//!
//! godwit_guest::export!(Greeter);
//!
//! // `cargo test` runs the agent natively:
//! let mut greeter = godwit_guest::testing::Harness::<Greeter>::new();
//! assert_eq!(greeter.ask("ada"), Reply::text("hello ada, you are number 1"));
//! ```
//!
//! The crate is a `["cdylib", "rlib"]`, built with `cargo build --target wasm32-wasip2 --release`. That file is the plugin.
//!
//! Three rules are worth knowing:
//! - A turn happens whole or not at all. What `handle` does to the agent and to the world counts once the host has
//!   committed it. After an error, a panic or a deadline the agent is what it was before.
//! - Saying no is a good turn: return [`Reply::refused`]. An [`AgentError`] means that the turn must not count.
//! - The state is what `Serialize` writes. Keep [`Map`] and [`Set`] in it, not the hash maps of std, whose order differs from
//!   one instance to the next.
//!
//! An agent that implements [`Query`] as well, and says so in its `export!` line, answers questions about its committed state
//! at any time, also while a turn runs.
//!
//! The contract below is in `wit/`. Not here: any interface that the host does not serve yet.

#![deny(unsafe_code)]

mod agent;
mod bytes;
mod channels;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component;
mod host;
mod identity;
mod input;
pub mod limits;
mod manifest;
mod snapshot;
pub mod testing;

pub use std::collections::{BTreeMap as Map, BTreeSet as Set};

pub use agent::{Agent, AgentError, Query};
pub use bytes::Bytes;
pub use channels::{
    Access, Administration, ChannelAnswer, ChannelEnd, ChannelError, ChannelInfo, Overflow, Publication,
    PublishOptions, Rights, Subscription, SubscriptionState,
};
pub use host::{
    ConfigError, Host, HttpRequest, Level, OperationError, ReadHost, SendError, SendOptions, StateError,
    TimerError, TurnInfo,
};
pub use identity::{IdentityError, signed_bytes};
pub use input::{
    Headers, Input, InputId, Kind, OperationEnd, OperationOutcome, Outcome, PeerKind, Reply, Source,
};
#[doc(hidden)]
pub use manifest::manifest_bytes;
