//! A model of leases: a few hosts, one agent, one store, and everything that can happen between them, in every order. What is
//! decided is decided by the product's own machines, `core::lease::{keeper, deadline, fence}`, which both stores and the
//! host's session use; written here is only what carries their decisions out.
//!
//! ```text
//!  host: Keeper, Deadline, claim, loaded value        store: sessions, token, holder, value
//!     |   keeper's way: beat, join                       |   one request, one transaction
//!     +-- agent's way: acquire, commit, release ---------+   at any moment: bury what has expired
//!
//!  Sent --execute--> Answered --receive--> (known)       time: a tick at any moment; a host that does
//!    |                  |                                nothing meanwhile is paused
//!    +---- give up -----+--> (unknown), and what was on its way may arrive later
//! ```
//! One assumption: a process's requests on one way are executed in the order in which it sent them, as the stores' writers
//! do. What is not here: a second process with the same host key. Migration is a model of its own, `handoff`.
//!
//! `cargo test -p godwit-model`, for both models. `GODWIT_MODEL_DEPTH=2` (1 is the default) and more allow more time, faults, grants and
//! commits; `GODWIT_MODEL_HOSTS=3` adds a host. Either takes minutes and gigabytes.

#![forbid(unsafe_code)]

pub mod handoff;
pub mod host;
pub mod properties;
pub mod rules;
pub mod store;
pub mod system;
