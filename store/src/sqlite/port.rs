//! `RuntimeStore`: each method as one write or one read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::edge::Edge;
use godwit_core::event::{Event, EventKind, NewEvent};
use godwit_core::failpoint;
use godwit_core::id::{
    AgentId, ClaimId, Generation, HostId, Incarnation, InputId, MigrationId, OperationId, Revision, Seq,
    StoreId,
};
use godwit_core::identity::EntityKey;
use godwit_core::input::{AbandonReason, InputState, NewInput};
use godwit_core::lease::Lease;
use godwit_core::limits::PAGE_MAX;
use godwit_core::operation::{OperationEnd, StoredOperation};
use godwit_core::output::StoredOutput;
use godwit_core::receipt::{Receipt, ReceiptCheckpoint};
use godwit_core::snapshot::Snapshot;
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::{
    AcceptError, Accepted, Adoption, AgentImage, AgentRow, Handoff, ImportRequest, KeptSnapshot,
    LifecycleCommit, MigrationRecord, NewAgent, OutputEnd, OutputKey, Owner, Page, PrepareRequest, Pruned,
    Receiver, Restored, Retention, RowFrame, RowSink, RuntimeStore, Session, SessionRequest, SessionRow,
    Standing, StoreError, StoreMark, StoredInput, Unit, UnitFailure, UnitOutcome,
};
use godwit_core::time::within;
use godwit_core::timer::{DueTimer, StoredTimer};
use tokio::sync::watch;

use super::boundary::Prepared;
use super::encoding::{ENCODE_INLINE_MAX, weight};
use super::inputs::{Arrival, Listed, key_of};
use super::operations::Ending;
use super::snapshots::Which;
use super::sql::execute;
use super::writer::{Tx, Work};
use super::{
    SqliteMode, SqliteStore, agents, backup, boundary, edges, entity_keys, events, export, handoff, import,
    inputs, leases, lifecycle, migrations, operations, outbox, plugins, restore, retention, sessions,
    snapshots, specs, state, timers,
};

/// After this long a probe looks who holds it up.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Times that the users of a plugin are looked at because others have come meanwhile; then its removal is `Busy`.
const REMOVE_TRIES_MAX: u32 = 4;

fn capped(page: Page) -> Page {
    Page { limit: page.limit.min(PAGE_MAX), ..page }
}

fn failed(error: StoreError) -> UnitOutcome {
    UnitOutcome { committed: 0, failure: Some(UnitFailure::Store(error)) }
}

#[async_trait]
impl RuntimeStore for SqliteStore {
    fn id(&self) -> StoreId {
        self.id
    }

    async fn mark(&self) -> Result<StoreMark, StoreError> {
        let store = self.id;
        self.read(move |conn| sessions::mark(conn, store)).await
    }

    async fn restore(&self, above: StoreMark) -> Result<Restored, StoreError> {
        let store = self.id;
        self.write(move |tx| restore::restore(tx, store, above)).await
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let (from, to) = (self.path.clone(), to.to_owned());
        let written = tokio::task::spawn_blocking(move || backup::write(&from, &to)).await;
        match written {
            Ok(written) => written.map_err(|error| error.into_store_error()),
            Err(error) => Err(StoreError::Closed { reason: error.to_string() }),
        }
    }

    async fn join(&self, request: SessionRequest) -> Result<Session, StoreError> {
        self.write(move |tx| sessions::join(tx, &request)).await
    }

    async fn heartbeat(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.write_first(move |tx| sessions::heartbeat(tx, incarnation)).await
    }

    async fn bury_expired(&self) -> Result<Vec<Incarnation>, StoreError> {
        self.write(sessions::bury_expired).await
    }

    async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.write(move |tx| sessions::leave(tx, incarnation)).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let env = Arc::clone(&self.env);
        self.read(move |conn| sessions::sessions(conn, &env)).await
    }

    async fn acquire(
        &self,
        incarnation: Incarnation,
        agents: &[AgentId],
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        let agents = agents.to_vec();
        self.write(move |tx| leases::acquire(tx, incarnation, &agents)).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        let owner = owner.clone();
        self.write(move |tx| leases::release(tx, &owner)).await
    }

    async fn claim(&self, agent: &AgentId, host: HostId, claim: ClaimId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| agents::claim(tx, &agent, host, claim)).await
    }

    async fn yield_claims(&self, agent: &AgentId, to: HostId) -> Result<Option<HostId>, StoreError> {
        let agent = agent.clone();
        self.write(move |tx| agents::yield_claims(tx, &agent, to)).await
    }

    async fn create(&self, agent: NewAgent) -> Result<bool, StoreError> {
        self.write(move |tx| agents::create(tx, &agent)).await
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRow>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| agents::row(conn, &agent)).await
    }

    async fn agents(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        let after = after.cloned();
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| agents::rows(conn, after.as_ref(), limit)).await
    }

    async fn runnable(&self, incarnation: Incarnation, limit: usize) -> Result<Vec<AgentId>, StoreError> {
        let limit = limit.min(PAGE_MAX);
        let cursors = || self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let after = cursors().get(&incarnation).copied().unwrap_or(0);
        let found = self
            .read(move |conn| {
                let mut found = agents::runnable(conn, incarnation, after, limit)?;
                if found.len() < limit && after > 0 {
                    // Behind the last one comes the first again.
                    let room = limit - found.len();
                    let wrapped = agents::runnable(conn, incarnation, 0, room)?;
                    found.extend(wrapped.into_iter().filter(|(key, _)| *key <= after));
                }
                Ok(found)
            })
            .await?;
        if let Some((last, _)) = found.last() {
            cursors().insert(incarnation, *last);
        }
        Ok(found.into_iter().map(|(_, agent)| agent).collect())
    }

    async fn image(&self, agent: &AgentId, at: Option<Revision>) -> Result<Option<AgentImage>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| agents::image(conn, &agent, Which::Kept(at))).await
    }

    async fn image_with(
        &self,
        agent: &AgentId,
        snapshot: Snapshot,
        state: Digest,
    ) -> Result<Option<AgentImage>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| agents::image(conn, &agent, Which::AtHand(&snapshot, state))).await
    }

    async fn spec(&self, agent: &AgentId) -> Result<Option<Spec>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| agents::spec(conn, &agent)).await
    }

    async fn entity_key(&self, agent: &AgentId) -> Result<Option<EntityKey>, StoreError> {
        let Some(vault) = self.env.vault.clone() else { return Ok(None) };
        let agent = agent.clone();
        self.read(move |conn| entity_keys::whole(conn, &agent, &vault)).await
    }

    async fn kept_snapshots(&self, agent: &AgentId) -> Result<Vec<KeptSnapshot>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| match key_of(conn, &agent)? {
            Some(key) => snapshots::list(conn, key),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn set_labels(&self, agent: &AgentId, labels: BTreeMap<String, String>) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| specs::set_labels(tx, &agent, &labels)).await
    }

    async fn put_edge(&self, agent: &AgentId, edge: Edge) -> Result<bool, StoreError> {
        let agent = agent.clone();
        self.write(move |tx| edges::put(tx, &agent, &edge)).await
    }

    async fn remove_edge(&self, agent: &AgentId, peer: &AgentId) -> Result<bool, StoreError> {
        let (agent, peer) = (agent.clone(), peer.clone());
        self.write(move |tx| edges::remove(tx, &agent, &peer)).await
    }

    async fn edges(
        &self,
        agent: Option<&AgentId>,
        after: Option<&(AgentId, AgentId)>,
        limit: usize,
    ) -> Result<Vec<(AgentId, Edge)>, StoreError> {
        let (agent, after) = (agent.cloned(), after.cloned());
        self.read(move |conn| edges::list(conn, agent.as_ref(), after.as_ref(), limit.min(PAGE_MAX))).await
    }

    async fn recreate(&self, agent: NewAgent) -> Result<bool, StoreError> {
        self.write(move |tx| lifecycle::recreate(tx, &agent)).await
    }

    async fn commit_lifecycle(&self, owner: &Owner, commit: LifecycleCommit) -> Result<Standing, StoreError> {
        let owner = owner.clone();
        self.write(move |tx| lifecycle::commit(tx, &owner, &commit)).await
    }

    async fn accept(&self, mut input: NewInput, by: Incarnation) -> Result<Accepted, AcceptError> {
        input.input.accepted_at_ms = self.env.clock.wall_ms();
        let mut arrival = Arrival::new(input);
        if self.env.faults.acks_before_commit() {
            return self.accept_unsafely(arrival, by).await;
        }
        let bytes = arrival.new.input.payload.len();
        self.write_by_head(bytes, move |tx| inputs::accept(tx, &mut arrival, by)).await?
    }

    async fn input(&self, agent: &AgentId, input: InputId) -> Result<Option<StoredInput>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| inputs::input(conn, &agent, input)).await
    }

    async fn input_by_key(&self, agent: &AgentId, key: &str) -> Result<Option<StoredInput>, StoreError> {
        let (agent, key) = (agent.clone(), key.to_owned());
        self.read(move |conn| inputs::input_by_key(conn, &agent, &key)).await
    }

    async fn open_inputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredInput>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| inputs::list(conn, &agent, Listed::Open, capped(page))).await
    }

    async fn inputs(
        &self,
        agent: &AgentId,
        state: Option<InputState>,
        page: Page,
    ) -> Result<Vec<StoredInput>, StoreError> {
        let agent = agent.clone();
        let listed = state.map_or(Listed::Any, Listed::Of);
        self.read(move |conn| inputs::list(conn, &agent, listed, capped(page))).await
    }

    async fn redrive(&self, agent: &AgentId, input: InputId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| inputs::redrive(tx, &agent, input)).await
    }

    async fn abandon(
        &self,
        agent: &AgentId,
        input: InputId,
        from: InputState,
        reason: AbandonReason,
    ) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| inputs::abandon(tx, &agent, input, from, reason)).await
    }

    async fn prune(&self, agent: &AgentId, retention: &Retention, after: Seq) -> Result<Pruned, StoreError> {
        let (agent, retention, now_ms) = (agent.clone(), retention.clone(), self.env.clock.wall_ms());
        let found = agent.clone();
        let plan = self.read(move |conn| retention::plan(conn, &found, &retention, after, now_ms)).await?;
        match plan.if_idle() {
            Some(pruned) => Ok(pruned),
            None => self.write(move |tx| retention::prune(tx, &agent, &plan)).await,
        }
    }

    async fn heard_of(&self, origin: &AgentId) -> Result<Vec<Receiver>, StoreError> {
        let origin = origin.clone();
        self.read(move |conn| inputs::heard_of(conn, &origin)).await
    }

    async fn kept_from(&self, agent: &AgentId) -> Result<Revision, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| retention::oldest_kept(conn, &agent)).await
    }

    async fn checkpoint_receipts(&self, checkpoint: ReceiptCheckpoint) -> Result<u64, StoreError> {
        if !checkpoint.is_signed() {
            let what = "the checkpoint is not signed by the host that it names".to_owned();
            return Err(StoreError::Conflict { what });
        }
        self.write(move |tx| retention::checkpoint(tx, &checkpoint)).await
    }

    async fn receipt_checkpoints(&self, agent: &AgentId) -> Result<Vec<ReceiptCheckpoint>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| retention::checkpoints(conn, &agent)).await
    }

    async fn commit_turns(&self, unit: Unit) -> UnitOutcome {
        let bytes = weight(&unit);
        let mut prepared = match self.prepared(unit).await {
            Ok(prepared) => prepared,
            Err(error) => return failed(error),
        };
        let bodies = match self.put_bodies(prepared.snapshots_mut()).await {
            Ok(bodies) => bodies,
            Err(error) => return failed(error),
        };
        let unsafe_outcome = self.env.faults.ack_before_commit.then(|| prepared.outcome_if_committed());
        let (mut job, answer) = Work::boxed(move |tx| boundary::commit(tx, &prepared), true);
        job.shares_heads = true;
        // Large snapshots have been put already.
        job.bytes = if bodies.is_empty() { bytes } else { 0 };
        if let Err(error) = self.queue(job).await {
            return failed(error);
        }
        if let Some(outcome) = unsafe_outcome {
            return outcome;
        }
        let outcome = match answer.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(error),
            Err(_) => failed(self.closed()),
        };
        if outcome.failure.is_some() {
            self.drop_bodies(bodies).await;
        }
        outcome
    }

    fn commit_turns_here(&self, unit: Unit) -> Result<UnitOutcome, Unit> {
        // In a shared file other processes may hold the write lock, and nobody's thread should wait for them.
        if self.env.mode == SqliteMode::Shared
            || self.env.faults.acks_before_commit()
            || weight(&unit) > ENCODE_INLINE_MAX
        {
            return Err(unit);
        }
        let Some(writer) = self.shared.idle_writer() else { return Err(unit) };
        let prepared = match Prepared::new(unit) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(failed(error)),
        };
        let (mut job, mut answer) = Work::boxed(move |tx| boundary::commit(tx, &prepared), true);
        job.shares_heads = true;
        failpoint::hit("turn.before-commit-queued");
        writer.run(job);
        Ok(match answer.try_recv() {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(error),
            Err(_) => failed(self.closed()),
        })
    }

    async fn receipts(
        &self,
        agent: &AgentId,
        generation: Generation,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        let agent = agent.clone();
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| match key_of(conn, &agent)? {
            Some(key) => boundary::receipts(conn, key, &agent, generation, after, limit),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn state_value(&self, agent: &AgentId, key: &str) -> Result<Option<Bytes>, StoreError> {
        let (agent, key) = (agent.clone(), key.to_owned());
        self.read(move |conn| state::value(conn, &agent, &key)).await
    }

    async fn state_keys(
        &self,
        agent: &AgentId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let (agent, prefix) = (agent.clone(), prefix.to_owned());
        let after = after.map(str::to_owned);
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| state::keys(conn, &agent, &prefix, after.as_deref(), limit)).await
    }

    async fn pending_outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| outbox::list(conn, &agent, true, capped(page))).await
    }

    async fn outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| outbox::list(conn, &agent, false, capped(page))).await
    }

    async fn end_outputs(&self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Result<(), StoreError> {
        let (owner, ends) = (owner.clone(), ends.to_vec());
        self.write_by_head(0, move |tx| outbox::end(tx, &owner, &ends)).await
    }

    async fn timers(&self, agent: &AgentId) -> Result<Vec<StoredTimer>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| timers::list(conn, &agent)).await
    }

    async fn due_timers(
        &self,
        incarnation: Incarnation,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        let limit = limit.min(PAGE_MAX);
        let quotas = self.env.quotas;
        self.read(move |conn| timers::due(conn, incarnation, now_ms, limit, &quotas)).await
    }

    async fn next_timer_at(&self, incarnation: Incarnation) -> Result<Option<u64>, StoreError> {
        let quotas = self.env.quotas;
        self.read(move |conn| timers::next_at(conn, incarnation, &quotas)).await
    }

    async fn fire_timer(
        &self,
        owner: &Owner,
        name: &str,
        revision: Revision,
    ) -> Result<Option<Seq>, AcceptError> {
        let (owner, name) = (owner.clone(), name.to_owned());
        self.write(move |tx| timers::fire(tx, &owner, &name, revision)).await?
    }

    async fn operations(&self, agent: &AgentId) -> Result<Vec<StoredOperation>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| operations::list(conn, &agent)).await
    }

    async fn operating(
        &self,
        incarnation: Option<Incarnation>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (after, limit) = (after.cloned(), limit.min(PAGE_MAX));
        self.read(move |conn| operations::operating(conn, incarnation, after.as_ref(), limit)).await
    }

    async fn begin_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
    ) -> Result<Option<StoredOperation>, StoreError> {
        let owner = owner.clone();
        self.write(move |tx| operations::begin(tx, &owner, operation)).await
    }

    async fn end_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
        end: OperationEnd,
    ) -> Result<Option<Seq>, AcceptError> {
        let owner = owner.clone();
        let ending = Ending::new(&owner.agent, operation, end, self.env.clock.wall_ms());
        self.write(move |tx| operations::end(tx, &owner, &ending)).await?
    }

    async fn put_plugin(&self, plugin: PluginInfo, component: Bytes) -> Result<bool, StoreError> {
        if Digest::of(&component) != plugin.digest {
            let what = format!("component has another digest than {}", plugin.digest);
            return Err(StoreError::Corrupt { what });
        }
        self.write(move |tx| plugins::put(tx, &plugin, &component)).await
    }

    async fn plugins(&self) -> Result<Vec<PluginInfo>, StoreError> {
        self.read(plugins::infos).await
    }

    async fn component(&self, plugin: Digest) -> Result<Option<Bytes>, StoreError> {
        self.read(move |conn| plugins::component(conn, plugin)).await
    }

    async fn remove_plugin(&self, plugin: Digest) -> Result<bool, StoreError> {
        let mut former = plugins::Former::new();
        for _ in 0..REMOVE_TRIES_MAX {
            // A reader looks at what is kept; the writer thread sees who has come since.
            former = self.read(move |conn| plugins::former_users(conn, plugin, &former)).await?;
            let looked_at = former.clone();
            if let Some(removed) = self.write(move |tx| plugins::remove(tx, plugin, &looked_at)).await? {
                return Ok(removed);
            }
        }
        Err(StoreError::Busy)
    }

    async fn append_events(&self, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.write(move |tx| events::append(tx, &events)).await
    }

    async fn events(
        &self,
        after: u64,
        agent: Option<&AgentId>,
        kind: Option<EventKind>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let (store, agent) = (self.id, agent.cloned());
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| events::events(conn, store, after, agent.as_ref(), kind, limit)).await
    }

    async fn agent_events(
        &self,
        agent: &AgentId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let (store, agent) = (self.id, agent.clone());
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| events::of_agent(conn, store, &agent, after, limit)).await
    }

    fn event_hints(&self) -> watch::Receiver<u64> {
        self.newest_event.subscribe()
    }

    async fn event_range(&self) -> Result<(u64, u64), StoreError> {
        self.read(events::range).await
    }

    async fn transfer(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Lease, StoreError> {
        let owner = owner.clone();
        self.write(move |tx| leases::transfer(tx, &owner, base, migration, target)).await
    }

    async fn lease(&self, agent: &AgentId) -> Result<Option<Lease>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| leases::lease(conn, &agent)).await
    }

    async fn export_rows(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<RowFrame>, StoreError> {
        let (agent, vault) = (agent.clone(), self.env.vault.clone());
        self.read(move |conn| export::export(conn, &agent, after, bytes_max, vault.as_deref())).await
    }

    async fn begin_handoff(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Handoff, StoreError> {
        let owner = owner.clone();
        self.write(move |tx| handoff::begin(tx, &owner, base, migration, target)).await
    }

    async fn receive_rows(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        self.receive(migration, agent.clone(), frames).await
    }

    async fn prepare(&self, mut request: PrepareRequest) -> Result<(), StoreError> {
        let (rows, bodies) = self.arriving(std::mem::take(&mut request.frames)).await?;
        let prepared = self.write(move |tx| handoff::prepare(tx, &request, &rows)).await;
        self.drop_bodies(bodies).await;
        prepared
    }

    async fn finish_handoff(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        let agent = agent.clone();
        self.write(move |tx| handoff::finish(tx, &agent, migration)).await
    }

    async fn adopt(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        how: Adoption,
    ) -> Result<Lease, StoreError> {
        let agent = agent.clone();
        self.write(move |tx| handoff::adopt(tx, &agent, migration, (incarnation, how))).await
    }

    async fn abort_handoff(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError> {
        let agent = agent.clone();
        self.write(move |tx| handoff::abort(tx, &agent, migration, incarnation)).await
    }

    async fn export_whole(&self, agent: &AgentId, mut sink: RowSink) -> Result<Option<AgentRow>, StoreError> {
        let agent = agent.clone();
        self.read(move |conn| import::whole(conn, &agent, &mut sink)).await
    }

    async fn import(&self, request: ImportRequest) -> Result<AgentRow, StoreError> {
        self.write(move |tx| import::import(tx, &request)).await
    }

    async fn discard_copy(&self, migration: MigrationId) -> Result<(), StoreError> {
        while self.write_lazily(state::CLEARED_BYTES, move |tx| handoff::discard_some(tx, migration)).await? {
        }
        self.write(move |tx| handoff::discard_copy(tx, migration)).await
    }

    async fn forget_moved(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        let moved = agent.clone();
        let forget_some = move |tx: &Tx<'_>| handoff::forget_some(tx, &moved, migration);
        while self.write_lazily(state::CLEARED_BYTES, forget_some.clone()).await? {}
        let agent = agent.clone();
        self.write(move |tx| handoff::forget_moved(tx, &agent, migration)).await
    }

    async fn put_migration(&self, record: MigrationRecord) -> Result<(), StoreError> {
        self.write(move |tx| migrations::put(tx, &record)).await
    }

    async fn migration(&self, migration: MigrationId) -> Result<Option<MigrationRecord>, StoreError> {
        self.read(move |conn| migrations::migration(conn, migration)).await
    }

    async fn migrations(&self, limit: usize) -> Result<Vec<MigrationRecord>, StoreError> {
        let limit = limit.min(PAGE_MAX);
        self.read(move |conn| migrations::migrations(conn, limit)).await
    }

    async fn keep_quiet(&self, time: Duration) {
        self.shared.quiet.keep(time).await;
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let write = self.write(|tx| execute(tx.conn, "UPDATE meta SET probes = probes + 1", []).map(drop));
        tokio::pin!(write);
        if let Some(answer) = within(PROBE_PATIENCE, &mut write).await {
            return answer;
        }
        match self.stopped_sharers() {
            pids if pids.is_empty() => write.await,
            pids => {
                let reason = format!(
                    "processes {pids:?} share the file and are stopped; one may hold the write lock: continue or end it"
                );
                tracing::warn!(reason, "store can't be written");
                Err(StoreError::Closed { reason })
            }
        }
    }
}
