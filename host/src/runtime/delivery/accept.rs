//! The receiver's side of a delivery: what comes is accepted into this store, and wakes whom it is for.

use std::collections::{BTreeMap, BTreeSet};

use godwit_core::failpoint;
use godwit_core::id::AgentId;
use godwit_core::input::{Kind, NewInput, Reach};
use godwit_core::output::UndeliverableReason;
use godwit_core::store::{AcceptError, Accepted, Home, Lifecycle, StoreError};

use crate::runtime::Runtime;
use crate::runtime::wire::Delivered;

impl Runtime {
    /// Whether an accepted delivery wakes its agent.
    async fn may_wake(&self, agent: &AgentId, waking: Waking) -> bool {
        match waking {
            Waking::Never => false,
            Waking::Always => true,
            Waking::AsStored => {
                let row = self.inner().store.agent(agent).await;
                // Not known is taken for yes: an agent that is started for nothing parks again.
                row.map_or(true, |row| row.is_none_or(|row| row.waking_inputs > 0))
            }
        }
    }

    /// Accepts deliveries into this store, in order; an answer for each.
    pub(crate) async fn deliver_here(&self, mut inputs: Vec<NewInput>) -> Vec<Delivered> {
        let reach = if self.inner().needs_edges { Reach::Neighbours } else { Reach::Any };
        let mut delivered: Vec<Option<Delivered>> = Vec::with_capacity(inputs.len());
        let mut taken = Vec::with_capacity(inputs.len());
        inputs.retain_mut(|input| {
            input.reach = reach;
            let refused = match self.check_not_held(&input.agent) {
                _ if input.check_limits().is_err() => Some(Delivered::Never(UndeliverableReason::Rejected)),
                held => held.err().map(|held| Delivered::Later { reason: held.to_string() }),
            };
            let is_taken = refused.is_none();
            if is_taken {
                let from = input.delivery.as_ref().map(|stamp| stamp.host);
                taken.push((input.agent.clone(), Waking::of(input), from));
            }
            delivered.push(refused);
            is_taken
        });
        let accepted = self.inner().store.accept_deliveries(inputs, self.session().incarnation).await;
        failpoint::hit("outbox.after-accept");
        let mut waking: BTreeMap<&AgentId, bool> = BTreeMap::new();
        let mut answering: BTreeSet<&AgentId> = BTreeSet::new();
        let places = delivered.iter_mut().filter(|place| place.is_none());
        for ((place, (agent, may_wake, from)), accepted) in places.zip(&taken).zip(accepted) {
            match &accepted {
                Ok(Accepted::New { .. }) => {
                    let wakes = waking.entry(agent).or_default();
                    *wakes = *wakes || self.may_wake(agent, *may_wake).await;
                }
                Ok(Accepted::Answered) => {
                    answering.insert(agent);
                }
                Err(AcceptError::AnotherKey { origin, given, .. }) => {
                    from.iter().for_each(|from| self.ask_about_key(*from, origin, *given));
                }
                _ => {}
            }
            *place = Some(delivered_as(agent, accepted));
        }
        for (agent, wakes) in waking {
            self.look_at(agent, wakes).await;
        }
        for agent in answering {
            self.publish_more(agent);
            if self.inner().directory.owned(agent).is_none() {
                self.inner().rescan.notify_one();
            }
        }
        let nothing = || Delivered::Later { reason: "it was not looked at".into() };
        delivered.into_iter().map(|delivered| delivered.unwrap_or_else(nothing)).collect()
    }
}

/// Whether an agent is woken for a delivery, when it is accepted.
#[derive(Clone, Copy)]
enum Waking {
    Never,
    Always,
    /// Whether a request's intent is silent the store has decided.
    AsStored,
}

impl Waking {
    fn of(input: &NewInput) -> Self {
        match input.input.kind {
            _ if !input.placing(&BTreeSet::new()).wakes => Self::Never,
            Kind::PeerRequest { .. } => Self::AsStored,
            _ => Self::Always,
        }
    }
}

/// What acceptance means to whoever delivers.
fn delivered_as(agent: &AgentId, accepted: Result<Accepted, AcceptError>) -> Delivered {
    match accepted {
        Ok(Accepted::New { .. } | Accepted::Duplicate(_) | Accepted::AlreadyEnded | Accepted::Answered) => {
            Delivered::Acknowledged
        }
        Err(AcceptError::StalePublisher { highest }) => Delivered::StalePublisher { highest },
        Err(AcceptError::NoEdge { .. }) => Delivered::Never(UndeliverableReason::Forbidden),
        Err(AcceptError::NotSubscribed { .. }) => Delivered::Never(UndeliverableReason::NotSubscribed),
        Err(error @ AcceptError::Namesake { .. }) => {
            tracing::warn!(%agent, %error, "delivery refused");
            Delivered::Never(UndeliverableReason::Namesake)
        }
        Err(AcceptError::Store(StoreError::NoAgent)) => Delivered::NotHere,
        Err(AcceptError::Store(StoreError::Lifecycle { state: Lifecycle::Deleted })) => {
            Delivered::Never(UndeliverableReason::Deleted)
        }
        Err(AcceptError::Store(StoreError::Lifecycle {
            state: Lifecycle::Retiring | Lifecycle::Retired,
        })) => Delivered::Never(UndeliverableReason::Retired),
        // Where it went from here may be where it has left long since: a hint or the peers know better than the tombstone.
        Err(AcceptError::Store(StoreError::NotHome { home: Home::Moved(_) })) => Delivered::NotHere,
        Err(AcceptError::Store(StoreError::NotHome { .. })) => {
            Delivered::Later { reason: "the agent is moving".into() }
        }
        Err(error) => Delivered::Later { reason: error.to_string() },
    }
}
