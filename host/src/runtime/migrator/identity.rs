//! Entity keys in transit, and which migrations a host expects.
//!
//! A key leaves its store only in an envelope that its target opens, and only for this agent, this migration and this token.
//! Or not at all: then the agent arrives unable to sign, unless its target was given the key before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use godwit_core::id::{AgentId, FencingToken, HostId, MigrationId};
use godwit_core::identity::{EntityKey, EntityKeyRow};
use godwit_core::store::{Row, RowFrame};

use super::super::Runtime;
use super::super::call::CallError;
use crate::envelope;

/// Migrations that are expected at the same time.
const EXPECTED_MAX: usize = 1_000;

/// What an envelope is for. All of it must be the same at both ends.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Passage {
    pub(super) agent: AgentId,
    pub(super) migration: MigrationId,
    /// The source's when it reserved.
    pub(super) token: FencingToken,
    pub(super) purpose: Purpose,
}

/// What a key goes along for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The agent moves.
    Migration,
    /// A copy of it stands by.
    Standby,
}

impl Passage {
    /// Of rows of a copy that stands by.
    pub(in crate::runtime) fn to_standby(agent: &AgentId, session: MigrationId, token: FencingToken) -> Self {
        Self { agent: agent.clone(), migration: session, token, purpose: Purpose::Standby }
    }

    fn context(&self) -> Vec<u8> {
        let parts = (self.agent.as_str(), self.migration.0, self.token.0);
        let written = match self.purpose {
            Purpose::Migration => postcard::to_stdvec(&parts),
            Purpose::Standby => postcard::to_stdvec(&(parts, "standby")),
        };
        written.expect("texts and numbers can be written")
    }
}

/// A migration to this host that somebody has announced.
#[derive(Debug, Clone)]
struct Expected {
    /// From which host; from any peer when nothing is said.
    from: Option<HostId>,
    /// The agent's key, which does not travel.
    key: Option<EntityKey>,
}

/// Those that have not arrived yet, by agent. They are forgotten with the process.
#[derive(Default)]
pub(super) struct Expectations(Mutex<BTreeMap<AgentId, Expected>>);

impl Expectations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this agent is expected from this host.
    pub(super) fn has(&self, agent: &AgentId, from: HostId) -> bool {
        self.lock().get(agent).is_some_and(|expected| expected.from.is_none_or(|host| host == from))
    }

    pub(super) fn has_arrived(&self, agent: &AgentId) {
        self.lock().remove(agent);
    }

    fn key(&self, agent: &AgentId) -> Option<EntityKey> {
        self.lock().get(agent).and_then(|expected| expected.key.clone())
    }
}

impl Runtime {
    /// Expects a migration of an agent to this host, from one host or any peer. A host that takes only what is expected
    /// takes it then; and with the agent's secret key it can sign here, though its key does not travel. Forgotten when it
    /// has arrived, and when the process ends; saying it again replaces what was said.
    ///
    /// # Errors
    /// `Full` when `EXPECTED_MAX` are expected already.
    pub fn expect_migration(
        &self,
        agent: AgentId,
        from: Option<HostId>,
        secret: Option<&[u8; 32]>,
    ) -> Result<(), CallError> {
        self.check_admission()?;
        let mut expected = self.inner().migrator.expected.lock();
        if expected.len() >= EXPECTED_MAX && !expected.contains_key(&agent) {
            let what = format!("{EXPECTED_MAX} migrations are expected already: let some arrive first");
            return Err(CallError::Conflict { what });
        }
        expected.insert(agent, Expected { from, key: secret.map(EntityKey::from_secret) });
        Ok(())
    }

    /// The frames as they leave this host.
    pub(in crate::runtime) fn sealed(
        &self,
        frames: Vec<RowFrame>,
        target: HostId,
        passage: &Passage,
    ) -> Vec<RowFrame> {
        let each = frames.into_iter().map(|frame| match &frame.row {
            Row::EntityKey(EntityKeyRow::Whole(key)) => {
                let sealed = self.inner().carries_identity.then(|| {
                    let random = self.inner().clock.random();
                    envelope::seal(target, &passage.context(), key.secret(), &random)
                });
                let public = key.public();
                let row = match sealed.flatten() {
                    Some(envelope) => EntityKeyRow::Sealed { public, envelope: envelope.into() },
                    None => EntityKeyRow::Public(public),
                };
                RowFrame { change: frame.change, row: Row::EntityKey(row) }
            }
            _ => frame,
        });
        each.collect()
    }

    /// The frames as this host stores them.
    ///
    /// # Errors
    /// When an envelope is not for this host and this passage, or holds another key than it says.
    pub(in crate::runtime) fn opened(
        &self,
        frames: Vec<RowFrame>,
        passage: &Passage,
    ) -> Result<Vec<RowFrame>, String> {
        let each = frames.into_iter().map(|frame| match &frame.row {
            Row::EntityKey(EntityKeyRow::Sealed { public, envelope }) => {
                let open = self.inner().unsealer.as_ref().ok_or("this host opens no envelopes")?;
                let secret = open(&passage.context(), envelope);
                let key = secret.map(|secret| EntityKey::from_secret(&secret));
                let key = key.filter(|key| key.public() == *public);
                let key = key.ok_or("the envelope of the agent's key does not open here")?;
                Ok(RowFrame { change: frame.change, row: Row::EntityKey(EntityKeyRow::Whole(key)) })
            }
            Row::EntityKey(EntityKeyRow::Public(public)) => {
                let given = self.inner().migrator.expected.key(&passage.agent);
                let row = match given.filter(|key| key.public() == *public) {
                    Some(key) => EntityKeyRow::Whole(key),
                    None => {
                        tracing::warn!(agent = %passage.agent, "arrives without its key: it can't sign here");
                        EntityKeyRow::Public(*public)
                    }
                };
                Ok(RowFrame { change: frame.change, row: Row::EntityKey(row) })
            }
            // A key in the clear has crossed the mesh: no host of this version sends one.
            Row::EntityKey(EntityKeyRow::Whole(_)) => {
                Err("the agent's key came without an envelope".to_owned())
            }
            _ => Ok(frame),
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests;
