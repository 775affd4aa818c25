//! Finding an agent's home, and doing a call there: here, or forwarded over the mesh.
//!
//! What a host believes about other hosts is a hint. A wrong hint costs one more hop; it never decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_core::id::{AgentId, HostId};
use godwit_core::identity::OriginHash;
use godwit_core::lifecycle::BrokenReason;
use godwit_core::limits::{ASK_TIMEOUT_DEFAULT, FORWARD_HOPS_MAX};
use godwit_core::mesh::{MeshError, Peer};
use godwit_core::store::{AgentRow, Home, Lifecycle, StoreError};
use godwit_core::time::{sleep, within};
use serde::{Deserialize, Serialize};

use super::call::{AgentCall, AgentReply, CallError};
use super::wire::{self, HomeAnswer, PeerAnswer, PeerRequest};
use super::{Runtime, STOPPING};

/// How long one look for an agent among the peers takes at most.
pub(super) const WHO_IS_HOME_MAX: Duration = Duration::from_secs(2);
/// Pause before looking again at an agent that is on the move.
const MOVING_RECHECK: Duration = Duration::from_millis(2);
/// Pause before trying a peer again that gave no answer.
const PEER_RETRY: Duration = Duration::from_millis(50);
/// How long the answer to a wait may be under way when its time is over.
const WAIT_ANSWER_MAX: Duration = Duration::from_secs(1);
/// Longest wait for a call that is not an ask.
const CALL_MAX: Duration = ASK_TIMEOUT_DEFAULT;

/// Whether another host may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Once, over the mesh.
    Yes,
    /// No: answer `Misdirected` instead.
    No,
}

/// A call's reply, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// The reply.
    pub reply: AgentReply,
    /// The host that answered.
    pub host: HostId,
}

/// Where an agent is, as far as this host can see.
enum Place {
    /// In this host's store, to be acted on.
    Here(Box<AgentRow>),
    /// In this host's store, about to leave or to arrive.
    Moving,
    /// Probably there.
    Remote(HostId),
}

/// What one try of a call gave.
pub(crate) enum Try {
    Done(AgentReply),
    /// The place was wrong or changed: look again. The flag says whether an input may be durable by now.
    Again {
        may_be_durable: bool,
    },
}

impl Runtime {
    /// Does a call where the agent is at home.
    ///
    /// # Errors
    /// `CallError`; each variant says whether anything may have happened.
    pub async fn call(
        &self,
        agent: &AgentId,
        call: AgentCall,
        forward: Forward,
    ) -> Result<Called, CallError> {
        let hops = if forward == Forward::Yes { 0 } else { FORWARD_HOPS_MAX };
        self.call_with_hops(agent, call, hops).await
    }

    pub(crate) async fn call_with_hops(
        &self,
        agent: &AgentId,
        call: AgentCall,
        hops: u8,
    ) -> Result<Called, CallError> {
        let _inside = if call.only_reads() { None } else { Some(self.admit()?) };
        let bound = match &call {
            AgentCall::Ask { timeout_ms, .. } => Duration::from_millis(*timeout_ms),
            AgentCall::WaitOutput(wait) => Duration::from_millis(wait.timeout_ms) + WAIT_ANSWER_MAX,
            _ => CALL_MAX,
        };
        // Kept outside the future that the deadline drops.
        let mut doubt = false;
        let answer = within(bound, self.call_until_done(agent, &call, hops, &mut doubt)).await;
        answer.unwrap_or_else(|| Err(refused_or_unknown("no answer in time".to_owned(), doubt)))
    }

    /// `doubt` says at every moment whether something may have been done, durably, by what was tried so far.
    async fn call_until_done(
        &self,
        agent: &AgentId,
        call: &AgentCall,
        hops: u8,
        doubt: &mut bool,
    ) -> Result<Called, CallError> {
        let mut is_first = true;
        loop {
            let before = *doubt;
            let refused = |error| unless_durable(error, before);
            // What only reads leaves nothing anywhere.
            *doubt = !call.only_reads();
            let resident = match call {
                AgentCall::Ask { submission, .. } => self.ask_resident(agent, submission).await,
                AgentCall::Send { submission } if is_first => self.send_resident(agent, submission).await,
                _ => None,
            };
            is_first = false;
            let tried = match resident {
                Some(tried) => tried.map_err(refused)?,
                None => {
                    *doubt = before;
                    match self.look_and_try(agent, call, hops, doubt).await.map_err(refused)? {
                        Looked::Tried(tried) => tried,
                        Looked::Answered(called) => return Ok(called),
                    }
                }
            };
            match tried {
                Try::Done(reply) => {
                    return Ok(Called { reply, host: self.inner().host });
                }
                Try::Again { may_be_durable } => *doubt = before || may_be_durable && !call.only_reads(),
            }
            if self.inner().tasks.is_ending() {
                return Err(refused_or_unknown(STOPPING.to_owned(), *doubt));
            }
        }
    }

    /// Finds the agent and tries the call there, once.
    async fn look_and_try(
        &self,
        agent: &AgentId,
        call: &AgentCall,
        hops: u8,
        doubt: &mut bool,
    ) -> Result<Looked, CallError> {
        let host = match self.locate(agent).await? {
            Place::Moving => {
                sleep(MOVING_RECHECK).await;
                return Ok(Looked::Tried(Try::Again { may_be_durable: false }));
            }
            Place::Here(row) => match self.owner_elsewhere(&row, call) {
                None => {
                    // Nothing is accepted for who may live elsewhere; looking at what is here is another matter.
                    if !call.only_reads() && !matches!(call, AgentCall::Standby(_)) {
                        self.check_not_held(agent)?;
                    }
                    *doubt = !call.only_reads();
                    return self.call_here(agent, &row, call).await.map(Looked::Tried);
                }
                Some(host) => host,
            },
            Place::Remote(host) => host,
        };
        self.try_there(agent, call, host, hops, doubt).await
    }

    /// Tries the call at another host, once.
    async fn try_there(
        &self,
        agent: &AgentId,
        call: &AgentCall,
        host: HostId,
        hops: u8,
        doubt: &mut bool,
    ) -> Result<Looked, CallError> {
        if hops >= FORWARD_HOPS_MAX {
            return Err(CallError::Misdirected { agent: agent.clone(), host });
        }
        match self.call_there(agent, call, host, hops + 1, doubt).await {
            Ok(called) => Ok(Looked::Answered(called)),
            Err(Unforwarded::Refused(error)) => Err(*error),
            Err(Unforwarded::Again { may_be_durable }) => {
                sleep(PEER_RETRY).await;
                Ok(Looked::Tried(Try::Again { may_be_durable }))
            }
        }
    }

    async fn locate(&self, agent: &AgentId) -> Result<Place, CallError> {
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        match row {
            Some(row) => match &row.home {
                Home::Here => Ok(Place::Here(Box::new(row))),
                Home::HandingOff { .. } | Home::Prepared { .. } => Ok(Place::Moving),
                Home::Moved(tombstone) => {
                    // The agent may have moved on from there; the hint knows if somebody told us.
                    Ok(Place::Remote(self.inner().hints.get(agent).unwrap_or(tombstone.target)))
                }
            },
            None => match self.inner().hints.get(agent) {
                Some(host) => Ok(Place::Remote(host)),
                None => self.who_is_home(agent).await.map(Place::Remote),
            },
        }
    }

    /// Asks all peers; the highest token wins.
    ///
    /// # Errors
    /// `NotFound` when all said no, `PeersSilent` when some did not answer.
    pub(crate) async fn who_is_home(&self, agent: &AgentId) -> Result<HostId, CallError> {
        // Hosts of the same store know no more about it than this one.
        let is_mate = |peer: &Peer| self.inner().hints.is_store_mate(peer.host);
        let peers: Vec<_> = self.inner().mesh.peers().into_iter().filter(|peer| !is_mate(peer)).collect();
        let asked = peers.iter().map(|peer| async move {
            let request = PeerRequest::WhoIsHome { agent: agent.clone() };
            (peer.host, self.ask_peer(peer.host, &request, WHO_IS_HOME_MAX).await)
        });
        let mut silent = 0;
        let (mut best, mut is_on_its_way) =
            match self.inner().store.agent(agent).await.map_err(store_error)? {
                // Where it went from here, unless somebody knows of a later home.
                Some(AgentRow { home: Home::Moved(tombstone), .. }) => {
                    (Some((tombstone.token, false, tombstone.target)), false)
                }
                row => (None, row.is_some()),
            };
        for (peer, answer) in futures::future::join_all(asked).await {
            let claim = match answer {
                Ok(PeerAnswer::Home(HomeAnswer::Here { token } | HomeAnswer::HereAs { token, .. })) => {
                    Some((token, true, peer))
                }
                Ok(PeerAnswer::Home(HomeAnswer::Moved { target, token })) if target != self.inner().host => {
                    Some((token, false, target))
                }
                // It comes here, and has not arrived.
                Ok(PeerAnswer::Home(HomeAnswer::Moved { .. })) => {
                    is_on_its_way = true;
                    None
                }
                Ok(PeerAnswer::Home(HomeAnswer::Unknown)) => None,
                Ok(_) | Err(_) => {
                    silent += 1;
                    None
                }
            };
            best = best.max(claim);
        }
        match best {
            Some((_, _, host)) => {
                self.inner().hints.learn(agent, host);
                Ok(host)
            }
            None if silent > 0 => Err(CallError::PeersSilent { agent: agent.clone(), silent }),
            None if is_on_its_way => {
                let reason = format!("agent {agent} is on its way to this host: ask again");
                Err(CallError::Unavailable { reason })
            }
            None => Err(CallError::NotFound { agent: agent.clone() }),
        }
    }

    /// What this host says when a peer asks where an agent is.
    pub(crate) async fn home_of(&self, agent: &AgentId) -> HomeAnswer {
        match self.inner().store.agent(agent).await {
            Ok(Some(AgentRow { home: Home::Moved(tombstone), .. })) => {
                HomeAnswer::Moved { target: tombstone.target, token: tombstone.token }
            }
            // A copy that is not bound yet is not here: its source still is.
            Ok(Some(AgentRow { home: Home::Prepared { source, token, .. }, .. })) => {
                HomeAnswer::Moved { target: source, token }
            }
            Ok(Some(row)) => match row.known_as().hash {
                Some(origin_hash) => {
                    let is_gone =
                        matches!(row.lifecycle, Lifecycle::Deleted | Lifecycle::Broken(BrokenReason::Forked));
                    HomeAnswer::HereAs { token: row.token, origin_hash, is_gone }
                }
                None => HomeAnswer::Here { token: row.token },
            },
            Ok(None) => HomeAnswer::Unknown,
            Err(_) => HomeAnswer::Silent,
        }
    }

    async fn call_there(
        &self,
        agent: &AgentId,
        call: &AgentCall,
        host: HostId,
        hops: u8,
        doubt: &mut bool,
    ) -> Result<Called, Unforwarded> {
        let bound = match call {
            AgentCall::Ask { timeout_ms, .. } => Duration::from_millis(*timeout_ms) + Duration::from_secs(1),
            AgentCall::WaitOutput(wait) => Duration::from_millis(wait.timeout_ms) + WAIT_ANSWER_MAX,
            _ => CALL_MAX,
        };
        let began = self.inner().clock.boot();
        let _turn = match call {
            AgentCall::Ask { .. } | AgentCall::WaitOutput(_) => {
                match within(bound, self.inner().long_calls.turn(host)).await {
                    Some(turn) => turn,
                    None => {
                        let reason = format!("too many calls wait at host {host}: try again later");
                        return Err(Unforwarded::Refused(Box::new(CallError::Unavailable { reason })));
                    }
                }
            }
            _ => None,
        };
        let bound = bound.saturating_sub(self.inner().clock.boot().saturating_sub(began));
        let request = PeerRequest::Call { agent: agent.clone(), call: Box::new(call.clone()), hops };
        // Before a connection is up nothing is sent.
        let answer = match self.inner().mesh.protocol(host, bound).await {
            Ok(_) => {
                let before = std::mem::replace(doubt, !call.only_reads());
                let answer = self.ask_peer(host, &request, bound).await;
                if !matches!(answer, Err(MeshError::NoAnswer { .. })) {
                    *doubt = before;
                }
                answer
            }
            Err(error) => Err(error),
        };
        let refused = |error| Err(Unforwarded::Refused(Box::new(error)));
        match answer {
            Ok(PeerAnswer::Called(called)) => match *called {
                Ok(called) => {
                    self.inner().hints.learn(agent, called.host);
                    Ok(called)
                }
                Err(CallError::NotFound { .. } | CallError::Misdirected { .. }) => {
                    self.look_again(agent, false).await
                }
                // A host that stops refuses also for agents that have left it.
                Err(error @ CallError::Unavailable { .. }) => self.look_elsewhere(agent, host, error).await,
                Err(error) => refused(error),
            },
            Ok(PeerAnswer::NotNow { reason, .. }) => {
                self.look_elsewhere(agent, host, CallError::Unavailable { reason }).await
            }
            Ok(PeerAnswer::Malformed { reason }) => refused(CallError::Unavailable { reason }),
            Ok(_) => {
                let reason = String::from("a peer gave another kind of answer");
                refused(CallError::Internal { reason })
            }
            Err(error) => self.unforwarded(agent, call, host, error).await,
        }
    }

    /// What is done about a peer that gave no answer.
    async fn unforwarded(
        &self,
        agent: &AgentId,
        call: &AgentCall,
        host: HostId,
        error: MeshError,
    ) -> Result<Called, Unforwarded> {
        tracing::debug!(%agent, peer = %host, %error, "forwarding failed");
        let is_repeatable =
            call.only_reads() || matches!(call, AgentCall::Ask { .. } | AgentCall::Send { .. });
        match error {
            // The input carries its id, so asking again joins what an earlier try may have started.
            MeshError::NoAnswer { .. } if is_repeatable => self.look_again(agent, !call.only_reads()).await,
            MeshError::NoAnswer { .. } => {
                self.inner().hints.forget(agent);
                Err(Unforwarded::Refused(Box::new(CallError::Unknown { reason: error.to_string() })))
            }
            // Nothing was sent.
            MeshError::Unreachable { .. } | MeshError::UnknownPeer { .. } if is_repeatable => {
                self.look_again(agent, false).await
            }
            error => {
                self.look_elsewhere(agent, host, CallError::Unavailable { reason: error.to_string() }).await
            }
        }
    }

    /// The hint was wrong or the peer is silent: ask everybody. That nobody has the agent now does not say that what was asked
    /// before was not done.
    async fn look_again(&self, agent: &AgentId, may_be_durable: bool) -> Result<Called, Unforwarded> {
        self.inner().hints.forget(agent);
        match self.who_is_home(agent).await {
            Err(error @ CallError::NotFound { .. }) => {
                Err(Unforwarded::Refused(Box::new(unless_durable(error, may_be_durable))))
            }
            Ok(_) | Err(_) => Err(Unforwarded::Again { may_be_durable }),
        }
    }

    /// A peer has refused, or was not reached: ask everybody whether the agent is at home on another one, and not there any more.
    async fn look_elsewhere(
        &self,
        agent: &AgentId,
        host: HostId,
        error: CallError,
    ) -> Result<Called, Unforwarded> {
        self.inner().hints.forget(agent);
        match self.who_is_home(agent).await {
            Ok(other) if other != host => Err(Unforwarded::Again { may_be_durable: false }),
            Ok(_) | Err(_) => Err(Unforwarded::Refused(Box::new(error))),
        }
    }

    pub(crate) async fn ask_peer(
        &self,
        peer: HostId,
        request: &PeerRequest,
        timeout: Duration,
    ) -> Result<PeerAnswer, MeshError> {
        let mesh = &self.inner().mesh;
        let began = self.inner().clock.boot();
        let version = mesh.protocol(peer, timeout).await?;
        let left = timeout.saturating_sub(self.inner().clock.boot().saturating_sub(began));
        let answer = mesh.request(peer, wire::encode_in(version, request), left).await?;
        wire::decode(&answer).map_err(|reason| MeshError::NoAnswer { peer, reason })
    }
}

/// What a caller learns of a call that has come to no end.
fn refused_or_unknown(reason: String, may_be_durable: bool) -> CallError {
    if may_be_durable { CallError::Unknown { reason } } else { CallError::Unavailable { reason } }
}

/// Whether it says that the input was definitely not accepted.
pub(super) fn says_not_accepted(error: &CallError) -> bool {
    matches!(
        error,
        CallError::NotFound { .. }
            | CallError::PeersSilent { .. }
            | CallError::Misdirected { .. }
            | CallError::Busy { .. }
            | CallError::InboxFull { .. }
            | CallError::Broken { .. }
            | CallError::Deleted
            | CallError::Retired { .. }
            | CallError::Suspended { .. }
            | CallError::Unavailable { .. }
            | CallError::Interrupted
            | CallError::NotAddressable
            | CallError::Full
    )
}

/// A definite refusal is one only if no earlier try may have left the input somewhere, durably.
pub(super) fn unless_durable(error: CallError, may_be_durable: bool) -> CallError {
    if may_be_durable && says_not_accepted(&error) {
        CallError::Unknown { reason: error.to_string() }
    } else {
        error
    }
}

/// What one look gave.
enum Looked {
    Tried(Try),
    Answered(Called),
}

enum Unforwarded {
    Refused(Box<CallError>),
    Again { may_be_durable: bool },
}

/// What this host believes about others: bounded, forgotten at will.
#[derive(Default)]
pub(crate) struct Hints {
    homes: Mutex<BTreeMap<AgentId, HostId>>,
    /// Hosts with a session on this host's store.
    store_mates: Mutex<BTreeSet<HostId>>,
    /// Agents that peers send for under another key than was heard.
    keys: Mutex<BTreeMap<(HostId, AgentId), Asked>>,
}

/// Hints kept at most; beyond it all are dropped, and asking the peers again costs one round trip each.
const HINTS_MAX: usize = 100_000;

impl Hints {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, HostId>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_store_mates(&self, hosts: BTreeSet<HostId>) {
        *self.store_mates.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    pub(super) fn is_store_mate(&self, host: HostId) -> bool {
        self.store_mates.lock().unwrap_or_else(PoisonError::into_inner).contains(&host)
    }

    pub(crate) fn get(&self, agent: &AgentId) -> Option<HostId> {
        self.lock().get(agent).copied()
    }

    pub(crate) fn learn(&self, agent: &AgentId, host: HostId) {
        let mut hints = self.lock();
        if hints.len() >= HINTS_MAX {
            hints.clear();
        }
        hints.insert(agent.clone(), host);
    }

    pub(crate) fn forget(&self, agent: &AgentId) {
        self.lock().remove(agent);
    }

    /// Whether a key that a peer sends under may be the agent's, though another one was heard.
    pub(super) fn is_vouched_for(
        &self,
        (peer, agent): (HostId, &AgentId),
        hash: OriginHash,
        now: Duration,
    ) -> bool {
        let asked = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let last = asked.get(&(peer, agent.clone()));
        last.is_some_and(|last| last.hash == hash && last.is_good && now < last.at + VOUCHED_FOR)
    }

    /// Whether to ask others about that now: seldom, whatever the peer sends.
    pub(super) fn begin_asking(
        &self,
        (peer, agent): (HostId, &AgentId),
        hash: OriginHash,
        now: Duration,
    ) -> bool {
        let mut asked = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (peer, agent.clone());
        if asked.get(&place).is_some_and(|last| now < last.at + ASK_PAUSE) {
            return false;
        }
        if asked.len() >= HINTS_MAX {
            asked.clear();
        }
        asked.insert(place, Asked { hash, at: now, is_good: false });
        true
    }

    /// Others were asked, and nobody objects.
    pub(super) fn vouch_for(&self, (peer, agent): (HostId, &AgentId), hash: OriginHash, now: Duration) {
        let mut asked = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert((peer, agent.clone()), Asked { hash, at: now, is_good: true });
    }
}

/// For how long others' word about a key counts: until the sender has tried again.
const VOUCHED_FOR: Duration = Duration::from_secs(10);
/// How often others are asked about one agent that one peer sends for.
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// What others said last of a key.
struct Asked {
    hash: OriginHash,
    /// Boot time.
    at: Duration,
    is_good: bool,
}

/// What a caller learns of a store's error.
pub(crate) fn store_error(error: StoreError) -> CallError {
    match error {
        StoreError::Conflict { what } => CallError::Conflict { what },
        StoreError::Unclaimed => CallError::Unavailable {
            reason:
                "another host claims the agent's id at the same moment, or peers took too long: try again"
                    .into(),
        },
        StoreError::Lifecycle { state } => match state {
            Lifecycle::Deleted => CallError::Deleted,
            Lifecycle::Suspended(reason) => CallError::Suspended { reason },
            Lifecycle::Broken(reason) => CallError::Broken { reason },
            Lifecycle::Retiring | Lifecycle::Retired => CallError::Retired { state: state.name().to_owned() },
            // It does take this now: the state changed while it was asked for.
            Lifecycle::Active | Lifecycle::Paused => {
                CallError::Unavailable { reason: format!("agent became {} meanwhile", state.name()) }
            }
        },
        StoreError::Pinned { agent, pin } => CallError::PluginInUse { agent, pin },
        StoreError::NoPlugin { plugin } => CallError::NoSuch { what: format!("plugin {plugin}") },
        StoreError::Corrupt { what } => {
            CallError::Internal { reason: format!("stored bytes are damaged: {what}") }
        }
        StoreError::Unknown { reason } => CallError::Unknown { reason },
        StoreError::Full => CallError::Full,
        other => CallError::Unavailable { reason: other.to_string() },
    }
}
