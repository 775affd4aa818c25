//! The port: each call is put on its way with what it is about, and `World` or the memory store does it there.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::edge::Edge;
use godwit_core::event::{Event, EventKind, NewEvent};
use godwit_core::id::{
    AgentId, ClaimId, Generation, HostId, Incarnation, InputId, MigrationId, OperationId, Revision, Seq,
    StoreId,
};
use godwit_core::identity::EntityKey;
use godwit_core::input::{AbandonReason, InputState, NewInput};
use godwit_core::lease::Lease;
use godwit_core::operation::{OperationEnd, StoredOperation};
use godwit_core::output::StoredOutput;
use godwit_core::receipt::{Receipt, ReceiptCheckpoint};
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::{
    AcceptError, Accepted, Adoption, AgentImage, AgentRow, Handoff, ImportRequest, KeptSnapshot,
    LifecycleCommit, MigrationRecord, NewAgent, OutputEnd, OutputKey, Owner, Page, PrepareRequest, Pruned,
    Receiver, Restored, Retention, RowFrame, RowSink, RuntimeStore, Session, SessionRequest, SessionRow,
    Standing, StoreError, StoreMark, StoredInput, Unit, UnitOutcome,
};
use godwit_core::timer::{DueTimer, StoredTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Answer, FaultyStore, Way};
use crate::world::{World, now};

#[async_trait]
impl RuntimeStore for FaultyStore {
    fn id(&self) -> StoreId {
        self.world.memory.id()
    }

    async fn commit_turns(&self, unit: Unit) -> UnitOutcome {
        self.world.leak(&unit);
        self.call("commit_turns", Way::Write, move |world, _| world.commit_turns(unit)).await
    }

    /// Takes a unit on the spot only when nothing of this process is on its way.
    fn commit_turns_here(&self, unit: Unit) -> Result<UnitOutcome, Unit> {
        let at = Instant::now();
        let is_quiet = {
            let last = self.last();
            last.get(&Way::Write).is_none_or(|last| *last < at)
        };
        if !is_quiet || !self.world.weather().is_idle(self.host, at) {
            return Err(unit);
        }
        let outcome = self.world.commit_turns(unit);
        self.world.note(format_args!("h{} commit_turns_here: {}", self.host, outcome.show()));
        Ok(outcome)
    }

    async fn export_whole(&self, _: &AgentId, _: RowSink) -> Result<Option<AgentRow>, StoreError> {
        Err(StoreError::Unsupported { what: "archives in a simulation" })
    }

    async fn restore(&self, above: StoreMark) -> Result<Restored, StoreError> {
        self.call("restore", Way::Write, move |world, _| now(world.memory.restore(above))).await
    }

    async fn mark(&self) -> Result<StoreMark, StoreError> {
        self.call("mark", Way::Read, move |world, _| now(world.memory.mark())).await
    }

    async fn join(&self, request: SessionRequest) -> Result<Session, StoreError> {
        self.call("join", Way::Keeper, move |world, _| world.join(request)).await
    }

    async fn heartbeat(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.call("heartbeat", Way::Keeper, move |world, _| world.heartbeat(incarnation)).await
    }

    async fn bury_expired(&self) -> Result<Vec<Incarnation>, StoreError> {
        self.call("bury_expired", Way::Write, move |world, _| world.bury_expired()).await
    }

    async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.call("leave", Way::Write, move |world, _| world.leave(incarnation)).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        self.call("sessions", Way::Read, move |world, _| now(world.memory.sessions())).await
    }

    async fn acquire(
        &self,
        incarnation: Incarnation,
        agents: &[AgentId],
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        let agents = agents.to_vec();
        self.call("acquire", Way::Write, move |world, _| world.acquire(incarnation, &agents)).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        let owner = owner.clone();
        self.call("release", Way::Write, move |world, _| now(world.memory.release(&owner))).await
    }

    async fn heard_of(&self, origin: &AgentId) -> Result<Vec<Receiver>, StoreError> {
        let origin = origin.clone();
        self.call("heard_of", Way::Read, move |world, _| now(world.memory.heard_of(&origin))).await
    }

    async fn create(&self, agent: NewAgent) -> Result<bool, StoreError> {
        self.call("create", Way::Write, move |world, _| now(world.memory.create(agent))).await
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRow>, StoreError> {
        let agent = agent.clone();
        self.call("agent", Way::Read, move |world, _| now(world.memory.agent(&agent))).await
    }

    async fn agents(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        let after = after.cloned();
        self.call("agents", Way::Read, move |world, _| now(world.memory.agents(after.as_ref(), limit))).await
    }

    async fn runnable(&self, incarnation: Incarnation, limit: usize) -> Result<Vec<AgentId>, StoreError> {
        self.call("runnable", Way::Read, move |world, _| now(world.memory.runnable(incarnation, limit))).await
    }

    async fn image(&self, agent: &AgentId, at: Option<Revision>) -> Result<Option<AgentImage>, StoreError> {
        let agent = agent.clone();
        self.call("image", Way::Read, move |world, _| world.image(&agent, at)).await
    }

    async fn kept_snapshots(&self, agent: &AgentId) -> Result<Vec<KeptSnapshot>, StoreError> {
        let agent = agent.clone();
        self.call("kept_snapshots", Way::Read, move |world, _| now(world.memory.kept_snapshots(&agent))).await
    }

    async fn set_labels(&self, agent: &AgentId, labels: BTreeMap<String, String>) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("set_labels", Way::Write, move |world, _| now(world.memory.set_labels(&agent, labels)))
            .await
    }

    async fn recreate(&self, agent: NewAgent) -> Result<bool, StoreError> {
        self.call("recreate", Way::Write, move |world, _| now(world.memory.recreate(agent))).await
    }

    async fn commit_lifecycle(&self, owner: &Owner, commit: LifecycleCommit) -> Result<Standing, StoreError> {
        let owner = owner.clone();
        self.call("commit_lifecycle", Way::Write, move |world, _| world.commit_lifecycle(&owner, commit))
            .await
    }

    async fn accept(&self, input: NewInput, by: Incarnation) -> Result<Accepted, AcceptError> {
        self.call("accept", Way::Write, move |world, is_heard| world.accept(input, by, is_heard)).await
    }

    async fn input(&self, agent: &AgentId, input: InputId) -> Result<Option<StoredInput>, StoreError> {
        let agent = agent.clone();
        self.call("input", Way::Read, move |world, _| now(world.memory.input(&agent, input))).await
    }

    async fn input_by_key(&self, agent: &AgentId, key: &str) -> Result<Option<StoredInput>, StoreError> {
        let agent = agent.clone();
        let key = key.to_owned();
        self.call("input_by_key", Way::Read, move |world, _| now(world.memory.input_by_key(&agent, &key)))
            .await
    }

    async fn open_inputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredInput>, StoreError> {
        let agent = agent.clone();
        self.call("open_inputs", Way::Read, move |world, _| world.open_inputs(&agent, page)).await
    }

    async fn inputs(
        &self,
        agent: &AgentId,
        state: Option<InputState>,
        page: Page,
    ) -> Result<Vec<StoredInput>, StoreError> {
        let agent = agent.clone();
        self.call("inputs", Way::Read, move |world, _| now(world.memory.inputs(&agent, state, page))).await
    }

    async fn redrive(&self, agent: &AgentId, input: InputId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("redrive", Way::Write, move |world, _| now(world.memory.redrive(&agent, input))).await
    }

    async fn abandon(
        &self,
        agent: &AgentId,
        input: InputId,
        from: InputState,
        reason: AbandonReason,
    ) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("abandon", Way::Write, move |world, _| {
            now(world.memory.abandon(&agent, input, from, reason))
        })
        .await
    }

    async fn prune(&self, agent: &AgentId, retention: &Retention, after: Seq) -> Result<Pruned, StoreError> {
        let agent = agent.clone();
        let retention = retention.clone();
        self.call("prune", Way::Write, move |world, _| now(world.memory.prune(&agent, &retention, after)))
            .await
    }

    async fn kept_from(&self, agent: &AgentId) -> Result<Revision, StoreError> {
        let agent = agent.clone();
        self.call("kept_from", Way::Read, move |world, _| now(world.memory.kept_from(&agent))).await
    }

    async fn checkpoint_receipts(&self, checkpoint: ReceiptCheckpoint) -> Result<u64, StoreError> {
        self.call("checkpoint_receipts", Way::Write, move |world, _| {
            now(world.memory.checkpoint_receipts(checkpoint))
        })
        .await
    }

    async fn receipt_checkpoints(&self, agent: &AgentId) -> Result<Vec<ReceiptCheckpoint>, StoreError> {
        let agent = agent.clone();
        self.call("receipt_checkpoints", Way::Read, move |world, _| {
            now(world.memory.receipt_checkpoints(&agent))
        })
        .await
    }

    async fn receipts(
        &self,
        agent: &AgentId,
        generation: Generation,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        let agent = agent.clone();
        self.call("receipts", Way::Read, move |world, _| {
            now(world.memory.receipts(&agent, generation, after, limit))
        })
        .await
    }

    async fn state_value(&self, agent: &AgentId, key: &str) -> Result<Option<Bytes>, StoreError> {
        let agent = agent.clone();
        let key = key.to_owned();
        self.call("state_value", Way::Read, move |world, _| now(world.memory.state_value(&agent, &key))).await
    }

    async fn state_keys(
        &self,
        agent: &AgentId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let agent = agent.clone();
        let prefix = prefix.to_owned();
        let after = after.map(str::to_owned);
        self.call("state_keys", Way::Read, move |world, _| {
            now(world.memory.state_keys(&agent, &prefix, after.as_deref(), limit))
        })
        .await
    }

    async fn pending_outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        let agent = agent.clone();
        self.call("pending_outputs", Way::Read, move |world, _| {
            now(world.memory.pending_outputs(&agent, page))
        })
        .await
    }

    async fn outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        let agent = agent.clone();
        self.call("outputs", Way::Read, move |world, _| now(world.memory.outputs(&agent, page))).await
    }

    async fn end_outputs(&self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Result<(), StoreError> {
        let owner = owner.clone();
        let ends = ends.to_vec();
        self.call("end_outputs", Way::Write, move |world, _| world.end_outputs(&owner, &ends)).await
    }

    async fn timers(&self, agent: &AgentId) -> Result<Vec<StoredTimer>, StoreError> {
        let agent = agent.clone();
        self.call("timers", Way::Read, move |world, _| now(world.memory.timers(&agent))).await
    }

    async fn due_timers(
        &self,
        incarnation: Incarnation,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        self.call("due_timers", Way::Read, move |world, _| {
            now(world.memory.due_timers(incarnation, now_ms, limit))
        })
        .await
    }

    async fn next_timer_at(&self, incarnation: Incarnation) -> Result<Option<u64>, StoreError> {
        self.call("next_timer_at", Way::Read, move |world, _| now(world.memory.next_timer_at(incarnation)))
            .await
    }

    async fn fire_timer(
        &self,
        owner: &Owner,
        name: &str,
        revision: Revision,
    ) -> Result<Option<Seq>, AcceptError> {
        let owner = owner.clone();
        let name = name.to_owned();
        self.call("fire_timer", Way::Write, move |world, _| world.fire_timer(&owner, &name, revision)).await
    }

    async fn operations(&self, agent: &AgentId) -> Result<Vec<StoredOperation>, StoreError> {
        let agent = agent.clone();
        self.call("operations", Way::Read, move |world, _| now(world.memory.operations(&agent))).await
    }

    async fn operating(
        &self,
        incarnation: Option<Incarnation>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentId>, StoreError> {
        let after = after.cloned();
        self.call("operating", Way::Read, move |world, _| {
            now(world.memory.operating(incarnation, after.as_ref(), limit))
        })
        .await
    }

    async fn begin_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
    ) -> Result<Option<StoredOperation>, StoreError> {
        let owner = owner.clone();
        self.call("begin_operation", Way::Write, move |world, _| {
            now(world.memory.begin_operation(&owner, operation))
        })
        .await
    }

    async fn end_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
        end: OperationEnd,
    ) -> Result<Option<Seq>, AcceptError> {
        let owner = owner.clone();
        self.call("end_operation", Way::Write, move |world, _| {
            now(world.memory.end_operation(&owner, operation, end))
        })
        .await
    }

    async fn put_plugin(&self, plugin: PluginInfo, component: Bytes) -> Result<bool, StoreError> {
        self.call("put_plugin", Way::Write, move |world, _| now(world.memory.put_plugin(plugin, component)))
            .await
    }

    async fn plugins(&self) -> Result<Vec<PluginInfo>, StoreError> {
        self.call("plugins", Way::Read, move |world, _| now(world.memory.plugins())).await
    }

    async fn component(&self, plugin: Digest) -> Result<Option<Bytes>, StoreError> {
        self.call("component", Way::Read, move |world, _| now(world.memory.component(plugin))).await
    }

    async fn remove_plugin(&self, plugin: Digest) -> Result<bool, StoreError> {
        self.call("remove_plugin", Way::Write, move |world, _| now(world.memory.remove_plugin(plugin))).await
    }

    async fn append_events(&self, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.call("append_events", Way::Write, move |world, _| now(world.memory.append_events(events))).await
    }

    async fn agent_events(
        &self,
        agent: &AgentId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let agent = agent.clone();
        let run = move |world: &Arc<World>, _| now(world.memory.agent_events(&agent, after, limit));
        self.call("agent_events", Way::Read, run).await
    }

    fn event_hints(&self) -> watch::Receiver<u64> {
        self.world.memory.event_hints()
    }

    async fn events(
        &self,
        after: u64,
        agent: Option<&AgentId>,
        kind: Option<EventKind>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let agent = agent.cloned();
        self.call("events", Way::Read, move |world, _| {
            now(world.memory.events(after, agent.as_ref(), kind, limit))
        })
        .await
    }

    async fn event_range(&self) -> Result<(u64, u64), StoreError> {
        self.call("event_range", Way::Read, move |world, _| now(world.memory.event_range())).await
    }

    async fn transfer(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Lease, StoreError> {
        let owner = owner.clone();
        self.call("transfer", Way::Write, move |world, _| world.transfer(&owner, base, migration, target))
            .await
    }

    async fn lease(&self, agent: &AgentId) -> Result<Option<Lease>, StoreError> {
        let agent = agent.clone();
        self.call("lease", Way::Read, move |world, _| now(world.memory.lease(&agent))).await
    }

    async fn export_rows(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<RowFrame>, StoreError> {
        let agent = agent.clone();
        self.call("export_rows", Way::Read, move |world, _| {
            now(world.memory.export_rows(&agent, after, bytes_max))
        })
        .await
    }

    async fn begin_handoff(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Handoff, StoreError> {
        let owner = owner.clone();
        self.call("begin_handoff", Way::Write, move |world, _| {
            world.begin_handoff(&owner, base, migration, target)
        })
        .await
    }

    async fn receive_rows(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("receive_rows", Way::Write, move |world, _| world.receive_rows(migration, &agent, frames))
            .await
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<(), StoreError> {
        self.call("prepare", Way::Write, move |world, _| world.prepare(request)).await
    }

    async fn finish_handoff(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("finish_handoff", Way::Write, move |world, _| world.finish_handoff(&agent, migration)).await
    }

    async fn adopt(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        how: Adoption,
    ) -> Result<Lease, StoreError> {
        let agent = agent.clone();
        self.call("adopt", Way::Write, move |world, _| world.adopt(&agent, migration, incarnation, how)).await
    }

    async fn abort_handoff(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError> {
        let agent = agent.clone();
        self.call("abort_handoff", Way::Write, move |world, _| {
            world.abort_handoff(&agent, migration, incarnation)
        })
        .await
    }

    async fn import(&self, request: ImportRequest) -> Result<AgentRow, StoreError> {
        self.call("import", Way::Write, move |world, _| now(world.memory.import(request))).await
    }

    async fn discard_copy(&self, migration: MigrationId) -> Result<(), StoreError> {
        self.call("discard_copy", Way::Write, move |world, _| now(world.memory.discard_copy(migration))).await
    }

    async fn forget_moved(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("forget_moved", Way::Write, move |world, _| {
            now(world.memory.forget_moved(&agent, migration))
        })
        .await
    }

    async fn put_migration(&self, record: MigrationRecord) -> Result<(), StoreError> {
        self.call("put_migration", Way::Write, move |world, _| now(world.memory.put_migration(record))).await
    }

    async fn migration(&self, migration: MigrationId) -> Result<Option<MigrationRecord>, StoreError> {
        self.call("migration", Way::Read, move |world, _| now(world.memory.migration(migration))).await
    }

    async fn migrations(&self, limit: usize) -> Result<Vec<MigrationRecord>, StoreError> {
        self.call("migrations", Way::Read, move |world, _| now(world.memory.migrations(limit))).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.call("probe", Way::Read, move |world, _| now(world.memory.probe())).await
    }

    async fn claim(&self, agent: &AgentId, host: HostId, claim: ClaimId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.call("claim", Way::Write, move |world, _| now(world.memory.claim(&agent, host, claim))).await
    }

    async fn yield_claims(&self, agent: &AgentId, to: HostId) -> Result<Option<HostId>, StoreError> {
        let agent = agent.clone();
        self.call("yield_claims", Way::Write, move |world, _| now(world.memory.yield_claims(&agent, to)))
            .await
    }

    async fn spec(&self, agent: &AgentId) -> Result<Option<Spec>, StoreError> {
        let agent = agent.clone();
        self.call("spec", Way::Read, move |world, _| now(world.memory.spec(&agent))).await
    }

    async fn entity_key(&self, agent: &AgentId) -> Result<Option<EntityKey>, StoreError> {
        let agent = agent.clone();
        self.call("entity_key", Way::Read, move |world, _| now(world.memory.entity_key(&agent))).await
    }

    async fn put_edge(&self, agent: &AgentId, edge: Edge) -> Result<bool, StoreError> {
        let agent = agent.clone();
        self.call("put_edge", Way::Write, move |world, _| now(world.memory.put_edge(&agent, edge))).await
    }

    async fn remove_edge(&self, agent: &AgentId, peer: &AgentId) -> Result<bool, StoreError> {
        let (agent, peer) = (agent.clone(), peer.clone());
        self.call("remove_edge", Way::Write, move |world, _| now(world.memory.remove_edge(&agent, &peer)))
            .await
    }

    async fn edges(
        &self,
        agent: Option<&AgentId>,
        after: Option<&(AgentId, AgentId)>,
        limit: usize,
    ) -> Result<Vec<(AgentId, Edge)>, StoreError> {
        let (agent, after) = (agent.cloned(), after.cloned());
        let run = move |world: &Arc<World>, _| now(world.memory.edges(agent.as_ref(), after.as_ref(), limit));
        self.call("edges", Way::Read, run).await
    }
}
