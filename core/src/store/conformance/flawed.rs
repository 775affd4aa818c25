//! The negative control: a store that keeps every rule but one.
//!
//! `FlawedFactory` wraps the stores of another factory. A test runs the suite on it and asserts that the cases named by
//! `Flaw::noticed_by` fail: a suite that passes a flawed store proves nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::Digest;
use crate::edge::Edge;
use crate::event::{Event, EventKind, NewEvent};
use crate::id::{
    AgentId, ClaimId, Generation, HostId, Incarnation, InputId, MigrationId, OperationId, Revision, Seq,
    StoreId,
};
use crate::identity::EntityKey;
use crate::input::{AbandonReason, InputState, NewInput, Outcome, Reach};
use crate::lease::Lease;
use crate::lifecycle::Forgotten;
use crate::limits::PAGE_MAX;
use crate::operation::{OperationEnd, StoredOperation};
use crate::output::StoredOutput;
use crate::receipt::{Receipt, ReceiptCheckpoint};
use crate::spec::{PluginInfo, Spec};
use crate::store::conformance::{Opening, StoreFactory};
use crate::store::{
    AcceptError, Accepted, Adoption, AgentImage, AgentRow, Handoff, ImportRequest, KeptSnapshot,
    LifecycleCommit, MigrationRecord, NewAgent, OutputEnd, OutputKey, Owner, Page, PrepareRequest, Pruned,
    Receiver, Restored, Retention, Row, RowFrame, RowSink, RuntimeStore, Session, SessionRequest, SessionRow,
    Standing, Step, StoreError, StoreMark, StoredInput, Unit, UnitOutcome,
};
use crate::timer::{DueTimer, StoredTimer};

mod documents;
mod flaw;
mod noticed;

pub use flaw::Flaw;

/// Opens another factory's stores with a flaw.
pub struct FlawedFactory {
    inner: Arc<dyn StoreFactory>,
    flaw: Flaw,
    opened: AtomicU64,
}

impl FlawedFactory {
    /// Wraps all stores of `inner`, which must need nothing but dropping to close a store.
    pub fn new(inner: Arc<dyn StoreFactory>, flaw: Flaw) -> Self {
        Self { inner, flaw, opened: AtomicU64::new(0) }
    }
}

#[async_trait]
impl StoreFactory for FlawedFactory {
    async fn open(&self, name: &str, opening: Opening) -> Arc<dyn RuntimeStore> {
        let name = match self.flaw {
            Flaw::NotDurable => format!("{name}-{}", self.opened.fetch_add(1, Ordering::Relaxed)),
            _ => name.to_owned(),
        };
        Arc::new(Flawed { inner: self.inner.open(&name, opening).await, flaw: self.flaw })
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.inner.seeds()
    }
}

struct Flawed {
    inner: Arc<dyn RuntimeStore>,
    flaw: Flaw,
}

impl Flawed {
    /// The owner as it pretends to be.
    async fn pass(&self, owner: &Owner) -> Owner {
        let mut owner = owner.clone();
        if self.flaw == Flaw::TokenUnchecked
            && let Ok(Some(row)) = self.inner.agent(&owner.agent).await
        {
            owner.token = row.token;
            owner.incarnation = row.holder.map_or(owner.incarnation, |holder| holder.incarnation);
        }
        owner
    }

    /// The unit as if it built on the head.
    async fn rebase(&self, mut unit: Unit) -> Unit {
        let Ok(Some(row)) = self.inner.agent(&unit.owner.agent).await else {
            return unit;
        };
        let (mut revision, mut head) = (row.revision, row.head);
        unit.base = revision;
        for step in &mut unit.steps {
            let Step::Boundary(boundary) = step else { continue };
            revision = revision.next();
            boundary.receipt.revision = revision;
            boundary.receipt.parent = head;
            head = boundary.receipt.digest();
            if let Some(snapshot) = &mut boundary.snapshot {
                snapshot.revision = revision;
            }
            for end in &mut boundary.ends {
                match &mut end.outcome {
                    Outcome::Committed { revision: at, .. } | Outcome::DeadLettered { revision: at, .. } => {
                        *at = revision;
                    }
                    _ => {}
                }
            }
        }
        unit
    }

    /// The unit as if its receipts named its owner.
    fn sign(mut unit: Unit) -> Unit {
        let mut head = None;
        for step in &mut unit.steps {
            let Step::Boundary(boundary) = step else { continue };
            boundary.receipt.token = unit.owner.token;
            boundary.receipt.incarnation = unit.owner.incarnation;
            boundary.receipt.parent = head.unwrap_or(boundary.receipt.parent);
            head = Some(boundary.receipt.digest());
            for end in &mut boundary.ends {
                if let Outcome::Committed { token, .. } = &mut end.outcome {
                    *token = unit.owner.token;
                }
            }
        }
        unit
    }

    /// Commits each step by itself, and goes on after failures.
    async fn commit_each(&self, unit: Unit) -> UnitOutcome {
        let mut outcome = UnitOutcome { committed: 0, failure: None };
        for step in unit.steps {
            let row = self.inner.agent(&unit.owner.agent).await.ok().flatten();
            let one = Unit {
                owner: unit.owner.clone(),
                base: row.map_or(unit.base, |row| row.revision),
                steps: vec![step],
            };
            let answered = self.inner.commit_turns(one).await;
            outcome.committed += answered.committed;
            outcome.failure = outcome.failure.or(answered.failure);
        }
        outcome
    }
}

#[async_trait]
impl RuntimeStore for Flawed {
    fn id(&self) -> StoreId {
        self.inner.id()
    }

    async fn restore(&self, above: StoreMark) -> Result<Restored, StoreError> {
        self.inner.restore(above).await
    }

    async fn mark(&self) -> Result<StoreMark, StoreError> {
        self.inner.mark().await
    }

    async fn join(&self, request: SessionRequest) -> Result<Session, StoreError> {
        self.inner.join(request).await
    }

    async fn heartbeat(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.inner.heartbeat(incarnation).await
    }

    async fn bury_expired(&self) -> Result<Vec<Incarnation>, StoreError> {
        match self.flaw {
            Flaw::ExpiryIgnored => Ok(Vec::new()),
            _ => self.inner.bury_expired().await,
        }
    }

    async fn heard_of(&self, origin: &AgentId) -> Result<Vec<Receiver>, StoreError> {
        self.inner.heard_of(origin).await
    }

    async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.inner.leave(incarnation).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        self.inner.sessions().await
    }

    async fn acquire(
        &self,
        incarnation: Incarnation,
        agents: &[AgentId],
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        self.inner.acquire(incarnation, agents).await
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        self.inner.release(&self.pass(owner).await).await
    }

    async fn claim(&self, agent: &AgentId, host: HostId, claim: ClaimId) -> Result<(), StoreError> {
        self.inner.claim(agent, host, claim).await
    }

    async fn yield_claims(&self, agent: &AgentId, to: HostId) -> Result<Option<HostId>, StoreError> {
        if self.flaw == Flaw::ClaimsForgotten {
            return Ok(None);
        }
        self.inner.yield_claims(agent, to).await
    }

    async fn create(&self, agent: NewAgent) -> Result<bool, StoreError> {
        self.inner.create(agent).await
    }

    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRow>, StoreError> {
        self.inner.agent(agent).await
    }

    async fn agents(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        self.inner.agents(after, limit).await
    }

    async fn runnable(&self, incarnation: Incarnation, limit: usize) -> Result<Vec<AgentId>, StoreError> {
        self.inner.runnable(incarnation, limit).await
    }

    async fn image(&self, agent: &AgentId, at: Option<Revision>) -> Result<Option<AgentImage>, StoreError> {
        let at = if self.flaw == Flaw::OlderSnapshotsIgnored { None } else { at };
        let mut image = self.inner.image(agent, at).await?;
        if let Some(image) = image.as_mut().filter(|_| self.flaw == Flaw::JournalForgotten) {
            image.journal.clear();
        }
        Ok(image)
    }

    async fn spec(&self, agent: &AgentId) -> Result<Option<Spec>, StoreError> {
        self.inner.spec(agent).await
    }

    async fn entity_key(&self, agent: &AgentId) -> Result<Option<EntityKey>, StoreError> {
        self.inner.entity_key(agent).await
    }

    async fn kept_snapshots(&self, agent: &AgentId) -> Result<Vec<KeptSnapshot>, StoreError> {
        self.inner.kept_snapshots(agent).await
    }

    async fn set_labels(&self, agent: &AgentId, labels: BTreeMap<String, String>) -> Result<(), StoreError> {
        self.inner.set_labels(agent, labels).await
    }

    async fn put_edge(&self, agent: &AgentId, edge: Edge) -> Result<bool, StoreError> {
        self.inner.put_edge(agent, edge).await
    }

    async fn remove_edge(&self, agent: &AgentId, peer: &AgentId) -> Result<bool, StoreError> {
        self.inner.remove_edge(agent, peer).await
    }

    async fn edges(
        &self,
        agent: Option<&AgentId>,
        after: Option<&(AgentId, AgentId)>,
        limit: usize,
    ) -> Result<Vec<(AgentId, Edge)>, StoreError> {
        self.inner.edges(agent, after, limit).await
    }

    async fn recreate(&self, agent: NewAgent) -> Result<bool, StoreError> {
        self.inner.recreate(agent).await
    }

    async fn commit_lifecycle(&self, owner: &Owner, commit: LifecycleCommit) -> Result<Standing, StoreError> {
        let owner = self.pass(owner).await;
        let commit = match self.flaw {
            Flaw::TokenKept => commit.forgetting(Forgotten::Token),
            Flaw::OpenInputsForgotten => commit.forgetting(Forgotten::Inputs),
            Flaw::ChangesUntold => commit.forgetting(Forgotten::Events),
            _ => commit,
        };
        self.inner.commit_lifecycle(&owner, commit).await
    }

    async fn accept(&self, mut input: NewInput, by: Incarnation) -> Result<Accepted, AcceptError> {
        match self.flaw {
            Flaw::KeysForgotten => input.idempotency_key = None,
            Flaw::SilenceIgnored => input.is_silent = false,
            Flaw::ScopesForgotten => input.supersedes = None,
            Flaw::StampsForgotten => input.delivery = None,
            Flaw::ReachIgnored => input.reach = Reach::Any,
            Flaw::ChannelsForgotten => {
                if let Some(stamp) = &mut input.delivery {
                    stamp.channel = None;
                }
            }
            Flaw::AcknowledgedUnwritten => {
                let row = self.inner.agent(&input.agent).await?;
                let seq = row.ok_or(StoreError::NoAgent)?.next_seq;
                return Ok(Accepted::New { seq });
            }
            _ => {}
        }
        self.inner.accept(input, by).await
    }

    async fn input(&self, agent: &AgentId, input: InputId) -> Result<Option<StoredInput>, StoreError> {
        if self.flaw == Flaw::AgentsMixed {
            for row in self.inner.agents(None, PAGE_MAX).await? {
                if let Some(found) = self.inner.input(&row.agent, input).await? {
                    return Ok(Some(found));
                }
            }
        }
        self.inner.input(agent, input).await
    }

    async fn input_by_key(&self, agent: &AgentId, key: &str) -> Result<Option<StoredInput>, StoreError> {
        self.inner.input_by_key(agent, key).await
    }

    async fn open_inputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredInput>, StoreError> {
        self.inner.open_inputs(agent, page).await
    }

    async fn inputs(
        &self,
        agent: &AgentId,
        state: Option<InputState>,
        page: Page,
    ) -> Result<Vec<StoredInput>, StoreError> {
        self.inner.inputs(agent, state, page).await
    }

    async fn redrive(&self, agent: &AgentId, input: InputId) -> Result<(), StoreError> {
        self.inner.redrive(agent, input).await
    }

    async fn abandon(
        &self,
        agent: &AgentId,
        input: InputId,
        from: InputState,
        reason: AbandonReason,
    ) -> Result<(), StoreError> {
        self.inner.abandon(agent, input, from, reason).await
    }

    async fn prune(&self, agent: &AgentId, retention: &Retention, after: Seq) -> Result<Pruned, StoreError> {
        let hasty = Retention { inputs: std::time::Duration::ZERO, dead_letters: 0 };
        let retention = if self.flaw == Flaw::PrunesTheYoung { &hasty } else { retention };
        self.inner.prune(agent, retention, after).await
    }

    async fn kept_from(&self, agent: &AgentId) -> Result<Revision, StoreError> {
        self.inner.kept_from(agent).await
    }

    async fn checkpoint_receipts(&self, checkpoint: ReceiptCheckpoint) -> Result<u64, StoreError> {
        self.inner.checkpoint_receipts(checkpoint).await
    }

    async fn receipt_checkpoints(&self, agent: &AgentId) -> Result<Vec<ReceiptCheckpoint>, StoreError> {
        self.inner.receipt_checkpoints(agent).await
    }

    async fn commit_turns(&self, mut unit: Unit) -> UnitOutcome {
        match self.flaw {
            Flaw::FailuresSkipped => return self.commit_each(unit).await,
            Flaw::RevisionUnchecked => unit = self.rebase(unit).await,
            Flaw::TokenUnchecked => {
                unit.owner = self.pass(&unit.owner).await;
                unit = Self::sign(unit);
            }
            _ => {}
        }
        self.inner.commit_turns(unit).await
    }

    async fn receipts(
        &self,
        agent: &AgentId,
        generation: Generation,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError> {
        self.inner.receipts(agent, generation, after, limit).await
    }

    async fn state_value(&self, agent: &AgentId, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.inner.state_value(agent, key).await
    }

    async fn state_keys(
        &self,
        agent: &AgentId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.inner.state_keys(agent, prefix, after, limit).await
    }

    async fn pending_outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        self.inner.pending_outputs(agent, page).await
    }

    async fn outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError> {
        self.inner.outputs(agent, page).await
    }

    async fn end_outputs(&self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Result<(), StoreError> {
        let owner = self.pass(owner).await;
        let ends = if self.flaw == Flaw::OutputsKept { &[] } else { ends };
        self.inner.end_outputs(&owner, ends).await
    }

    async fn timers(&self, agent: &AgentId) -> Result<Vec<StoredTimer>, StoreError> {
        self.inner.timers(agent).await
    }

    async fn due_timers(
        &self,
        incarnation: Incarnation,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        self.inner.due_timers(incarnation, now_ms, limit).await
    }

    async fn next_timer_at(&self, incarnation: Incarnation) -> Result<Option<u64>, StoreError> {
        self.inner.next_timer_at(incarnation).await
    }

    async fn fire_timer(
        &self,
        owner: &Owner,
        name: &str,
        mut revision: Revision,
    ) -> Result<Option<Seq>, AcceptError> {
        let owner = self.pass(owner).await;
        if self.flaw == Flaw::TimerRevisionsIgnored {
            let timers = self.inner.timers(&owner.agent).await?;
            let waiting = timers.into_iter().find(|timer| timer.name == name);
            revision = waiting.map_or(revision, |timer| timer.revision);
        }
        self.inner.fire_timer(&owner, name, revision).await
    }

    async fn operations(&self, agent: &AgentId) -> Result<Vec<StoredOperation>, StoreError> {
        self.inner.operations(agent).await
    }

    async fn operating(
        &self,
        incarnation: Option<Incarnation>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentId>, StoreError> {
        self.inner.operating(incarnation, after, limit).await
    }

    async fn begin_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
    ) -> Result<Option<StoredOperation>, StoreError> {
        let owner = self.pass(owner).await;
        match self.inner.begin_operation(&owner, operation).await {
            Err(StoreError::Conflict { .. }) if self.flaw == Flaw::BeginningsForgotten => {
                let operations = self.inner.operations(&owner.agent).await?;
                Ok(operations.into_iter().find(|stored| stored.id() == operation))
            }
            answered => answered,
        }
    }

    async fn end_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
        end: OperationEnd,
    ) -> Result<Option<Seq>, AcceptError> {
        let owner = self.pass(owner).await;
        self.inner.end_operation(&owner, operation, end).await
    }

    async fn put_plugin(&self, plugin: PluginInfo, component: Bytes) -> Result<bool, StoreError> {
        self.inner.put_plugin(plugin, component).await
    }

    async fn plugins(&self) -> Result<Vec<PluginInfo>, StoreError> {
        self.inner.plugins().await
    }

    async fn component(&self, plugin: Digest) -> Result<Option<Bytes>, StoreError> {
        self.inner.component(plugin).await
    }

    async fn remove_plugin(&self, plugin: Digest) -> Result<bool, StoreError> {
        self.inner.remove_plugin(plugin).await
    }

    async fn agent_events(
        &self,
        agent: &AgentId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let mut events = self.inner.agent_events(agent, after, limit).await?;
        if let (Flaw::LabelsOfNow, Some(row)) = (self.flaw, self.inner.agent(agent).await?) {
            events.iter_mut().for_each(|event| event.labels = row.labels.clone());
        }
        Ok(events)
    }

    fn event_hints(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.event_hints()
    }

    async fn append_events(&self, events: Vec<NewEvent>) -> Result<(), StoreError> {
        self.inner.append_events(events).await
    }

    async fn events(
        &self,
        after: u64,
        agent: Option<&AgentId>,
        kind: Option<EventKind>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        match self.flaw {
            Flaw::EventsUnfiltered => self.inner.events(after, None, None, limit).await,
            _ => self.inner.events(after, agent, kind, limit).await,
        }
    }

    async fn event_range(&self) -> Result<(u64, u64), StoreError> {
        self.inner.event_range().await
    }

    async fn transfer(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Lease, StoreError> {
        let owner = self.pass(owner).await;
        self.inner.transfer(&owner, base, migration, target).await
    }

    async fn lease(&self, agent: &AgentId) -> Result<Option<Lease>, StoreError> {
        self.inner.lease(agent).await
    }

    async fn export_rows(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<RowFrame>, StoreError> {
        let mut frames = self.inner.export_rows(agent, after, bytes_max).await?;
        if self.flaw == Flaw::DeletesForgotten {
            frames.retain(|frame| !matches!(frame.row, Row::Deleted(_)));
        }
        for frame in frames.iter_mut().filter(|_| self.flaw == Flaw::CountLeftBehind) {
            if let Row::Agent(portable) = &mut frame.row {
                portable.next_event = 1;
            }
        }
        Ok(frames)
    }

    async fn begin_handoff(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Handoff, StoreError> {
        let owner = self.pass(owner).await;
        self.inner.begin_handoff(&owner, base, migration, target).await
    }

    async fn receive_rows(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        self.inner.receive_rows(migration, agent, frames).await
    }

    async fn prepare(&self, request: PrepareRequest) -> Result<(), StoreError> {
        self.inner.prepare(request).await
    }

    async fn finish_handoff(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        self.inner.finish_handoff(agent, migration).await
    }

    async fn adopt(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        how: Adoption,
    ) -> Result<Lease, StoreError> {
        self.inner.adopt(agent, migration, incarnation, how).await
    }

    async fn abort_handoff(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError> {
        self.inner.abort_handoff(agent, migration, incarnation).await
    }

    async fn export_whole(&self, agent: &AgentId, sink: RowSink) -> Result<Option<AgentRow>, StoreError> {
        if self.flaw != Flaw::SecretsExported {
            return self.inner.export_whole(agent, sink).await;
        }
        let mut sink = sink;
        let row = self.inner.agent(agent).await?;
        if let Some(row) = &row {
            sink(row, self.inner.export_rows(agent, 0, usize::MAX).await?);
        }
        Ok(row)
    }

    async fn import(&self, request: ImportRequest) -> Result<AgentRow, StoreError> {
        self.inner.import(request).await
    }

    async fn discard_copy(&self, migration: MigrationId) -> Result<(), StoreError> {
        match self.flaw {
            Flaw::CopiesKept => Ok(()),
            _ => self.inner.discard_copy(migration).await,
        }
    }

    async fn forget_moved(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        self.inner.forget_moved(agent, migration).await
    }

    async fn put_migration(&self, record: MigrationRecord) -> Result<(), StoreError> {
        self.inner.put_migration(record).await
    }

    async fn migration(&self, migration: MigrationId) -> Result<Option<MigrationRecord>, StoreError> {
        self.inner.migration(migration).await
    }

    async fn migrations(&self, limit: usize) -> Result<Vec<MigrationRecord>, StoreError> {
        self.inner.migrations(limit).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.inner.probe().await
    }
}
