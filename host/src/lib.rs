//! Godwit as a library: a host inside another program.
//!
//! `host::HostBuilder` starts one from a `config::HostConfig` and what the program brings, `host::Host` is the running one, and
//! `runtime::Runtime` is everything that HTTP, the command line or an embedder can do with it: `godwit serve` is a thin user
//! of these three.
//!
//! ```
#![doc = include_str!("../examples/minimal.rs")]
//! ```
//!
//! What a program does with a running host, each by a method of `runtime::Runtime` or a call through `Runtime::call`, which finds the
//! host that has the agent:
//!
//! | what | by |
//! |---|---|
//! | register a kind of agents, at any time | `Runtime::load_plugin`; before the start `HostBuilder::plugin` |
//! | spawn | `Runtime::create_agent` |
//! | spawn from a snapshot | `Runtime::import_agent`, of a file that `Runtime::export_agent` made; `ImportOptions::expected` refuses another agent of that name before anything is stored |
//! | stop | `AgentCall::Verb` with a `runtime::verbs::VerbCall`: stop, pause, retire, delete |
//! | snapshot | `AgentCall::Checkpoint`; as a file, with everything else, `Runtime::export_agent` |
//! | deliver, and hear what came of it | `AgentCall::Ask`; `AgentCall::Send` and then `Runtime::wait_for_output` |
//! | counts | `Runtime::counts`; of another host `Runtime::call_host` |
//! | move, and how far it is | `AgentCall::Migrate`, `Runtime::migration` (its `phase`), `Runtime::expect_migration` |
//! | follow | `Runtime::subscribe` (one agent, in its own count), `Runtime::events` (the log) |
//!
//! There is one gate. While a host **registers** (`HostBuilder`, up to the end of `start`) there is no `Runtime` to call, and peers
//! are answered "not now". It is **ready** when `start` has answered. From the moment at which it begins to **shut down** every call
//! that would change something is refused as `CallError::Unavailable`, of which nothing was done (`Retry::Later`); reads go
//! on as long as there is a store. `Runtime::shutdown_token` tells of that moment.
//!
//! What a program can bring, each by a method of the builder:
//!
//! - **Plugins**, from bytes or files: they are loaded before anything runs.
//! - **Hooks** (`hooks::Hooks`): told of new agents and of errors, in order, from a bounded queue; they can't slow the host. What
//!   must not be missed is in the event log: `Runtime::events`, page by page after a cursor.
//! - **A roster** (`roster::RosterProvider`, `TopologyProvider`, `AgentCustomizer`): which agents and edges there should be, and what
//!   each agent is made of. They are there when the host is, and follow the provider from then on.
//! - **A clock** (`godwit_core::time::Clock`): time and randomness.
//! - **A store** (`godwit_core::store::RuntimeStore`): everything durable. This is also where ownership is decided: its session and
//!   lease methods (`join`, `heartbeat`, `bury_expired`, `leave`, `acquire`, `release`, `transfer`) are all that a host asks of a
//!   provider of leases, because a lease protects nothing unless the transaction that it guards compares its token. A store
//!   of your own passes `godwit_core::store::conformance` (feature `test-util` of `godwit-core`) before a host may use it.
//!
//! A start that fails undoes what it has done, last stage first: `host::StartError` names the stage, the cause and what is left, and
//! the program lives on and may start again. `Host::stop` takes the host down in order and answers a
//! `runtime::ShutdownReport`: turns end or are put back, outputs leave, leases are free for other hosts, threads and sockets are
//! gone. A host that is dropped is stopped in the background. `Host::run_until` does all of it for a program that is
//! nothing but a host.
//!
//! Errors say by `godwit_core::retry::Retryable` whether another try may help. `examples/embed.rs` is a whole program.
//!
//! Adapters (SQLite, wasmtime, iroh) are named in `host/bootstrap.rs` and `offline.rs` only.
#![forbid(unsafe_code)]

pub mod agent_doc;
pub mod api;
pub mod archive;
pub mod cli;
pub mod config;
pub mod data_dir;
mod envelope;
#[cfg(feature = "test-util")]
pub mod fuzzing;
pub mod head;
pub mod hooks;
pub mod host;
pub mod identity;
pub mod load_notes;
pub mod offline;
pub mod peer_book;
pub mod roster;
pub mod runtime;
pub mod secrets;
pub mod serve;
pub mod telemetry;
