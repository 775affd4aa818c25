//! Godwit's vocabulary, ports and state machines. No IO of its own.
//!
//! ```text
//! L0  id digest identity limits retry input receipt snapshot output channel timer operation event spec group lease     plain values and pure rules
//! L1  store guest mesh time                                                     ports: traits with numbered contracts
//! L2  agent migration                                                           state machines and their drivers
//! ```
//! This crate knows no wasmtime, SQL, HTTP, sockets or files; its manifest keeps it so.
#![forbid(unsafe_code)]

pub mod agent;
pub mod channel;
pub mod digest;
pub mod edge;
pub mod event;
pub mod failpoint;
pub mod group;
pub mod guest;
pub mod id;
pub mod identity;
pub mod input;
pub mod journal;
pub mod lease;
pub mod lifecycle;
pub mod limits;
pub mod mesh;
pub mod migration;
pub mod operation;
pub mod output;
pub mod placement;
pub mod receipt;
pub mod reconcile;
pub mod reply;
pub mod retry;
pub mod snapshot;
pub mod spec;
pub mod standby;
pub mod store;
pub mod task;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod time;
pub mod timer;
