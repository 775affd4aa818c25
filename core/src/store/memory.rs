//! `MemoryStore`: the reference implementation. One lock over plain maps; each method holds it once, so each is one
//! transaction. It keeps no rule by cleverness, and nothing beyond the process.
//!
//! `rows.rs` are the rows of one agent with their change log, `tables.rs` the whole store with sessions, leases, agents,
//! plugins, events and migration records, `commit.rs` accepting and committing, `lifecycle.rs` moving along the table of
//! lifecycles, `timers.rs` firing, `operations.rs` the registry of operations, `handoff.rs` moving homes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};

use crate::digest::Digest;
use crate::edge::Edge;
use crate::event::{Event, EventKind, NewEvent};
use crate::id::{
    AgentId, ClaimId, Generation, HostId, Incarnation, InputId, MigrationId, OperationId, Revision, Seq,
    StoreId,
};
use crate::identity::EntityKey;
use crate::input::{AbandonReason, InputState, NewInput};
use crate::lease::Lease;
use crate::lifecycle::LifecycleCommit;
use crate::limits::{PAGE_MAX, Quotas};
use crate::operation::{OperationEnd, StoredOperation};
use crate::output::{OutputState, StoredOutput};
use crate::receipt::{Receipt, ReceiptCheckpoint};
use crate::spec::{PluginInfo, Spec};
use crate::store::agent::{AgentImage, AgentRow, KeptSnapshot, NewAgent, StoredInput};
use crate::store::commit::{AcceptError, Accepted, Owner, Standing, Unit, UnitFailure, UnitOutcome};
use crate::store::error::StoreError;
use crate::store::handoff::{Handoff, ImportRequest, MigrationRecord, PrepareRequest, RowSink};
use crate::store::mark::{Restored, StoreMark};
use crate::store::retention::{Pruned, Retention};
use crate::store::rows::{Receiver, RowFrame};
use crate::store::session::{Session, SessionRequest, SessionRow, Sharing};
use crate::store::{Adoption, OutputEnd, OutputKey, Page, RuntimeStore};
use crate::time::Clock;
use crate::timer::{DueTimer, StoredTimer};

mod channels;
mod claims;
mod commit;
mod documents;
mod doubt;
mod edges;
mod events;
mod groups;
mod handoff;
mod import;
mod lifecycle;
mod operations;
mod outage;
mod restore;
mod retention;
mod rows;
mod specs;
mod standby;
mod tables;
mod timers;

pub use doubt::{CommitPoint, Doubt};
pub use outage::Outage;
use rows::AgentRows;
use tables::Tables;

/// A store that lives as long as its last clone.
#[derive(Clone)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    clock: Arc<dyn Clock>,
    /// Writes to come that will be answered with `Unknown`.
    doubts: Arc<Mutex<Vec<(CommitPoint, Doubt)>>>,
    /// Units read it; who holds them back writes it.
    gate: Arc<RwLock<()>>,
    /// How many outages there are.
    outages: Arc<AtomicUsize>,
}

/// Units wait while this lives.
#[must_use = "units are let through when it is dropped"]
pub struct HeldCommits(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockWriteGuard<()>);

impl MemoryStore {
    /// An empty store for one host at a time. Its clock dates what the store writes by itself.
    pub fn exclusive(clock: Arc<dyn Clock>) -> Self {
        Self::new(Sharing::Exclusive, clock, Quotas::default())
    }

    /// An empty store for several hosts. Its clock also judges the expiry of their sessions.
    pub fn shared(clock: Arc<dyn Clock>) -> Self {
        Self::new(Sharing::Shared, clock, Quotas::default())
    }

    /// An empty store in which agents may fill so much.
    pub fn new(sharing: Sharing, clock: Arc<dyn Clock>, quotas: Quotas) -> Self {
        let id = StoreId::generate(clock.wall_ms(), clock.random());
        let tables = Arc::new(Mutex::new(Tables::new(id, sharing, quotas)));
        Self { tables, clock, doubts: Arc::default(), gate: Arc::default(), outages: Arc::default() }
    }

    /// Answers the next write of this kind with `Unknown`, as a store does that lost its connection while it waited.
    pub fn doubt(&self, point: CommitPoint, doubt: Doubt) {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).push((point, doubt));
    }

    /// Holds back units, and rows of copies, that come, as a slow disk does; then they commit in the order in which they came.
    pub async fn hold_commits(&self) -> HeldCommits {
        HeldCommits(self.gate.clone().write_owned().await)
    }

    fn at<T>(
        &self,
        point: CommitPoint,
        write: impl FnOnce(&mut Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.doubt_of(point) {
            None => write(&mut self.tables()),
            Some(Doubt::NotWritten) => Err(unknown()),
            Some(Doubt::Written) => write(&mut self.tables()).and_then(|_| Err(unknown())),
        }
    }

    /// What is to become of a write, when its answer is to get lost.
    fn doubt_of(&self, point: CommitPoint) -> Option<Doubt> {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        let index = doubts.iter().position(|(doubted, _)| *doubted == point)?;
        Some(doubts.remove(index).1)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A method that panicked has checked before it wrote; what is there is whole.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_entity_key(&self) -> EntityKey {
        EntityKey::from_secret(&self.clock.random())
    }

    /// Reads an agent's rows; the empty answer when there is no such agent.
    fn read<T: Default>(&self, agent: &AgentId, read: impl FnOnce(&AgentRows) -> T) -> T {
        self.tables().agents.get(agent).map_or_else(T::default, read)
    }
}

fn unknown() -> StoreError {
    StoreError::Unknown { reason: "the answer was lost".into() }
}

/// Outputs after a position that still wait.
fn pending(rows: &AgentRows, after: u64) -> impl Iterator<Item = &StoredOutput> {
    let outputs = rows.outputs_after(after);
    outputs.filter(|output| output.state == OutputState::Pending)
}

#[async_trait]
impl RuntimeStore for MemoryStore {
    fn id(&self) -> StoreId {
        self.tables().id
    }

    async fn restore(&self, above: StoreMark) -> Result<Restored, StoreError> {
        let now = (self.clock.boot(), self.clock.wall_ms());
        self.tables().restore(above, now)
    }

    async fn mark(&self) -> Result<StoreMark, StoreError> {
        Ok(self.tables().mark())
    }

    async fn join(&self, request: SessionRequest) -> Result<Session, StoreError> {
        Ok(self.tables().join(request, self.clock.boot()))
    }

    async fn heartbeat(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.tables().heartbeat(incarnation, self.clock.boot())
    }

    async fn bury_expired(&self) -> Result<Vec<Incarnation>, StoreError> {
        Ok(self.tables().bury_expired(self.clock.boot(), self.clock.wall_ms()))
    }

    async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.tables().leave(incarnation, self.clock.wall_ms());
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        Ok(self.tables().session_rows(self.clock.boot()))
    }

    async fn acquire(
        &self,
        incarnation: Incarnation,
        agents: &[AgentId],
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        let mut tables = self.tables();
        tables.check_session(incarnation)?;
        let now_ms = self.clock.wall_ms();
        let leases = agents.iter().map(|agent| tables.acquire(incarnation, agent, now_ms));
        Ok(leases.collect())
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        self.tables().release(owner, self.clock.wall_ms())
    }

    async fn claim(&self, agent: &AgentId, host: HostId, claim: ClaimId) -> Result<(), StoreError> {
        self.tables().claims.claim(agent, host, claim, self.clock.wall_ms());
        Ok(())
    }

    async fn yield_claims(&self, agent: &AgentId, to: HostId) -> Result<Option<HostId>, StoreError> {
        Ok(self.tables().claims.yield_to(agent, to, self.clock.wall_ms()))
    }

    async fn create(&self, agent: NewAgent) -> Result<bool, StoreError> {
        let key = self.new_entity_key();
        self.tables().create(agent, key, self.clock.wall_ms())
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRow>, StoreError> {
        self.check_up()?;
        let tables = self.tables();
        let rows = tables.agents.get(agent);
        Ok(rows.map(|rows| tables.agent_row(rows)))
    }

    async fn agents(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        let tables = self.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = tables.agents.range((from, Bound::Unbounded));
        let page = rows.take(limit.min(PAGE_MAX));
        Ok(page.map(|(_, rows)| tables.agent_row(rows)).collect())
    }

    async fn runnable(&self, incarnation: Incarnation, limit: usize) -> Result<Vec<AgentId>, StoreError> {
        Ok(self.tables().runnable(incarnation, limit.min(PAGE_MAX)))
    }

    async fn image(&self, agent: &AgentId, at: Option<Revision>) -> Result<Option<AgentImage>, StoreError> {
        Ok(self.tables().image(agent, at))
    }

    async fn spec(&self, agent: &AgentId) -> Result<Option<Spec>, StoreError> {
        Ok(self.read(agent, |rows| rows.spec().cloned()))
    }

    async fn entity_key(&self, agent: &AgentId) -> Result<Option<EntityKey>, StoreError> {
        self.check_up()?;
        Ok(self.tables().entity_key(agent))
    }

    async fn kept_snapshots(&self, agent: &AgentId) -> Result<Vec<KeptSnapshot>, StoreError> {
        Ok(self.read(agent, |rows| rows.snapshots().into_iter().map(KeptSnapshot::of).collect()))
    }

    async fn set_labels(&self, agent: &AgentId, labels: BTreeMap<String, String>) -> Result<(), StoreError> {
        self.tables().set_labels(agent, labels, self.clock.wall_ms())
    }

    async fn put_edge(&self, agent: &AgentId, edge: Edge) -> Result<bool, StoreError> {
        self.tables().put_edge(agent, edge, self.clock.wall_ms())
    }

    async fn remove_edge(&self, agent: &AgentId, peer: &AgentId) -> Result<bool, StoreError> {
        self.tables().remove_edge(agent, peer, self.clock.wall_ms())
    }

    async fn edges(
        &self,
        agent: Option<&AgentId>,
        after: Option<&(AgentId, AgentId)>,
        limit: usize,
    ) -> Result<Vec<(AgentId, Edge)>, StoreError> {
        Ok(self.tables().edges(agent, after, limit.min(PAGE_MAX)))
    }

    async fn recreate(&self, agent: NewAgent) -> Result<bool, StoreError> {
        let key = self.new_entity_key();
        self.tables().recreate(agent, key)
    }

    async fn commit_lifecycle(&self, owner: &Owner, commit: LifecycleCommit) -> Result<Standing, StoreError> {
        self.tables().commit_lifecycle(owner, commit, self.clock.wall_ms())
    }

    async fn accept(&self, input: NewInput, by: Incarnation) -> Result<Accepted, AcceptError> {
        self.tables().accept(input, by, &mut Default::default(), self.clock.wall_ms())
    }

    async fn input(&self, agent: &AgentId, input: InputId) -> Result<Option<StoredInput>, StoreError> {
        Ok(self.read(agent, |rows| rows.input_by_id(input).cloned()))
    }

    async fn input_by_key(&self, agent: &AgentId, key: &str) -> Result<Option<StoredInput>, StoreError> {
        Ok(self.read(agent, |rows| rows.input_by_key(key).cloned()))
    }

    async fn open_inputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredInput>, StoreError> {
        Ok(self.read(agent, |rows| {
            let open = rows.inputs_after(page.after).filter(|input| input.state.is_open());
            open.take(page.limit.min(PAGE_MAX)).cloned().collect()
        }))
    }

    async fn inputs(
        &self,
        agent: &AgentId,
        state: Option<InputState>,
        page: Page,
    ) -> Result<Vec<StoredInput>, StoreError> {
        Ok(self.read(agent, |rows| {
            let inputs =
                rows.inputs_after(page.after).filter(|input| state.is_none_or(|state| input.state == state));
            inputs.take(page.limit.min(PAGE_MAX)).cloned().collect()
        }))
    }

    async fn redrive(&self, agent: &AgentId, input: InputId) -> Result<(), StoreError> {
        self.tables().redrive(agent, input)
    }

    async fn abandon(
        &self,
        agent: &AgentId,
        input: InputId,
        from: InputState,
        reason: AbandonReason,
    ) -> Result<(), StoreError> {
        self.tables().abandon(agent, input, from, reason, self.clock.wall_ms())
    }

    async fn prune(&self, agent: &AgentId, retention: &Retention, after: Seq) -> Result<Pruned, StoreError> {
        self.tables().prune(agent, retention, after, self.clock.wall_ms())
    }

    async fn heard_of(&self, origin: &AgentId) -> Result<Vec<Receiver>, StoreError> {
        let tables = self.tables();
        let heard = tables.agents.values().filter_map(|rows| rows.receiver(origin));
        Ok(heard.take(PAGE_MAX).cloned().collect())
    }

    async fn kept_from(&self, agent: &AgentId) -> Result<Revision, StoreError> {
        Ok(Revision(self.read(agent, |rows| rows.kept_from().0)))
    }

    async fn checkpoint_receipts(&self, checkpoint: ReceiptCheckpoint) -> Result<u64, StoreError> {
        self.tables().checkpoint_receipts(checkpoint)
    }

    async fn receipt_checkpoints(&self, agent: &AgentId) -> Result<Vec<ReceiptCheckpoint>, StoreError> {
        Ok(self.read(agent, |rows| rows.checkpoints().cloned().collect()))
    }

    async fn commit_turns(&self, unit: Unit) -> UnitOutcome {
        // Of those that are held back, the one that came first.
        let doubt = self.doubt_of(CommitPoint::Turns);
        let _open = self.gate.read().await;
        if doubt != Some(Doubt::NotWritten) {
            let outcome = self.tables().commit_turns(unit, self.clock.wall_ms());
            if doubt.is_none() {
                return outcome;
            }
        }
        UnitOutcome { committed: 0, failure: Some(UnitFailure::Store(unknown())) }
    }

    /// Takes every other revision, so that its users go both ways.
    fn commit_turns_here(&self, unit: Unit) -> Result<UnitOutcome, Unit> {
        if unit.base.0.is_multiple_of(2) && self.gate.try_read().is_ok() {
            Ok(self.tables().commit_turns(unit, self.clock.wall_ms()))
        } else {
            Err(unit)
        }
    }

    async fn receipts(
        &self,
        agent: &AgentId,
        generation: Generation,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        Ok(self.read(agent, |rows| {
            let receipts = rows.receipts_from(generation, after.next());
            receipts.take(limit.min(PAGE_MAX)).cloned().collect()
        }))
    }

    async fn state_value(&self, agent: &AgentId, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read(agent, |rows| rows.state().get(key).cloned()))
    }

    async fn state_keys(
        &self,
        agent: &AgentId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        Ok(self.read(agent, |rows| {
            let keys = rows
                .state()
                .keys()
                .filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
            keys.take(limit.min(PAGE_MAX)).cloned().collect()
        }))
    }

    async fn pending_outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        Ok(self.read(agent, |rows| {
            let outputs = pending(rows, page.after).take(page.limit.min(PAGE_MAX));
            outputs.cloned().collect()
        }))
    }

    async fn outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        Ok(self.read(agent, |rows| {
            let outputs = rows.outputs_after(page.after).take(page.limit.min(PAGE_MAX));
            outputs.cloned().collect()
        }))
    }

    async fn end_outputs(&self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Result<(), StoreError> {
        self.tables().end_outputs(owner, ends, self.clock.wall_ms())
    }

    async fn timers(&self, agent: &AgentId) -> Result<Vec<StoredTimer>, StoreError> {
        Ok(self.read(agent, |rows| rows.timers().cloned().collect()))
    }

    async fn due_timers(
        &self,
        incarnation: Incarnation,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        Ok(self.tables().due_timers(incarnation, now_ms, limit.min(PAGE_MAX)))
    }

    async fn next_timer_at(&self, incarnation: Incarnation) -> Result<Option<u64>, StoreError> {
        Ok(self.tables().next_timer_at(incarnation))
    }

    async fn fire_timer(
        &self,
        owner: &Owner,
        name: &str,
        revision: Revision,
    ) -> Result<Option<Seq>, AcceptError> {
        self.tables().fire_timer(owner, name, revision, self.clock.wall_ms())
    }

    async fn operations(&self, agent: &AgentId) -> Result<Vec<StoredOperation>, StoreError> {
        let mut operations: Vec<StoredOperation> =
            self.read(agent, |rows| rows.operations().cloned().collect());
        operations.sort_by_key(|stored| (stored.revision, stored.operation.index));
        Ok(operations)
    }

    async fn operating(
        &self,
        incarnation: Option<Incarnation>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentId>, StoreError> {
        Ok(self.tables().operating(incarnation, after, limit.min(PAGE_MAX)))
    }

    async fn begin_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
    ) -> Result<Option<StoredOperation>, StoreError> {
        self.tables().begin_operation(owner, operation, self.clock.wall_ms())
    }

    async fn end_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
        end: OperationEnd,
    ) -> Result<Option<Seq>, AcceptError> {
        self.tables().end_operation(owner, operation, end, self.clock.wall_ms())
    }

    async fn put_plugin(&self, plugin: PluginInfo, component: Bytes) -> Result<bool, StoreError> {
        self.tables().put_plugin(plugin, component, self.clock.wall_ms())
    }

    async fn plugins(&self) -> Result<Vec<PluginInfo>, StoreError> {
        Ok(self.tables().plugin_infos())
    }

    async fn component(&self, plugin: Digest) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables().component(plugin))
    }

    async fn remove_plugin(&self, plugin: Digest) -> Result<bool, StoreError> {
        self.tables().remove_plugin(plugin, self.clock.wall_ms())
    }

    async fn append_events(&self, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.check_up()?;
        self.tables().append(events);
        Ok(())
    }

    async fn events(
        &self,
        after: u64,
        agent: Option<&AgentId>,
        kind: Option<EventKind>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let tables = self.tables();
        let events = tables.events().iter().filter(|event| {
            event.seq > after
                && agent.is_none_or(|agent| event.event.agent.as_ref() == Some(agent))
                && kind.is_none_or(|kind| event.event.kind == kind)
        });
        Ok(events.take(limit.min(PAGE_MAX)).cloned().collect())
    }

    async fn agent_events(
        &self,
        agent: &AgentId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.check_up()?;
        let tables = self.tables();
        let events = tables.events().iter().filter(|event| {
            event.event.agent.as_ref() == Some(agent) && event.place.is_some_and(|place| place.number > after)
        });
        Ok(events.take(limit.min(PAGE_MAX)).cloned().collect())
    }

    fn event_hints(&self) -> watch::Receiver<u64> {
        self.tables().newest_event.subscribe()
    }

    async fn event_range(&self) -> Result<(u64, u64), StoreError> {
        let tables = self.tables();
        let seq = |event: Option<&Event>| event.map_or(0, |event| event.seq);
        Ok((seq(tables.events().front()), seq(tables.events().back())))
    }

    async fn transfer(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Lease, StoreError> {
        let now = (self.clock.boot(), self.clock.wall_ms());
        self.at(CommitPoint::Transfer, |tables| tables.transfer(owner, base, migration, target, now))
    }

    async fn lease(&self, agent: &AgentId) -> Result<Option<Lease>, StoreError> {
        Ok(self.tables().lease(agent))
    }

    async fn export_rows(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<RowFrame>, StoreError> {
        self.tables().export_rows(agent, after, bytes_max)
    }

    async fn begin_handoff(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Handoff, StoreError> {
        let now_ms = self.clock.wall_ms();
        self.at(CommitPoint::Begin, |tables| tables.begin_handoff(owner, base, migration, target, now_ms))
    }

    async fn receive_rows(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        let _open = self.gate.read().await;
        self.tables().receive_rows(migration, agent, frames)
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<(), StoreError> {
        self.tables().prepare(request)
    }

    async fn finish_handoff(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        let now_ms = self.clock.wall_ms();
        self.at(CommitPoint::Finish, |tables| tables.finish_handoff(agent, migration, now_ms))
    }

    async fn adopt(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        how: Adoption,
    ) -> Result<Lease, StoreError> {
        let now_ms = self.clock.wall_ms();
        self.tables().adopt(agent, migration, (incarnation, how), now_ms)
    }

    async fn abort_handoff(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError> {
        let now_ms = self.clock.wall_ms();
        self.at(CommitPoint::Abort, |tables| tables.abort_handoff(agent, migration, incarnation, now_ms))
    }

    async fn export_whole(&self, agent: &AgentId, mut sink: RowSink) -> Result<Option<AgentRow>, StoreError> {
        let row = self.agent(agent).await?;
        let frames = match &row {
            Some(_) => {
                self.tables().at_home(agent)?;
                let frames = self.tables().export_rows(agent, 0, usize::MAX)?;
                frames.into_iter().map(RowFrame::without_secret).collect()
            }
            None => Vec::new(),
        };
        if let Some(row) = &row {
            sink(row, frames);
        }
        Ok(row)
    }

    async fn import(&self, request: ImportRequest) -> Result<AgentRow, StoreError> {
        let key = self.new_entity_key();
        self.tables().import(&request, key, self.clock.wall_ms())
    }

    async fn discard_copy(&self, migration: MigrationId) -> Result<(), StoreError> {
        self.tables().discard_copy(migration);
        Ok(())
    }

    async fn forget_moved(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        self.tables().forget_moved(agent, migration);
        Ok(())
    }

    async fn put_migration(&self, record: MigrationRecord) -> Result<(), StoreError> {
        let point = if record.phase.is_terminal() { CommitPoint::RecordEnd } else { CommitPoint::Record };
        let now_ms = self.clock.wall_ms();
        self.at(point, |tables| tables.put_migration(record, now_ms))
    }

    async fn migration(&self, migration: MigrationId) -> Result<Option<MigrationRecord>, StoreError> {
        Ok(self.tables().migration(migration).cloned())
    }

    async fn migrations(&self, limit: usize) -> Result<Vec<MigrationRecord>, StoreError> {
        Ok(self.tables().migrations(limit.min(PAGE_MAX)))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
