//! Godwit as a library: the host's parts wired together.
//!
//! `runtime` is the heart: everything that HTTP, the command line or an embedder can do goes through `runtime::Runtime`.
//! `serve` builds one from a configuration. Adapters (SQLite, wasmtime, iroh) are named in `serve.rs` and `offline.rs` only.
#![forbid(unsafe_code)]

pub mod agent_doc;
pub mod api;
pub mod archive;
pub mod cli;
pub mod config;
pub mod head;
pub mod identity;
pub mod load_notes;
pub mod offline;
pub mod peer_book;
pub mod roster;
pub mod runtime;
pub mod secrets;
pub mod serve;
pub mod telemetry;
