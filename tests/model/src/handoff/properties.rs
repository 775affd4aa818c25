//! What must hold in every state, and what must happen in some, so that the first says something.

use godwit_core::lease::GrantCause;
use godwit_core::migration::{Phase, Role};
use godwit_core::store::Home;
use stateright::Property;

use super::host::applied;
use super::rows::{DELIVERED, KEYED};
use super::store::Store;
use super::system::{Handoffs, State};

/// I7.
pub const ONE_RUNS: &str = "I7: at most one host can commit, over all stores";
/// I4.
pub const TOKENS_RISE: &str = "I4: each grant raises the token, over all stores";
/// I4, of moves.
pub const OWNERS_MOVE: &str = "I4: only its owner moves an agent, and from its head";
/// I1.
pub const KEPT: &str = "I1: what was acknowledged is where the agent is";
/// I2.
pub const ONCE: &str = "I2: nothing is accepted or applied twice";
/// I9.
pub const LOADED: &str = "I9: whoever can commit has what was committed, and no more";
/// The commit point, at the target.
pub const LET_GO: &str = "a target runs nothing that its source has not let go, but on an operator's word";
/// The commit point, at the source.
pub const NO_ABORT: &str = "what has passed its commit point is not aborted";
/// I8.
pub const ENDS: &str = "I8: without further faults each migration is over and the agent runs somewhere";

pub(crate) fn properties() -> Vec<Property<Handoffs>> {
    vec![
        Property::always(ONE_RUNS, |_, state: &State| state.owners().len() <= 1),
        Property::always(TOKENS_RISE, |_, state: &State| !state.truth.was_token_repeated),
        Property::always(OWNERS_MOVE, |_, state: &State| !state.truth.was_fence_passed),
        Property::always(KEPT, kept),
        Property::always(ONCE, |_, state: &State| {
            let truth = &state.truth;
            truth.accepted.iter().chain(&truth.applied).all(|count| *count <= 1)
        }),
        Property::always(LOADED, loaded),
        Property::always(LET_GO, |_, state: &State| {
            let seats = state.stores.iter().filter_map(Store::seat);
            let mut held = seats.filter(|seat| seat.home == Home::Here && seat.holder.is_some());
            state.was_forced
                || held.all(|seat| match seat.cause {
                    GrantCause::Transferred { migration, .. } => state.truth.moved.contains(&migration),
                    GrantCause::Acquired => true,
                })
        }),
        Property::always(NO_ABORT, |_, state: &State| {
            let records = state.stores.iter().flat_map(|store| &store.records);
            let mut moved = records.filter(|((id, _), _)| state.truth.moved.contains(id));
            moved.all(|(_, record)| !matches!(record.phase, Phase::Aborted | Phase::Failed))
        }),
        Property::always(ENDS, |model: &Handoffs, state: &State| {
            model.healed(state).is_some_and(|healed| is_over(&healed))
        }),
        Property::sometimes("an agent moves while it works, and its state is deleted", |_, state: &State| {
            state.stores.iter().enumerate().any(|(place, store)| {
                (place > 0 || state.stores.len() == 1) && is_moved(state) && runs(store) && is_deleted(store)
            })
        }),
        Property::sometimes("a migration is called off", |_, state: &State| {
            has(state, |record, _| record == Phase::Aborted)
        }),
        Property::sometimes("an agent comes back to where it was", |_, state: &State| {
            state.truth.moved.len() == 2 && state.host(0).guest.is_some()
        }),
        Property::sometimes("a target is in doubt while its source is down", in_doubt),
        Property::sometimes("a message comes late", |_, state: &State| {
            state.stray.is_some() && is_moved(state) && has(state, |phase, _| phase == Phase::Complete)
        }),
        Property::sometimes("an operator decides, and the source holds what it has", |_, state: &State| {
            state.was_forced && has(state, |phase, role| phase == Phase::Failed && role == Role::Source)
        }),
        Property::sometimes("a host takes over what was transferred to one that died", |_, state: &State| {
            state.stores.len() == 1
                && is_moved(state)
                && state.stores[0].sessions.iter().any(|(_, lives)| !lives)
        }),
    ]
}

/// Properties that only one kind of run can show.
pub const OF_OPERATORS: &str = "an operator decides, and the source holds what it has";
/// As above.
pub const OF_SHARED: &str = "a host takes over what was transferred to one that died";

fn is_moved(state: &State) -> bool {
    !state.truth.moved.is_empty()
}

fn has(state: &State, is_so: impl Fn(Phase, Role) -> bool) -> bool {
    let mut records = state.stores.iter().flat_map(|store| &store.records);
    records.any(|((_, role), record)| is_so(record.phase, *role))
}

fn runs(store: &Store) -> bool {
    store.is_home() && store.seat().is_some_and(|seat| seat.holder.is_some())
}

fn is_deleted(store: &Store) -> bool {
    store.rows.state.is_none() && store.rows.agent.is_some()
}

fn in_doubt(_: &Handoffs, state: &State) -> bool {
    let is_down = state.hosts.iter().any(|host| !host.is_up);
    let is_bound =
        |store: &Store| matches!(store.seat.as_ref().map(|seat| &seat.home), Some(Home::Prepared { .. }));
    is_down && state.stores.iter().any(is_bound)
}

/// The stores in which the agent is at home, or which alone can say what becomes of it.
fn authorities(state: &State) -> Vec<&Store> {
    let of = |is_so: fn(&Home) -> bool| {
        let stores = state.stores.iter();
        let so = stores.filter(move |store| store.seat.as_ref().is_some_and(|seat| is_so(&seat.home)));
        so.collect::<Vec<_>>()
    };
    let here = of(|home| matches!(home, Home::Here));
    if !here.is_empty() {
        return here;
    }
    let leaving = of(|home| matches!(home, Home::HandingOff { .. }));
    if leaving.is_empty() { of(|home| matches!(home, Home::Prepared { .. })) } else { leaving }
}

fn kept(_: &Handoffs, state: &State) -> bool {
    let authorities = authorities(state);
    let has = |store: &Store, input: usize| match input {
        DELIVERED => store.rows.receiver.is_some(),
        _ => store.rows.inputs[input].is_some(),
    };
    let are_kept = [KEYED, DELIVERED]
        .into_iter()
        .filter(|input| state.truth.accepted[*input] > 0)
        .all(|input| authorities.iter().all(|store| has(store, input)));
    !authorities.is_empty() && are_kept
}

fn loaded(model: &Handoffs, state: &State) -> bool {
    let truth = [KEYED, DELIVERED].map(|input| state.truth.applied[input] > 0);
    let revision = truth.iter().filter(|is_applied| **is_applied).count();
    state.owners().into_iter().all(|owner| {
        let store = state.store(owner);
        let is_state_there = store.rows.state.is_some() != truth[DELIVERED];
        let are_rows_true =
            applied(&store.rows) == truth && usize::from(store.rows.revision()) == revision && is_state_there;
        let guest = state.host(owner).guest.filter(|guest| store.claim_of(owner) == Some(guest.claim));
        let is_guest_true = guest.is_none_or(|guest| guest.applied == truth);
        (are_rows_true || model.bounds.is_shared) && is_guest_true
    })
}

/// All is decided: no record is open, and one host runs the agent, or nothing can ever run two of it.
fn is_over(state: &State) -> bool {
    let are_closed = !has(state, |phase, _| !phase.is_terminal());
    let on_the_way = |store: &&Store| {
        let failed = store.records.values().any(|record| record.phase == Phase::Failed);
        match store.seat.as_ref().map(|seat| &seat.home) {
            Some(Home::HandingOff { .. }) => !failed,
            Some(Home::Prepared { .. }) => true,
            _ => false,
        }
    };
    are_closed && state.owners().len() == 1 && state.stores.iter().find(on_the_way).is_none()
}
