//! Accepting: order without gaps (rule 8), idempotency, the inbox bound, deliveries between agents, re-driving.

use crate::id::{FencingToken, Generation, InputId, Seq};
use crate::identity::OriginHash;
use crate::input::InputState;
use crate::limits::INBOX_INPUTS_MAX;
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Desk, Turn, World, delivery, done, id, keyed, message, picture,
};
use crate::store::conformance::{Case, START_MS};
use crate::store::{AcceptError, Accepted, Page, Row, Sharing, StoreError, UnitFailure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(seqs_are_admission_order_without_gaps),
        Case::of(an_accepted_input_is_stored_whole),
        Case::of(the_same_key_and_body_answers_what_is_stored),
        Case::of(another_body_under_a_key_is_refused),
        Case::of(the_same_id_is_accepted_once),
        Case::of(a_full_inbox_is_busy),
        Case::of(inputs_are_read_in_pages),
        Case::of(deliveries_follow_the_table),
        Case::of(a_refused_delivery_changes_nothing),
        Case::of(two_agents_of_one_name_are_told_apart),
        Case::of(another_key_waits_until_it_is_vouched_for),
        Case::of(an_ended_delivery_still_teaches_the_token),
        Case::of(a_dead_letter_is_driven_again_at_its_old_place),
    ]
}

async fn seqs_are_admission_order_without_gaps(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let mut ids: Vec<InputId> = Vec::new();
    for number in 0..3 {
        ids.push(desk.accept(&format!("{number}")).await.input.id);
        let refused = keyed(desk.agent(), "key", &format!("body {number}"));
        // The first of these is accepted; the others reuse its key and take no number.
        let _ = site.store.accept(refused, site.incarnation).await;
        site.store.accept(keyed(desk.agent(), "key", "body 0"), site.incarnation).await.unwrap();
    }
    let agent = desk.agent().clone();
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let inputs = store.inputs(&agent, None, ALL).await.unwrap();
    let seqs: Vec<u64> = inputs.iter().map(|input| input.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    assert_eq!([inputs[0].input.id, inputs[2].input.id, inputs[3].input.id], ids[..]);
    assert_eq!(store.agent(&agent).await.unwrap().unwrap().next_seq, Seq(5));
}

async fn an_accepted_input_is_stored_whole(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let mut new = keyed(desk.agent(), "key", "body");
    new.input.headers = vec![("a".to_owned(), "b".to_owned())];
    new.input.correlation = Some("question".to_owned());
    let accepted = site.store.accept(new.clone(), site.incarnation).await;
    assert_eq!(accepted, Ok(Accepted::New { seq: Seq(1) }));
    let stored = site.store.input(desk.agent(), new.input.id).await.unwrap().unwrap();
    let mut expected = new.input.clone();
    expected.accepted_at_ms = START_MS;
    assert_eq!(stored.input, expected, "dated by the store");
    assert_eq!((stored.state, stored.attempts, stored.outcome), (InputState::Queued, 0, None));
    assert_eq!(stored.accepted_by, site.incarnation);
    assert_eq!(stored.idempotency_key.as_deref(), Some("key"));
    assert_eq!(stored.body_digest, new.body_digest());
    assert_eq!(desk.row().await.open_inputs, 1);
}

async fn the_same_key_and_body_answers_what_is_stored(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let again = || keyed(desk.agent(), "key", "body");
    site.store.accept(again(), site.incarnation).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let Ok(Accepted::Duplicate(waiting)) = site.store.accept(again(), site.incarnation).await else {
        panic!("the key is known");
    };
    assert_eq!((waiting.seq, waiting.outcome.as_ref()), (Seq(1), None));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);

    desk.turn(Turn::ends([&*waiting])).await;
    let Ok(Accepted::Duplicate(answered)) = site.store.accept(again(), site.incarnation).await else {
        panic!("the key is known after its end");
    };
    let stored = site.store.input(desk.agent(), waiting.input.id).await.unwrap().unwrap();
    assert!(stored.outcome.is_some());
    assert_eq!(*answered, stored);
    assert_eq!(desk.store().input_by_key(desk.agent(), "key").await, Ok(Some(stored)));
    assert_eq!(desk.store().input_by_key(desk.agent(), "body").await, Ok(None));
    let other = site.own("other").await;
    assert_eq!(desk.store().input_by_key(other.agent(), "key").await, Ok(None), "a key is its agent's");
}

async fn another_body_under_a_key_is_refused(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    site.store.accept(keyed(desk.agent(), "key", "body"), site.incarnation).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let refused = site.store.accept(keyed(desk.agent(), "key", "other"), site.incarnation).await;
    assert_eq!(refused, Err(AcceptError::KeyReused));
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    let other_key = site.store.accept(keyed(desk.agent(), "key2", "body"), site.incarnation).await;
    assert_eq!(other_key, Ok(Accepted::New { seq: Seq(2) }), "the same body under another key is new");
}

async fn the_same_id_is_accepted_once(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let first = message(desk.agent(), "body");
    site.store.accept(first.clone(), site.incarnation).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let again = site.store.accept(first.clone(), site.incarnation).await;
    assert!(matches!(&again, Ok(Accepted::Duplicate(stored)) if stored.seq == Seq(1)), "{again:?}");
    let mut other = message(desk.agent(), "other");
    other.input.id = first.input.id;
    let refused = site.store.accept(other, site.incarnation).await;
    assert!(matches!(refused, Err(AcceptError::Store(StoreError::Conflict { .. }))), "{refused:?}");
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
}

async fn a_full_inbox_is_busy(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let mut left = usize::try_from(INBOX_INPUTS_MAX).unwrap();
    while left > 0 {
        let steps = left.min(1_000);
        let mut chain = desk.chain().await;
        for _ in 0..steps {
            chain = chain.accept(message(desk.agent(), ""));
        }
        assert_eq!(desk.commit(chain.unit()).await, done(steps));
        left -= steps;
    }
    let busy = AcceptError::Busy { depth: INBOX_INPUTS_MAX, bytes: desk.row().await.open_bytes };
    let refused = site.store.accept(message(desk.agent(), "late"), site.incarnation).await;
    assert_eq!(refused, Err(busy.clone()));
    let unit = desk.chain().await.accept(message(desk.agent(), "late")).unit();
    let outcome = desk.commit(unit).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Refused(busy)));
    assert_eq!(desk.row().await.next_seq, Seq(INBOX_INPUTS_MAX + 1), "a refusal takes no number");
    let first = site.store.open_inputs(desk.agent(), ALL).await.unwrap().remove(0);
    desk.turn(Turn::ends([&first])).await;
    let accepted = site.store.accept(message(desk.agent(), "late"), site.incarnation).await;
    assert!(matches!(accepted, Ok(Accepted::New { .. })), "an end makes room: {accepted:?}");
}

async fn inputs_are_read_in_pages(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let mut inputs = Vec::new();
    for number in 0..6 {
        inputs.push(desk.accept(&format!("{number}")).await);
    }
    desk.turn(Turn::ends([&inputs[1]])).await;
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&inputs[3]])).await;
    let unit = desk.chain().await.attempt(Seq(5), InputState::Staged, 1).unit();
    desk.commit(unit).await;
    let page = |after, limit| Page { after, limit };
    let seqs = |inputs: Vec<crate::store::StoredInput>| -> Vec<u64> {
        inputs.iter().map(|input| input.seq.0).collect()
    };
    let open = site.store.open_inputs(desk.agent(), page(1, 2)).await.unwrap();
    assert_eq!(seqs(open), [3, 5]);
    let open = site.store.open_inputs(desk.agent(), page(5, 9)).await.unwrap();
    assert_eq!(seqs(open), [6]);
    let all = site.store.inputs(desk.agent(), None, page(2, 3)).await.unwrap();
    assert_eq!(seqs(all), [3, 4, 5]);
    let by_state = [
        (InputState::Queued, vec![1, 3, 6]),
        (InputState::Staged, vec![5]),
        (InputState::Consumed, vec![2]),
        (InputState::DeadLettered, vec![4]),
        (InputState::Replaced, vec![]),
    ];
    for (state, expected) in by_state {
        let found = site.store.inputs(desk.agent(), Some(state), ALL).await.unwrap();
        assert_eq!(seqs(found), expected, "{state:?}");
    }
}

/// What a delivery is answered.
#[derive(Debug, PartialEq)]
enum Heard {
    New,
    Ended,
    Stale { highest: u64 },
    Gap { next: u64 },
    Namesake,
    Unproven,
    AnotherKey,
}

/// Delivers number `number` of generation `owner.0` under token `owner.1`.
async fn deliver(desk: &Desk, owner: (u64, u64), number: u64, lowest_open: u64) -> Heard {
    let new = delivery(desk.agent(), "origin", owner, number, lowest_open);
    heard(desk.store().accept(new, desk.owner.incarnation).await)
}

fn heard(answer: Result<Accepted, AcceptError>) -> Heard {
    match answer {
        Ok(Accepted::New { .. }) => Heard::New,
        Ok(Accepted::AlreadyEnded) => Heard::Ended,
        Err(AcceptError::StalePublisher { highest }) => Heard::Stale { highest: highest.0 },
        Err(AcceptError::Gap { next }) => Heard::Gap { next },
        Err(AcceptError::Namesake { .. }) => Heard::Namesake,
        Err(AcceptError::Unproven { .. }) => Heard::Unproven,
        Err(AcceptError::AnotherKey { .. }) => Heard::AnotherKey,
        other => panic!("{other:?}"),
    }
}

async fn deliveries_follow_the_table(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let steps = [
        ("the first is number 1", (1, 5), 2, 1, Heard::Gap { next: 1 }),
        ("and is accepted", (1, 5), 1, 1, Heard::New),
        ("once", (1, 5), 1, 1, Heard::Ended),
        ("then the next", (1, 5), 2, 1, Heard::New),
        ("none is skipped", (1, 5), 4, 1, Heard::Gap { next: 3 }),
        ("unless it has ended at the sender", (1, 5), 6, 6, Heard::New),
        ("what lies below has ended", (1, 5), 3, 3, Heard::Ended),
        ("a higher token goes on", (1, 7), 7, 7, Heard::New),
        ("a lower one is stale", (1, 6), 8, 8, Heard::Stale { highest: 7 }),
        ("even for what has ended", (1, 5), 1, 1, Heard::Stale { highest: 7 }),
        ("a higher generation starts at 1", (2, 7), 2, 1, Heard::Gap { next: 1 }),
        ("anew", (2, 8), 1, 1, Heard::New),
        ("a lower generation has ended", (1, 8), 8, 8, Heard::Ended),
        ("and teaches its token", (1, 9), 8, 8, Heard::Ended),
        ("as it is stale", (2, 8), 2, 1, Heard::Stale { highest: 9 }),
        ("the higher goes on", (2, 9), 2, 1, Heard::New),
        ("and may start later", (3, 9), 4, 4, Heard::New),
        ("from there", (3, 9), 5, 4, Heard::New),
    ];
    for (what, owner, number, lowest_open, expected) in steps {
        assert_eq!(deliver(&desk, owner, number, lowest_open).await, expected, "{what}");
    }
    let inputs = site.store.inputs(desk.agent(), None, ALL).await.unwrap();
    let seqs: Vec<u64> = inputs.iter().map(|input| input.seq.0).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<u64>>());
    let other = delivery(desk.agent(), "another", (1, 1), 1, 1);
    let accepted = site.store.accept(other, site.incarnation).await;
    assert_eq!(accepted, Ok(Accepted::New { seq: Seq(9) }), "each origin has a row of its own");
}

async fn a_refused_delivery_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    deliver(&desk, (1, 5), 1, 1).await;
    let before = picture(desk.store(), desk.agent()).await;
    assert_eq!(deliver(&desk, (1, 9), 3, 1).await, Heard::Gap { next: 2 });
    assert_eq!(deliver(&desk, (1, 4), 2, 1).await, Heard::Stale { highest: 5 });
    assert_eq!(deliver(&desk, (2, 9), 2, 1).await, Heard::Gap { next: 1 });
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    assert_eq!(deliver(&desk, (1, 5), 2, 1).await, Heard::New, "under the token that was heard");
}

async fn two_agents_of_one_name_are_told_apart(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let epoch = FencingToken(1).raised(1).unwrap().0;
    let later = FencingToken(1).raised(2).unwrap().0;
    let (first, other) = (Some((1, 7)), Some((1, 8)));
    let (anew, archived) = (Some((2, 8)), Some((2, 9)));
    let steps = [
        ("one without a key is heard", (1, 5), 1, None, Heard::New),
        ("the first key is remembered", (1, 5), 2, first, Heard::New),
        ("another one is another agent", (1, 5), 3, other, Heard::Namesake),
        ("whatever its token", (1, 9), 3, other, Heard::Namesake),
        ("also a lower one", (1, 4), 3, other, Heard::Namesake),
        ("and leaves the row alone", (1, 5), 3, first, Heard::New),
        ("who proves nothing is not believed", (1, 5), 4, None, Heard::Unproven),
        ("whatever its token", (1, later), 4, None, Heard::Unproven),
        ("nor its generation", (2, 6), 1, None, Heard::Unproven),
        ("and leaves the row alone", (1, 5), 4, first, Heard::New),
        ("made anew it has another key", (2, 6), 1, anew, Heard::New),
        ("and what it was before has ended", (1, 6), 5, anew, Heard::Ended),
        ("the former key is a namesake's", (2, 6), 2, Some((2, 7)), Heard::Namesake),
        ("from an archive it has another key", (2, epoch), 2, archived, Heard::New),
        ("the one before is stale", (2, 7), 3, anew, Heard::Stale { highest: epoch }),
        ("the new one is remembered", (2, epoch), 3, anew, Heard::Namesake),
        ("a restored store knows an older one", (1, later), 1, first, Heard::Ended),
        ("which makes itself anew", (2, later), 3, Some((2, 10)), Heard::New),
    ];
    for (what, owner, number, known, expected) in steps {
        let mut new = delivery(desk.agent(), "origin", owner, number, number);
        if let (Some(stamp), Some((generation, hash))) = (&mut new.delivery, known) {
            (stamp.origin_generation, stamp.origin_hash) = (Generation(generation), Some(OriginHash(hash)));
        }
        assert_eq!(heard(desk.store().accept(new, desk.owner.incarnation).await), expected, "{what}");
    }
    let known = desk.store().heard_of(&id("origin")).await.unwrap();
    let known: Vec<_> =
        known.iter().map(|heard| (heard.generation, heard.token, heard.origin_hash)).collect();
    assert_eq!(known, [(Generation(2), FencingToken(later), Some(OriginHash(10)))]);
    assert_eq!(desk.store().heard_of(&id("nobody")).await, Ok(Vec::new()));
    // What was heard moves with the receiver.
    let frames = site.store.export_rows(desk.agent(), 0, usize::MAX).await.unwrap();
    let rows = frames.into_iter().filter_map(|frame| match frame.row {
        Row::Receiver(receiver) => Some((receiver.generation, receiver.origin_hash)),
        _ => None,
    });
    assert_eq!(rows.collect::<Vec<_>>(), [(Generation(2), Some(OriginHash(10)))]);
}

/// What a peer brings: no agent here but the one that it is for vouches for another key.
async fn another_key_waits_until_it_is_vouched_for(world: World) {
    let site = world.site("a").await;
    let (desk, fresh) = (site.own("agent").await, site.own("fresh").await);
    let local = site.create("local").await;
    let key = site.store.agent(&local).await.unwrap().unwrap().known_as().hash.unwrap();
    let from =
        async |to: &Desk, origin: &str, owner: (u64, u64), number, hash: Option<u64>, is_vouched_for| {
            let mut new = delivery(to.agent(), origin, owner, number, number);
            let stamp = new.delivery.as_mut().unwrap();
            (stamp.origin_hash, stamp.is_vouched_for) = (hash.map(OriginHash), is_vouched_for);
            heard(to.store().accept(new, to.owner.incarnation).await)
        };
    let epoch = FencingToken(1).raised(1).unwrap().0;
    assert_eq!(from(&desk, "origin", (2, 5), 1, Some(7), false).await, Heard::New);
    for (what, owner) in [("made anew", (3, 6)), ("of an archive", (2, epoch))] {
        assert_eq!(from(&desk, "origin", owner, 1, Some(8), false).await, Heard::AnotherKey, "{what}");
    }
    // Who has heard nothing itself goes by what the others have.
    assert_eq!(from(&fresh, "origin", (2, 5), 1, None, true).await, Heard::Unproven);
    assert_eq!(from(&fresh, "origin", (2, 5), 1, Some(8), false).await, Heard::AnotherKey);
    assert_eq!(from(&fresh, "origin", (2, 5), 1, Some(7), false).await, Heard::New);
    assert_eq!(from(&fresh, local.as_str(), (1, 5), 1, None, true).await, Heard::Unproven);
    assert_eq!(from(&fresh, local.as_str(), (1, 5), 1, Some(7), false).await, Heard::AnotherKey);
    assert_eq!(from(&fresh, local.as_str(), (1, 5), 1, Some(key.0), false).await, Heard::New);
    // A store that was put back may know an earlier generation, under the same key: that stays known.
    assert_eq!(from(&desk, "origin", (1, epoch), 1, Some(7), false).await, Heard::Ended);
    assert_eq!(from(&desk, "origin", (2, epoch), 2, None, true).await, Heard::Unproven);
    assert_eq!(from(&desk, "origin", (3, epoch), 1, Some(8), true).await, Heard::New, "vouched for");
}

async fn an_ended_delivery_still_teaches_the_token(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    deliver(&desk, (1, 5), 1, 1).await;
    assert_eq!(deliver(&desk, (1, 8), 1, 1).await, Heard::Ended);
    assert_eq!(deliver(&desk, (1, 5), 2, 1).await, Heard::Stale { highest: 8 });
    let agent = desk.agent().clone();
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let frames = store.export_rows(&agent, 0, usize::MAX).await.unwrap();
    let heard = frames.iter().find_map(|frame| match &frame.row {
        Row::Receiver(receiver) => Some(receiver.clone()),
        _ => None,
    });
    let heard = heard.unwrap();
    assert_eq!((heard.origin, heard.generation), (id("origin"), Generation(1)));
    assert_eq!((heard.token, heard.next), (FencingToken(8), 2));
}

async fn a_dead_letter_is_driven_again_at_its_old_place(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (first, second) = (desk.accept("first").await, desk.accept("second").await);
    let refused = site.store.redrive(desk.agent(), first.input.id).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "it waits: {refused:?}");
    for _ in 0..2 {
        let unit = desk.chain().await.attempt(first.seq, InputState::Staged, 3).unit();
        desk.commit(unit).await;
        desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&first])).await;
        assert_eq!(desk.row().await.open_inputs, 1);
        assert_eq!(site.store.redrive(desk.agent(), first.input.id).await, Ok(()));
        let stored = site.store.input(desk.agent(), first.input.id).await.unwrap().unwrap();
        assert_eq!(stored, first, "as on the first day");
    }
    let open = site.store.open_inputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(open, [first.clone(), second.clone()]);
    desk.turn(Turn::ends([&first])).await;
    let unknown = message(desk.agent(), "unknown").input.id;
    for input in [first.input.id, unknown] {
        let refused = site.store.redrive(desk.agent(), input).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
}
