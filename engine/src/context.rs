//! What belongs to one guest on the host's side: the data of its `wasmtime::Store`, which all imports work on.

use std::sync::Arc;
use std::time::Duration;

use godwit_core::agent::pool::is_replaceable;
use godwit_core::guest::{Answers, GuestRequest, Interrupt, StateRead, TurnContext};
use godwit_core::id::AgentId;
use godwit_core::identity::EntityKey;
use godwit_core::lease::LeaseGuard;
use godwit_core::limits::GuestLimits;
use godwit_core::spec::Spec;
use godwit_core::time::boot_now;

use crate::effects::Effects;
use crate::fault::Stop;
use crate::limits::{Limiter, effective};
use crate::log::GuestLog;
use crate::priority::Priority;
use crate::random::Random;
use crate::tape::Tape;

/// The host's side of one guest.
pub(crate) struct GuestContext {
    pub(crate) agent: AgentId,
    pub(crate) spec: Arc<Spec>,
    pub(crate) grants: Arc<[String]>,
    pub(crate) limits: GuestLimits,
    pub(crate) guard: LeaseGuard,
    pub(crate) interrupt: Interrupt,
    pub(crate) state: Arc<dyn StateRead>,
    pub(crate) call: Call,
    pub(crate) effects: Effects,
    pub(crate) log: GuestLog,
    pub(crate) limiter: Limiter,
    /// Once it was asked for.
    pub(crate) entity_key: Option<EntityKey>,
}

/// The running call, or the last one.
pub(crate) struct Call {
    pub(crate) phase: Phase,
    pub(crate) turn: TurnContext,
    /// Boot time at which it must have ended.
    pub(crate) deadline: Duration,
    pub(crate) random: Random,
    /// Whether the guest is in an import.
    pub(crate) is_in_host: bool,
    /// Answers of imports, kept or given once more.
    pub(crate) tape: Tape,
    priority: Priority,
}

/// What the guest is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Instantiation.
    Start,
    Init,
    Handle,
    Snapshot,
    Restore,
    Query,
}

impl Phase {
    /// Whether the call may have effects.
    pub(crate) fn is_turn(self) -> bool {
        match self {
            Self::Init | Self::Handle => true,
            Self::Start | Self::Snapshot | Self::Restore | Self::Query => false,
        }
    }

    /// Whether the call may read what is committed.
    pub(crate) fn may_read(self) -> bool {
        self.is_turn() || self == Self::Query
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Init => "init",
            Self::Handle => "handle",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Query => "query",
        }
    }
}

impl GuestContext {
    /// The host's side of a guest that is about to be instantiated.
    pub(crate) fn new(request: GuestRequest, turn: &TurnContext) -> Self {
        let GuestRequest { agent, spec, grants, guard, state, interrupt } = request;
        let limits = effective(&spec.limits);
        Self {
            call: Call::new(Phase::Start, &agent, turn, &limits),
            effects: Effects::default(),
            log: GuestLog::new(agent.clone()),
            limiter: Limiter::new(limits.memory_bytes_max),
            entity_key: None,
            agent,
            spec,
            grants,
            limits,
            guard,
            interrupt,
            state,
        }
    }

    /// Begins a call: a clean slate, and a new deadline.
    pub(crate) fn begin_call(&mut self, phase: Phase, turn: &TurnContext) {
        self.call = Call::new(phase, &self.agent, turn, &self.limits);
        self.effects = Effects::default();
        self.log.begin_call();
        self.limiter.begin_call();
    }

    /// The fence: asked before the guest is entered, before each import does anything, and when the call returns.
    #[inline]
    pub(crate) fn check_fence(&self) -> Result<(), Stop> {
        if self.guard.is_held() { Ok(()) } else { Err(Stop::Fenced) }
    }

    /// Lets others go first when the call takes long: asked at each tick. A guest that is being rebuilt may always go on.
    pub(crate) fn make_way(&mut self) {
        let may_idle = match self.call.phase {
            Phase::Init | Phase::Handle | Phase::Snapshot | Phase::Query => true,
            Phase::Start | Phase::Restore => false,
        };
        // A thread that others need afterwards keeps its priority: only calls that are quick as a rule run there.
        if is_replaceable() {
            self.call.priority.lower(may_idle);
        }
    }

    /// Whether the call may go on: asked at each tick.
    pub(crate) fn check_running(&self) -> Result<(), Stop> {
        self.check_fence()?;
        if self.interrupt.is_set() {
            return Err(Stop::Interrupted);
        }
        if boot_now() >= self.call.deadline {
            return Err(Stop::Deadline { limit_ms: self.limits.turn_ms_max });
        }
        Ok(())
    }
}

impl Call {
    fn new(phase: Phase, agent: &AgentId, turn: &TurnContext, limits: &GuestLimits) -> Self {
        let random =
            if phase.is_turn() { Random::of_turn(turn) } else { Random::outside(agent, turn, phase.name()) };
        Self {
            phase,
            turn: turn.clone(),
            deadline: boot_now() + Duration::from_millis(limits.turn_ms_max),
            random,
            is_in_host: false,
            tape: Tape::new(if phase.is_turn() { &turn.answers } else { &Answers::Forget }),
            priority: Priority::default(),
        }
    }
}
