//! All tables of the store, and what concerns sessions, leases, agents, plugins, events and migration records.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::digest::Digest;
use crate::event::{Event, EventKind, NewEvent};
use crate::id::{
    AgentId, FencingToken, Generation, HostId, Incarnation, MigrationId, Revision, SpecRevision, StoreEpoch,
    StoreId,
};
use crate::identity::{EntityKey, EntityKeyRow};
use crate::lease::fence::{Acquire, Fence, Refusal, Release};
use crate::lease::{GrantCause, Holder, Lease};
use crate::lifecycle::Lifecycle;
use crate::limits::{AUTH_FLOW_BYTES_MAX, FRUITLESS_KEPT_MAX, MIGRATIONS_KEPT_MAX, Quotas};
use crate::migration::handoff::Seat;
use crate::migration::{Phase, Role};
use crate::spec::PluginInfo;
use crate::store::agent::{AgentImage, AgentRow, Home, NewAgent};
use crate::store::auth::{AuthFlowError, AuthFlowUpdate};
use crate::store::commit::{Boundary, Owner};
use crate::store::error::StoreError;
use crate::store::handoff::MigrationRecord;
use crate::store::mark::StoreMark;
use crate::store::memory::claims::Claims;
use crate::store::memory::commit::admit_initial;
use crate::store::memory::rows::{AgentRows, Standing};
use crate::store::rows::Row;
use crate::store::session::{Session, SessionRequest, SessionRow, Sharing};
use crate::store::standby::StandbyCopy;

/// A session that is not dead. Dead ones have no entry: incarnations are never given twice.
struct SessionEntry {
    request: SessionRequest,
    /// Boot time at which it expires.
    until: Option<Duration>,
}

/// Everything the store holds. One method call holds the lock on all of it.
pub(super) struct Tables {
    pub(super) id: StoreId,
    epoch: StoreEpoch,
    sharing: Sharing,
    pub(super) quotas: Quotas,
    incarnations_given: Incarnation,
    sessions: BTreeMap<Incarnation, SessionEntry>,
    pub(super) agents: BTreeMap<AgentId, AgentRows>,
    /// Copies being received, which no agent id names yet.
    pub(super) copies: BTreeMap<MigrationId, AgentRows>,
    pub(super) standbys: BTreeMap<AgentId, StandbyCopy>,
    plugins: BTreeMap<Digest, (PluginInfo, Bytes)>,
    pub(super) auth_flow: Option<Bytes>,
    pub(super) roster: Option<(u64, Bytes)>,
    pub(super) claims: Claims,
    pub(super) events: VecDeque<Event>,
    pub(super) events_appended: u64,
    /// The newest seq, for those who wait.
    pub(super) newest_event: watch::Sender<u64>,
    migrations: BTreeMap<(MigrationId, bool), MigrationRecord>,
    /// The agent that `runnable` named last: the next call starts behind it.
    runnable_last: Option<AgentId>,
}

impl Tables {
    pub(super) fn new(id: StoreId, sharing: Sharing, quotas: Quotas) -> Self {
        Self {
            id,
            epoch: StoreEpoch(0),
            sharing,
            quotas,
            incarnations_given: Incarnation(0),
            sessions: BTreeMap::new(),
            agents: BTreeMap::new(),
            copies: BTreeMap::new(),
            standbys: BTreeMap::new(),
            plugins: BTreeMap::new(),
            auth_flow: None,
            roster: None,
            claims: Claims::default(),
            events: VecDeque::new(),
            events_appended: 0,
            newest_event: watch::Sender::new(0),
            migrations: BTreeMap::new(),
            runnable_last: None,
        }
    }

    pub(super) fn mark(&self) -> StoreMark {
        StoreMark {
            store: self.id,
            epoch: self.epoch,
            incarnation: self.incarnations_given,
            event: self.events_appended,
        }
    }

    /// Whether nobody else uses the store, for a restore.
    pub(super) fn check_alone(&self, boot: Duration) -> Result<(), StoreError> {
        let is_live = |session: &&SessionEntry| session.until.is_some_and(|until| until > boot);
        match self.sessions.values().find(is_live) {
            Some(session) => Err(conflict(format!("host {} uses the store", session.request.name))),
            None => Ok(()),
        }
    }

    /// Ends all that was of the epoch before: sessions and copies. Numbers go on above both marks.
    pub(super) fn begin_epoch(&mut self, epoch: StoreEpoch, above: StoreMark) {
        self.epoch = epoch;
        self.sessions.clear();
        self.copies.clear();
        self.standbys.clear();
        self.incarnations_given = self.incarnations_given.max(above.incarnation);
        self.events_appended = self.events_appended.max(above.event);
    }

    // --- sessions

    pub(super) fn join(&mut self, request: SessionRequest, boot: Duration) -> Session {
        match self.sharing {
            Sharing::Exclusive => {
                self.sessions.clear();
                let mut fed: Vec<MigrationId> = self.open_migrations();
                fed.extend(self.standbys.values().map(|copy| copy.standing.session));
                self.copies.retain(|copy, _| fed.contains(copy));
            }
            Sharing::Shared => self.sessions.retain(|_, session| session.request.host != request.host),
        }
        let ttl = (self.sharing == Sharing::Shared).then_some(request.ttl);
        let incarnation = self.incarnations_given.next();
        self.incarnations_given = incarnation;
        self.append([session_event(EventKind::HostJoined, &request, incarnation, request.now_ms)]);
        let until = ttl.map(|ttl| boot + ttl);
        self.sessions.insert(incarnation, SessionEntry { request, until });
        Session { incarnation, ttl }
    }

    fn open_migrations(&self) -> Vec<MigrationId> {
        let open = self.migrations.values().filter(|record| !record.phase.is_terminal());
        open.map(|record| record.id).collect()
    }

    pub(super) fn heartbeat(&mut self, incarnation: Incarnation, boot: Duration) -> Result<(), StoreError> {
        let session = self.sessions.get_mut(&incarnation).ok_or(StoreError::SessionDead { incarnation })?;
        let ttl = session.request.ttl;
        session.until = session.until.map(|until| until.max(boot + ttl));
        Ok(())
    }

    pub(super) fn bury_expired(&mut self, boot: Duration, now_ms: u64) -> Vec<Incarnation> {
        let expired: Vec<Incarnation> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.until.is_some_and(|until| until <= boot))
            .map(|(incarnation, _)| *incarnation)
            .collect();
        for incarnation in &expired {
            self.leave(*incarnation, now_ms);
        }
        expired
    }

    pub(super) fn leave(&mut self, incarnation: Incarnation, now_ms: u64) {
        if let Some(session) = self.sessions.remove(&incarnation) {
            self.append([session_event(EventKind::HostGone, &session.request, incarnation, now_ms)]);
        }
    }

    pub(super) fn session_rows(&self, boot: Duration) -> Vec<SessionRow> {
        let rows = self.sessions.iter().map(|(incarnation, session)| SessionRow {
            host: session.request.host,
            name: session.request.name.clone(),
            incarnation: *incarnation,
            api: session.request.api,
            mesh: session.request.mesh,
            remaining: session.until.map(|until| until.saturating_sub(boot)),
        });
        rows.collect()
    }

    /// The newest session of a host that is neither dead nor expired.
    pub(super) fn live_session(&self, host: HostId, boot: Duration) -> Option<Incarnation> {
        let mut sessions = self.sessions.iter().rev();
        sessions
            .find(|(_, session)| {
                session.request.host == host && session.until.is_none_or(|until| until > boot)
            })
            .map(|(incarnation, _)| *incarnation)
    }

    /// A living session as a holder.
    pub(super) fn holder_of(&self, incarnation: Incarnation) -> Result<Holder, StoreError> {
        let session = self.sessions.get(&incarnation).ok_or(StoreError::SessionDead { incarnation })?;
        Ok(Holder { host: session.request.host, incarnation })
    }

    pub(super) fn check_session(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        if self.sessions.contains_key(&incarnation) {
            Ok(())
        } else {
            Err(StoreError::SessionDead { incarnation })
        }
    }

    /// Who holds an agent: nobody, when the session is dead.
    pub(super) fn holder(&self, rows: &AgentRows) -> Option<Holder> {
        let incarnation = rows.standing.holder?;
        let session = self.sessions.get(&incarnation)?;
        Some(Holder { host: session.request.host, incarnation })
    }

    // --- fence and leases

    /// The rows of an agent that is at home here.
    pub(super) fn at_home(&mut self, agent: &AgentId) -> Result<&mut AgentRows, StoreError> {
        let rows = self.agents.get_mut(agent).ok_or(StoreError::NoAgent)?;
        match &rows.standing.home {
            Home::Here => Ok(rows),
            home => Err(StoreError::NotHome { home: home.clone() }),
        }
    }

    /// What the fence and the steps of a handoff decide by.
    pub(super) fn seat(&self, rows: &AgentRows) -> Seat {
        let Standing { home, token, holder: _, cause } = rows.standing.clone();
        let (generation, revision) = (rows.portable().generation, rows.portable().revision);
        Seat { home, token, generation, revision, holder: self.holder(rows), cause }
    }

    fn fence(&self, rows: &AgentRows) -> Fence {
        self.seat(rows).fence()
    }

    fn refused(&self, rows: &AgentRows, refusal: Refusal) -> StoreError {
        self.seat(rows).error(refusal.into())
    }

    /// The rows of an agent that is at home here, for its current owner and nobody else.
    pub(super) fn fenced(&mut self, owner: &Owner) -> Result<&mut AgentRows, StoreError> {
        self.admitted(&owner.agent, |fence| fence.check(&owner.claim()))
    }

    /// As `fenced`, for what builds on a revision.
    pub(super) fn fenced_at(&mut self, owner: &Owner, base: Revision) -> Result<&mut AgentRows, StoreError> {
        self.admitted(&owner.agent, |fence| fence.check_at(&owner.claim(), base))
    }

    fn admitted(
        &mut self,
        agent: &AgentId,
        check: impl FnOnce(Fence) -> Result<(), Refusal>,
    ) -> Result<&mut AgentRows, StoreError> {
        self.at_home(agent)?;
        let rows = &self.agents[agent];
        check(self.fence(rows)).map_err(|refusal| self.refused(rows, refusal))?;
        self.at_home(agent)
    }

    pub(super) fn acquire(
        &mut self,
        incarnation: Incarnation,
        agent: &AgentId,
        now_ms: u64,
    ) -> Result<Lease, StoreError> {
        self.at_home(agent)?;
        let rows = &self.agents[agent];
        let seat = self.seat(rows);
        match seat.fence().acquire(incarnation) {
            Acquire::Held => Ok(lease(rows, incarnation)),
            Acquire::Fenced => Err(fenced(rows, self.holder(rows))),
            Acquire::Free(token) => {
                Ok(self.grant(agent, token, incarnation, GrantCause::Acquired, (None, &seat), now_ms))
            }
        }
    }

    /// Gives an agent to a session under a new token, closing the migrations that this is not part of.
    pub(super) fn grant(
        &mut self,
        agent: &AgentId,
        token: FencingToken,
        incarnation: Incarnation,
        cause: GrantCause,
        (own, before): (Option<MigrationId>, &Seat),
        now_ms: u64,
    ) -> Lease {
        let rows = self.agents.get_mut(agent).expect("the caller has found the agent");
        rows.standing.home = Home::Here;
        rows.standing.token = token;
        rows.standing.holder = Some(incarnation);
        rows.standing.cause = cause;
        let lease = lease(rows, incarnation);
        let host = self.sessions.get(&incarnation).map(|session| session.request.host);
        let mut event = NewEvent::of_agent(agent, EventKind::LeaseAcquired, now_ms).with("token", token);
        if let Some(host) = host {
            event = event.with("host", host);
        }
        self.append([event]);
        self.close_migrations(agent, (own, before), now_ms);
        lease
    }

    pub(super) fn release(&mut self, owner: &Owner, now_ms: u64) -> Result<(), StoreError> {
        self.at_home(&owner.agent)?;
        let rows = &self.agents[&owner.agent];
        match self.fence(rows).release(&owner.claim()) {
            Release::Done => Ok(()),
            Release::Fenced => Err(fenced(rows, self.holder(rows))),
            Release::Freed => {
                self.at_home(&owner.agent)?.standing.holder = None;
                let event = NewEvent::of_agent(&owner.agent, EventKind::LeaseReleased, now_ms);
                self.append([event.with("token", owner.token)]);
                Ok(())
            }
        }
    }

    pub(super) fn lease(&self, agent: &AgentId) -> Option<Lease> {
        let rows = self.agents.get(agent)?;
        let holder = self.holder(rows)?;
        (rows.standing.home == Home::Here).then(|| lease(rows, holder.incarnation))
    }

    // --- agents

    /// The entity key of an agent that is at home here, if its secret is.
    pub(super) fn entity_key(&self, agent: &AgentId) -> Option<EntityKey> {
        let rows = self.agents.get(agent).filter(|rows| rows.standing.home == Home::Here)?;
        rows.entity_key().and_then(EntityKeyRow::key).cloned()
    }

    pub(super) fn create(&mut self, new: NewAgent, key: EntityKey, wall_ms: u64) -> Result<bool, StoreError> {
        if self.agents.contains_key(&new.agent) {
            let rows = self.at_home(&new.agent)?;
            if rows.portable().lifecycle == Lifecycle::Deleted {
                return Err(StoreError::Lifecycle { state: Lifecycle::Deleted });
            }
            return if rows.spec() == Some(&new.spec) && rows.portable().labels == new.labels {
                Ok(false)
            } else {
                Err(conflict(format!("agent {} exists with another spec or other labels", new.agent)))
            };
        }
        let plugin = new.spec.plugin;
        if !self.plugins.contains_key(&plugin) {
            return Err(StoreError::NoPlugin { plugin });
        }
        self.claims.take(&new.agent, new.claim, wall_ms)?;
        let mut rows = AgentRows::empty(&new.agent, Home::Here);
        let revision = SpecRevision(1);
        rows.put(Row::Spec { revision, spec: new.spec });
        rows.put(Row::EntityKey(EntityKeyRow::Whole(key)));
        rows.update(|portable| {
            portable.generation = Generation(1);
            portable.spec_revision = revision;
            portable.labels = new.labels;
            portable.created_at_ms = new.now_ms;
        });
        admit_initial(&mut rows, new.now_ms);
        let event =
            NewEvent::of_agent(&new.agent, EventKind::AgentCreated, new.now_ms).with("plugin", plugin);
        self.agents.insert(new.agent, rows);
        self.append([event]);
        Ok(true)
    }

    pub(super) fn agent_row(&self, rows: &AgentRows) -> AgentRow {
        let portable = rows.portable();
        AgentRow {
            agent: portable.agent.clone(),
            home: rows.standing.home.clone(),
            lifecycle: portable.lifecycle.clone(),
            generation: portable.generation,
            revision: portable.revision,
            token: rows.standing.token,
            holder: self.holder(rows),
            cause: rows.standing.cause.clone(),
            head: portable.head,
            next_seq: portable.next_seq,
            spec_revision: portable.spec_revision,
            plugin: rows.spec().map_or(Digest::ZERO, |spec| spec.plugin),
            public_key: rows.entity_key().map(EntityKeyRow::public),
            labels: portable.labels.clone(),
            open_inputs: rows.open_inputs(),
            open_bytes: rows.open_bytes(),
            pending_outputs: rows.pending_outputs(),
            state_keys: rows.state_size().0,
            state_bytes: rows.state_size().1,
            waking_inputs: rows.waking_inputs(),
            inputs_pruned: portable.inputs_pruned,
            failed_starts: portable.failed_starts,
            next_event: portable.next_event,
            time_ms: portable.time_ms,
            created_at_ms: portable.created_at_ms,
            change: rows.change(),
        }
    }

    pub(super) fn runnable(&mut self, incarnation: Incarnation, limit: usize) -> Vec<AgentId> {
        let mut runnable: Vec<&AgentId> = self
            .agents
            .iter()
            .filter(|(_, rows)| self.is_runnable(rows, incarnation))
            .map(|(agent, _)| agent)
            .collect();
        let behind = runnable.partition_point(|agent| Some(*agent) <= self.runnable_last.as_ref());
        runnable.rotate_left(behind);
        let named: Vec<AgentId> = runnable.into_iter().take(limit).cloned().collect();
        if let Some(last) = named.last() {
            self.runnable_last = Some(last.clone());
        }
        named
    }

    fn is_runnable(&self, rows: &AgentRows, incarnation: Incarnation) -> bool {
        let lifecycle = &rows.portable().lifecycle;
        let has_work = lifecycle.runs() && rows.waking_inputs() > 0
            || *lifecycle == Lifecycle::Retiring
            || lifecycle.publishes() && super::pending(rows, 0).next().is_some();
        let is_free_or_mine = self.holder(rows).is_none_or(|holder| holder.incarnation == incarnation);
        rows.standing.home == Home::Here && has_work && is_free_or_mine
    }

    pub(super) fn image(&self, agent: &AgentId, at: Option<Revision>) -> Option<AgentImage> {
        let rows = self.agents.get(agent)?;
        if matches!(rows.standing.home, Home::Moved(_)) {
            return None;
        }
        let spec = rows.spec()?.clone();
        let generation = rows.portable().generation;
        let mut kept = rows.snapshots().into_iter().filter(|snapshot| snapshot.generation == generation);
        let snapshot = kept.rfind(|snapshot| at.is_none_or(|at| snapshot.revision == at));
        if at.is_some() && snapshot.is_none() {
            return None;
        }
        let from = snapshot.map_or(Revision(0), |snapshot| snapshot.revision);
        Some(AgentImage {
            row: self.agent_row(rows),
            plugin: self.plugins.get(&spec.plugin).map(|(info, _)| info.clone()),
            spec,
            snapshot: snapshot.cloned(),
            receipts: rows.receipts_from(generation, from).cloned().collect(),
            journal: rows.journal_after(generation, from),
            damaged: BTreeMap::new(),
        })
    }

    // --- plugins

    pub(super) fn put_plugin(
        &mut self,
        info: PluginInfo,
        component: Bytes,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        if Digest::of(&component) != info.digest {
            let what = format!("component has another digest than {}", info.digest);
            return Err(StoreError::Corrupt { what });
        }
        if self.plugins.contains_key(&info.digest) {
            return Ok(false);
        }
        let mut others = self.plugins.values().map(|(other, _)| other);
        if others.any(|other| other.name == info.name && other.version == info.version) {
            let what = format!("plugin {} {} is another component", info.name, info.version);
            return Err(conflict(what));
        }
        let event = plugin_event(EventKind::PluginLoaded, &info, now_ms);
        self.plugins.insert(info.digest, (info, component));
        self.append([event]);
        Ok(true)
    }

    pub(super) fn plugin_infos(&self) -> Vec<PluginInfo> {
        let mut infos: Vec<PluginInfo> = self.plugins.values().map(|(info, _)| info.clone()).collect();
        infos.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        infos
    }

    pub(super) fn has_plugin(&self, plugin: Digest) -> bool {
        self.plugins.contains_key(&plugin)
    }

    pub(super) fn component(&self, plugin: Digest) -> Option<Bytes> {
        self.plugins.get(&plugin).map(|(_, component)| component.clone())
    }

    /// Counts the inputs that a boundary gives up because of its plugin.
    pub(super) fn flag(&mut self, boundary: &Boundary, now_ms: u64) {
        let flags = boundary.flags(now_ms);
        if let Some((info, _)) = self.plugins.get_mut(&boundary.receipt.plugin) {
            info.killed_hosts += flags.len() as u64;
        }
        self.append(flags);
    }

    pub(super) fn remove_plugin(&mut self, plugin: Digest, now_ms: u64) -> Result<bool, StoreError> {
        let pinning = |rows: &AgentRows| {
            rows.pin_of(plugin).map(|pin| StoreError::Pinned { agent: rows.portable().agent.clone(), pin })
        };
        if let Some(pinned) = self.agents.values().find_map(pinning) {
            return Err(pinned);
        }
        let Some((info, _)) = self.plugins.remove(&plugin) else {
            return Ok(false);
        };
        self.append([plugin_event(EventKind::PluginRemoved, &info, now_ms)]);
        Ok(true)
    }

    // --- auth flows

    pub(super) fn persist_auth_flow(&mut self, payload: Bytes) -> Result<(), StoreError> {
        if payload.len() > AUTH_FLOW_BYTES_MAX {
            return Err(StoreError::Full);
        }
        self.auth_flow = Some(payload);
        Ok(())
    }

    pub(super) fn update_auth_flow(&mut self, update: AuthFlowUpdate) -> Result<Bytes, AuthFlowError> {
        let current = self.auth_flow.as_deref();
        // The lock on all tables must outlive a panic of somebody else's code.
        let next = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| update(current)))
            .unwrap_or_else(|_| Err("it panicked".to_owned()));
        let next = Bytes::from(next.map_err(|reason| AuthFlowError::Refused { reason })?);
        self.persist_auth_flow(next.clone())?;
        Ok(next)
    }

    // --- migration records

    pub(super) fn put_migration(&mut self, record: MigrationRecord, now_ms: u64) -> Result<(), StoreError> {
        let key = (record.id, record.role == Role::Target);
        let stored = self.migrations.get(&key);
        let sides = [(record.id, false), (record.id, true)];
        if sides.iter().filter_map(|side| self.migrations.get(side)).any(|side| side.agent != record.agent) {
            return Err(conflict(format!("migration {} is of another agent", record.id)));
        }
        if stored.is_some_and(|stored| stored.phase.is_terminal() && stored.phase != record.phase) {
            return Err(conflict(format!("migration {} is over", record.id)));
        }
        let other_open = self.migrations.values().find(|other| {
            other.id != record.id
                && other.agent == record.agent
                && other.role == record.role
                && !other.phase.is_terminal()
                && !other.is_forced()
        });
        if let Some(other) = other_open.filter(|_| !record.phase.is_terminal()) {
            return Err(conflict(format!("migration {} of the agent is open", other.id)));
        }
        let is_new_phase = stored.is_none_or(|stored| stored.phase != record.phase);
        let agent = record.agent.clone();
        let event = migration_event(&record, now_ms);
        self.migrations.insert(key, record);
        self.forget_oldest_migrations(&agent);
        self.append(is_new_phase.then_some(event));
        self.settle_travelling(&agent);
        Ok(())
    }

    /// Closes the agent's open migrations, but for `own` and what its source has to hear: its token was raised by something else.
    pub(super) fn close_migrations(
        &mut self,
        agent: &AgentId,
        (own, before): (Option<MigrationId>, &Seat),
        now_ms: u64,
    ) {
        let mut events = Vec::new();
        for record in self.migrations.values_mut() {
            let is_closed = Some(record.id) != own && !record.phase.is_terminal() && !record.is_forced();
            if record.agent == *agent && is_closed {
                (record.phase, record.failure) = before.closes(record.id);
                events.push(migration_event(record, now_ms));
            }
        }
        self.forget_oldest_migrations(agent);
        self.append(events);
        self.settle_travelling(agent);
    }

    /// Of an agent's migrations that are over, the oldest of each side go, and the oldest of all that did not bring an agent.
    fn forget_oldest_migrations(&mut self, agent: &AgentId) {
        for is_target in [false, true] {
            let of_side = self.migrations.iter().filter(|((_, side), record)| {
                *side == is_target && record.agent == *agent && record.phase.is_terminal()
            });
            let mut over: Vec<_> = of_side.map(|((id, _), record)| (record.started_at_ms, *id)).collect();
            over.sort();
            let gone = over.len().saturating_sub(MIGRATIONS_KEPT_MAX);
            for (_, id) in over.into_iter().take(gone) {
                self.migrations.remove(&(id, is_target));
            }
        }
        let fruitless = self.migrations.iter().filter(|((_, is_target), record)| {
            *is_target && matches!(record.phase, Phase::Failed | Phase::Aborted)
        });
        let mut fruitless: Vec<_> = fruitless.map(|((id, _), record)| (record.started_at_ms, *id)).collect();
        fruitless.sort();
        let gone = fruitless.len().saturating_sub(FRUITLESS_KEPT_MAX);
        for (_, id) in fruitless.into_iter().take(gone) {
            self.migrations.remove(&(id, true));
        }
    }

    /// Deletes are kept while the agent has an open migration away from here.
    fn settle_travelling(&mut self, agent: &AgentId) {
        let is_travelling = self.migrations.values().any(|record| {
            record.agent == *agent && record.role == Role::Source && !record.phase.is_terminal()
        });
        if let Some(rows) = self.agents.get_mut(agent) {
            rows.is_travelling = is_travelling;
            rows.settle_deletes();
        }
    }

    pub(super) fn migration(&self, migration: MigrationId) -> Option<&MigrationRecord> {
        self.migrations.get(&(migration, false)).or_else(|| self.migrations.get(&(migration, true)))
    }

    pub(super) fn migrations(&self, limit: usize) -> Vec<MigrationRecord> {
        let mut records: Vec<MigrationRecord> = self.migrations.values().cloned().collect();
        let order = |record: &MigrationRecord| (!record.phase.is_terminal(), record.started_at_ms, record.id);
        records.sort_by_key(|record| std::cmp::Reverse(order(record)));
        records.truncate(limit);
        records
    }
}

pub(super) fn lease(rows: &AgentRows, incarnation: Incarnation) -> Lease {
    Lease {
        agent: rows.portable().agent.clone(),
        generation: rows.portable().generation,
        token: rows.standing.token,
        incarnation,
        cause: rows.standing.cause.clone(),
    }
}

pub(super) fn fenced(rows: &AgentRows, holder: Option<Holder>) -> StoreError {
    StoreError::Fenced { current: rows.standing.token, holder }
}

pub(super) fn stale(rows: &AgentRows) -> StoreError {
    StoreError::Stale { generation: rows.portable().generation, revision: rows.portable().revision }
}

pub(super) fn conflict(what: impl Into<String>) -> StoreError {
    StoreError::Conflict { what: what.into() }
}

fn session_event(
    kind: EventKind,
    request: &SessionRequest,
    incarnation: Incarnation,
    at_ms: u64,
) -> NewEvent {
    let event = NewEvent { agent: None, kind, at_ms, data: Vec::new() };
    event.with("host", request.host).with("name", &request.name).with("incarnation", incarnation)
}

fn plugin_event(kind: EventKind, info: &PluginInfo, at_ms: u64) -> NewEvent {
    let event = NewEvent { agent: None, kind, at_ms, data: Vec::new() };
    event.with("plugin", info.digest).with("name", &info.name).with("version", &info.version)
}

fn migration_event(record: &MigrationRecord, at_ms: u64) -> NewEvent {
    let event = NewEvent::of_agent(&record.agent, EventKind::Migration, at_ms)
        .with("migration", record.id)
        .with("phase", record.phase.name());
    match &record.failure {
        Some(failure) => event.with("failure", failure.name()),
        None => event,
    }
}
