//! Core's scripted guests, watched: the judge learns when one has run a turn that its guard allowed. `hang` is over its
//! deadline at once, because nothing may wait for real time here.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::guest::{
    Answers, Guest, GuestError, GuestLoader, GuestRequest, LoadError, LoadedPlugin, TurnContext, TurnEffects,
};
use godwit_core::id::AgentId;
use godwit_core::input::{Fault, FaultKind, Input, Reply};
use godwit_core::testing::ScriptedLoader;

use crate::bug::Bug;
use crate::world::World;

/// Starts watched guests.
pub struct SimLoader {
    world: Arc<World>,
    inner: ScriptedLoader,
}

impl SimLoader {
    /// The loader of a process.
    pub fn new(world: Arc<World>) -> Self {
        Self { world, inner: ScriptedLoader::default() }
    }
}

impl GuestLoader for SimLoader {
    fn load(&self, component: &[u8]) -> Result<LoadedPlugin, LoadError> {
        self.inner.load(component)
    }

    fn is_loaded(&self, plugin: Digest) -> bool {
        self.inner.is_loaded(plugin)
    }

    fn answers_queries(&self, plugin: Digest) -> bool {
        self.inner.answers_queries(plugin)
    }

    fn start(&self, request: GuestRequest) -> Result<Box<dyn Guest>, GuestError> {
        let (world, agent) = (self.world.clone(), request.agent.clone());
        Ok(Box::new(SimGuest { world, agent, inner: self.inner.start(request)? }))
    }
}

struct SimGuest {
    world: Arc<World>,
    agent: AgentId,
    inner: Box<dyn Guest>,
}

impl SimGuest {
    /// Whoever replays acts for nobody.
    fn watch(&self, context: &TurnContext) {
        if !matches!(context.answers, Answers::Replay(_)) {
            self.world.judge().guest_ran(&self.agent, context.token);
        }
    }
}

impl Guest for SimGuest {
    fn init(&mut self, context: &TurnContext) -> Result<TurnEffects, GuestError> {
        let effects = self.inner.init(context)?;
        self.watch(context);
        Ok(effects)
    }

    fn handle(&mut self, context: &TurnContext, inputs: &[Input]) -> Result<TurnEffects, GuestError> {
        if inputs.iter().any(|input| input.payload.as_ref() == b"hang") {
            return Err(GuestError::Fault(Fault { kind: FaultKind::Deadline, message: "it hung".into() }));
        }
        let effects = self.inner.handle(context, inputs)?;
        self.watch(context);
        if matches!(context.answers, Answers::Replay(_)) {
            self.world.act_again(&self.agent, &effects.outputs);
        }
        Ok(effects)
    }

    fn snapshot(&mut self, context: &TurnContext) -> Result<Bytes, GuestError> {
        self.inner.snapshot(context)
    }

    fn restore(&mut self, context: &TurnContext, state: &[u8], from: &str) -> Result<(), GuestError> {
        if self.world.strikes(Bug::StateForgotten) {
            return Ok(());
        }
        self.inner.restore(context, state, from)
    }

    fn query(&mut self, context: &TurnContext, payload: &[u8]) -> Result<Reply, GuestError> {
        self.inner.query(context, payload)
    }
}
