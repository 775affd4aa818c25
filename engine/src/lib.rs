//! Godwit's engine: loads components, links what is served to them, runs them one call at a time. Implements
//! `godwit_core::guest` with wasmtime; no other crate names wasmtime.
//!
//! ```text
//! bytes --plugin--> checked imports, manifest --cache--> compiled code --link--> Plugin (one per digest)
//!                                                                                  |
//!   GuestLoader::start --------------------------------------------------> WasmGuest (one wasmtime::Store)
//!   Guest::{init, handle, snapshot, restore, query} --guest--> guard, deadline, call, effects or a typed fault
//! ```
//! Not here: stores, leases beyond the guard that is handed in, what an input means. The engine sees one call at a time.
#![deny(unsafe_code)]

mod bindings;
mod cache;
mod config;
mod context;
mod convert;
mod effects;
mod engine;
mod fault;
mod faults;
#[cfg(feature = "test-util")]
pub mod fuzzing;
mod guest;
mod imports;
mod limits;
mod linked;
mod log;
mod plugin;
mod priority;
mod random;
mod tape;
#[cfg(test)]
mod testing;
mod ticker;

pub use config::{EngineConfig, EngineError};
pub use engine::Engine;
