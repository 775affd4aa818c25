//! Warm copies: each round brings one to the agent as of a change number, and a copy that is promoted is the agent of then.

use std::collections::BTreeMap;

use crate::event::EventKind;
use crate::id::{FencingToken, Incarnation, InputId, MigrationId};
use crate::limits::PAGE_MAX;
use crate::migration::Phase;
use crate::standby::{LABEL, Verdict};
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    ALL, Desk, Site, Turn, World, host, id, is_conflict, is_not_home, keyed, migration, put_plugin,
};
use crate::store::conformance::journey::Journey;
use crate::store::standby::{Delta, Round};
use crate::store::{AgentRow, Home, Row, RowFrame, RowKey, RuntimeStore, Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(a_promoted_copy_is_the_agent_as_of_its_last_round),
        Case::of(rounds_apply_once_and_in_order),
        Case::of(a_delete_travels_with_a_round),
        Case::of(deletes_are_kept_while_an_agent_is_guarded),
        Case::of(an_agent_on_its_way_is_guarded),
        Case::of(a_delta_is_whole_or_too_large),
        Case::of(a_whole_copy_replaces_the_one_before_when_it_is_complete),
        Case::of(a_complete_copy_outlives_its_host),
        Case::of(a_part_of_a_copy_does_not),
        Case::of(a_copy_goes_only_as_its_own_agent_s),
        Case::of(a_copy_is_promoted_where_the_agent_is_not),
        Case::of(a_promoted_agent_s_source_is_superseded),
        Case::of(a_round_must_bring_what_it_says),
        Case::of(an_input_that_its_source_has_removed_makes_room),
    ]
}

/// An agent at home in one store, and the store that stands by.
struct Pair {
    from: Desk,
    to: Site,
}

async fn guard(desk: &Desk) {
    let mut labels = desk.row().await.labels;
    labels.insert(LABEL.to_owned(), host(2).to_string());
    desk.store().set_labels(desk.agent(), labels).await.unwrap();
}

impl Pair {
    async fn furnished(world: &World) -> Self {
        let from = world.site("a").await.own("agent").await;
        guard(&from).await;
        from.furnish().await;
        let to = world.site("b").await;
        put_plugin(&to.store, "plain").await;
        Self { from, to }
    }

    async fn delta(&self, after: u64) -> Delta {
        self.from.store().delta(self.from.agent(), after, usize::MAX).await.unwrap().unwrap()
    }

    fn round(&self, session: MigrationId, builds_on: u64, delta: Delta) -> Round {
        let (agent, source) = (self.from.agent().clone(), self.from.site.host);
        Round { session, agent, source, builds_on, delta, at_ms: 77 }
    }

    /// Makes a round, and answers the change number that it leads to.
    async fn feed(&self, session: MigrationId, builds_on: u64) -> u64 {
        let delta = self.delta(builds_on).await;
        let change = delta.change;
        let round = self.round(session, builds_on, delta);
        assert_eq!(self.to.store.stand_by(round).await, Ok(Verdict::Applies));
        change
    }

    /// The standby's host comes back in another process.
    async fn reopened(self, world: &World) -> Self {
        let Self { from, to } = self;
        let store = world.reopen("b", Sharing::Exclusive, to.store).await;
        Self { from, to: Site::join(store, to.host).await }
    }

    async fn promote(&self) -> AgentRow {
        self.to.store.promote(self.from.agent(), migration(1)).await.unwrap()
    }
}

/// All rows, but for what a promotion changes.
async fn rows(store: &dyn RuntimeStore) -> Vec<Row> {
    let frames = store.export_rows(&id("agent"), 0, usize::MAX).await.unwrap();
    let rows = frames.into_iter().map(|frame| frame.row);
    let mut rows: Vec<_> = rows.filter(|row| !matches!(row, Row::Deleted(_))).collect();
    for row in &mut rows {
        match row {
            Row::Input(input) => input.accepted_by = Incarnation(0),
            Row::Agent(portable) => portable.next_event = 0,
            Row::Destination { next_number, .. } => *next_number %= FencingToken::NUMBERS_PER_EPOCH,
            _ => {}
        }
    }
    rows.sort_by_key(|row| postcard::to_stdvec(row).unwrap());
    rows
}

async fn a_promoted_copy_is_the_agent_as_of_its_last_round(world: World) {
    let pair = Pair::furnished(&world).await;
    let first = pair.feed(migration(1), 0).await;
    let input = pair.from.accept("more").await;
    pair.from.turn(Turn::ends([&input]).state("new", Some("value")).snapshot("later")).await;
    let last = pair.feed(migration(1), first).await;
    let (then, before) = (rows(pair.from.store()).await, pair.from.row().await);
    let copy = pair.to.store.standby_copy(pair.from.agent()).await.unwrap().unwrap();
    assert_eq!((copy.standing.change, copy.standing.revision, copy.at_ms), (last, before.revision, 77));
    assert_eq!(pair.to.store.agent(pair.from.agent()).await.unwrap(), None, "a copy is no agent");
    // What comes behind the last round is lost.
    pair.from.accept("lost").await;
    let row = pair.promote().await;
    assert_eq!(rows(pair.to.store.as_ref()).await, then);
    assert_eq!(
        (row.home.clone(), row.holder, row.token),
        (Home::Here, None, before.token.raised(1).unwrap())
    );
    assert_eq!(
        (row.open_inputs, row.state_keys, row.public_key),
        (before.open_inputs, before.state_keys, before.public_key)
    );
    let key = pair.to.store.entity_key(pair.from.agent()).await.unwrap();
    assert_eq!(key.map(|key| key.public()), before.public_key, "with its key");
    let events =
        pair.to.store.events(0, Some(pair.from.agent()), Some(EventKind::AgentPromoted), 9).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(pair.to.store.standby_copy(pair.from.agent()).await.unwrap(), None);
    let desk = pair.to.take(pair.from.agent()).await;
    let input = desk.accept("goes on").await;
    // Its source may have sent to anybody since.
    desk.turn(Turn::ends([&input]).output(&id("new-to-it"), "hello")).await;
    let sent = pair.to.store.outputs(pair.from.agent(), ALL).await.unwrap();
    let first = sent.iter().find(|stored| stored.output.destination == id("new-to-it")).unwrap();
    assert_eq!(first.number, FencingToken::NUMBERS_PER_EPOCH + 1);
}

async fn rounds_apply_once_and_in_order(world: World) {
    let pair = Pair::furnished(&world).await;
    let (start, store) = (pair.delta(0).await, &pair.to.store);
    let late = pair.round(migration(1), 5, start.clone());
    assert_eq!(store.stand_by(late).await, Ok(Verdict::Behind), "of nothing");
    let round = pair.round(migration(1), 0, start.clone());
    for verdict in [Verdict::Applies, Verdict::Known] {
        assert_eq!(store.stand_by(round.clone()).await, Ok(verdict));
    }
    pair.from.accept("one").await;
    let one = pair.delta(start.change).await;
    pair.from.accept("two").await;
    let two = pair.delta(one.change).await;
    let skips = pair.round(migration(1), one.change, two.clone());
    assert_eq!(store.stand_by(skips.clone()).await, Ok(Verdict::Behind), "one is missing");
    for (round, verdict) in [
        (pair.round(migration(1), start.change, one.clone()), Verdict::Applies),
        (skips, Verdict::Applies),
        (pair.round(migration(1), start.change, one), Verdict::Known),
    ] {
        assert_eq!(store.stand_by(round).await, Ok(verdict));
    }
    let open = pair.promote().await.open_inputs;
    assert_eq!(open, pair.from.row().await.open_inputs);
}

async fn a_delete_travels_with_a_round(world: World) {
    let pair = Pair::furnished(&world).await;
    let (one, two) = (pair.from.accept("one").await, pair.from.accept("two").await);
    pair.from.turn(Turn::ends([&one]).state("gone", Some("value")).timer("tick", Some((9, "x")))).await;
    let first = pair.feed(migration(1), 0).await;
    pair.from.turn(Turn::ends([&two]).state("gone", None).timer("tick", None)).await;
    let deletes = pair.delta(first).await.frames;
    let is_delete = |key: &RowKey| deletes.iter().any(|frame| frame.row == Row::Deleted(key.clone()));
    assert!(is_delete(&RowKey::State("gone".into())) && is_delete(&RowKey::Timer("tick".into())));
    pair.feed(migration(1), first).await;
    let before = pair.from.row().await;
    let row = pair.promote().await;
    let store = &pair.to.store;
    assert_eq!(store.state_value(pair.from.agent(), "gone").await.unwrap(), None);
    assert_eq!((row.state_keys, row.state_bytes), (before.state_keys, before.state_bytes));
    assert!(store.timers(pair.from.agent()).await.unwrap().iter().all(|timer| timer.name != "tick"));
}

async fn deletes_are_kept_while_an_agent_is_guarded(world: World) {
    let desk = world.site("a").await.own("agent").await;
    let deletes = async |desk: &Desk| {
        let delta = desk.store().delta(desk.agent(), 0, usize::MAX).await.unwrap().unwrap();
        delta.frames.iter().filter(|frame| matches!(frame.row, Row::Deleted(_))).count()
    };
    let guarded = async |desk: &Desk| desk.store().guarded(None, 9).await.unwrap().len();
    let write_and_delete = async |desk: &Desk| {
        for value in [Some("v"), None] {
            let input = desk.accept("x").await;
            desk.turn(Turn::ends([&input]).state("key", value)).await;
        }
    };
    write_and_delete(&desk).await;
    assert_eq!((deletes(&desk).await, guarded(&desk).await), (0, 0));
    guard(&desk).await;
    write_and_delete(&desk).await;
    assert_eq!((deletes(&desk).await, guarded(&desk).await), (1, 1));
    assert_eq!(desk.store().guarded(Some(desk.agent()), 9).await.unwrap(), []);
    let change = desk.row().await.change;
    desk.store().forget_deletes(desk.agent(), 1).await.unwrap();
    assert_eq!(deletes(&desk).await, 1, "it is younger");
    desk.store().forget_deletes(desk.agent(), change).await.unwrap();
    assert_eq!(deletes(&desk).await, 0);
    write_and_delete(&desk).await;
    desk.store().set_labels(desk.agent(), BTreeMap::new()).await.unwrap();
    assert_eq!((deletes(&desk).await, guarded(&desk).await), (0, 0), "nobody asks for them any more");
}

async fn an_agent_on_its_way_is_guarded(world: World) {
    let journey = Journey::furnished(&world).await;
    guard(&journey.from).await;
    journey.record_at_source(Phase::Transfer).await;
    journey.receive(journey.export(0).await).await;
    let (from, to) = (journey.from.site.store.clone(), journey.to.store.clone());
    let guarded = async || {
        let (from, to) = (from.guarded(None, 9).await.unwrap(), to.guarded(None, 9).await.unwrap());
        (from.len(), to.len())
    };
    assert_eq!(guarded().await, (1, 0), "a copy that is not bound is nobody");
    let granted = journey.begin().await.granted;
    assert_eq!(guarded().await, (1, 0), "on its way out");
    journey.prepare(granted).await;
    assert_eq!(guarded().await, (1, 1), "on its way in");
    journey.finish().await;
    assert_eq!(guarded().await, (0, 1));
}

async fn a_delta_is_whole_or_too_large(world: World) {
    let pair = Pair::furnished(&world).await;
    let (store, agent) = (pair.from.store(), pair.from.agent());
    let all = store.export_rows(agent, 0, usize::MAX).await.unwrap();
    let delta = pair.delta(0).await;
    assert_eq!(delta.frames, all);
    let row = pair.from.row().await;
    let is_of = (delta.change, delta.token, delta.generation, delta.revision);
    assert_eq!(is_of, (row.change, row.token, row.generation, row.revision));
    assert_eq!(store.delta(agent, 0, 64).await, Ok(None));
    let nothing = pair.delta(row.change).await;
    assert_eq!((nothing.frames.len(), nothing.change), (0, row.change));
    assert_eq!(store.delta(&id("nobody"), 0, 64).await, Err(StoreError::NoAgent));
    let begun = store.begin_handoff(&pair.from.owner, row.revision, migration(9), pair.to.host).await;
    begun.unwrap();
    let away = store.delta(agent, 0, usize::MAX).await.unwrap_err();
    assert!(is_not_home(&away), "{away:?}");
}

async fn a_whole_copy_replaces_the_one_before_when_it_is_complete(world: World) {
    let pair = Pair::furnished(&world).await;
    let (store, agent) = (&pair.to.store, pair.from.agent());
    pair.feed(migration(2), 0).await;
    // Begun anew, in parts.
    let all = pair.delta(0).await;
    let (part, rest) = all.frames.split_at(all.frames.len() / 2);
    store.receive_rows(migration(1), agent, part.to_vec()).await.unwrap();
    let known = store.standby_copy(agent).await.unwrap().unwrap();
    assert_eq!(known.standing.session, migration(2), "the complete one stays until then");
    let built_on = part.last().unwrap().change;
    let delta = Delta { frames: rest.to_vec(), ..all };
    let early = pair.round(migration(1), built_on - 1, delta.clone());
    assert_eq!(store.stand_by(early).await, Ok(Verdict::Behind));
    assert_eq!(store.stand_by(pair.round(migration(1), built_on, delta)).await, Ok(Verdict::Applies));
    assert_eq!(store.standby_copies(None, 9).await.unwrap().len(), 1);
    assert_eq!(store.standby_copies(Some(agent), 9).await.unwrap(), []);
    assert!(is_conflict(&store.promote(agent, migration(2)).await.unwrap_err()), "it is gone");
    let then = rows(pair.from.store()).await;
    pair.promote().await;
    assert_eq!(rows(store.as_ref()).await, then);
}

async fn a_complete_copy_outlives_its_host(world: World) {
    let pair = Pair::furnished(&world).await;
    let change = pair.feed(migration(1), 0).await;
    let pair = pair.reopened(&world).await;
    pair.from.accept("goes on").await;
    pair.feed(migration(1), change).await;
    pair.promote().await;
}

async fn a_part_of_a_copy_does_not(world: World) {
    let pair = Pair::furnished(&world).await;
    let delta = pair.delta(0).await;
    let (change, agent) = (delta.change, pair.from.agent());
    pair.to.store.receive_rows(migration(2), agent, delta.frames.clone()).await.unwrap();
    let pair = pair.reopened(&world).await;
    let rest = Delta { frames: vec![], ..delta };
    let round = pair.round(migration(2), change, rest);
    assert_eq!(pair.to.store.stand_by(round).await, Ok(Verdict::Behind), "nothing is left of it");
}

async fn a_copy_goes_only_as_its_own_agent_s(world: World) {
    let journey = Journey::furnished(&world).await;
    let to = journey.to.store.clone();
    journey.record_at_source(Phase::Transfer).await;
    let frames = journey.export(0).await;
    let arrived = frames.last().unwrap().change;
    journey.receive(frames).await;
    to.discard_standby(&id("another"), journey.migration).await.unwrap();
    let granted = journey.begin().await.granted;
    let rest = journey.request(granted, arrived).await;
    assert_eq!(to.prepare(rest).await, Ok(()), "what has arrived is still there");
    to.discard_standby(journey.agent(), journey.migration).await.unwrap();
    let bound = to.agent(journey.agent()).await.unwrap().unwrap();
    assert!(matches!(bound.home, Home::Prepared { .. }), "{bound:?}");
}

async fn a_copy_is_promoted_where_the_agent_is_not(world: World) {
    let pair = Pair::furnished(&world).await;
    let (store, agent) = (&pair.to.store, pair.from.agent());
    let nothing = store.promote(agent, migration(1)).await.unwrap_err();
    assert!(is_conflict(&nothing), "{nothing:?}");
    pair.feed(migration(1), 0).await;
    let row = pair.promote().await;
    assert_eq!(pair.promote().await, row, "a repetition");
    let again = pair.round(migration(3), 0, pair.delta(0).await);
    assert_eq!(store.stand_by(again).await, Ok(Verdict::Superseded(row.token)));
    // Without the plugin there is nothing to run.
    let bare = world.site("c").await;
    let round = pair.round(migration(1), 0, pair.delta(0).await);
    assert_eq!(bare.store.stand_by(round).await, Ok(Verdict::Applies));
    let missing = bare.store.promote(agent, migration(1)).await.unwrap_err();
    assert!(matches!(missing, StoreError::NoPlugin { .. }), "{missing:?}");
    assert_eq!(bare.store.agent(agent).await.unwrap(), None, "nothing of it has happened");
    put_plugin(&bare.store, "plain").await;
    bare.store.promote(agent, migration(1)).await.unwrap();
}

async fn a_promoted_agent_s_source_is_superseded(world: World) {
    let pair = Pair::furnished(&world).await;
    let change = pair.feed(migration(1), 0).await;
    let token = pair.promote().await.token;
    pair.from.accept("too late").await;
    let late = pair.round(migration(1), change, pair.delta(change).await);
    assert_eq!(pair.to.store.stand_by(late).await, Ok(Verdict::Superseded(token)));
    let inputs = pair.to.store.inputs(pair.from.agent(), None, ALL).await.unwrap();
    assert!(inputs.iter().all(|input| input.input.payload != "too late"), "nothing is merged");
}

async fn a_round_must_bring_what_it_says(world: World) {
    let pair = Pair::furnished(&world).await;
    let (store, all) = (&pair.to.store, pair.delta(0).await);
    let mut cut = all.clone();
    cut.frames.pop();
    let other = Delta { change: all.change + 1, ..all.clone() };
    for wrong in [cut, other] {
        let refused = store.stand_by(pair.round(migration(1), 0, wrong)).await.unwrap_err();
        assert!(is_conflict(&refused), "{refused:?}");
        assert_eq!(store.standby_copies(None, PAGE_MAX).await.unwrap(), [], "nothing was written");
    }
    let foreign = Round { agent: id("other"), ..pair.round(migration(1), 0, all) };
    assert!(is_conflict(&store.stand_by(foreign).await.unwrap_err()));
}

async fn an_input_that_its_source_has_removed_makes_room(world: World) {
    let pair = Pair::furnished(&world).await;
    let (store, agent) = (&pair.to.store, pair.from.agent());
    let first = keyed(agent, "key", "body");
    pair.from.store().accept(first, pair.from.owner.incarnation).await.unwrap();
    let change = pair.feed(migration(1), 0).await;
    // As after retention at the source: the key is free again there, and the copy has the old one still.
    let mut delta = pair.delta(0).await;
    let is_it =
        |row: &Row| matches!(row, Row::Input(input) if input.idempotency_key.as_deref() == Some("key"));
    let old = delta.frames.iter().find(|frame| is_it(&frame.row)).cloned().unwrap();
    let Row::Input(mut input) = old.row else { panic!("it is an input") };
    input.seq = input.seq.next();
    input.input.id = InputId([7; 16]);
    delta.frames = vec![RowFrame { change: change + 1, row: Row::Input(input.clone()) }];
    let Some(Row::Agent(mut portable)) = pair
        .delta(0)
        .await
        .frames
        .into_iter()
        .map(|frame| frame.row)
        .find(|row| matches!(row, Row::Agent(_)))
    else {
        panic!("there is an agent's row")
    };
    portable.next_seq = input.seq.next();
    delta.frames.push(RowFrame { change: change + 2, row: Row::Agent(portable) });
    delta.change = change + 2;
    assert_eq!(store.stand_by(pair.round(migration(1), change, delta)).await, Ok(Verdict::Applies));
    let row = pair.promote().await;
    let found = store.input_by_key(agent, "key").await.unwrap().unwrap();
    assert_eq!(found.seq, input.seq);
    let there = store.inputs(agent, None, ALL).await.unwrap().len() as u64;
    assert_eq!(row.inputs_pruned + there, row.next_seq.0 - 1, "what is not here is counted");
}
