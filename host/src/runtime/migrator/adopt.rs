//! An agent in doubt: its copy is bound here, and its source does not say whether it has let go. By itself a host waits for that
//! word for ever. An operator who knows that the source is lost for good can take its place.

use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, HostId, MigrationId};
use godwit_core::lease::LeaseGuard;
use godwit_core::mesh::MeshError;
use godwit_core::migration::{Failure, Phase, Role};
use godwit_core::standby;
use godwit_core::store::{Adoption, AgentRow, BrokenReason, Home, Lifecycle, MigrationRecord};

use super::super::Runtime;
use super::super::call::{AgentView, CallError};
use super::super::routing::store_error;
use super::super::wire::{MigrationAnswer, MigrationMessage};
use super::claims;
use super::target::{not_ready, refused};

impl Runtime {
    /// Settles an agent whose copy is bound here, by asking its source once more. With `is_forced`, a source that does not
    /// answer is taken for lost: the agent goes on here, under a token above all that the source could still give. If the
    /// source comes back, it is told so, and holds its own (the migration there has failed as `forked`) or, if it had taken it back, breaks
    /// it; nothing is merged.
    ///
    /// At such a source, `is_forced` gives up what is held there.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the agent is not in doubt here, or its source says that it has it or is about to decide;
    /// `Unavailable` when the source does not answer and nothing is forced.
    pub async fn adopt(&self, agent: &AgentId, is_forced: bool) -> Result<AgentView, CallError> {
        let _inside = self.admit()?;
        let store = &self.inner().store;
        let row = store.agent(agent).await.map_err(store_error)?;
        let row = row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?;
        if let Home::HandingOff { migration, target, .. } = row.home {
            return self.give_up(agent, (migration, target), is_forced).await;
        }
        let standby = standby::of(&row.labels).ok().flatten();
        if let (Home::Here, Lifecycle::Broken(BrokenReason::Forked), Some(standby)) =
            (&row.home, &row.lifecycle, standby)
        {
            return self.give_up_promoted(&row, standby, is_forced).await;
        }
        let Home::Prepared { migration, token, source, .. } = row.home else {
            let what = format!("agent {agent} is not in doubt here: nobody need decide about it");
            return Err(CallError::Conflict { what });
        };
        let record = self.migration(migration).await?;
        match self.tell(source, migration, agent, MigrationMessage::WhatBecame).await {
            Ok(MigrationAnswer::Adopted) => {
                self.activate_here(record, token).await;
            }
            Ok(MigrationAnswer::Nothing) => {
                self.discard(record, "source").await;
                return Err(CallError::Conflict { what: format!("agent {agent} is still on host {source}") });
            }
            Ok(_) => {
                let what = format!("host {source} is about to decide about agent {agent}: ask again");
                return Err(CallError::Conflict { what });
            }
            Err(error) if !is_forced => {
                let reason = format!(
                    "the source does not say what became of agent {agent} ({error}). If it is lost for good, force it"
                );
                return Err(CallError::Unavailable { reason });
            }
            Err(error) => {
                tracing::warn!(%agent, %migration, %source, %error, "adopted on an operator's word");
                // Open until the source has heard of it, however often this host starts anew.
                let record = MigrationRecord { failure: Some(Failure::Forked), ..record };
                store.put_migration(record).await.map_err(store_error)?;
                let session = self.session();
                let adopted = store.adopt(agent, migration, session.incarnation, Adoption::Forced).await;
                let lease = adopted.map_err(store_error)?;
                self.inner().migrator.incoming().remove(&migration);
                self.inner().hints.forget(agent);
                let guard = LeaseGuard::new(session.lease.clone(), lease.token);
                self.take_up(lease, guard, None).wake();
                self.inner().rescan.notify_one();
            }
        }
        let row = store.agent(agent).await.map_err(store_error)?;
        self.view(&row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?).await
    }

    /// Tells the source of a copy that was forced here that the agent runs, or has run, under a token above all that the source can
    /// have given. Done again until it has been heard: a source that took the agent back meanwhile would run a second one.
    pub(super) async fn tell_forced(&self, record: MigrationRecord) {
        let token = match self.inner().store.agent(&record.agent).await {
            Ok(Some(row)) => row.token,
            // Nothing of it is left to be told of.
            Ok(None) => return self.end_record(record, Phase::Complete, None).await,
            Err(error) => {
                return tracing::warn!(agent = %record.agent, %error, "the row of a forced agent can't be read now");
            }
        };
        match self.tell(record.source, record.id, &record.agent, MigrationMessage::Forced { token }).await {
            // One that knows nothing of it, or is no peer any more, has nothing to be told.
            Ok(MigrationAnswer::Ok | MigrationAnswer::Refused { .. })
            | Err(MeshError::UnknownPeer { .. }) => {
                self.end_record(record, Phase::Complete, None).await;
            }
            answer => {
                tracing::debug!(agent = %record.agent, ?answer, "the source does not know yet who runs it")
            }
        }
    }

    /// A target's word that an operator has forced the copy there. What was taken back here meanwhile ends: of the lower token.
    pub(super) async fn on_forced(
        &self,
        from: HostId,
        id: MigrationId,
        agent: &AgentId,
        token: FencingToken,
    ) -> MigrationAnswer {
        let (record, row) =
            match (self.inner().store.migration(id).await, self.inner().store.agent(agent).await) {
                (Ok(record), Ok(row)) => (record, row),
                (Err(error), _) | (_, Err(error)) => return not_ready(error),
            };
        let is_its = |record: &&MigrationRecord| {
            record.role == Role::Source && record.target == from && record.agent == *agent
        };
        let Some(record) = record.as_ref().filter(is_its) else {
            return refused("no such migration to this host is known here");
        };
        if let Err(no) = claims::check_token(token) {
            return no;
        }
        match row {
            Some(row) if row.home == Home::Here && row.token < token => {
                match self.break_as_forked(agent).await {
                    Ok(()) => MigrationAnswer::Ok,
                    Err(error) => not_ready(error),
                }
            }
            // It is about to be taken back, or to be held.
            Some(AgentRow { home: Home::HandingOff { .. }, .. }) if !record.phase.is_terminal() => {
                not_ready("the migration is being settled")
            }
            _ => MigrationAnswer::Ok,
        }
    }

    /// Gives up what is left of an agent that was promoted at its standby, as of one that was forced at a migration's target: with the
    /// record of such a migration, so that a host that dies in between is where the other one stands.
    async fn give_up_promoted(
        &self,
        row: &AgentRow,
        standby: HostId,
        is_forced: bool,
    ) -> Result<AgentView, CallError> {
        let (agent, store) = (&row.agent, &self.inner().store);
        if !is_forced {
            let what = format!(
                "agent {agent} was promoted on its standby, host {standby}. To give up what only this host has of it, force it"
            );
            return Err(CallError::Conflict { what });
        }
        let now_ms = self.now_ms();
        let migration = MigrationId::generate(now_ms, self.inner().clock.random());
        let owner = self.own(agent).await.map_err(store_error)?.owner();
        let record = MigrationRecord {
            id: migration,
            agent: agent.clone(),
            role: Role::Source,
            source: self.inner().host,
            target: standby,
            phase: Phase::Failed,
            failure: Some(Failure::Forked),
            rounds: 0,
            bytes: 0,
            pause_us: None,
            started_at_ms: now_ms,
            deadline_ms: now_ms,
        };
        store.put_migration(record).await.map_err(store_error)?;
        store.begin_handoff(&owner, row.revision, migration, standby).await.map_err(store_error)?;
        failpoint::hit("standby.source.after-given-up");
        self.inner().directory.lose(agent, owner.token);
        self.give_up(agent, (migration, standby), true).await
    }

    /// Gives up what is held of an agent that its target runs on an operator's word: here only the forwarding address stays.
    async fn give_up(
        &self,
        agent: &AgentId,
        (migration, target): (MigrationId, HostId),
        is_forced: bool,
    ) -> Result<AgentView, CallError> {
        let (store, record) = (&self.inner().store, self.migration(migration).await?);
        if record.failure != Some(Failure::Forked) {
            let what = format!("agent {agent} is being handed off to host {target}: ask again");
            return Err(CallError::Conflict { what });
        }
        if !is_forced {
            let what = format!(
                "host {target} runs agent {agent}, which was not let go here. To give up what only this host has of it, force it"
            );
            return Err(CallError::Conflict { what });
        }
        tracing::warn!(%agent, %migration, %target, "given up on an operator's word");
        store.finish_handoff(agent, migration).await.map_err(store_error)?;
        self.inner().hints.learn(agent, target);
        store.forget_moved(agent, migration).await.map_err(store_error)?;
        let row = store.agent(agent).await.map_err(store_error)?;
        self.view(&row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?).await
    }
}
