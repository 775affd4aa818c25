//! An agent is at home in one store (rule 4): elsewhere, and on its way, nothing but the handoff may write.

use crate::id::MigrationId;
use crate::input::InputState;
use crate::lease::GrantCause;
use crate::lifecycle::Verb;
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    Desk, Site, Turn, World, assert_failed, host, is_not_home, message, migration, new_agent, picture,
};
use crate::store::conformance::journey::Journey;
use crate::store::conformance::{Case, START_MS};
use crate::store::{
    AcceptError, Adoption, BrokenReason, Home, Lifecycle, LifecycleCommit, OutputEnd, OutputKey, Owner,
    Sharing, StoreError,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_agent_being_handed_off_takes_nothing),
        Case::of(a_prepared_agent_takes_nothing),
        Case::of(a_moved_agent_takes_nothing),
        Case::of(agents_on_their_way_are_not_runnable),
    ]
}

/// Every write that is not part of the handoff: each must answer `NotHome` with the agent's home, and change nothing.
async fn assert_all_not_home(site: &Site, desk: &Desk) {
    let (store, agent) = (&site.store, desk.agent());
    let row = store.agent(agent).await.unwrap().unwrap();
    let before = picture(store.as_ref(), agent).await;
    let not_home = || StoreError::NotHome { home: row.home.clone() };
    // As good an owner as there can be: the row's own token.
    let owner = Owner {
        agent: agent.clone(),
        generation: row.generation,
        incarnation: site.incarnation,
        token: row.token,
    };
    assert_eq!(site.try_take(agent).await, Err(not_home()));
    assert_eq!(store.create(new_agent(agent.as_str(), "plain")).await, Err(not_home()));
    for owner in [&owner, &desk.owner] {
        let mut chain = Desk { site: site.clone(), owner: owner.clone() }.chain().await;
        chain.owner = owner.clone();
        let unit = chain.turn(Turn::ends([]).state("late", Some("1"))).unit();
        assert_failed(&store.commit_turns(unit).await, 0, is_not_home);
        for verb in [Verb::Pause, Verb::Reset, Verb::Delete, Verb::Break(BrokenReason::Forked)] {
            let commit = LifecycleCommit::plan(agent, &Lifecycle::Active, &verb, START_MS).unwrap();
            assert_eq!(store.commit_lifecycle(owner, commit).await, Err(not_home()));
        }
        let key =
            OutputKey { destination: super::fixture::id("somebody"), generation: row.generation, number: 1 };
        let ends = [(key, OutputEnd::Acknowledged)];
        assert_eq!(store.end_outputs(owner, &ends).await, Err(not_home()));
        assert_eq!(store.release(owner).await, Err(not_home()));
        let base = row.revision;
        let other = migration(9);
        assert_eq!(store.transfer(owner, base, other, site.host).await, Err(not_home()));
        assert_eq!(store.begin_handoff(owner, base, other, host(9)).await, Err(not_home()));
    }
    let new = message(agent, "late");
    let accepted = store.accept(new, site.incarnation).await;
    assert_eq!(accepted, Err(AcceptError::Store(not_home())));
    let inputs = store.inputs(agent, Some(InputState::DeadLettered), super::fixture::ALL).await.unwrap();
    for input in inputs {
        assert_eq!(store.redrive(agent, input.input.id).await, Err(not_home()));
    }
    assert_eq!(store.lease(agent).await, Ok(None));
    assert_eq!(row.holder, None);
    assert_eq!(picture(store.as_ref(), agent).await, before);
}

async fn with_dead_letter(world: &World) -> Journey {
    let journey = Journey::furnished(world).await;
    let input = journey.from.accept("poison").await;
    let turn = Turn::of(BoundaryKind::DeadLetter).and_ends([&input]);
    journey.from.turn(turn).await;
    journey
}

async fn an_agent_being_handed_off_takes_nothing(world: World) {
    let journey = with_dead_letter(&world).await;
    let granted = journey.begin().await.granted;
    let home = Home::HandingOff { migration: journey.migration, target: journey.to.host, granted };
    assert_eq!(journey.from.row().await.home, home);
    assert_all_not_home(&journey.from.site, &journey.from).await;
    let others: [Result<_, StoreError>; 2] = [
        journey
            .from
            .store()
            .abort_handoff(journey.agent(), migration(9), journey.from.site.incarnation)
            .await,
        journey
            .from
            .store()
            .adopt(journey.agent(), migration(9), journey.from.site.incarnation, Adoption::Granted)
            .await,
    ];
    for refused in others {
        assert_eq!(refused, Err(StoreError::NotHome { home: home.clone() }));
    }
}

async fn a_prepared_agent_takes_nothing(world: World) {
    let journey = with_dead_letter(&world).await;
    let token = journey.begin().await.granted;
    journey.prepare(token).await;
    let row = journey.to.store.agent(journey.agent()).await.unwrap().unwrap();
    let home =
        Home::Prepared { migration: journey.migration, source: journey.from.site.host, token, before: None };
    assert_eq!((row.home, row.token), (home.clone(), token));
    assert_all_not_home(&journey.to, &journey.from).await;
    let exported = journey.to.store.export_rows(journey.agent(), 0, usize::MAX).await;
    assert_eq!(exported, Err(StoreError::NotHome { home: home.clone() }));
    let other: MigrationId = migration(9);
    let adopted =
        journey.to.store.adopt(journey.agent(), other, journey.to.incarnation, Adoption::Granted).await;
    assert_eq!(adopted, Err(StoreError::NotHome { home }));
    let image = journey.to.store.image(journey.agent(), None).await.unwrap().unwrap();
    assert_eq!(image.check(), Ok(()), "it can be looked at before it is adopted");
}

async fn a_moved_agent_takes_nothing(world: World) {
    let journey = with_dead_letter(&world).await;
    let desk = journey.complete().await;
    assert!(matches!(desk.site.store.lease(desk.agent()).await.unwrap().unwrap().cause,
        GrantCause::Transferred { migration, .. } if migration == journey.migration));
    assert_all_not_home(&journey.from.site, &journey.from).await;
    assert_eq!(journey.from.store().image(journey.agent(), None).await, Ok(None));
    let exported = journey.from.store().export_rows(journey.agent(), 0, usize::MAX).await;
    assert!(matches!(exported, Err(StoreError::NotHome { .. })), "{exported:?}");
    let (agent, incarnation) = (journey.agent().clone(), journey.from.site.incarnation);
    let Journey { from, migration, .. } = journey;
    let store = from.site.store;
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    let aborted = store.abort_handoff(&agent, migration, incarnation).await;
    assert!(matches!(aborted, Err(StoreError::NotHome { home: Home::Moved(_) })), "{aborted:?}");
}

async fn agents_on_their_way_are_not_runnable(world: World) {
    let journey = with_dead_letter(&world).await;
    let runnable = async |site: &Site| site.store.runnable(site.incarnation, 9).await.unwrap();
    assert_eq!(runnable(&journey.from.site).await, [journey.agent().clone()]);
    let granted = journey.begin().await.granted;
    assert_eq!(runnable(&journey.from.site).await, []);
    journey.prepare(granted).await;
    assert_eq!(runnable(&journey.to).await, []);
    journey.finish().await;
    assert_eq!((runnable(&journey.from.site).await, runnable(&journey.to).await), (vec![], vec![]));
    journey.adopt().await;
    assert_eq!(runnable(&journey.to).await, [journey.agent().clone()]);
}
