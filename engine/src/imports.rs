//! What is linked: each interface by itself, nothing that waits, nothing that reaches the host's files or network.
//!
//! | interface | file |
//! |---|---|
//! | `godwit:agent/{turn, state, outbox, timers}` | `turn.rs`, `state.rs`, `outbox.rs`, `timers.rs` |
//! | `godwit:agent/{operations, identity, channels}` | `operations.rs`, `identity.rs`, `channels.rs` |
//! | `wasi:logging/logging`, `wasi:config/store` | `logging.rs`, `config.rs` |
//! | `wasi:{io, cli, clocks, random}` | `wasi.rs`, `wasi/streams.rs` |
//!
//! Which component may import what is decided before, in `plugin/imports.rs`; both lists name the same interfaces, and a
//! test holds them together.

mod channels;
mod config;
mod identity;
mod logging;
mod operations;
mod outbox;
mod state;
mod timers;
mod turn;
mod wasi;

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::Agent;
use crate::context::GuestContext;

/// A linker with all that is served.
///
/// # Errors
/// When two interfaces define the same name, which is a mistake in this module.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<GuestContext>> {
    let mut linker = Linker::new(engine);
    Agent::add_to_linker::<GuestContext, HasSelf<GuestContext>>(&mut linker, |context| context)?;
    logging::add_without_version(&mut linker)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}
