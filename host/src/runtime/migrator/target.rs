//! The target of a migration: it answers the source, keeps a copy that is not live, and a guest that is warm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use godwit_core::agent::WarmGuest;
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, HostId, MigrationId};
use godwit_core::lease::{Lease, LeaseGuard};
use godwit_core::mesh::Bulk;
use godwit_core::migration::recovery::{
    Activation, Have, TargetFinds, Unwelcome, activation, became, supersedes, target_finds, target_has,
};
use godwit_core::migration::{Failure, Phase, Refusal, Role};
use godwit_core::spec::PluginInfo;
use godwit_core::store::{Adoption, MigrationRecord, StoreError};
use godwit_core::time::within;

use super::super::Runtime;
use super::super::wire::{BulkHeader, MigrationAnswer, MigrationMessage, Reservation};
use super::claims::{self, ARRIVAL_KEPT, ARRIVALS_MAX, ARRIVALS_OF_PEER_MAX};

mod arrived;
mod incoming;

use arrived::{Bundle, unwritten};
use incoming::Incoming;

/// How long the source of an older try may take to say that it has given it up, while a new one waits.
const GIVEN_UP_MAX: Duration = Duration::from_secs(2);
/// How long what is forgotten is waited for, when it is being written.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Longest wait until an agent that has come is loaded, before its source hears that it is here.
const LOADED_MAX: Duration = Duration::from_secs(2);

/// An open migration at its target, and whose messages about it count.
pub(super) struct Arrival {
    source: HostId,
    agent: AgentId,
    plugin: PluginInfo,
    /// Boot time of the source's last message, milliseconds.
    heard_at_ms: AtomicU64,
    state: tokio::sync::Mutex<Incoming>,
}

/// What was said makes no sense here.
pub(super) fn refused(reason: impl Into<String>) -> MigrationAnswer {
    MigrationAnswer::Refused { why: Refusal::Protocol, reason: reason.into() }
}

pub(super) fn refused_for(why: Refusal, reason: impl Into<String>) -> MigrationAnswer {
    MigrationAnswer::Refused { why, reason: reason.into() }
}

pub(super) fn not_ready(reason: impl ToString) -> MigrationAnswer {
    MigrationAnswer::NotReady { reason: reason.to_string() }
}

impl Runtime {
    /// Answers a message about a migration. `from` has proven its key.
    pub(crate) async fn on_migration(
        &self,
        from: HostId,
        id: MigrationId,
        agent: AgentId,
        message: MigrationMessage,
    ) -> MigrationAnswer {
        match message {
            MigrationMessage::Reserve(reservation) => self.on_reserve(from, id, agent, *reservation).await,
            MigrationMessage::Activate { token } => self.on_activate(from, id, &agent, token).await,
            MigrationMessage::WhatHaveYou => self.on_what_have_you(from, id, &agent).await,
            MigrationMessage::WhatBecame => self.on_what_became(from, id, &agent).await,
            MigrationMessage::Abort => self.on_abort(from, id, &agent).await,
            MigrationMessage::Forced { token } => self.on_forced(from, id, &agent, token).await,
            MigrationMessage::Restore { revision } => match self.incoming_of(from, id, &agent) {
                Some(incoming) => incoming.state.lock().await.on_restore(self, revision).await,
                None => refused("no such migration is open here"),
            },
            MigrationMessage::Prepare(preparation) => match self.incoming_of(from, id, &agent) {
                Some(incoming) => incoming.state.lock().await.on_prepare(self, *preparation).await,
                None => refused("no such migration is open here"),
            },
        }
    }

    fn boot_ms(&self) -> u64 {
        u64::try_from(self.inner().clock.boot().as_millis()).unwrap_or(u64::MAX)
    }

    /// The open migration, if it is this source's, from which something has come.
    fn incoming(&self, from: HostId, id: MigrationId) -> Option<Arc<Arrival>> {
        let arrival = self.inner().migrator.incoming().get(&id).cloned()?;
        if arrival.source != from && !claims::believes_everybody() {
            return None;
        }
        arrival.heard_at_ms.fetch_max(self.boot_ms(), Ordering::Relaxed);
        Some(arrival)
    }

    /// As `incoming`, if it moves this agent.
    fn incoming_of(&self, from: HostId, id: MigrationId, agent: &AgentId) -> Option<Arc<Arrival>> {
        self.incoming(from, id).filter(|arrival| arrival.agent == *agent)
    }

    /// Enters an open migration, unless there are too many of them. Answers whether it is new.
    fn enter_arrival(&self, id: MigrationId, arrival: Arrival) -> Result<bool, MigrationAnswer> {
        let mut arrivals = self.inner().migrator.incoming();
        let source = arrival.source;
        if let Some(known) = arrivals.get(&id) {
            let is_same = known.source == source && known.agent == arrival.agent;
            return if is_same { Ok(false) } else { Err(refused("this migration is another one here")) };
        }
        let of_peer = arrivals.values().filter(|arrival| arrival.source == source).count();
        if of_peer >= ARRIVALS_OF_PEER_MAX || arrivals.len() >= ARRIVALS_MAX {
            tracing::warn!(peer = %source, open = of_peer, "too many migrations are open: a reservation was put off");
            return Err(not_ready(format!(
                "{of_peer} migrations from this peer are open here: let some end"
            )));
        }
        arrivals.insert(id, Arc::new(arrival));
        Ok(true)
    }

    /// For how long the source of a migration that arrives has said nothing; `None` when this process received nothing of it.
    pub(super) fn silence_of(&self, id: MigrationId) -> Option<Duration> {
        let now_ms = self.boot_ms();
        let arrival = self.inner().migrator.incoming().get(&id).cloned()?;
        let heard_at_ms = arrival.heard_at_ms.load(Ordering::Relaxed);
        Some(Duration::from_millis(now_ms.saturating_sub(heard_at_ms)))
    }

    /// Lets go of what has arrived from sources that have been silent for so long. Nothing of it is written any more then.
    pub(in crate::runtime) async fn forget_silent(&self, most: Duration) {
        let arrivals: Vec<(MigrationId, Arc<Arrival>)> = {
            let arrivals = self.inner().migrator.incoming();
            arrivals.iter().map(|(id, arrival)| (*id, arrival.clone())).collect()
        };
        for (id, arrival) in arrivals {
            // Whoever has it is at work on what its source has said.
            let Ok(mut incoming) = arrival.state.try_lock() else { continue };
            let silent_ms = self.boot_ms().saturating_sub(arrival.heard_at_ms.load(Ordering::Relaxed));
            if Duration::from_millis(silent_ms) < most {
                continue;
            }
            // A disk that does not answer keeps nobody else waiting; the next look tries again.
            if within(CLOSE_MAX, incoming.close()).await.is_some() {
                self.inner().migrator.incoming().remove(&id);
            }
        }
    }

    async fn on_reserve(
        &self,
        from: HostId,
        id: MigrationId,
        agent: AgentId,
        reservation: Reservation,
    ) -> MigrationAnswer {
        if let Err(error) = self.check_admission() {
            return not_ready(error);
        }
        if let Err(no) = claims::check_reservation(&reservation) {
            return no;
        }
        if reservation.is_shared {
            match self.session_of(from).await {
                Ok(Some(_)) => {}
                Ok(None) => return refused("this host's store is not the one of the agent's host"),
                Err(error) => return not_ready(error),
            }
        }
        let has_plugin = match self.inner().store.component(reservation.plugin.digest).await {
            Ok(component) => component.is_some(),
            Err(error) => return not_ready(error),
        };
        if let Err(no) = self.may_take(from, &agent, &reservation, has_plugin).await {
            return no;
        }
        let answer = if has_plugin { MigrationAnswer::Ok } else { MigrationAnswer::NeedsPlugin };
        let now_ms = self.now_ms();
        let kept_ms = u64::try_from(ARRIVAL_KEPT.as_millis()).unwrap_or(u64::MAX);
        let record = MigrationRecord {
            id,
            agent,
            role: Role::Target,
            source: from,
            target: self.inner().host,
            phase: Phase::Reserve,
            failure: None,
            rounds: 0,
            bytes: 0,
            pause_us: None,
            started_at_ms: now_ms,
            // The source's own deadline is of its first phase.
            deadline_ms: now_ms.saturating_add(kept_ms),
        };
        let is_shared = reservation.is_shared;
        // Before the record: one without what has arrived is of an earlier process.
        match self.enter_arrival(id, self.arrival(record.clone(), reservation)) {
            Ok(true) => {}
            // Asked again because the first answer was lost, or late: what has arrived since stays.
            Ok(false) => {
                return match self.inner().store.migration(id).await {
                    Ok(None) if !is_shared => not_ready("the reservation is being recorded"),
                    Ok(_) => answer,
                    Err(error) => not_ready(error),
                };
            }
            Err(no) => return no,
        }
        if let Err(no) = self.record_arrival(record, is_shared).await {
            self.inner().migrator.incoming().remove(&id);
            return no;
        }
        failpoint::hit("migration.target.after-reserve");
        answer
    }

    async fn record_arrival(&self, record: MigrationRecord, is_shared: bool) -> Result<(), MigrationAnswer> {
        self.drop_older_tries(&record).await?;
        // On a shared store the source's record is this side's too.
        if is_shared {
            return Ok(());
        }
        let put = self.inner().store.put_migration(record).await;
        put.map_err(|error| if error == StoreError::Full { unwritten(&error) } else { not_ready(error) })
    }

    fn arrival(&self, record: MigrationRecord, reservation: Reservation) -> Arrival {
        let (source, agent, plugin) = (record.source, record.agent.clone(), reservation.plugin.clone());
        let guard = LeaseGuard::new(self.session().lease.clone(), reservation.token.next());
        let incoming = Incoming::new(record, reservation, guard);
        let (heard_at_ms, state) = (AtomicU64::new(self.boot_ms()), tokio::sync::Mutex::new(incoming));
        Arrival { source, agent, plugin, heard_at_ms, state }
    }

    /// A source that reserves anew has given up what it tried before. Another host can't say that: its source is asked.
    ///
    /// # Errors
    /// `NotReady` when it is this one that is late.
    async fn drop_older_tries(&self, new: &MigrationRecord) -> Result<(), MigrationAnswer> {
        let records = self.inner().store.migrations(super::LISTED_MAX).await.map_err(not_ready)?;
        let others = records.into_iter().filter(|record| {
            record.role == Role::Target
                && record.agent == new.agent
                && record.id != new.id
                && !record.phase.is_terminal()
        });
        for record in others {
            if record.source == new.source {
                supersedes(new.id, record.id).map_err(unwelcome)?;
            } else if !self.is_given_up(&record).await {
                continue;
            }
            self.discard_unbound(record, "a newer migration").await;
        }
        Ok(())
    }

    /// Whether the source of a migration to this host says that nothing will come of it.
    async fn is_given_up(&self, record: &MigrationRecord) -> bool {
        let told = self.tell(record.source, record.id, &record.agent, MigrationMessage::WhatBecame);
        matches!(within(GIVEN_UP_MAX, told).await, Some(Ok(MigrationAnswer::Nothing)))
    }

    /// Forgets a copy, unless it is bound: that needs the source's word.
    pub(super) async fn discard_unbound(&self, record: MigrationRecord, by: &str) {
        self.drop_copy(record, by, false).await;
    }

    /// Forgets a copy that the source has given up, bound or not.
    pub(super) async fn discard(&self, record: MigrationRecord, by: &str) {
        self.drop_copy(record, by, true).await;
    }

    /// Forgets all copies from a host that are not bound.
    pub(super) async fn discard_arrivals_of(&self, source: HostId) {
        let ids: Vec<_> = {
            let arrivals = self.inner().migrator.incoming();
            let of_source = arrivals.iter().filter(|(_, arrival)| arrival.source == source);
            of_source.map(|(id, _)| *id).collect()
        };
        for id in ids {
            if let Ok(Some(record)) = self.inner().store.migration(id).await {
                self.discard_unbound(record, "removal of its source from the peers").await;
            }
        }
    }

    /// The lock that `Prepare` needs is held meanwhile: what is dropped is not bound any more. The record ends only when the copy
    /// is gone; until then it is tried again.
    async fn drop_copy(&self, record: MigrationRecord, by: &str, may_be_bound: bool) {
        let (id, store) = (record.id, &self.inner().store);
        let incoming = self.inner().migrator.incoming().get(&id).cloned();
        let mut held = match &incoming {
            Some(incoming) => Some(incoming.state.lock().await),
            None => None,
        };
        let seat = match store.agent(&record.agent).await {
            Ok(row) => row.map(|row| row.seat()),
            Err(error) => {
                tracing::warn!(migration = %id, %error, "copy stays: its row can't be read");
                return;
            }
        };
        if matches!(target_finds(seat.as_ref(), id), TargetFinds::Bound(_)) && !may_be_bound {
            return;
        }
        if let Some(incoming) = held.as_mut() {
            incoming.close().await;
        }
        if let Err(error) = store.discard_copy(id).await {
            tracing::warn!(migration = %id, %error, "copy can't be discarded now");
            return;
        }
        self.inner().migrator.incoming().remove(&id);
        self.end_record(record, Phase::Aborted, Some(Failure::Aborted { by: by.to_owned() })).await;
    }

    /// Takes a bulk transfer of a source.
    pub(crate) async fn take_bulk(&self, from: HostId, header: BulkHeader, bulk: Bulk) -> MigrationAnswer {
        let Bulk { body, digest, .. } = bulk;
        match header {
            BulkHeader::Plugin { id, plugin } => match self.incoming(from, id) {
                Some(arrival) if arrival.plugin != plugin => {
                    refused_for(Refusal::Plugin, "the component is another than was reserved")
                }
                Some(_) => self.take_plugin(plugin, body).await,
                None => refused("no such migration is open here"),
            },
            BulkHeader::Rows { id, agent } => {
                self.take_bundle(from, (id, &agent), Bundle { body, digest, unpacked: None }).await
            }
            BulkHeader::PackedRows { id, agent, bytes } => {
                self.take_bundle(from, (id, &agent), Bundle { body, digest, unpacked: Some(bytes) }).await
            }
            _ => refused("this is about no migration"),
        }
    }

    async fn take_bundle(
        &self,
        from: HostId,
        (id, agent): (MigrationId, &AgentId),
        bundle: Bundle,
    ) -> MigrationAnswer {
        match self.incoming_of(from, id, agent) {
            Some(incoming) => incoming.state.lock().await.take_bundle(self, bundle).await,
            None => refused("no such migration is open here"),
        }
    }

    pub(in crate::runtime) async fn take_plugin(
        &self,
        plugin: PluginInfo,
        component: Bytes,
    ) -> MigrationAnswer {
        if Digest::of(&component) != plugin.digest {
            return refused_for(Refusal::Plugin, "the component's bytes are not those of its digest");
        }
        match self.compile(component.clone()).await.map(|loaded| claims::check_plugin(&plugin, &loaded)) {
            Ok(Ok(())) => {}
            Ok(Err(no)) => return no,
            Err(error) => return refused_for(Refusal::Plugin, error.to_string()),
        }
        let plugin = PluginInfo { loaded_at_ms: self.now_ms(), ..plugin };
        match self.inner().store.put_plugin(plugin, component).await {
            Ok(_) => MigrationAnswer::Ok,
            Err(error) => refused(error.to_string()),
        }
    }

    async fn on_activate(
        &self,
        from: HostId,
        id: MigrationId,
        agent: &AgentId,
        token: FencingToken,
    ) -> MigrationAnswer {
        let Ok(Some(record)) = self.inner().store.migration(id).await else {
            return refused("no such migration is known here");
        };
        if record.source != from || record.agent != *agent {
            return refused("this migration has another source or agent");
        }
        if record.phase == Phase::Complete {
            return MigrationAnswer::Activated;
        }
        self.activate_here(record, token).await
    }

    /// Step 4: the copy becomes the agent. Repeatable.
    pub(super) async fn activate_here(
        &self,
        record: MigrationRecord,
        token: FencingToken,
    ) -> MigrationAnswer {
        let (store, id, agent) = (&self.inner().store, record.id, record.agent.clone());
        let row = match store.agent(&agent).await {
            Ok(row) => row,
            Err(error) => return not_ready(error),
        };
        let (seat, rests) =
            (row.as_ref().map(|row| row.seat()), row.is_some_and(|row| row.lifecycle.rests()));
        let lease = match activation(seat.as_ref(), id, token) {
            Activation::Adopt => {
                match store.adopt(&agent, id, self.session().incarnation, Adoption::Granted).await {
                    Ok(lease) => lease,
                    Err(error) => return refused(error.to_string()),
                }
            }
            Activation::Run => match store.lease(&agent).await {
                Ok(Some(lease)) => lease,
                // Its holder is gone, or has let go: whoever takes it next has it under a later token.
                Ok(None) => return MigrationAnswer::Activated,
                Err(error) => return not_ready(error),
            },
            Activation::Passed => return MigrationAnswer::Activated,
            Activation::Refused => return refused("no copy is bound for this migration under this token"),
        };
        failpoint::hit("migration.target.after-adopted");
        let incoming = self.inner().migrator.incoming().remove(&id);
        let mut record = record;
        let (guard, warm) = match incoming {
            Some(incoming) => {
                let mut incoming = incoming.state.lock().await;
                (record.rounds, record.bytes) = (incoming.record.rounds, incoming.record.bytes);
                (incoming.guard.clone(), incoming.warm.take())
            }
            None => (LeaseGuard::new(self.session().lease.clone(), lease.token), None),
        };
        if lease.incarnation == self.session().incarnation {
            self.run_here(lease, (guard, warm), rests).await;
        }
        self.inner().migrator.expected.has_arrived(&agent);
        failpoint::hit("migration.target.before-activated");
        // The row says that it is ours; the record may follow while the source ends the pause.
        if record.role == Role::Target {
            let runtime = self.clone();
            self.inner().tasks.spawn(async move {
                if let Err(error) = runtime.note_head().await {
                    let agent = &record.agent;
                    tracing::error!(%agent, %error, "a backup of before this migration would not be recognized");
                }
                runtime.end_record(record, Phase::Complete, None).await;
            });
        }
        MigrationAnswer::Activated
    }

    /// An agent that has come is taken up, and loaded if it runs: then the pause is over.
    async fn run_here(&self, lease: Lease, (guard, warm): (LeaseGuard, Option<WarmGuest>), rests: bool) {
        let agent = lease.agent.clone();
        let is_ours = guard.token() == lease.token;
        let guard = if is_ours { guard } else { LeaseGuard::new(self.session().lease.clone(), lease.token) };
        self.inner().hints.forget(&agent);
        if let Err(held) = self.check_may_own(&agent) {
            tracing::warn!(%agent, %held, "it is at home here, and does not run yet");
        } else if rests {
            self.inner().directory.enter(lease, guard);
        } else {
            let handle = self.take_up(lease, guard, warm.filter(|_| is_ours));
            handle.wake();
            // What comes of its start is no longer the source's to know.
            let _ = within(LOADED_MAX, handle.started()).await;
        }
        self.inner().rescan.notify_one();
    }

    /// The source's word that the agent does not come. Answers `Adopted` when it has come all the same, on an operator's word.
    async fn on_abort(&self, from: HostId, id: MigrationId, agent: &AgentId) -> MigrationAnswer {
        match self.inner().store.migration(id).await {
            Ok(Some(record))
                if record.source == from && record.agent == *agent && record.role == Role::Target =>
            {
                if self.what_have_you(id, agent).await == Some(Have::Agent) {
                    return MigrationAnswer::Adopted;
                }
                self.discard(record, "source").await;
                MigrationAnswer::Ok
            }
            Err(error) => not_ready(error),
            Ok(_) => {
                // On a shared store only the warm guest goes.
                if let Some(incoming) = self.incoming_of(from, id, agent) {
                    incoming.state.lock().await.close().await;
                    self.inner().migrator.incoming().remove(&id);
                }
                MigrationAnswer::Nothing
            }
        }
    }

    /// Asked by the source.
    async fn on_what_have_you(&self, from: HostId, id: MigrationId, agent: &AgentId) -> MigrationAnswer {
        let record = self.inner().store.migration(id).await;
        if record.is_ok_and(|record| record.is_some_and(|record| record.source != from)) {
            return refused("this migration has another source");
        }
        match self.what_have_you(id, agent).await {
            Some(have) => have.into(),
            None => not_ready("the row can't be read now"),
        }
    }

    /// `None` when the store does not say.
    async fn what_have_you(&self, id: MigrationId, agent: &AgentId) -> Option<Have> {
        let store = &self.inner().store;
        let row = store.agent(agent).await.ok()?;
        let record = store.migration(id).await.ok()?;
        let is_complete =
            record.is_some_and(|record| record.role == Role::Target && record.phase == Phase::Complete);
        Some(target_has(row.map(|row| row.seat()).as_ref(), id, is_complete))
    }

    /// Asked at the source, by the target. The record is read first: while it is open the row may still change.
    async fn on_what_became(&self, from: HostId, id: MigrationId, agent: &AgentId) -> MigrationAnswer {
        let store = &self.inner().store;
        let (Ok(record), Ok(row)) = (store.migration(id).await, store.agent(agent).await) else {
            return MigrationAnswer::Pending;
        };
        if record.as_ref().is_some_and(|record| record.target != from) {
            return refused("this migration has another target");
        }
        let is_open = record.is_some_and(|record| !record.phase.is_terminal());
        became(row.map(|row| row.seat()).as_ref(), id, is_open).into()
    }
}

/// Why an agent is not taken, in the words of the protocol.
pub(super) fn unwelcome(why: Unwelcome) -> MigrationAnswer {
    match why {
        Unwelcome::Living => refused_for(Refusal::Exists, "an agent of this id is at home here"),
        Unwelcome::Later => refused_for(Refusal::Exists, "a newer tombstone of this agent is here"),
        Unwelcome::Unsettled => not_ready("an earlier migration of this agent is not settled"),
    }
}
