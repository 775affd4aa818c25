//! Who sends: what a host says for the agents that it owns, and what it makes of a peer that says so.
//!
//! A peer is believed as the sender of an agent by a statement that the agent's entity key has signed (`identity::Statement`),
//! under the token and for the host that it names. A receiver's row keeps the hash of that key, and `RuntimeStore::accept` takes
//! nothing that is not proven by it. An agent that was made anew or came from an archive has another key, which the one before
//! can't vouch for: that is `AnotherKey` until no other host has, or may have, an agent of that name.

use std::collections::BTreeMap;

use futures::future::join_all;
use godwit_core::id::{AgentId, HostId};
use godwit_core::identity::{EntityPublicKey, OriginHash, SignedStatement, Statement};
use godwit_core::input::{DeliveryStamp, NewInput, Source};
use godwit_core::lease::Lease;
use godwit_core::mesh::Peer;
use godwit_core::store::StoreError;

use super::BATCH_INPUTS_MAX;
use crate::runtime::Runtime;
use crate::runtime::migrator::claims::believes_everybody;
use crate::runtime::routing::WHO_IS_HOME_MAX;
use crate::runtime::wire::{self, Delivered, HomeAnswer, PeerAnswer, PeerRequest};

/// No outbox gets as far, with all the numbers of all epochs.
const DELIVERY_NUMBER_MAX: u64 = 1 << 48;

/// No operator resets an agent as often.
const GENERATION_MAX: u64 = 1 << 32;

/// What an owner sends with, the same under one grant.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Which agent of its name it is.
    pub(super) origin_hash: Option<OriginHash>,
    /// For other stores; none where the key is not there to sign.
    pub(super) statement: Option<Box<SignedStatement>>,
}

/// Why a request with deliveries is not looked at.
enum NoSender {
    /// No host says that.
    Malformed(&'static str),
    /// It may be true, and can't be believed now.
    Later(String),
}

impl Runtime {
    /// What this host sends with for an agent under a lease.
    ///
    /// # Errors
    /// When the store can't say now.
    pub(super) async fn credentials_of(&self, lease: &Lease) -> Result<Credentials, StoreError> {
        let Lease { agent, generation, token, .. } = lease;
        let row = self.inner().store.agent(agent).await?;
        let origin_hash = row.and_then(|row| row.public_key).map(EntityPublicKey::origin_hash);
        let key = match self.inner().store.entity_key(agent).await {
            Ok(key) => key,
            // It does not open here.
            Err(error @ (StoreError::Conflict { .. } | StoreError::Corrupt { .. })) => {
                tracing::warn!(%agent, %error, "the agent's key can't be used");
                None
            }
            Err(error) => return Err(error),
        };
        if key.is_none() && origin_hash.is_some() {
            let what = "its key is not here: what it sends to other stores that know it by that waits";
            tracing::warn!(%agent, "{what}");
        }
        let (generation, token, host) = (*generation, *token, self.inner().host);
        let statement = Statement { agent: agent.clone(), generation, token, host };
        let statement = key.map(|key| Box::new(SignedStatement::new(&key, statement)));
        Ok(Credentials { origin_hash, statement })
    }

    /// Takes deliveries of a peer, if it is believed as their sender.
    pub(in crate::runtime) async fn take_deliveries(
        &self,
        from: HostId,
        mut inputs: Vec<NewInput>,
        statement: Option<&SignedStatement>,
    ) -> PeerAnswer {
        match self.check_sender(from, &mut inputs, statement) {
            Ok(()) => {}
            Err(NoSender::Malformed(reason)) => return PeerAnswer::Malformed { reason: reason.into() },
            Err(NoSender::Later(reason)) => {
                return PeerAnswer::Delivered(vec![Delivered::Later { reason }; inputs.len()]);
            }
        }
        match self.check_admission() {
            Ok(()) => PeerAnswer::Delivered(self.deliver_here(inputs).await),
            Err(error) => {
                PeerAnswer::NotNow { reason: error.to_string(), retry_after_ms: wire::NOT_NOW_RETRY_MS }
            }
        }
    }

    /// Judges what a peer claims with deliveries, before any store hears of them: what gets through moves what the receivers wait
    /// for, for ever. The sending host is whoever proved its key, and the agent who it is proven to be, not what the stamps say.
    fn check_sender(
        &self,
        from: HostId,
        inputs: &mut [NewInput],
        statement: Option<&SignedStatement>,
    ) -> Result<(), NoSender> {
        if inputs.len() > BATCH_INPUTS_MAX {
            return Err(NoSender::Malformed("too many deliveries at once"));
        }
        let mut sender: Option<DeliveryStamp> = None;
        for input in inputs.iter_mut() {
            let stamp = plausible(input)?;
            stamp.host = from;
            if believes_everybody() {
                stamp.is_vouched_for = true;
                continue;
            }
            // A host of the same store could write there what it likes.
            if statement.is_some() || !self.inner().hints.is_store_mate(from) {
                stamp.origin_hash = statement.map(|signed| signed.public_key.origin_hash());
            }
            stamp.origin_generation =
                statement.map_or(stamp.generation, |signed| signed.statement.generation);
            if stamp.generation > stamp.origin_generation {
                return Err(NoSender::Malformed("a delivery is of a generation to come"));
            }
            let first = sender.get_or_insert_with(|| stamp.clone());
            if first.origin != stamp.origin || first.token != stamp.token {
                return Err(NoSender::Malformed("deliveries of several agents, or under several tokens"));
            }
        }
        let Some(sender) = sender else { return Ok(()) };
        if let Some(signed) = statement {
            check_statement(from, &sender, signed)?;
        }
        match self.inner().directory.owned(&sender.origin) {
            // Nobody else can be above it, but on a shared store, of which this host has then not heard yet: it hears soon.
            Some(owned) if owned.lease.token < sender.token => {
                let agent = &sender.origin;
                tracing::warn!(peer = %from, %agent, "a peer speaks for an agent that is at home here");
                return Err(NoSender::Later(
                    "this host owns the agent that sends, under a lower token".into(),
                ));
            }
            _ => {}
        }
        let (origin, now) = ((from, &sender.origin), self.inner().clock.boot());
        let is_vouched_for =
            sender.origin_hash.is_some_and(|hash| self.inner().hints.is_vouched_for(origin, hash, now));
        for stamp in inputs.iter_mut().filter_map(|input| input.delivery.as_mut()) {
            stamp.is_vouched_for = is_vouched_for;
        }
        Ok(())
    }

    /// Another key than was heard has come from a peer: the other hosts are asked about that agent, while the peer waits.
    pub(super) fn ask_about_key(&self, from: HostId, agent: &AgentId, hash: OriginHash) {
        if !self.inner().hints.begin_asking((from, agent), hash, self.inner().clock.boot()) {
            return;
        }
        let (runtime, agent) = (self.clone(), agent.clone());
        self.inner().tasks.spawn(async move {
            match runtime.who_else_has(from, &agent, hash).await {
                None => runtime.inner().hints.vouch_for((from, &agent), hash, runtime.inner().clock.boot()),
                Some(reason) => {
                    tracing::warn!(peer = %from, %agent, reason, "another key of an agent is not believed yet");
                }
            }
        });
    }

    /// Why another host than this peer may have another agent of the name.
    async fn who_else_has(&self, from: HostId, agent: &AgentId, hash: OriginHash) -> Option<String> {
        let said = self.homes(from, agent).await;
        let has_moved = said.values().any(|answer| matches!(answer, HomeAnswer::Moved { .. }));
        match objection(agent, &said, hash) {
            // Who was asked before the agent came there says so now.
            None if has_moved => objection(agent, &self.homes(from, agent).await, hash),
            first => first,
        }
    }

    /// What this host and all peers but one say of where an agent is. Hosts of the same store know no more about it than this one.
    async fn homes(&self, but: HostId, agent: &AgentId) -> BTreeMap<HostId, HomeAnswer> {
        let peers = self.inner().mesh.peers();
        let is_asked = |peer: &&Peer| peer.host != but && !self.inner().hints.is_store_mate(peer.host);
        let asked = peers.iter().filter(is_asked).map(|peer| async move {
            let request = PeerRequest::WhoIsHome { agent: agent.clone() };
            match self.ask_peer(peer.host, &request, WHO_IS_HOME_MAX).await {
                Ok(PeerAnswer::Home(answer)) => (peer.host, answer),
                Ok(_) | Err(_) => (peer.host, HomeAnswer::Silent),
            }
        });
        let mut said: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        said.insert(self.inner().host, self.home_of(agent).await);
        said
    }
}

/// Why an agent with this key may not be the only one of its name: somebody has another one, or may have it.
fn objection(agent: &AgentId, said: &BTreeMap<HostId, HomeAnswer>, hash: OriginHash) -> Option<String> {
    said.iter().find_map(|(host, answer)| match *answer {
        HomeAnswer::Unknown => None,
        HomeAnswer::HereAs { origin_hash, is_gone, .. } if origin_hash == hash || is_gone => None,
        HomeAnswer::Here { .. } | HomeAnswer::HereAs { .. } => {
            Some(format!("host {host} has another agent {agent}"))
        }
        HomeAnswer::Silent => Some(format!("host {host} does not say whether it has agent {agent}")),
        // A copy that is not the agent yet says where that is.
        HomeAnswer::Moved { target, .. } => {
            let is_back =
                |answer: &HomeAnswer| matches!(answer, HomeAnswer::Moved { target, .. } if target == host);
            let is_on_its_way = said.get(&target).is_some_and(is_back);
            is_on_its_way.then(|| format!("another agent {agent} is on its way from or to host {host}"))
        }
    })
}

/// The stamp of a delivery as an outbox may have made it.
fn plausible(input: &mut NewInput) -> Result<&mut DeliveryStamp, NoSender> {
    let Some(stamp) = &mut input.delivery else {
        return Err(NoSender::Malformed("a delivery has no stamp"));
    };
    if !stamp.token.is_plausible() {
        return Err(NoSender::Malformed("no store grants the token of this delivery"));
    }
    if stamp.generation.0 >= GENERATION_MAX {
        return Err(NoSender::Malformed("no agent has been reset so often"));
    }
    if stamp.number == 0 || stamp.lowest_open > stamp.number || stamp.number > DELIVERY_NUMBER_MAX {
        return Err(NoSender::Malformed("no outbox numbers a delivery so"));
    }
    if !matches!(&input.input.source, Source::Peer { agent, .. } if *agent == stamp.origin) {
        return Err(NoSender::Malformed("a delivery comes from another agent than its stamp says"));
    }
    Ok(stamp)
}

/// Whether a statement is about these deliveries, for the peer that brings them.
fn check_statement(from: HostId, sender: &DeliveryStamp, signed: &SignedStatement) -> Result<(), NoSender> {
    let expected = Statement {
        agent: sender.origin.clone(),
        generation: sender.origin_generation,
        token: sender.token,
        host: from,
    };
    if signed.statement != expected {
        return Err(NoSender::Malformed("the statement is about another agent, grant or host"));
    }
    if signed.is_sound() { Ok(()) } else { Err(NoSender::Malformed("the statement is not signed")) }
}

#[cfg(test)]
mod tests {
    use godwit_core::id::FencingToken;

    use super::*;

    #[test]
    fn another_key_is_believed_when_nobody_has_the_agent_and_nobody_is_about_to() {
        let (mine, other) = (OriginHash(1), OriginHash(2));
        let token = FencingToken(3);
        let host = |number| HostId([number; 32]);
        let moved = |to| HomeAnswer::Moved { target: host(to), token };
        let agent = AgentId::parse("a").unwrap();
        let objected = |said: &[HomeAnswer]| {
            let said = (1..).map(host).zip(said.iter().copied()).collect();
            objection(&agent, &said, mine).is_some()
        };
        let unknown = HomeAnswer::Unknown;
        assert!(!objected(&[unknown, unknown]));
        assert!(
            !objected(&[unknown, HomeAnswer::HereAs { token, origin_hash: mine, is_gone: false }]),
            "a store of the sender's"
        );
        assert!(objected(&[unknown, HomeAnswer::HereAs { token, origin_hash: other, is_gone: false }]));
        assert!(
            !objected(&[unknown, HomeAnswer::HereAs { token, origin_hash: other, is_gone: true }]),
            "deleted"
        );
        assert!(objected(&[HomeAnswer::Here { token }, unknown]));
        assert!(objected(&[unknown, HomeAnswer::Silent]));
        assert!(!objected(&[moved(2), unknown]), "where it was lost");
        assert!(!objected(&[moved(2), moved(3), unknown]));
        assert!(!objected(&[moved(9), unknown]), "to a host that is not listed any more");
        assert!(objected(&[moved(2), moved(1)]), "one has let go, and the other has not taken it up");
        assert!(objected(&[unknown, moved(3), moved(2)]));
    }
}
