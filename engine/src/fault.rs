//! From what ended a guest call to the typed error that the driver acts on.
//!
//! The host ends a call on purpose by returning a `Stop` out of an import, the call hook or the epoch callback; wasmtime
//! hands it back as the call's error. All else that ends a call is the guest's doing. The guard comes first: once the
//! lease is gone, the call is `Fenced`, whatever else it looks like.

use std::any::Any;

use godwit_core::guest::{GuestError, StateReadError};
use godwit_core::input::{Fault, FaultKind};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::context::{GuestContext, Phase};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::log;

/// What wasmtime says when a call moves more bytes than it may; its error type is private. A test holds it.
const TOO_MUCH_COPIED: &str = "too much data is being copied between the host and the guest";

/// Why the host ended a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("fenced")]
    Fenced,
    #[error("interrupted")]
    Interrupted,
    #[error("it ran for more than {limit_ms} ms")]
    Deadline { limit_ms: u64 },
    #[error("it called exit with code {code}")]
    Exited { code: u8 },
    #[error(
        "BlockedInTurn: it waited ({what}), but time stands still within a turn: to act later, set a timer"
    )]
    Blocked { what: &'static str },
    #[error("cannot read state")]
    StateRead(StateReadError),
    #[error("{what}")]
    Diverged { what: String },
    #[error("{what}")]
    Misuse { what: String },
    #[error("it answers no queries: it does not export `godwit:agent/query@0.1.0`")]
    NoQuery,
}

impl Stop {
    fn into_guest_error(self) -> GuestError {
        let kind = match &self {
            Self::Fenced => return GuestError::Fenced,
            Self::Interrupted => return GuestError::Interrupted,
            Self::StateRead(error) => return GuestError::StateRead(error.clone()),
            Self::Diverged { what } => return GuestError::Diverged { message: what.clone() },
            Self::Deadline { .. } => FaultKind::Deadline,
            Self::Exited { .. } => FaultKind::Exited,
            Self::Blocked { .. } => FaultKind::Blocked,
            Self::Misuse { .. } => FaultKind::Trap,
            Self::NoQuery => FaultKind::Start,
        };
        fault(kind, self.to_string())
    }
}

/// A fault as the guest's error.
pub(crate) fn fault(kind: FaultKind, message: impl AsRef<str>) -> GuestError {
    GuestError::Fault(Fault { kind, message: shortened(message.as_ref()) })
}

/// What a guest says of itself, made fit for people and logs.
pub(crate) fn shortened(message: &str) -> String {
    log::escaped(message, MESSAGE_BYTES_MAX)
}

/// Says why a call ended without a value.
pub(crate) fn guest_error(error: &wasmtime::Error, context: &GuestContext) -> GuestError {
    if !context.guard.is_held() {
        return GuestError::Fenced;
    }
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.clone().into_guest_error();
    }
    if let Some(denied) = context.limiter.denied() {
        return fault(FaultKind::Memory, denied);
    }
    if format!("{:#}", error.root_cause()).contains(TOO_MUCH_COPIED) {
        return too_much_copied(context);
    }
    let kind = match context.call.phase {
        Phase::Start => FaultKind::Start,
        Phase::Init | Phase::Handle | Phase::Snapshot | Phase::Restore | Phase::Query => FaultKind::Trap,
    };
    fault(kind, description(error, context))
}

/// What a panic of the host in the middle of a call means for the call.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> GuestError {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = text, "the engine panicked in a guest call");
    fault(FaultKind::Trap, format!("the host panicked while it served the guest: {text}"))
}

fn too_much_copied(context: &GuestContext) -> GuestError {
    if context.call.is_in_host {
        return fault(FaultKind::Memory, "it gave an import more bytes than one call may move");
    }
    match context.call.phase {
        Phase::Snapshot => fault(
            FaultKind::Snapshot,
            format!(
                "its snapshot is longer than the {} bytes it may have",
                context.limits.snapshot_bytes_max
            ),
        ),
        Phase::Start | Phase::Init | Phase::Handle | Phase::Restore | Phase::Query => {
            fault(FaultKind::Effects, "its replies are longer than one turn may have")
        }
    }
}

/// What happened, for people: the trap, and what the guest printed before it.
fn description(error: &wasmtime::Error, context: &GuestContext) -> String {
    if error.is::<PoolConcurrencyLimitError>() {
        return "the host has no room for another guest".into();
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let agent = &context.agent;
        tracing::debug!(target: "guest", %agent, backtrace = %shortened(&backtrace.to_string()), "guest trapped");
    }
    let cause = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let last_words = context.log.last_words();
    if last_words.is_empty() {
        return cause;
    }
    format!("{cause}; before that it wrote: {last_words}")
}

#[cfg(test)]
mod tests;
