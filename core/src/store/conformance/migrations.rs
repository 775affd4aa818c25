//! Migration records, and what closes them (rule 5).

use std::collections::BTreeSet;

use crate::event::EventKind;
use crate::id::{MigrationId, Revision};
use crate::limits::{FRUITLESS_KEPT_MAX, MIGRATIONS_KEPT_MAX, PAGE_MAX};
use crate::migration::{Failure, Phase, Role};
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{Store, World, host, id, is_conflict, migration};
use crate::store::{MigrationRecord, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_record_is_written_and_read_back),
        Case::of(a_record_belongs_to_one_agent),
        Case::of(a_second_open_migration_of_a_side_is_a_conflict),
        Case::of(a_migration_that_is_over_stays_over),
        Case::of(those_that_are_open_are_listed_first),
        Case::of(of_those_that_are_over_the_newest_stay),
        Case::of(of_those_that_brought_no_agent_the_newest_stay),
        Case::of(phases_are_events_once_each),
        Case::of(both_sides_keep_records_in_a_shared_store),
        Case::of(an_acquisition_closes_the_open_migration),
        Case::of(a_migrations_own_grant_leaves_its_record),
        Case::of(what_had_moved_is_complete_when_the_next_one_takes_the_agent),
    ]
}

pub(super) fn record(number: u8, agent: &str, role: Role, phase: Phase) -> MigrationRecord {
    let started_at_ms = super::START_MS + u64::from(number);
    MigrationRecord {
        id: migration(number),
        agent: id(agent),
        role,
        source: host(1),
        target: host(2),
        phase,
        failure: None,
        rounds: 1,
        bytes: 2,
        pause_us: None,
        started_at_ms,
        deadline_ms: started_at_ms + 60_000,
    }
}

async fn put(store: &Store, record: MigrationRecord) {
    assert_eq!(store.put_migration(record).await, Ok(()));
}

async fn refuse(store: &Store, record: MigrationRecord) {
    let before = store.migrations(PAGE_MAX).await.unwrap();
    let refused = store.put_migration(record).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(store.migrations(PAGE_MAX).await, Ok(before));
}

async fn a_record_is_written_and_read_back(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put(&store, record(1, "one", Role::Source, Phase::Reserve)).await;
    put(&store, record(3, "three", Role::Target, Phase::Transfer)).await;
    put(&store, record(2, "two", Role::Source, Phase::Reserve)).await;
    let mut later = record(1, "one", Role::Source, Phase::Complete);
    later.pause_us = Some(1_234);
    later.rounds = 7;
    put(&store, later.clone()).await;
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    assert_eq!(store.migration(migration(1)).await, Ok(Some(later)));
    let newest: Vec<MigrationId> =
        store.migrations(2).await.unwrap().iter().map(|record| record.id).collect();
    assert_eq!(newest, [migration(3), migration(2)]);
}

async fn a_record_belongs_to_one_agent(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put(&store, record(1, "one", Role::Source, Phase::Reserve)).await;
    refuse(&store, record(1, "two", Role::Source, Phase::Reserve)).await;
    refuse(&store, record(1, "two", Role::Target, Phase::Reserve)).await;
}

async fn a_second_open_migration_of_a_side_is_a_conflict(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put(&store, record(1, "one", Role::Source, Phase::Transfer)).await;
    refuse(&store, record(2, "one", Role::Source, Phase::Reserve)).await;
    put(&store, record(2, "two", Role::Source, Phase::Reserve)).await;
    put(&store, record(4, "one", Role::Target, Phase::Reserve)).await;
    put(&store, record(5, "one", Role::Source, Phase::Failed)).await;
    put(&store, record(1, "one", Role::Source, Phase::Failed)).await;
    put(&store, record(3, "one", Role::Source, Phase::Reserve)).await;
}

async fn a_migration_that_is_over_stays_over(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put(&store, record(1, "one", Role::Source, Phase::Aborted)).await;
    refuse(&store, record(1, "one", Role::Source, Phase::Cutover)).await;
    refuse(&store, record(1, "one", Role::Source, Phase::Complete)).await;
    put(&store, record(1, "one", Role::Source, Phase::Aborted)).await;
}

async fn those_that_are_open_are_listed_first(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    put(&store, record(1, "one", Role::Source, Phase::Cutover)).await;
    put(&store, record(2, "two", Role::Target, Phase::Reserve)).await;
    put(&store, record(3, "three", Role::Source, Phase::Complete)).await;
    put(&store, record(4, "four", Role::Source, Phase::Failed)).await;
    let listed = async |limit| -> Vec<MigrationId> {
        store.migrations(limit).await.unwrap().iter().map(|record| record.id).collect()
    };
    assert_eq!(listed(PAGE_MAX).await, [2, 1, 4, 3].map(migration));
    assert_eq!(listed(2).await, [2, 1].map(migration), "who settles them finds them, however many are over");
}

async fn of_those_that_are_over_the_newest_stay(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let kept = u8::try_from(MIGRATIONS_KEPT_MAX).unwrap();
    put(&store, record(0, "one", Role::Target, Phase::Reserve)).await;
    put(&store, record(1, "other", Role::Source, Phase::Complete)).await;
    for number in 2..kept + 2 {
        put(&store, record(number, "one", Role::Source, Phase::Transfer)).await;
        put(&store, record(number, "one", Role::Source, Phase::Failed)).await;
        put(&store, record(number, "one", Role::Target, Phase::Failed)).await;
    }
    let ids = async |agent: &str| {
        let records = store.migrations(PAGE_MAX).await.unwrap().into_iter();
        records.filter(|record| record.agent == id(agent)).map(|record| (record.id, record.role)).collect()
    };
    let before: BTreeSet<(MigrationId, Role)> = ids("one").await;
    assert_eq!(before.len(), 2 * MIGRATIONS_KEPT_MAX + 1);
    let newest = record(kept + 2, "one", Role::Source, Phase::Complete);
    for _ in 0..2 {
        put(&store, newest.clone()).await;
        let mut expected = before.clone();
        expected.remove(&(migration(2), Role::Source));
        expected.insert((newest.id, Role::Source));
        assert_eq!(ids("one").await, expected, "the oldest of that side goes");
    }
    let target = store.migration(migration(2)).await.unwrap().unwrap();
    assert_eq!(target.role, Role::Target);
    let other: BTreeSet<_> = ids("other").await;
    assert_eq!(other, BTreeSet::from([(migration(1), Role::Source)]));
}

async fn of_those_that_brought_no_agent_the_newest_stay(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    let numbered = |number: usize, phase: Phase| MigrationRecord {
        id: MigrationId((number as u128 + 1).to_be_bytes()),
        started_at_ms: super::START_MS + number as u64,
        ..record(0, &format!("agent-{number}"), Role::Target, phase)
    };
    put(&store, numbered(0, Phase::Complete)).await;
    put(&store, numbered(1, Phase::Reserve)).await;
    for number in 2..FRUITLESS_KEPT_MAX + 4 {
        put(&store, numbered(number, Phase::Aborted)).await;
    }
    let kept = async |number: usize| {
        store.migration(MigrationId((number as u128 + 1).to_be_bytes())).await.unwrap().is_some()
    };
    assert!(kept(0).await, "it brought its agent");
    assert!(kept(1).await, "it is open");
    assert!(!kept(2).await);
    assert!(!kept(3).await);
    assert!(kept(4).await);
    assert!(kept(FRUITLESS_KEPT_MAX + 3).await);
}

async fn phases_are_events_once_each(world: World) {
    let store = world.open("a", Sharing::Exclusive).await;
    for phase in [Phase::Reserve, Phase::Reserve, Phase::Transfer, Phase::Transfer, Phase::Complete] {
        put(&store, record(1, "one", Role::Source, phase)).await;
    }
    let kind = Some(EventKind::Migration);
    let events = store.events(0, Some(&id("one")), kind, PAGE_MAX).await.unwrap();
    assert_eq!(events.len(), 3);
}

async fn both_sides_keep_records_in_a_shared_store(world: World) {
    let store = world.open("a", Sharing::Shared).await;
    let source = record(1, "one", Role::Source, Phase::Replay);
    let target = record(1, "one", Role::Target, Phase::Restore);
    put(&store, target.clone()).await;
    assert_eq!(store.migration(migration(1)).await, Ok(Some(target)));
    put(&store, source.clone()).await;
    assert_eq!(store.migration(migration(1)).await, Ok(Some(source)));
    assert_eq!(store.migrations(PAGE_MAX).await.unwrap().len(), 2);
}

async fn an_acquisition_closes_the_open_migration(world: World) {
    let site = world.shared_site("a").await;
    let desk = site.own("agent").await;
    put(&site.store, record(1, "agent", Role::Source, Phase::Complete)).await;
    put(&site.store, record(2, "agent", Role::Source, Phase::Transfer)).await;
    put(&site.store, record(3, "bystander", Role::Source, Phase::Transfer)).await;
    let forced = MigrationRecord {
        failure: Some(Failure::Forked),
        ..record(4, "agent", Role::Target, Phase::Cutover)
    };
    put(&site.store, forced.clone()).await;
    site.take(desk.agent()).await;
    let phase = async |number| site.store.migration(migration(number)).await.unwrap().unwrap().phase;
    assert_eq!(phase(2).await, Phase::Transfer, "no new token, no end");
    let other = site.beside(2).await;
    site.store.leave(site.incarnation).await.unwrap();
    other.take(desk.agent()).await;
    let closed = site.store.migration(migration(2)).await.unwrap().unwrap();
    assert_eq!((closed.phase, closed.failure), (Phase::Aborted, Some(Failure::Fenced)));
    assert_eq!((phase(1).await, phase(3).await), (Phase::Complete, Phase::Transfer));
    // Its source has to hear of it, however often that is, and it keeps the agent from no other migration.
    assert_eq!(site.store.migration(migration(4)).await, Ok(Some(forced)));
    put(&site.store, record(5, "agent", Role::Target, Phase::Reserve)).await;
    let kind = Some(EventKind::Migration);
    let events = site.store.events(0, Some(desk.agent()), kind, PAGE_MAX).await.unwrap();
    assert_eq!(events.len(), 5, "the end is an event as well");
}

async fn a_migrations_own_grant_leaves_its_record(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    put(&site.store, record(1, "agent", Role::Source, Phase::Cutover)).await;
    site.store.transfer(&desk.owner, Revision(0), migration(1), other.host).await.unwrap();
    let kept = site.store.migration(migration(1)).await.unwrap().unwrap();
    assert_eq!((kept.phase, kept.failure), (Phase::Cutover, None));

    for (number, agent) in [(2, "second"), (4, "third")] {
        let desk = site.own(agent).await;
        put(&site.store, record(number, agent, Role::Source, Phase::Transfer)).await;
        let (base, other_migration) = (Revision(0), migration(number + 1));
        let owner = &desk.owner;
        if agent == "second" {
            let given = site.store.transfer(owner, base, other_migration, other.host);
            given.await.unwrap();
        } else {
            let begun = site.store.begin_handoff(owner, base, other_migration, other.host);
            begun.await.unwrap();
        }
        let closed = site.store.migration(migration(number)).await.unwrap().unwrap();
        assert_eq!(
            (closed.phase, closed.failure),
            (Phase::Aborted, Some(Failure::Fenced)),
            "another migration took {agent}"
        );
    }
}

/// Nobody is left who would write that it has ended, and it keeps the agent from no other migration.
async fn what_had_moved_is_complete_when_the_next_one_takes_the_agent(world: World) {
    let site = world.shared_site("a").await;
    let other = site.beside(2).await;
    let desk = site.own("agent").await;
    let begun = record(1, "agent", Role::Source, Phase::Cutover);
    site.store.put_migration(begun.clone()).await.unwrap();
    let lease = site.store.transfer(&desk.owner, Revision(0), begun.id, other.host).await.unwrap();
    assert_eq!(site.store.migration(begun.id).await, Ok(Some(begun.clone())));
    site.store.release(&other.desk(lease).owner).await.unwrap();
    site.take(desk.agent()).await;
    let over = site.store.migration(begun.id).await.unwrap().unwrap();
    assert_eq!((over.phase, over.failure), (Phase::Complete, None));
    let next = record(2, "agent", Role::Source, Phase::Reserve);
    assert_eq!(site.store.put_migration(next).await, Ok(()));
}
