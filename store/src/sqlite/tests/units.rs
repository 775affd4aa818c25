//! What the writer makes of units: few statements, whole prefixes, numbers that fit.

use godwit_core::id::{AgentId, FencingToken, Generation, MigrationId, Revision, Seq};
use godwit_core::input::DeliveryStamp;
use godwit_core::store::{AcceptError, Accepted, RowFrame, RuntimeStore, Step, StoreError, UnitFailure};

use super::fixture::{Desk, Place, create, done, host, join, message};
use crate::sqlite::SqliteMode;

#[tokio::test]
async fn an_ask_is_one_transaction_and_one_input_row() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let before = store.commits();
    let id = desk.asked(&store, b"ask", b"state").await;
    assert_eq!(store.commits() - before, 1);
    let row = store.agent(&desk.owner.agent).await.unwrap().unwrap();
    assert_eq!((row.open_inputs, row.next_seq), (0, Seq(2)));
    let stored = store.input(&desk.owner.agent, id).await.unwrap().unwrap();
    assert!(stored.outcome.is_some());
    // Input, receipt, snapshot and the agent's own row: one change number each.
    assert_eq!(row.change, (3 + 2) + 4, "and its creation, and an event each for that and its lease");
}

#[tokio::test]
async fn an_accepted_input_whose_turn_is_refused_stays() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let input = message(&desk.owner.agent, b"ask");
    let id = input.input.id;
    let mut unit = desk.ask(input, b"state");
    let Some(Step::Boundary(boundary)) = unit.steps.last_mut() else {
        panic!("an ask ends with a boundary");
    };
    boundary.receipt.parent = boundary.receipt.effects;
    boundary.receipt.effects = godwit_core::digest::Digest([1; 32]);
    boundary.receipt.state = None;
    let outcome = store.commit_turns(unit).await;
    assert_eq!(outcome.committed, 1);
    assert!(matches!(outcome.failure, Some(UnitFailure::Store(StoreError::Conflict { .. }))));
    let stored = store.input(&desk.owner.agent, id).await.unwrap().unwrap();
    assert!(stored.state.is_open());
    assert_eq!(store.agent(&desk.owner.agent).await.unwrap().unwrap().open_inputs, 1);
}

#[tokio::test]
async fn numbers_above_the_highest_are_refused_not_wrapped() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let agent = create(&store, "a").await;
    let mut input = message(&agent, b"x");
    input.delivery = Some(DeliveryStamp {
        origin: AgentId::parse("b").unwrap(),
        generation: Generation(1),
        number: 1,
        lowest_open: 1,
        token: FencingToken(u64::MAX),
        host: host(2),
        origin_hash: None,
        origin_generation: Generation(1),
        is_vouched_for: true,
        channel: None,
    });
    let refused = store.accept(input, incarnation).await;
    assert!(matches!(refused, Err(AcceptError::Store(StoreError::Conflict { .. }))), "{refused:?}");
    let row = store.agent(&agent).await.unwrap().unwrap();
    assert_eq!((row.open_inputs, row.next_seq), (0, Seq(1)));
    // Asking beyond the highest number is an empty answer.
    let receipts = store.receipts(&agent, Generation(u64::MAX), Revision(u64::MAX), 1).await;
    assert_eq!(receipts, Ok(Vec::new()));
    assert_eq!(store.events(u64::MAX, None, None, 1).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_snapshot_whose_numbers_do_not_fit_leaves_nothing_of_its_turn() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    desk.asked(&store, b"first", b"state").await;
    let (revision, head) = (desk.revision, desk.head);
    let mut unit = desk.ask(message(&desk.owner.agent, b"second"), b"other");
    let Some(Step::Boundary(boundary)) = unit.steps.last_mut() else {
        panic!("an ask ends with a boundary");
    };
    boundary.snapshot.as_mut().unwrap().time_ms = u64::MAX;
    let outcome = store.commit_turns(unit).await;
    assert!(matches!(outcome.failure, Some(UnitFailure::Store(StoreError::Conflict { .. }))), "{outcome:?}");
    let agent = desk.owner.agent.clone();
    assert_eq!(store.receipts(&agent, Generation(1), Revision(0), 10).await.unwrap().len(), 1);
    // The agent goes on from where its row is.
    let row = store.agent(&agent).await.unwrap().unwrap();
    (desk.revision, desk.head, desk.next_seq) = (revision, head, row.next_seq);
    desk.asked(&store, b"third", b"state").await;
}

/// Exports everything, in bundles of about `bytes_max`.
async fn export(store: &dyn RuntimeStore, agent: &AgentId, bytes_max: usize) -> Vec<RowFrame> {
    let mut frames: Vec<RowFrame> = Vec::new();
    loop {
        let after = frames.last().map_or(0, |frame| frame.change);
        let more = store.export_rows(agent, after, bytes_max).await.unwrap();
        if more.is_empty() {
            return frames;
        }
        frames.extend(more);
    }
}

#[tokio::test]
async fn a_long_history_is_exported_without_gaps_whatever_the_bundle() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    for number in 0..700_u32 {
        desk.asked(&store, &number.to_le_bytes(), b"state").await;
    }
    let agent = desk.owner.agent.clone();
    for _ in 0..700 {
        let accepted = store.accept(message(&agent, b"waits"), desk.owner.incarnation).await;
        assert!(matches!(accepted, Ok(Accepted::New { .. })));
    }
    let frames = export(&*store, &agent, 10_000).await;
    assert!(frames.is_sorted_by(|a, b| a.change < b.change));
    assert_eq!(frames, export(&*store, &agent, usize::MAX).await);
    // 1400 inputs, 700 receipts, one snapshot, spec and agent.
    assert_eq!(frames.len(), 1_400 + 700 + 3);

    let other = Place::new();
    let target = other.open(SqliteMode::Exclusive);
    let migration = MigrationId([9; 16]);
    let (late, early) = frames.split_at(1_000);
    for bundle in early.chunks(300).chain(late.chunks(300)) {
        target.receive_rows(migration, &agent, bundle.to_vec()).await.unwrap();
    }
    assert_eq!(target.agent(&agent).await, Ok(None));
    target.discard_copy(migration).await.unwrap();
    let rows: i64 = other.intruder().query_row("SELECT count(*) FROM input", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn hot_statements_use_their_indexes() {
    let place = Place::new();
    let _store = place.open(SqliteMode::Exclusive);
    let conn = crate::sqlite::connection::connect(&place.path()).unwrap();
    for (sql, index) in [
        ("SELECT key FROM agent WHERE id = 'a' AND home < 4", "agent_id"),
        ("SELECT key FROM agent WHERE migration = x'00' AND home = 4", "agent_migration"),
        (crate::sqlite::agents::RUNNABLE, "agent_runnable"),
        (crate::sqlite::inputs::OPEN, "input_open"),
        (crate::sqlite::inputs::DEAD_LETTERS, "input_dead_letter"),
        (crate::sqlite::inputs::IN_SCOPE, "input_scope"),
        (crate::sqlite::plugins::USERS, "spec_plugin"),
        (crate::sqlite::inputs::BY_KEY, "input_key"),
        (crate::sqlite::bodies::DROPPED, "snapshot_body_unnamed"),
        (crate::sqlite::bodies::LEFT_BEHIND, "snapshot_body_unnamed"),
        ("SELECT change FROM input WHERE agent = 1 AND change > 2 ORDER BY change LIMIT 5", "input_change"),
        ("SELECT seq FROM event WHERE seq > 1 AND agent = 'a' ORDER BY seq", "event_agent"),
        ("SELECT sealed FROM migration WHERE agent = 'a' AND is_open = 1 ORDER BY role", "migration_open"),
    ] {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> =
            statement.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap();
        assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{sql}: {plan:?}");
    }
}

#[tokio::test]
async fn state_keys_are_found_by_prefix() {
    let place = Place::new();
    let store = place.open(SqliteMode::Exclusive);
    let mut desk = Desk::new(&store, "a").await;
    let mut boundary = desk.boundary(&[], b"state");
    let keys = ["", "a", "a\u{0}", "aa", "ab", "a\u{10FFFF}z", "b"];
    boundary.state =
        keys.iter().map(|key| ((*key).to_owned(), Some(bytes::Bytes::from_static(b"v")))).collect();
    let unit = godwit_core::store::Unit {
        owner: desk.owner.clone(),
        base: Revision(0),
        steps: vec![Step::Boundary(Box::new(boundary))],
    };
    assert_eq!(store.commit_turns(unit).await, done(1));
    let agent = &desk.owner.agent;
    for (prefix, after, expected) in [
        ("", None, &keys[..]),
        ("", Some(""), &keys[1..]),
        ("a", None, &keys[1..6]),
        ("a", Some(""), &keys[1..6]),
        ("a", Some("aa"), &keys[4..6]),
        ("a", Some("b"), &[]),
        ("ab", None, &keys[4..5]),
        ("c", None, &[]),
    ] {
        assert_eq!(
            store.state_keys(agent, prefix, after, 100).await.unwrap(),
            expected,
            "{prefix:?} {after:?}"
        );
    }
}
