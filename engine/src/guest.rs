//! One running guest: its life from the first call to the first failure, and the frame of rules round each call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit_core::guest::{Guest, GuestError, GuestRequest, TurnContext, TurnEffects};
use godwit_core::input::{FaultKind, Input, Reply};
use godwit_core::time::boot_now;
use wasmtime::{CallHook, UpdateDeadline};

use crate::bindings::godwit::agent::types::AgentError;
use crate::context::{GuestContext, Phase};
use crate::convert;
use crate::fault::{Stop, fault, guest_error, panicked};
use crate::limits::{HANDLES_MAX, HOSTCALL_BYTES_MAX};
use crate::linked::{Exports, Plugin};

/// A guest of a component.
pub(crate) struct WasmGuest {
    life: Life,
}

/// Instantiation waits for the first call, since what the guest sees while it is instantiated (time, random numbers)
/// comes from that call's context.
enum Life {
    New(Box<Unborn>),
    Running(Box<Running>),
    Dead,
}

struct Unborn {
    plugin: Arc<Plugin>,
    request: GuestRequest,
}

struct Running {
    store: wasmtime::Store<GuestContext>,
    exports: Exports,
}

/// What an export gives: wasmtime's verdict around the agent's own.
type Answer<T> = wasmtime::Result<Result<T, AgentError>>;

impl WasmGuest {
    /// A guest that is instantiated by its first call.
    pub(crate) fn new(plugin: Arc<Plugin>, request: GuestRequest) -> Self {
        Self { life: Life::New(Box::new(Unborn { plugin, request })) }
    }

    /// Makes a call, and lets `finish` judge what it gave. After anything but `Ok` the instance is gone.
    fn run<T, R>(
        &mut self,
        phase: Phase,
        turn: &TurnContext,
        call: impl FnOnce(&Exports, &mut wasmtime::Store<GuestContext>) -> Answer<T>,
        finish: impl FnOnce(&mut GuestContext, T) -> Result<R, GuestError>,
    ) -> Result<R, GuestError> {
        let life = std::mem::replace(&mut self.life, Life::Dead);
        let work = || -> Result<(R, Box<Running>), GuestError> {
            let mut running = life.into_running(turn)?;
            let value = running.call(phase, turn, call, finish)?;
            Ok((value, running))
        };
        // What the closure leaves behind in a panic is dropped with it: the guest stays dead.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok((value, running))) => {
                self.life = Life::Running(running);
                Ok(value)
            }
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(panicked(panic.as_ref())),
        }
    }
}

impl Guest for WasmGuest {
    fn init(&mut self, context: &TurnContext) -> Result<TurnEffects, GuestError> {
        let started = boot_now();
        self.run(
            Phase::Init,
            context,
            |exports, store| exports.agent.godwit_agent_guest().call_init(store),
            |context, ()| finish_turn(context, Vec::new(), started),
        )
    }

    fn handle(&mut self, context: &TurnContext, inputs: &[Input]) -> Result<TurnEffects, GuestError> {
        let started = boot_now();
        let given: Vec<_> = inputs.iter().map(convert::input).collect();
        self.run(
            Phase::Handle,
            context,
            |exports, store| exports.agent.godwit_agent_guest().call_handle(store, &given),
            |context, replies| {
                if replies.len() != inputs.len() {
                    return Err(fault(
                        FaultKind::ReplyCount,
                        format!("it gave {} replies to {} inputs", replies.len(), inputs.len()),
                    ));
                }
                finish_turn(context, replies.into_iter().map(convert::reply).collect(), started)
            },
        )
    }

    fn snapshot(&mut self, context: &TurnContext) -> Result<Bytes, GuestError> {
        self.run(
            Phase::Snapshot,
            context,
            |exports, store| exports.agent.godwit_agent_guest().call_snapshot(store),
            |context, bytes| {
                let max = context.limits.snapshot_bytes_max;
                if bytes.len() as u64 > max {
                    let message = format!("its snapshot has {} bytes, and may have {max}", bytes.len());
                    return Err(fault(FaultKind::Snapshot, message));
                }
                Ok(Bytes::from(bytes))
            },
        )
    }

    fn restore(&mut self, context: &TurnContext, state: &[u8], from_version: &str) -> Result<(), GuestError> {
        self.run(
            Phase::Restore,
            context,
            |exports, store| exports.agent.godwit_agent_guest().call_restore(store, state, from_version),
            |_, ()| Ok(()),
        )
    }

    fn query(&mut self, context: &TurnContext, payload: &[u8]) -> Result<Reply, GuestError> {
        let started = boot_now();
        self.run(
            Phase::Query,
            context,
            |exports, store| match &exports.query {
                Some(query) => query.call_query(store, payload),
                None => Err(Stop::NoQuery.into()),
            },
            |context, reply| {
                let mut turn = finish_turn(context, vec![convert::reply(reply)], started)?;
                turn.replies.pop().ok_or_else(|| fault(FaultKind::ReplyCount, "it gave no reply"))
            },
        )
    }
}

/// What a turn did, once it has returned.
fn finish_turn(
    context: &mut GuestContext,
    replies: Vec<Reply>,
    started: Duration,
) -> Result<TurnEffects, GuestError> {
    if let Some(message) = context.call.tape.left_over() {
        return Err(GuestError::Diverged { message });
    }
    let effects = std::mem::take(&mut context.effects);
    let elapsed = boot_now().saturating_sub(started);
    let finished = effects.finish(replies, elapsed);
    let finished = finished.map_err(|problem| fault(FaultKind::Effects, problem))?;
    Ok(TurnEffects { answers: context.call.tape.take(), ..finished })
}

impl Life {
    /// The running guest, instantiated if it was not yet.
    fn into_running(self, turn: &TurnContext) -> Result<Box<Running>, GuestError> {
        match self {
            Self::Running(running) => Ok(running),
            Self::New(unborn) => unborn.instantiate(turn).map(Box::new),
            Self::Dead => Err(fault(FaultKind::Trap, "the guest is dead: an earlier call has failed")),
        }
    }
}

impl Unborn {
    fn instantiate(self, turn: &TurnContext) -> Result<Running, GuestError> {
        let context = GuestContext::new(self.request, turn);
        let mut store = wasmtime::Store::new(self.plugin.engine(), context);
        store.limiter(|context| &mut context.limiter);
        store.set_max_component_handles(HANDLES_MAX);
        store.call_hook(|mut store, hook| on_crossing(store.data_mut(), hook));
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().make_way();
            store.data().check_running()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let exports = enter(&mut store, |store| self.plugin.instantiate(store))?;
        Ok(Running { store, exports })
    }
}

impl Running {
    fn call<T, R>(
        &mut self,
        phase: Phase,
        turn: &TurnContext,
        call: impl FnOnce(&Exports, &mut wasmtime::Store<GuestContext>) -> Answer<T>,
        finish: impl FnOnce(&mut GuestContext, T) -> Result<R, GuestError>,
    ) -> Result<R, GuestError> {
        self.store.data_mut().begin_call(phase, turn);
        let answer = enter(&mut self.store, |store| call(&self.exports, store))?;
        match answer {
            Ok(value) => finish(self.store.data_mut(), value),
            Err(error) => Err(convert::agent_error(&error)),
        }
    }
}

/// Enters the guest: the fence is asked before and behind it, and the guest is held to its deadline and to the bytes
/// that it may move.
fn enter<T>(
    store: &mut wasmtime::Store<GuestContext>,
    work: impl FnOnce(&mut wasmtime::Store<GuestContext>) -> wasmtime::Result<T>,
) -> Result<T, GuestError> {
    let bytes_max = hostcall_bytes_max(store.data());
    store.set_hostcall_fuel(bytes_max);
    store.set_epoch_deadline(1);
    let result = match store.data().check_running() {
        Ok(()) => work(store),
        Err(stop) => Err(stop.into()),
    };
    store.data_mut().log.end_call();
    let context = store.data();
    match result {
        Ok(_) if !context.guard.is_held() => Err(GuestError::Fenced),
        Ok(value) => Ok(value),
        Err(error) => Err(guest_error(&error, context)),
    }
}

fn hostcall_bytes_max(context: &GuestContext) -> usize {
    match context.call.phase {
        Phase::Snapshot => usize::try_from(context.limits.snapshot_bytes_max).unwrap_or(HOSTCALL_BYTES_MAX),
        Phase::Start | Phase::Init | Phase::Handle | Phase::Restore | Phase::Query => HOSTCALL_BYTES_MAX,
    }
}

/// Called by wasmtime at each crossing between guest and host.
#[inline]
fn on_crossing(context: &mut GuestContext, crossing: CallHook) -> wasmtime::Result<()> {
    match crossing {
        CallHook::CallingHost => {
            context.call.is_in_host = true;
            context.check_fence()?;
        }
        CallHook::ReturningFromHost => context.call.is_in_host = false,
        // Entry and exit of the call as a whole are in `enter`; in between, the host enters the guest only to have
        // memory for what it hands over, which is no act.
        CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
