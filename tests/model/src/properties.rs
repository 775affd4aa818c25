//! What must hold in every state, and what must happen in some, so that the first says something.

use godwit_core::id::Incarnation;
use godwit_core::lease::LeaseState;
use godwit_core::lease::deadline::Deadline;
use godwit_core::lease::fence::Claim;
use godwit_core::lease::keeper::Next;
use stateright::Property;

use crate::host::{Stage, Stray};
use crate::rules::seconds;
use crate::store::{Reply, Request};
use crate::system::{Leases, State};

/// I7.
pub const ONE_PASSES: &str = "I7: at most one claim passes the fence";
/// The guard.
pub const NO_ACT: &str = "no guest acts while the agent is another's";
/// I4, of grants.
pub const TOKENS_RISE: &str = "I4: each grant raises the token, and it never goes back";
/// I4, of writes.
pub const OWNERS_WRITE: &str = "I4: each write carries the token that is current in its transaction";
/// I9.
pub const LOADED_IS_STORED: &str = "I9: what an owner has loaded is what the store has at that revision";
/// I2.
pub const APPLIED_ONCE: &str = "I2: no input is applied twice";
/// I1.
pub const KEPT: &str = "I1: what was acknowledged stays";
/// The deadline.
pub const STAYS_LOST: &str = "a lost session stays lost";

pub(crate) fn properties() -> Vec<Property<Leases>> {
    vec![
        Property::always(ONE_PASSES, one_passes),
        Property::always(NO_ACT, no_guest_acts_for_anothers_agent),
        Property::always(TOKENS_RISE, |_, state: &State| {
            state.store.token == state.store.highest && !state.store.was_token_repeated
        }),
        Property::always(OWNERS_WRITE, |_, state: &State| !state.store.was_fence_passed),
        Property::always(LOADED_IS_STORED, loaded_is_stored),
        Property::always(APPLIED_ONCE, applied_once),
        Property::always(KEPT, |_, state: &State| state.acknowledged & !applied(state) == 0),
        Property::always(STAYS_LOST, |_, state: &State| {
            state.hosts.iter().all(|host| !host.was_lost || host.deadline == Deadline::LOST)
        }),
        Property::sometimes("an agent is taken over from a host that thinks it has it", taken_over),
        Property::sometimes("a guard stops a host that was paused", paused),
        Property::sometimes("a stale write is fenced", |_, state: &State| has_answer(state, Reply::Fenced)),
        Property::sometimes("a second host commits on what the first has committed", second_commits),
        Property::sometimes("a commit was made whose answer is lost", made_in_doubt),
        Property::sometimes("a host whose session died joins again", rejoins),
    ]
}

/// Every claim that a write may still come with.
fn claims(state: &State) -> impl Iterator<Item = Claim> {
    let requests = state.hosts.iter().flat_map(|host| {
        let call = host.agent.call.map(|(request, _)| request);
        let stray = match host.agent.stray {
            Some(Stray::Request(request)) => Some(request),
            _ => None,
        };
        call.into_iter().chain(stray)
    });
    let in_flight = requests.filter_map(|request| match request {
        Request::Commit { claim, .. } => Some(claim),
        _ => None,
    });
    state.hosts.iter().filter_map(|host| host.owned.as_ref()).map(|owned| owned.claim).chain(in_flight)
}

fn one_passes(model: &Leases, state: &State) -> bool {
    let fence = state.store.fence();
    let mut passing = claims(state).filter(|claim| model.rules.check(&fence, claim).is_ok());
    let first = passing.next();
    passing.all(|other| Some(other) == first)
}

fn no_guest_acts_for_anothers_agent(_: &Leases, state: &State) -> bool {
    state.hosts.iter().filter(|host| host.may_act(state.now)).all(|host| {
        let own = host.owned.as_ref().map(|owned| owned.claim.incarnation);
        state.store.holder.is_none() || state.store.holder == own
    })
}

fn loaded_is_stored(model: &Leases, state: &State) -> bool {
    let fence = state.store.fence();
    let owners = state.hosts.iter().filter_map(|host| host.owned.as_ref());
    let mut loaded = owners
        .filter(|owned| model.rules.check(&fence, &owned.claim).is_ok())
        .filter_map(|owned| owned.loaded.as_ref());
    loaded.all(|(revision, value)| {
        usize::try_from(revision.0).ok().and_then(|revision| state.store.value.get(..revision)) == Some(value)
    })
}

fn applied(state: &State) -> u32 {
    state.store.value.iter().fold(0, |bits, entry| bits | 1 << entry.input)
}

fn applied_once(_: &Leases, state: &State) -> bool {
    applied(state).count_ones() as usize == state.store.value.len()
}

fn has_answer(state: &State, reply: Reply) -> bool {
    state.hosts.iter().any(|host| {
        matches!(host.agent.call, Some((Request::Commit { .. }, Stage::Answered(answer))) if answer == reply)
    })
}

fn taken_over(_: &Leases, state: &State) -> bool {
    let is_taken = |own: Incarnation| {
        let other = state.store.fence().holder.filter(|holder| *holder != own);
        other.is_some_and(|other| state.store.host_of(other) != state.store.host_of(own))
    };
    state.hosts.iter().filter_map(|host| host.owned.as_ref()).any(|owned| is_taken(owned.claim.incarnation))
}

fn paused(_: &Leases, state: &State) -> bool {
    let is_paused = |deadline: Deadline| deadline.state(seconds(state.now)) == LeaseState::Expiring;
    state.hosts.iter().any(|host| host.owned.is_some() && is_paused(host.deadline))
}

fn second_commits(_: &Leases, state: &State) -> bool {
    let hosts = state.store.value.iter().map(|entry| state.store.host_of(entry.by));
    let all: Vec<Option<u8>> = hosts.collect();
    all.windows(2).any(|pair| pair[0] != pair[1])
}

fn made_in_doubt(_: &Leases, state: &State) -> bool {
    let doubts = state.hosts.iter().filter_map(|host| host.owned.as_ref()?.doubt);
    doubts.into_iter().any(|(base, entry)| state.store.has(base, entry))
}

fn rejoins(_: &Leases, state: &State) -> bool {
    let is_joining = |host: &&crate::host::Host| {
        host.keeper.as_ref().is_some_and(|k| k.next(seconds(state.now)) == Next::Join)
    };
    state.hosts.iter().any(|host| is_joining(&host))
}
