//! Calls on a group: who its members are, as far as hosts answer, and the one that takes a call (`core::group`).
//!
//! What is known of a group is a hint, kept for a moment: the call itself goes the way of every call on an agent, which finds
//! the member wherever it is by then. Nothing is accepted twice: another member is tried only after a definite refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use godwit_core::group::{self, GroupName, Member};
use godwit_core::id::{AgentId, HostId};
use godwit_core::limits::GROUP_MEMBERS_MAX;
use godwit_core::store::AgentRow;

use super::Runtime;
use super::call::{AgentCall, CallError};
use super::routing::{Called, Forward, says_not_accepted, store_error};
use super::wire::{PeerAnswer, PeerRequest};

/// How long a peer may take to name its members.
const MEMBERS_ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long what was told of a group is used: calls in between cost no look at stores and peers.
const FRESH_MAX: Duration = Duration::from_millis(250);
/// How long it is still used by others while one call looks anew.
const STALE_MAX: Duration = Duration::from_secs(2);
/// How long a peer that did not answer is left out, so that not every look waits for it.
const SILENT_PAUSE: Duration = Duration::from_secs(2);
/// Groups that are remembered; beyond it all are forgotten, which costs a look at each.
const GROUPS_MAX: usize = 1_000;

/// What hosts have told of groups lately.
#[derive(Default)]
pub(crate) struct Groups(Mutex<Known>);

#[derive(Default)]
struct Known {
    groups: BTreeMap<GroupName, Seen>,
    /// Boot time until which a peer that did not answer is not asked.
    silent_until: BTreeMap<HostId, Duration>,
}

/// A group when it was looked at.
#[derive(Debug, Clone, Default)]
struct Seen {
    members: BTreeMap<AgentId, Member>,
    /// Boot times.
    asked_at: Duration,
    told_at: Duration,
    silent: u32,
}

/// A group's members, as far as hosts answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// By name.
    pub members: Vec<Member>,
    /// How many peers did not answer.
    pub silent: u32,
}

/// A call that a member has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCalled {
    /// Which member.
    pub agent: AgentId,
    /// What came of it.
    pub called: Called,
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, if that is fresh. One caller looks anew when it is not: those that come meanwhile go on with it.
    fn fresh(&self, group: &GroupName, now: Duration) -> Option<Seen> {
        let mut known = self.lock();
        let seen = known.groups.get_mut(group)?;
        let age = |since: Duration| now.saturating_sub(since);
        if age(seen.told_at) > STALE_MAX {
            return None;
        }
        if age(seen.asked_at) > FRESH_MAX {
            seen.asked_at = now;
            return None;
        }
        Some(seen.clone())
    }

    /// Counts a call for whoever takes it, until hosts tell anew.
    fn count(&self, group: &GroupName, agent: &AgentId) {
        if let Some(member) = self.lock().groups.get_mut(group).and_then(|seen| seen.members.get_mut(agent)) {
            // It is a peer's word.
            member.load = member.load.saturating_add(1);
        }
    }
}

impl Runtime {
    /// Asks a group, or sends to it: `call` is `Ask` or `Send`, which a member takes. With an idempotency key it is the
    /// member that the key picks, and no other: a repetition finds it again, unless members have come or gone in between.
    ///
    /// # Errors
    /// `NoGroup`; `NoMember` when all members refuse, or none runs; as the member's otherwise.
    pub async fn call_group(&self, group: &GroupName, call: AgentCall) -> Result<GroupCalled, CallError> {
        let (key, limit) = match &call {
            AgentCall::Ask { submission, timeout_ms } => {
                (submission.idempotency_key.clone(), Some(Duration::from_millis(*timeout_ms)))
            }
            AgentCall::Send { submission } => (submission.idempotency_key.clone(), None),
            _ => return Err(CallError::Invalid { reason: "a group is asked, or sent to".into() }),
        };
        let clock = self.inner().clock.clone();
        let began = clock.boot();
        let salt = u64::from_le_bytes(clock.random());
        let known = self.inner().groups.fresh(group, began);
        let mut is_fresh = known.is_none();
        let mut seen = match known {
            Some(seen) => seen,
            None => self.look_at_group(group).await?,
        };
        let (mut refused, mut last) = (BTreeSet::new(), None);
        loop {
            let Some(member) = group::pick(&seen.members, key.as_deref(), &refused, salt) else {
                if is_fresh {
                    return Err(nobody(group, &seen, last.as_ref()));
                }
                (seen, is_fresh) = (self.look_at_group(group).await?, true);
                continue;
            };
            let (agent, host) = (member.agent.clone(), member.host);
            if host != self.inner().host && self.inner().hints.get(&agent).is_none() {
                self.inner().hints.learn(&agent, host);
            }
            let left = limit.map(|limit| limit.saturating_sub(clock.boot().saturating_sub(began)));
            if left == Some(Duration::ZERO) {
                return Err(nobody(group, &seen, last.as_ref()));
            }
            self.inner().groups.count(group, &agent);
            match self.call(&agent, within_what_is_left(&call, left), Forward::Yes).await {
                Ok(called) => return Ok(GroupCalled { agent, called }),
                // It is no member any more.
                Err(CallError::NotFound { .. }) if !is_fresh => {
                    (seen, is_fresh) = (self.look_at_group(group).await?, true);
                }
                Err(error) if key.is_none() && may_try_another(&error) => {
                    tracing::debug!(%group, %agent, %error, "a member refused: another one is tried");
                    refused.insert(agent);
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The members of a group, wherever they are.
    ///
    /// # Errors
    /// `NoGroup`; as the store's.
    pub async fn group(&self, group: &GroupName) -> Result<GroupView, CallError> {
        let seen = self.look_at_group(group).await?;
        if seen.members.is_empty() {
            return Err(CallError::NoGroup { group: group.clone(), silent: seen.silent });
        }
        Ok(GroupView { members: seen.members.into_values().collect(), silent: seen.silent })
    }

    /// The members in this host's store.
    pub(crate) async fn members_here(&self, group: &GroupName) -> Result<Vec<Member>, CallError> {
        let rows = self.inner().store.members(group, None, GROUP_MEMBERS_MAX).await.map_err(store_error)?;
        Ok(rows.iter().map(|row| self.member(row)).collect())
    }

    fn member(&self, row: &AgentRow) -> Member {
        let callers = self.inner().directory.handle(&row.agent).map_or(0, |handle| handle.callers());
        Member {
            agent: row.agent.clone(),
            host: row.holder.map_or(self.inner().host, |holder| holder.host),
            token: row.token,
            lifecycle: row.lifecycle.clone(),
            load: row.open_inputs + callers,
        }
    }

    /// Asks the own store and all peers. Hosts of the same store know of the same members, and each of its own callers.
    async fn look_at_group(&self, group: &GroupName) -> Result<Seen, CallError> {
        let (groups, clock) = (&self.inner().groups, &self.inner().clock);
        let asked_at = clock.boot();
        let peers: Vec<_> = self.inner().mesh.peers().into_iter().map(|peer| peer.host).collect();
        let asked = {
            let mut known = groups.lock();
            known.silent_until.retain(|_, until| *until > asked_at);
            let is_silent = |host: &&HostId| known.silent_until.contains_key(*host);
            peers.iter().filter(|host| !is_silent(host)).copied().collect::<Vec<_>>()
        };
        let mut silent = (peers.len() - asked.len()) as u32;
        let asked = asked.into_iter().map(|peer| async move {
            let request = PeerRequest::Members { group: group.clone() };
            (peer, self.ask_peer(peer, &request, MEMBERS_ANSWER_MAX).await)
        });
        let (own, told) = tokio::join!(self.members_here(group), join_all(asked));
        let mut all = own?;
        let told_at = clock.boot();
        let mut known = groups.lock();
        for (peer, answer) in told {
            match answer {
                Ok(PeerAnswer::Members(mut members)) => {
                    members.truncate(GROUP_MEMBERS_MAX);
                    all.append(&mut members);
                }
                _ => {
                    silent += 1;
                    known.silent_until.insert(peer, told_at + SILENT_PAUSE);
                }
            }
        }
        let seen = Seen { members: group::merge(all), asked_at, told_at, silent };
        if known.groups.len() >= GROUPS_MAX {
            known.groups.clear();
        }
        // Of a group that nobody is in nothing is kept: the first member is found at once.
        match seen.members.is_empty() {
            true => drop(known.groups.remove(group)),
            false => drop(known.groups.insert(group.clone(), seen.clone())),
        }
        Ok(seen)
    }
}

/// An ask is bounded as a whole, however many members are tried.
fn within_what_is_left(call: &AgentCall, left: Option<Duration>) -> AgentCall {
    let mut call = call.clone();
    if let (AgentCall::Ask { timeout_ms, .. }, Some(left)) = (&mut call, left) {
        *timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    }
    call
}

/// An operator who interrupts a turn means what it was about.
fn may_try_another(error: &CallError) -> bool {
    says_not_accepted(error) && *error != CallError::Interrupted
}

fn nobody(group: &GroupName, seen: &Seen, last: Option<&CallError>) -> CallError {
    let (group, silent) = (group.clone(), seen.silent);
    let reason = last.map_or_else(|| "none is active".to_owned(), ToString::to_string);
    match seen.members.len() as u64 {
        0 => CallError::NoGroup { group, silent },
        members => CallError::NoMember { group, members, reason, silent },
    }
}

#[cfg(test)]
mod tests {
    use godwit_core::id::FencingToken;
    use godwit_core::lifecycle::Lifecycle;

    use super::*;

    #[test]
    fn a_member_of_any_load_is_counted_on() {
        let (group, agent): (GroupName, AgentId) = ("g".parse().unwrap(), AgentId::parse("a").unwrap());
        let (token, lifecycle) = (FencingToken(1), Lifecycle::Active);
        let member = Member { agent: agent.clone(), host: HostId([1; 32]), token, lifecycle, load: u64::MAX };
        let members = BTreeMap::from([(agent.clone(), member)]);
        let groups = Groups::default();
        groups.lock().groups.insert(group.clone(), Seen { members, ..Seen::default() });
        groups.count(&group, &agent);
        assert_eq!(groups.lock().groups[&group].members[&agent].load, u64::MAX);
    }
}
