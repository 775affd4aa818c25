//! The two-step handoff between stores: each step, its repetition, every way back.

use crate::event::EventKind;
use crate::id::{FencingToken, Incarnation, MigrationId, Revision, TOKEN_ADOPT_STEP};
use crate::lease::GrantCause;
use crate::limits::PAGE_MAX;
use crate::migration::{Phase, Role};
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    Desk, Site, Turn, World, assert_failed, is_conflict, is_not_home, is_stale, migration, picture,
};
use crate::store::conformance::journey::Journey;
use crate::store::{Adoption, Home, Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_handoff_moves_an_agent_whole),
        Case::of(each_step_may_be_repeated),
        Case::of(each_home_survives_reopening),
        Case::of(an_aborted_handoff_burns_the_granted_token),
        Case::of(a_handoff_is_aborted_by_a_later_session),
        Case::of(after_an_abort_nothing_finishes),
        Case::of(after_the_commit_point_nothing_aborts),
        Case::of(a_discarded_copy_leaves_nothing),
        Case::of(a_discarded_copy_puts_its_tombstone_back),
        Case::of(an_agent_goes_there_and_back),
        Case::of(no_token_is_ever_valid_twice),
        Case::of(what_stands_in_the_way_of_a_copy_is_a_conflict),
        Case::of(a_copy_must_be_what_was_announced),
        Case::of(adoption_needs_a_prepared_copy_and_a_session),
        Case::of(adoption_takes_up_the_granted_lease_once),
        Case::of(a_forced_adoption_is_above_all_that_the_source_gives),
        Case::of(forgetting_leaves_the_tombstone),
        Case::of(a_late_forget_harms_nobody),
    ]
}

fn moved_to(row: &crate::store::AgentRow) -> Option<(MigrationId, FencingToken)> {
    match row.home {
        Home::Moved(tombstone) => Some((tombstone.migration, tombstone.token)),
        _ => None,
    }
}

async fn a_handoff_moves_an_agent_whole(world: World) {
    let journey = Journey::furnished(&world).await;
    let (agent, source) = (journey.agent().clone(), &journey.from);
    let before = picture(source.store(), &agent).await;
    let row = source.row().await;
    let begun = journey.begin().await;
    assert_eq!((begun.granted, begun.change), (source.owner.token.next(), row.change));
    assert_eq!(source.row().await.token, begun.granted);
    assert_eq!(picture(source.store(), &agent).await.moved_rows(), before.moved_rows());
    journey.prepare(begun.granted).await;
    journey.finish().await;
    let left = source.row().await;
    assert_eq!(moved_to(&left), Some((journey.migration, begun.granted)));
    assert_eq!((left.generation, left.token), (row.generation, begun.granted));

    let lease = journey.adopt().await;
    assert_eq!((lease.token, lease.incarnation), (begun.granted, journey.to.incarnation));
    let cause = GrantCause::Transferred { migration: journey.migration, revision: row.revision };
    assert_eq!(lease.cause, cause);
    let target = journey.to.desk(lease);
    let arrived = target.row().await;
    assert_eq!((arrived.home.clone(), arrived.token), (Home::Here, begun.granted));
    let same = |row: crate::store::AgentRow| crate::store::AgentRow {
        home: Home::Here,
        token: FencingToken(0),
        holder: None,
        cause: GrantCause::Acquired,
        next_event: 0,
        change: 0,
        ..row
    };
    assert_eq!(arrived.next_event, row.next_event + 2, "that it moved, and who holds it");
    assert_eq!(same(arrived), same(row));
    assert_eq!(picture(target.store(), &agent).await.moved_rows(), before.moved_rows());
    assert_eq!(target.store().image(&agent, None).await.unwrap().unwrap().check(), Ok(()));
    target.turn(Turn::ends([])).await;
    for store in [source.store(), target.store()] {
        let kind = Some(EventKind::HomeMoved);
        assert_eq!(store.events(0, Some(&agent), kind, PAGE_MAX).await.unwrap().len(), 1);
    }
}

async fn each_step_may_be_repeated(world: World) {
    let journey = Journey::furnished(&world).await;
    let agent = journey.agent().clone();
    let base = journey.from.row().await.revision;
    let begin = async |base| {
        let target = journey.to.host;
        journey.from.store().begin_handoff(&journey.from.owner, base, journey.migration, target).await
    };
    let begun = begin(base).await.unwrap();
    let before = picture(journey.from.store(), &agent).await;
    assert_eq!(begin(base).await, Ok(begun));
    let other = begin(base.next()).await;
    assert!(matches!(&other, Err(error) if is_stale(error)), "not the same arguments: {other:?}");
    assert_eq!(picture(journey.from.store(), &agent).await, before);

    let request = journey.request(begun.granted, 0).await;
    assert_eq!(journey.to.store.prepare(request.clone()).await, Ok(()));
    let before = picture(journey.to.store.as_ref(), &agent).await;
    assert_eq!(journey.to.store.prepare(request.clone()).await, Ok(()));
    assert_eq!(picture(journey.to.store.as_ref(), &agent).await, before);

    journey.finish().await;
    let before = picture(journey.from.store(), &agent).await;
    journey.finish().await;
    assert_eq!(picture(journey.from.store(), &agent).await, before);

    let lease = journey.adopt().await;
    let target = journey.to.desk(lease.clone());
    target.turn(Turn::ends([]).state("new", Some("1"))).await;
    let before = picture(target.store(), &agent).await;
    assert_eq!(journey.adopt().await, lease);
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    assert_eq!(journey.to.store.discard_copy(journey.migration).await, Ok(()));
    assert_eq!(picture(target.store(), &agent).await, before, "an adopted agent is no copy any more");
}

async fn each_home_survives_reopening(world: World) {
    let mut journey = Journey::furnished(&world).await;
    let agent = journey.agent().clone();
    let granted = journey.begin().await.granted;
    let (before, owner) = (picture(journey.from.store(), &agent).await, journey.from.owner.clone());
    let Site { store, host, .. } = journey.from.site;
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    assert_eq!(picture(store.as_ref(), &agent).await, before);
    let site = Site::join(store, host).await;
    journey.from = Desk { site, owner };

    journey.prepare(granted).await;
    let before = picture(journey.to.store.as_ref(), &agent).await;
    let Site { store, host, .. } = journey.to;
    let store = world.reopen("b", Sharing::Exclusive, store).await;
    assert_eq!(picture(store.as_ref(), &agent).await, before);
    journey.to = Site::join(store, host).await;

    journey.finish().await;
    let row = journey.from.row().await;
    let Desk { site, owner } = journey.from;
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.agent(&agent).await, Ok(Some(row)));
    journey.from = Desk { site: Site { store, ..site }, owner };
    let lease = journey.adopt().await;
    assert_eq!((lease.token, lease.incarnation), (granted, journey.to.incarnation));
}

async fn an_aborted_handoff_burns_the_granted_token(world: World) {
    for is_prepared in [false, true] {
        let world = World::new(world.factory.clone(), "aborted");
        let journey = Journey::furnished(&world).await;
        let agent = journey.agent().clone();
        let before = picture(journey.from.store(), &agent).await;
        let granted = journey.begin().await.granted;
        if is_prepared {
            journey.prepare(granted).await;
        }
        let (site, store) = (&journey.from.site, journey.from.store());
        let mut leases = Vec::new();
        for _ in 0..2 {
            leases.push(store.abort_handoff(&agent, journey.migration, site.incarnation).await.unwrap());
        }
        assert_eq!(leases[0], leases[1], "repeated");
        assert_eq!(leases[0].token, granted.next());
        assert_eq!(leases[0].cause, GrantCause::Acquired);
        let back = site.desk(leases.remove(0));
        assert_eq!(picture(store, &agent).await.moved_rows(), before.moved_rows(), "nothing is lost");
        for token in [journey.from.owner.token, granted] {
            let mut stale = back.clone();
            stale.owner.token = token;
            let unit = stale.chain().await.turn(Turn::ends([])).unit();
            assert_failed(&stale.commit(unit).await, 0, super::fixture::is_fenced);
        }
        back.turn(Turn::ends([])).await;
        assert_eq!(journey.to.store.discard_copy(journey.migration).await, Ok(()));
        assert_eq!(journey.to.store.agent(&agent).await, Ok(None));
    }
}

async fn a_handoff_is_aborted_by_a_later_session(world: World) {
    let journey = Journey::furnished(&world).await;
    let granted = journey.begin().await.granted;
    let (old, agent) = (&journey.from.site, journey.agent());
    let new = old.beside(1).await;
    let refused = new.store.abort_handoff(agent, journey.migration, old.incarnation).await;
    let incarnation = old.incarnation;
    assert_eq!(refused, Err(StoreError::SessionDead { incarnation }));
    let lease = new.store.abort_handoff(agent, journey.migration, new.incarnation).await.unwrap();
    assert_eq!((lease.token, lease.incarnation), (granted.next(), new.incarnation));
    new.desk(lease).turn(Turn::ends([])).await;
}

async fn after_an_abort_nothing_finishes(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (journey.from.store(), journey.agent());
    let early = store.finish_handoff(agent, journey.migration).await;
    assert!(matches!(&early, Err(error) if is_conflict(error)), "never begun: {early:?}");
    journey.begin().await;
    let other = store.finish_handoff(agent, migration(2)).await;
    assert!(matches!(&other, Err(error) if is_conflict(error)), "another's: {other:?}");
    let incarnation = journey.from.site.incarnation;
    store.abort_handoff(agent, journey.migration, incarnation).await.unwrap();
    let before = picture(store, agent).await;
    let late = store.finish_handoff(agent, journey.migration).await;
    assert!(matches!(&late, Err(error) if is_conflict(error)), "{late:?}");
    let base = journey.from.row().await.revision;
    let begun = store.begin_handoff(&journey.from.owner, base, journey.migration, journey.to.host).await;
    assert!(matches!(begun, Err(StoreError::Fenced { .. })), "its owner is gone: {begun:?}");
    assert_eq!(picture(store, agent).await, before);
}

async fn after_the_commit_point_nothing_aborts(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (journey.from.store(), journey.agent());
    let granted = journey.begin().await.granted;
    journey.prepare(granted).await;
    journey.finish().await;
    let before = store.agent(agent).await;
    let incarnation = journey.from.site.incarnation;
    let refused = store.abort_handoff(agent, journey.migration, incarnation).await;
    assert!(matches!(&refused, Err(error) if is_not_home(error)), "{refused:?}");
    assert_eq!(store.agent(agent).await, before);
}

async fn a_discarded_copy_leaves_nothing(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (&journey.to.store, journey.agent());
    journey.receive(journey.export(0).await).await;
    for _ in 0..2 {
        assert_eq!(store.discard_copy(journey.migration).await, Ok(()));
    }
    let granted = journey.begin().await.granted;
    let mut request = journey.request(granted, 0).await;
    let all = std::mem::take(&mut request.frames);
    let refused = store.prepare(request.clone()).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "no row is left: {refused:?}");
    request.frames = all;
    assert_eq!(store.prepare(request).await, Ok(()));
    for _ in 0..2 {
        assert_eq!(store.discard_copy(journey.migration).await, Ok(()));
        assert_eq!(store.agent(agent).await, Ok(None));
        assert_eq!(store.state_value(agent, "b").await, Ok(None));
        assert_eq!(store.agents(None, 9).await, Ok(vec![]));
    }
    let adopted = store.adopt(agent, journey.migration, journey.to.incarnation, Adoption::Granted).await;
    assert_eq!(adopted, Err(StoreError::NoAgent));
}

/// The agent has been at `a`, is at `b`, and is about to come back.
async fn coming_back(world: &World) -> Journey {
    let there = Journey::furnished(world).await;
    let from = there.complete().await;
    from.turn(Turn::ends([]).state("b", None).state("d", Some("4"))).await;
    Journey { migration: migration(2), to: there.from.site, from }
}

async fn a_discarded_copy_puts_its_tombstone_back(world: World) {
    let journey = coming_back(&world).await;
    let (store, agent) = (&journey.to.store, journey.agent());
    let there = store.agent(agent).await.unwrap().unwrap();
    let granted = journey.begin().await.granted;
    journey.prepare(granted).await;
    let row = store.agent(agent).await.unwrap().unwrap();
    let Home::Prepared { before, .. } = row.home else {
        panic!("{row:?}");
    };
    assert_eq!(before.map(Home::Moved), Some(there.home.clone()));
    assert_eq!(store.discard_copy(journey.migration).await, Ok(()));
    let back = store.agent(agent).await.unwrap().unwrap();
    assert_eq!((back.home, back.token), (there.home, there.token));
    assert_eq!((back.generation, back.holder), (there.generation, None));

    let incarnation = journey.from.site.incarnation;
    let lease = journey.from.store().abort_handoff(agent, journey.migration, incarnation).await.unwrap();
    let again =
        Journey { migration: migration(3), from: journey.from.site.desk(lease), to: journey.to.clone() };
    again.complete().await.turn(Turn::ends([])).await;
}

async fn an_agent_goes_there_and_back(world: World) {
    let journey = coming_back(&world).await;
    let before = picture(journey.from.store(), journey.agent()).await;
    let home = journey.complete().await;
    assert_eq!(home.owner.token, FencingToken(3));
    assert_eq!(picture(home.store(), home.agent()).await.moved_rows(), before.moved_rows());
    assert_eq!(home.store().state_value(home.agent(), "b").await, Ok(None), "no old row is left");
    assert_eq!(home.store().image(home.agent(), None).await.unwrap().unwrap().check(), Ok(()));
    let left = journey.from.row().await;
    assert_eq!(moved_to(&left), Some((journey.migration, FencingToken(3))));
    home.turn(Turn::ends([])).await;
}

async fn no_token_is_ever_valid_twice(world: World) {
    let mut desk = Journey::furnished(&world).await.from;
    let mut other = world.site("c").await;
    super::fixture::put_plugin(&other.store, "plain").await;
    let mut highest = FencingToken(0);
    for number in 1..=6 {
        assert!(desk.owner.token > highest, "{} after {highest}", desk.owner.token);
        highest = desk.owner.token;
        desk.turn(Turn::ends([])).await;
        let journey = Journey { migration: migration(number), from: desk, to: other };
        if number % 3 == 0 {
            let (site, agent) = (journey.from.site.clone(), journey.agent().clone());
            let granted = journey.begin().await.granted;
            journey.prepare(granted).await;
            let lease = site.store.abort_handoff(&agent, journey.migration, site.incarnation).await.unwrap();
            journey.to.store.discard_copy(journey.migration).await.unwrap();
            assert!(lease.token > granted);
            (desk, other) = (site.desk(lease), journey.to);
        } else {
            let arrived = journey.complete().await;
            let late = journey.from.chain().await.turn(Turn::ends([])).unit();
            assert_failed(&journey.from.commit(late).await, 0, is_not_home);
            (desk, other) = (arrived, journey.from.site);
        }
    }
    assert_eq!(desk.row().await.revision, Revision(8));
}

async fn what_stands_in_the_way_of_a_copy_is_a_conflict(world: World) {
    let journey = Journey::furnished(&world).await;
    let granted = journey.begin().await.granted;
    let request = journey.request(granted, 0).await;
    let living = journey.to.create("agent").await;
    let before = picture(journey.to.store.as_ref(), &living).await;
    let refused = journey.to.store.prepare(request).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "a living agent: {refused:?}");
    assert_eq!(picture(journey.to.store.as_ref(), &living).await, before);

    let world = World::new(world.factory.clone(), "in-the-way");
    let back = coming_back(&world).await;
    let before = back.to.store.agent(back.agent()).await;
    let granted = back.begin().await.granted;
    let held = back.from.owner.token;
    for token in [FencingToken(1), held] {
        let mut request = back.request(granted, 0).await;
        request.token = token;
        let refused = back.to.store.prepare(request).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "token {token}: {refused:?}");
        assert_eq!(back.to.store.agent(back.agent()).await, before);
    }
    let request = back.request(granted, 0).await;
    assert_eq!(back.to.store.prepare(request.clone()).await, Ok(()));
    let mut other = request.clone();
    other.migration = migration(9);
    let mut other_token = request;
    other_token.token = granted.next();
    for other in [other, other_token] {
        let refused = back.to.store.prepare(other).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "prepared otherwise: {refused:?}");
    }
}

async fn a_copy_must_be_what_was_announced(world: World) {
    let journey = Journey::furnished(&world).await;
    let granted = journey.begin().await.granted;
    let request = journey.request(granted, 0).await;
    let mut revision = request.clone();
    revision.revision = revision.revision.next();
    let mut generation = request.clone();
    generation.generation = generation.generation.next();
    let mut without_agent = request.clone();
    without_agent.frames.retain(|frame| !matches!(frame.row, crate::store::Row::Agent(_)));
    for wrong in [revision, generation, without_agent] {
        let refused = journey.to.store.prepare(wrong).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
        assert_eq!(journey.to.store.agent(journey.agent()).await, Ok(None));
    }
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
}

async fn adoption_needs_a_prepared_copy_and_a_session(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (&journey.to.store, journey.agent());
    journey.receive(journey.export(0).await).await;
    let unbound = store.adopt(agent, journey.migration, journey.to.incarnation, Adoption::Granted).await;
    assert_eq!(unbound, Err(StoreError::NoAgent), "a copy is invisible");
    let granted = journey.begin().await.granted;
    journey.prepare(granted).await;
    let incarnation = Incarnation(99);
    let refused = store.adopt(agent, journey.migration, incarnation, Adoption::Granted).await;
    assert_eq!(refused, Err(StoreError::SessionDead { incarnation }));
    let living = journey.to.create("living").await;
    let refused = store.adopt(&living, journey.migration, journey.to.incarnation, Adoption::Granted).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    let row = store.agent(agent).await.unwrap().unwrap();
    assert_eq!((row.token, row.holder), (granted, None));
}

async fn adoption_takes_up_the_granted_lease_once(world: World) {
    let journey = Journey::furnished(&world).await;
    let desk = journey.complete().await;
    let successor = journey.to.beside(7).await;
    let taken = successor.take(desk.agent()).await;
    assert_eq!(taken.owner.token, desk.owner.token.next());
    let late = successor
        .store
        .adopt(desk.agent(), journey.migration, journey.to.incarnation, Adoption::Granted)
        .await;
    assert!(matches!(late, Err(StoreError::SessionDead { .. })), "{late:?}");
    let late = successor
        .store
        .adopt(desk.agent(), journey.migration, successor.incarnation, Adoption::Granted)
        .await;
    assert!(late.is_err(), "its grant is over: {late:?}");
    assert_eq!(taken.row().await.token, taken.owner.token);
}

async fn a_forced_adoption_is_above_all_that_the_source_gives(world: World) {
    let journey = Journey::furnished(&world).await;
    let (agent, to) = (journey.agent().clone(), &journey.to);
    let granted = journey.begin().await.granted;
    journey.prepare(granted).await;
    let force = || to.store.adopt(&agent, journey.migration, to.incarnation, Adoption::Forced);
    let lease = force().await.unwrap();
    assert_eq!(lease.token, FencingToken(granted.0 + TOKEN_ADOPT_STEP));
    assert_eq!(force().await, Ok(lease.clone()), "once");
    let row = to.store.agent(&agent).await.unwrap().unwrap();
    assert_eq!((row.home, row.token), (Home::Here, lease.token));
    // The source comes back and takes its own back: whatever it gives from here is lower.
    let (source, incarnation) = (journey.from.store(), journey.from.site.incarnation);
    let returned = source.abort_handoff(&agent, journey.migration, incarnation).await.unwrap();
    assert!(returned.token < lease.token, "{returned:?}");
}

async fn forgetting_leaves_the_tombstone(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (journey.from.store(), journey.agent());
    journey.record_at_source(Phase::Cutover).await;
    journey.complete().await;
    let before = store.agent(agent).await.unwrap().unwrap();
    assert_eq!(store.remove_plugin(before.plugin).await, Ok(true), "who moved away pins no plugin");
    for _ in 0..2 {
        assert_eq!(store.forget_moved(agent, journey.migration).await, Ok(()));
        let row = store.agent(agent).await.unwrap().unwrap();
        assert_eq!((row.home, row.token), (before.home.clone(), before.token));
        assert_eq!((row.generation, row.holder, row.open_inputs), (before.generation, None, 0));
    }
    assert_eq!(store.inputs(agent, None, super::fixture::ALL).await, Ok(vec![]));
    assert_eq!(store.state_keys(agent, "", None, 9).await, Ok(vec![]));
    let record = store.migration(journey.migration).await.unwrap().unwrap();
    assert_eq!((record.role, record.phase), (Role::Source, Phase::Cutover), "the record stays");
    let lists: Vec<_> = store.agents(None, 9).await.unwrap().into_iter().map(|row| row.agent).collect();
    assert_eq!(lists, std::slice::from_ref(agent), "the tombstone is listed");
}

async fn a_late_forget_harms_nobody(world: World) {
    let journey = coming_back(&world).await;
    let home = journey.complete().await;
    let before = picture(home.store(), home.agent()).await;
    // The first move's source is told once more to forget; the agent lives here again.
    assert_eq!(home.store().forget_moved(home.agent(), migration(1)).await, Ok(()));
    assert_eq!(home.store().forget_moved(home.agent(), migration(2)).await, Ok(()));
    assert_eq!(picture(home.store(), home.agent()).await, before);
    let row = journey.from.row().await;
    assert_eq!(journey.from.store().forget_moved(home.agent(), migration(1)).await, Ok(()));
    assert_eq!(journey.from.row().await, row);
    let nobody = super::fixture::id("nobody");
    assert_eq!(home.store().forget_moved(&nobody, migration(1)).await, Ok(()));
}
