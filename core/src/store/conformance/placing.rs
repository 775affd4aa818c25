//! How inputs wait: lanes, who wakes, silent intents, what a newer input replaces, what a verb abandons.

use std::collections::BTreeSet;

use crate::event::EventKind;
use crate::id::InputId;
use crate::input::{AbandonReason, InputState, Kind, Lane, Mode, NewInput, Outcome, Source, TraceParent};
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::reply;
use crate::store::conformance::fixture::{
    ALL, Desk, SILENT, Turn, World, assert_failed, done, id, is_conflict, is_stale, keyed, message, picture,
};
use crate::store::conformance::{Case, START_MS};
use crate::store::{Accepted, Attempt, Sharing, Step, StoreError, StoredInput, UnitFailure};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_input_is_placed_by_the_table_and_kept_so),
        Case::of(only_waking_inputs_make_an_agent_runnable),
        Case::of(a_silent_intent_is_decided_by_the_spec),
        Case::of(a_repetition_that_wakes_rouses_a_silent_input),
        Case::of(a_newer_input_replaces_all_queued_ones_of_its_scope),
        Case::of(an_input_that_is_replaced_or_abandoned_is_an_event),
        Case::of(a_staged_input_is_never_replaced),
        Case::of(progress_replaces_older_progress_on_the_same_question),
        Case::of(a_superseding_input_is_not_accepted_in_a_unit),
        Case::of(a_repeated_key_is_answered_with_its_end_whatever_it_is),
        Case::of(a_unit_that_meets_a_replaced_or_abandoned_input_is_stale),
        Case::of(only_the_state_that_was_named_is_abandoned),
        Case::of(a_dropped_dead_letter_stays_dropped),
        Case::of(attempts_follow_the_transition_table),
        Case::of(a_request_ends_once_whatever_comes_first),
    ]
}

fn superseding(desk: &Desk, key: &str, body: &str) -> NewInput {
    NewInput { supersedes: Some(key.to_owned()), ..message(desk.agent(), body) }
}

async fn accept(desk: &Desk, new: NewInput) -> StoredInput {
    let input = new.input.id;
    let accepted = desk.store().accept(new, desk.owner.incarnation).await;
    assert!(matches!(accepted, Ok(Accepted::New { .. })), "{accepted:?}");
    desk.store().input(desk.agent(), input).await.unwrap().unwrap()
}

async fn reread(desk: &Desk, input: &StoredInput) -> StoredInput {
    desk.store().input(desk.agent(), input.input.id).await.unwrap().unwrap()
}

async fn counts(desk: &Desk) -> (u64, u64) {
    let row = desk.row().await;
    (row.open_inputs, row.waking_inputs)
}

async fn is_runnable(desk: &Desk) -> bool {
    let runnable = desk.store().runnable(desk.owner.incarnation, 100).await.unwrap();
    BTreeSet::from_iter(runnable).contains(desk.agent())
}

async fn an_input_is_placed_by_the_table_and_kept_so(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let trace = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let mut steered = superseding(&desk, "k", "steered");
    steered.mode = Mode::Steer;
    steered.traceparent = Some(trace.clone());
    let mut silent = message(desk.agent(), "silent");
    silent.is_silent = true;
    let (steered, silent) = (accept(&desk, steered).await, accept(&desk, silent).await);
    assert_eq!((steered.placing.lane, steered.placing.wakes), (Lane::Steer, true));
    assert_eq!(steered.placing.scope.as_ref().map(|scope| scope.0.as_str()), Some("key k"));
    assert_eq!(steered.traceparent, Some(trace));
    assert_eq!((silent.placing.lane, silent.placing.wakes), (Lane::Queue, false));
    assert_eq!((silent.placing.scope.clone(), silent.traceparent.clone(), silent.deaths), (None, None, 0));
    let agent = desk.agent().clone();
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.open_inputs(&agent, ALL).await.unwrap(), [steered, silent]);
}

async fn only_waking_inputs_make_an_agent_runnable(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let silent = accept(&desk, NewInput { is_silent: true, ..message(desk.agent(), "silent") }).await;
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((1, 0), false));
    let waking = desk.accept("waking").await;
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((2, 1), true));
    let unit = desk.chain().await.attempt(waking.seq, InputState::Staged, 1).unit();
    assert_eq!(desk.commit(unit).await, done(1));
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((2, 1), true), "staged is open");
    desk.turn(Turn::ends([&waking])).await;
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((1, 0), false));
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&silent])).await;
    assert_eq!(counts(&desk).await, (0, 0));
    desk.store().redrive(desk.agent(), silent.input.id).await.unwrap();
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((1, 1), true), "somebody asked for it");
    assert!(reread(&desk, &silent).await.placing.wakes);
}

async fn a_silent_intent_is_decided_by_the_spec(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let request = |intent: &str| {
        let mut new = message(desk.agent(), intent);
        new.input.kind = Kind::PeerRequest { intent: intent.to_owned() };
        new.input.source = Source::Peer { agent: id("peer"), expects_reply: true };
        new
    };
    let silent = accept(&desk, request(SILENT)).await;
    assert!(!silent.placing.wakes);
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((1, 0), false));
    let loud = accept(&desk, request("transfer")).await;
    assert!(loud.placing.wakes);
    let mut text = message(desk.agent(), SILENT);
    text.input.kind = Kind::PeerMessage;
    assert!(accept(&desk, text).await.placing.wakes, "only requests have intents");
    assert_eq!(counts(&desk).await, (3, 2));
}

async fn a_repetition_that_wakes_rouses_a_silent_input(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let silent = || NewInput { is_silent: true, ..keyed(desk.agent(), "k", "body") };
    let stored = accept(&desk, silent()).await;
    let again = site.store.accept(silent(), site.incarnation).await;
    assert_eq!(again, Ok(Accepted::Duplicate(Box::new(stored.clone()))), "silence changes nothing");
    let waking = keyed(desk.agent(), "k", "body");
    let Ok(Accepted::Duplicate(roused)) = site.store.accept(waking, site.incarnation).await else {
        panic!("the key is known");
    };
    assert!(roused.placing.wakes);
    assert_eq!(*roused, reread(&desk, &stored).await);
    assert_eq!((counts(&desk).await, is_runnable(&desk).await), ((1, 1), true));
    desk.turn(Turn::ends([&stored])).await;
    let before = picture(desk.store(), desk.agent()).await;
    site.store.accept(keyed(desk.agent(), "k", "body"), site.incarnation).await.unwrap();
    assert_eq!(picture(desk.store(), desk.agent()).await, before, "what has ended sleeps on");
}

async fn a_newer_input_replaces_all_queued_ones_of_its_scope(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let first = accept(&desk, superseding(&desk, "k", "1")).await;
    let other_key = accept(&desk, superseding(&desk, "l", "2")).await;
    let no_key = desk.accept("3").await;
    let mut event = superseding(&desk, "k", "4");
    event.input.kind = Kind::Event;
    let other_kind = accept(&desk, event).await;
    let silent = accept(&desk, NewInput { is_silent: true, ..superseding(&desk, "k", "5") }).await;
    assert_eq!(reread(&desk, &first).await.outcome, Some(Outcome::Replaced { by: silent.input.id }));
    assert_eq!(counts(&desk).await, (4, 3));
    let last = accept(&desk, superseding(&desk, "k", "6")).await;
    let replaced = reread(&desk, &silent).await;
    assert_eq!(replaced.state, InputState::Replaced);
    assert_eq!(replaced.outcome, Some(Outcome::Replaced { by: last.input.id }));
    let open = site.store.open_inputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(open, [other_key, no_key, other_kind, last]);
    assert_eq!(counts(&desk).await, (4, 4));
    let other = site.own("other").await;
    accept(&other, superseding(&other, "k", "7")).await;
    assert_eq!(counts(&desk).await, (4, 4), "another agent's scopes are its own");
}

async fn an_input_that_is_replaced_or_abandoned_is_an_event(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (first, second) = (superseding(&desk, "k", "1"), superseding(&desk, "k", "2"));
    let (older, newer, letter) = (first.input.id, second.input.id, desk.accept("letter").await);
    accept(&desk, first).await;
    for _ in 0..2 {
        site.store.accept(second.clone(), site.incarnation).await.unwrap();
    }
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&letter])).await;
    let ends = [(newer, InputState::Queued), (letter.input.id, InputState::DeadLettered)];
    for (input, from) in ends {
        for _ in 0..2 {
            let reason = AbandonReason::Cancelled;
            assert_eq!(site.store.abandon(desk.agent(), input, from, reason).await, Ok(()));
        }
    }
    let agent = desk.agent().clone();
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let told = async |kind| {
        let events = store.events(0, Some(&agent), Some(kind), PAGE_MAX).await.unwrap();
        events.into_iter().map(|event| event.event.data).collect::<Vec<_>>()
    };
    let data = |pairs: &[(&str, String)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    let replaced = data(&[("input", older.to_string()), ("by", newer.to_string())]);
    assert_eq!(told(EventKind::InputReplaced).await, [replaced], "a repetition is no event");
    let abandoned = ends.map(|(input, _)| {
        data(&[("inputs", "1".into()), ("reason", "cancelled".into()), ("input", input.to_string())])
    });
    assert_eq!(told(EventKind::InputsAbandoned).await, abandoned);
}

async fn a_staged_input_is_never_replaced(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let staged = accept(&desk, superseding(&desk, "k", "1")).await;
    let unit = desk.chain().await.attempt(staged.seq, InputState::Staged, 1).unit();
    desk.commit(unit).await;
    let newer = accept(&desk, superseding(&desk, "k", "2")).await;
    assert_eq!(reread(&desk, &staged).await.state, InputState::Staged);
    let unit = desk.chain().await.attempt(staged.seq, InputState::Queued, 1).unit();
    desk.commit(unit).await;
    let newest = accept(&desk, superseding(&desk, "k", "3")).await;
    let by = Some(Outcome::Replaced { by: newest.input.id });
    assert_eq!(reread(&desk, &staged).await.outcome, by, "it waited again");
    assert_eq!(reread(&desk, &newer).await.outcome, by);
}

async fn progress_replaces_older_progress_on_the_same_question(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let progress = |peer: &str, question: &str| {
        let mut new = message(desk.agent(), "half done");
        new.input.kind = Kind::PeerResponseProgress;
        new.input.source = Source::Peer { agent: id(peer), expects_reply: false };
        new.input.correlation = Some(question.to_owned());
        new
    };
    let first = accept(&desk, progress("x", "q")).await;
    assert_eq!((first.placing.lane, first.placing.wakes), (Lane::Steer, false));
    let others = [accept(&desk, progress("y", "q")).await, accept(&desk, progress("x", "r")).await];
    let second = accept(&desk, progress("x", "q")).await;
    let replaced = Some(Outcome::Replaced { by: second.input.id });
    assert_eq!(reread(&desk, &first).await.outcome, replaced);
    for other in others {
        assert_eq!(reread(&desk, &other).await, other);
    }
    assert_eq!(counts(&desk).await, (3, 0));
}

async fn a_superseding_input_is_not_accepted_in_a_unit(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let unit = desk.chain().await.accept(superseding(&desk, "k", "1")).unit();
    let outcome = desk.commit(unit).await;
    let unsupported = |error: &StoreError| matches!(error, StoreError::Unsupported { .. });
    assert_failed(&outcome, 0, unsupported);
}

async fn a_repeated_key_is_answered_with_its_end_whatever_it_is(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let keys = ["replaced", "cancelled", "dropped"];
    let new = |key: &str| NewInput { supersedes: Some(key.to_owned()), ..keyed(desk.agent(), key, "body") };
    let mut inputs = Vec::new();
    for key in keys {
        inputs.push(accept(&desk, new(key)).await);
    }
    let by = accept(&desk, superseding(&desk, "replaced", "newer")).await.input.id;
    let cancelled = AbandonReason::Cancelled;
    let agent = desk.agent();
    site.store.abandon(agent, inputs[1].input.id, InputState::Queued, cancelled).await.unwrap();
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&inputs[2]])).await;
    site.store.abandon(agent, inputs[2].input.id, InputState::DeadLettered, cancelled).await.unwrap();
    let ends = [
        Outcome::Replaced { by },
        Outcome::Abandoned { reason: cancelled },
        Outcome::Abandoned { reason: cancelled },
    ];
    for (key, end) in keys.into_iter().zip(ends) {
        let before = picture(desk.store(), agent).await;
        let Ok(Accepted::Duplicate(known)) = site.store.accept(new(key), site.incarnation).await else {
            panic!("key {key} is known");
        };
        assert_eq!(known.outcome, Some(end.clone()), "{key}");
        let unit = desk.chain().await.accept(keyed(agent, key, "body")).unit();
        let Some(UnitFailure::Duplicate(known)) = desk.commit(unit).await.failure else {
            panic!("key {key} is known in a unit");
        };
        assert_eq!(known.outcome, Some(end), "{key}");
        assert_eq!(picture(desk.store(), agent).await, before, "a repetition replaces nothing");
    }
}

async fn a_unit_that_meets_a_replaced_or_abandoned_input_is_stale(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let replaced = accept(&desk, superseding(&desk, "k", "1")).await;
    let abandoned = desk.accept("2").await;
    let kept = desk.accept("3").await;
    let turn = desk.chain().await.turn(Turn::ends([&replaced]));
    accept(&desk, superseding(&desk, "k", "4")).await;
    let cancelled = AbandonReason::Cancelled;
    let agent = desk.agent();
    site.store.abandon(agent, abandoned.input.id, InputState::Queued, cancelled).await.unwrap();
    let before = picture(desk.store(), agent).await;
    assert_failed(&desk.commit(turn.unit()).await, 0, is_stale);
    let chain = desk.chain().await;
    let unit = chain.turn(Turn::ends([&kept, &abandoned])).unit();
    assert_failed(&desk.commit(unit).await, 0, is_stale);
    let unit = desk.chain().await.attempt(abandoned.seq, InputState::Staged, 1).unit();
    assert_failed(&desk.commit(unit).await, 0, is_stale);
    assert_eq!(picture(desk.store(), agent).await, before);
}

async fn only_the_state_that_was_named_is_abandoned(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let (queued, staged) = (desk.accept("1").await, desk.accept("2").await);
    let unit = desk.chain().await.attempt(staged.seq, InputState::Staged, 1).unit();
    desk.commit(unit).await;
    let abandon = async |input: &StoredInput, from, reason| {
        desk.store().abandon(desk.agent(), input.input.id, from, reason).await
    };
    let before = picture(desk.store(), desk.agent()).await;
    for (input, from) in [
        (&queued, InputState::DeadLettered),
        (&queued, InputState::Staged),
        (&staged, InputState::Queued),
        (&queued, InputState::Consumed),
    ] {
        let refused = abandon(input, from, AbandonReason::Cancelled).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "{from:?}: {refused:?}");
    }
    let unknown = message(desk.agent(), "unknown").input.id;
    let refused =
        desk.store().abandon(desk.agent(), unknown, InputState::Queued, AbandonReason::Cancelled).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    abandon(&queued, InputState::Queued, AbandonReason::Cancelled).await.unwrap();
    let ended = reread(&desk, &queued).await;
    assert_eq!(ended.state, InputState::Abandoned);
    assert_eq!(ended.outcome, Some(Outcome::Abandoned { reason: AbandonReason::Cancelled }));
    assert_eq!(counts(&desk).await, (1, 1));
    let before = picture(desk.store(), desk.agent()).await;
    abandon(&queued, InputState::Queued, AbandonReason::Cancelled).await.unwrap();
    let refused = abandon(&queued, InputState::Queued, AbandonReason::Retired).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(picture(desk.store(), desk.agent()).await, before, "once");
    abandon(&staged, InputState::Staged, AbandonReason::Stopped).await.unwrap();
    assert_eq!(counts(&desk).await, (0, 0));
}

async fn a_dropped_dead_letter_stays_dropped(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("1").await;
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&input])).await;
    let (agent, letter) = (desk.agent(), input.input.id);
    let drop =
        async || site.store.abandon(agent, letter, InputState::DeadLettered, AbandonReason::Cancelled).await;
    assert_eq!(drop().await, Ok(()));
    assert_eq!(drop().await, Ok(()), "again");
    let dropped = reread(&desk, &input).await;
    assert_eq!(dropped.outcome, Some(Outcome::Abandoned { reason: AbandonReason::Cancelled }));
    assert_eq!(counts(&desk).await, (0, 0), "it was not open");
    let refused = site.store.redrive(agent, letter).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    let listed = site.store.inputs(agent, Some(InputState::DeadLettered), ALL).await.unwrap();
    assert_eq!(listed, []);
}

async fn a_request_ends_once_whatever_comes_first(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    for (request, is_answered_first) in [("q1", true), ("q2", false)] {
        let timer = reply::timer_name(request);
        let turn = Turn::ends([]).timer(&timer, Some((START_MS + 10, "")));
        let revision = desk.turn(turn).await.revision;
        let mut answer = message(desk.agent(), "42");
        answer.input.kind = Kind::PeerResponseTerminal;
        answer.input.id = InputId::of_reply(desk.agent(), request);
        answer.input.correlation = Some(request.to_owned());
        let fire = async || site.store.fire_timer(&desk.owner, &timer, revision).await;
        let accept = async |new: NewInput| site.store.accept(new, site.incarnation).await;
        let next = desk.row().await.next_seq;
        if is_answered_first {
            assert_eq!(accept(answer.clone()).await, Ok(Accepted::New { seq: next }));
            assert_eq!(site.store.timers(desk.agent()).await, Ok(vec![]), "nobody waits any more");
            assert_eq!(fire().await, Ok(Some(next)), "the answer is the end");
        } else {
            assert_eq!(fire().await, Ok(Some(next)));
        }
        let end = site.store.input(desk.agent(), answer.input.id).await.unwrap().unwrap();
        let how = if is_answered_first { None } else { Some("unknown") };
        let header = end.input.headers.iter().find(|(name, _)| name == reply::REPLY_HEADER);
        assert_eq!(header.map(|(_, how)| how.as_str()), how);
        let mut late = answer;
        late.input.payload = bytes::Bytes::from_static(b"43");
        assert_eq!(accept(late).await, Ok(Accepted::Duplicate(Box::new(end))));
        assert_eq!(desk.row().await.next_seq, next.next(), "one end");
    }
}

async fn attempts_follow_the_transition_table(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("1").await;
    let attempt = |state, attempts, deaths| Attempt { seq: input.seq, state, attempts, deaths };
    let (queued, staged) = (InputState::Queued, InputState::Staged);
    for made in [
        attempt(queued, 1, 0),
        attempt(staged, 2, 0),
        attempt(staged, 3, 1),
        attempt(queued, 3, 1),
        attempt(staged, 4, 2),
    ] {
        let unit = desk.chain().await.step(Step::Attempts(vec![made])).unit();
        assert_eq!(desk.commit(unit).await, done(1), "{made:?}");
        let stored = reread(&desk, &input).await;
        assert_eq!((stored.state, stored.attempts, stored.deaths), (made.state, made.attempts, made.deaths));
    }
    desk.turn(Turn::of(BoundaryKind::DeadLetter).and_ends([&input])).await;
    site.store.redrive(desk.agent(), input.input.id).await.unwrap();
    let again = reread(&desk, &input).await;
    assert_eq!((again.state, again.attempts, again.deaths), (queued, 0, 0));
}
