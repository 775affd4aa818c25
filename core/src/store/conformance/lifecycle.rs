//! Lifecycle commits: state, inputs, token, generation and events together (rules 2, 3, 5, 7), and what each state takes.

use crate::digest::Digest;
use crate::event::EventKind;
use crate::id::{FencingToken, Generation, Revision, Seq, SpecRevision};
use crate::input::{AbandonReason, InputState, Outcome};
use crate::lifecycle::{SuspendReason, Verb};
use crate::limits::PAGE_MAX;
use crate::migration::{Failure, Phase, Role};
use crate::receipt::BoundaryKind;
use crate::store::conformance::fixture::{
    ALL, Desk, Turn, World, assert_failed, done, id, is_conflict, keyed, message, migration, new_agent,
    picture, put_plugin, stamp_message,
};
use crate::store::conformance::migrations::record;
use crate::store::conformance::{Case, START_MS};
use crate::store::{
    AcceptError, Accepted, BrokenReason, Lifecycle, LifecycleCommit, OutputEnd, OutputKey, Sharing, Standing,
    Step, StoreError, UnitFailure,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(each_verb_leads_where_the_table_says),
        Case::of(every_change_is_an_event_and_a_repetition_is_none),
        Case::of(a_commit_from_another_state_changes_nothing),
        Case::of(who_accepts_is_asked_in_the_accepting_transaction),
        Case::of(who_runs_is_asked_in_the_committing_transaction),
        Case::of(what_is_here_is_answered_in_every_state),
        Case::of(only_what_can_run_is_runnable),
        Case::of(a_terminal_state_has_no_open_inputs),
        Case::of(a_broken_agent_retires_by_giving_up_its_inputs),
        Case::of(an_interrupt_ends_the_inputs_it_names),
        Case::of(a_stop_ends_its_inputs_only_when_told),
        Case::of(a_move_that_somebody_else_made_first_has_ended_no_inputs),
        Case::of(a_respawn_raises_the_token_alone),
        Case::of(a_reset_starts_the_next_generation_and_fences_the_former_owner),
        Case::of(a_repeated_raise_is_answered_as_it_stands),
        Case::of(outputs_of_an_ended_generation_are_still_delivered),
        Case::of(a_raise_closes_the_open_migrations),
        Case::of(a_deleted_agent_is_gone_and_keeps_its_numbers),
        Case::of(a_deleted_agent_is_made_anew_only_by_recreate),
        Case::of(a_suspended_agent_takes_nothing),
    ]
}

fn broken() -> Verb {
    Verb::Break(BrokenReason::Init { message: "no".to_owned() })
}

const STOP: Verb = Verb::Stop { is_abandoning: false };

/// Verbs that lead from `Active` to each other state, with the state.
fn ways() -> Vec<(Vec<Verb>, Lifecycle)> {
    let reason = BrokenReason::Init { message: "no".to_owned() };
    vec![
        (vec![], Lifecycle::Active),
        (vec![Verb::Pause], Lifecycle::Paused),
        (vec![Verb::Retire], Lifecycle::Retiring),
        (vec![Verb::Retire, Verb::Drained], Lifecycle::Retired),
        (vec![broken()], Lifecycle::Broken(reason)),
        (vec![Verb::Suspend(SuspendReason::Restored)], Lifecycle::Suspended(SuspendReason::Restored)),
        (vec![Verb::Delete], Lifecycle::Deleted),
    ]
}

/// An owned agent in a state. Taken again, where a verb has freed it.
async fn desk_in(world: &World, name: &str, verbs: &[Verb]) -> Desk {
    let site = world.site(name).await;
    let mut desk = site.own("agent").await;
    for verb in verbs {
        desk.verb(verb).await.unwrap();
        if desk.row().await.holder.is_none() {
            desk = site.take(&id("agent")).await;
        }
    }
    desk
}

fn is_lifecycle(error: &StoreError) -> bool {
    matches!(error, StoreError::Lifecycle { .. })
}

async fn events_of(desk: &Desk, kind: EventKind) -> usize {
    desk.store().events(0, Some(desk.agent()), Some(kind), PAGE_MAX).await.unwrap().len()
}

async fn outcome_of(desk: &Desk, seq: u64) -> (InputState, Option<Outcome>) {
    let inputs = desk.store().inputs(desk.agent(), None, ALL).await.unwrap();
    let input = inputs.into_iter().find(|input| input.seq == Seq(seq)).unwrap();
    (input.state, input.outcome)
}

fn abandoned(reason: AbandonReason) -> (InputState, Option<Outcome>) {
    (InputState::Abandoned, Some(Outcome::Abandoned { reason }))
}

async fn each_verb_leads_where_the_table_says(world: World) {
    for (number, (verbs, expected)) in ways().into_iter().enumerate() {
        let desk = desk_in(&world, &format!("a{number}"), &verbs).await;
        assert_eq!(desk.row().await.lifecycle, expected);
        let store = world.reopen(&format!("a{number}"), Sharing::Exclusive, desk.site.store).await;
        let row = store.agent(&desk.owner.agent).await.unwrap().unwrap();
        assert_eq!(row.lifecycle, expected, "after reopening");
    }
}

async fn every_change_is_an_event_and_a_repetition_is_none(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let steps = [
        (Verb::Pause, EventKind::AgentPaused),
        (Verb::Resume, EventKind::AgentResumed),
        (Verb::Retire, EventKind::AgentRetiring),
        (Verb::Drained, EventKind::AgentRetired),
        (Verb::Resume, EventKind::AgentResumed),
        (broken(), EventKind::AgentBroken),
        (Verb::Recover, EventKind::AgentRecovered),
    ];
    for (verb, kind) in steps {
        let before = events_of(&desk, kind).await;
        let commit = desk.plan(&verb).await;
        let first = site.store.commit_lifecycle(&desk.owner, commit.clone()).await.unwrap();
        assert_eq!((&first.lifecycle, first.revision), (commit.next(), Revision(0)));
        assert_eq!(first.lease.map(|lease| lease.token), Some(desk.owner.token));
        let after = picture(desk.store(), desk.agent()).await;
        assert_eq!(events_of(&desk, kind).await, before + 1, "{}", verb.name());
        let again = site.store.commit_lifecycle(&desk.owner, commit).await.unwrap();
        assert_eq!(again.lifecycle, first.lifecycle);
        assert_eq!(picture(desk.store(), desk.agent()).await, after, "{}: it was so already", verb.name());
    }
}

async fn a_commit_from_another_state_changes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let resume = LifecycleCommit::plan(desk.agent(), &Lifecycle::Paused, &Verb::Resume, START_MS).unwrap();
    let drained =
        LifecycleCommit::plan(desk.agent(), &Lifecycle::Retiring, &Verb::Drained, START_MS).unwrap();
    let reset = LifecycleCommit::plan(desk.agent(), &Lifecycle::Paused, &Verb::Reset, START_MS).unwrap();
    desk.verb(&broken()).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    for commit in [resume, drained, reset] {
        let refused = site.store.commit_lifecycle(&desk.owner, commit).await;
        assert!(matches!(&refused, Err(error) if is_lifecycle(error)), "{refused:?}");
        assert_eq!(picture(desk.store(), desk.agent()).await, before);
    }
}

async fn who_accepts_is_asked_in_the_accepting_transaction(world: World) {
    for (number, (verbs, state)) in ways().into_iter().enumerate() {
        let desk = desk_in(&world, &format!("a{number}"), &verbs).await;
        let before = picture(desk.store(), desk.agent()).await;
        let plain = message(desk.agent(), "work");
        let delivered = stamp_message(desk.agent(), "origin", 1, 1, 1);
        for new in [plain, delivered] {
            let accepted = desk.store().accept(new, desk.owner.incarnation).await;
            if state.accepts() {
                assert!(matches!(accepted, Ok(Accepted::New { .. })), "{}: {accepted:?}", state.name());
            } else {
                let refused = Err(AcceptError::Store(StoreError::Lifecycle { state: state.clone() }));
                assert_eq!(accepted, refused, "{}", state.name());
                assert_eq!(picture(desk.store(), desk.agent()).await, before, "{}", state.name());
            }
        }
        let unit = desk.chain().await.accept(message(desk.agent(), "in a unit")).unit();
        let outcome = desk.commit(unit).await;
        if state.accepts() {
            assert_eq!(outcome, done(1), "{}", state.name());
        } else {
            assert_eq!(outcome.committed, 0, "{}", state.name());
            assert_eq!(picture(desk.store(), desk.agent()).await, before, "{}", state.name());
        }
    }
}

async fn who_runs_is_asked_in_the_committing_transaction(world: World) {
    let kinds = [BoundaryKind::Init, BoundaryKind::Turn, BoundaryKind::DeadLetter];
    for (number, (verbs, state)) in ways().into_iter().enumerate() {
        for kind in kinds {
            let desk = desk_in(&world, &format!("a{number}-{}", kind.name()), &verbs).await;
            let before = picture(desk.store(), desk.agent()).await;
            let unit = desk.chain().await.turn(Turn::of(kind).state("key", Some("1"))).unit();
            let outcome = desk.commit(unit).await;
            if state.takes_boundary(kind) {
                assert_eq!(outcome, done(1), "{} in {}", kind.name(), state.name());
            } else {
                assert_failed(&outcome, 0, is_lifecycle);
                assert_eq!(picture(desk.store(), desk.agent()).await, before, "{}", state.name());
            }
        }
    }
}

async fn what_is_here_is_answered_in_every_state(world: World) {
    for (number, (verbs, state)) in ways().into_iter().enumerate() {
        let site = world.site(&format!("a{number}")).await;
        let desk = site.own("agent").await;
        let new = keyed(desk.agent(), "key", "body");
        let stamped = stamp_message(desk.agent(), "origin", 1, 1, 1);
        let accepted = [new.clone(), stamped.clone()];
        let mut ids = Vec::new();
        for new in accepted {
            ids.push(new.input.id);
            let answered = site.store.accept(new, site.incarnation).await;
            assert!(matches!(answered, Ok(Accepted::New { .. })), "{answered:?}");
        }
        desk.turn(Turn::ends([]).end(Seq(1), ids[0]).end(Seq(2), ids[1])).await;
        for verb in &verbs {
            desk.verb(verb).await.unwrap();
        }
        let known = site.store.accept(new, site.incarnation).await;
        assert!(matches!(known, Ok(Accepted::Duplicate(_))), "{}: {known:?}", state.name());
        let known = site.store.accept(stamped, site.incarnation).await;
        assert_eq!(known, Ok(Accepted::AlreadyEnded), "{}", state.name());
        let reused = site.store.accept(keyed(desk.agent(), "key", "other"), site.incarnation).await;
        assert_eq!(reused, Err(AcceptError::KeyReused), "{}", state.name());
    }
}

async fn only_what_can_run_is_runnable(world: World) {
    let site = world.site("a").await;
    let friend = site.create("friend").await;
    let verbs: [(&str, &[Verb], bool, bool); 6] = [
        ("active", &[], true, true),
        ("paused", &[Verb::Pause], false, true),
        ("stopped", &[STOP], false, true),
        ("retiring", &[Verb::Retire], true, true),
        ("broken", &[broken()], false, false),
        ("suspended", &[Verb::Suspend(SuspendReason::Restored)], false, false),
    ];
    for (name, verbs, runs, publishes) in verbs {
        let working = site.own(&format!("{name}-working")).await;
        working.accept("work").await;
        let publishing = site.own(&format!("{name}-publishing")).await;
        publishing.turn(Turn::of(BoundaryKind::Init).output(&friend, "hello")).await;
        for desk in [&working, &publishing] {
            for verb in verbs {
                desk.verb(verb).await.unwrap();
            }
        }
        let named = site.store.runnable(site.incarnation, PAGE_MAX).await.unwrap();
        assert_eq!(named.contains(working.agent()), runs, "{name} with work");
        assert_eq!(named.contains(publishing.agent()), publishes, "{name} with outputs");
    }
    let idle = site.own("idle").await;
    idle.verb(&Verb::Retire).await.unwrap();
    let named = site.store.runnable(site.incarnation, PAGE_MAX).await.unwrap();
    assert!(named.contains(idle.agent()), "somebody must say that it has drained");
    idle.verb(&Verb::Drained).await.unwrap();
    let named = site.store.runnable(site.incarnation, PAGE_MAX).await.unwrap();
    assert!(!named.contains(idle.agent()));
}

async fn a_terminal_state_has_no_open_inputs(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let input = desk.accept("work").await;
    desk.verb(&Verb::Retire).await.unwrap();
    let before = picture(desk.store(), desk.agent()).await;
    let refused = desk.verb(&Verb::Drained).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(picture(desk.store(), desk.agent()).await, before);
    desk.turn(Turn::ends([&input])).await;
    let standing = desk.verb(&Verb::Drained).await.unwrap();
    assert_eq!((standing.lifecycle, standing.inputs_open), (Lifecycle::Retired, 0));

    let dead = site.own("dead").await;
    let letter = dead.accept("letter").await;
    dead.turn(Turn::of(BoundaryKind::DeadLetter).end(letter.seq, letter.input.id)).await;
    for verb in [Verb::Retire, Verb::Drained] {
        dead.verb(&verb).await.unwrap();
        let redriven = site.store.redrive(dead.agent(), letter.input.id).await;
        assert!(matches!(&redriven, Err(error) if is_lifecycle(error)), "{redriven:?}");
    }
    dead.verb(&Verb::Resume).await.unwrap();
    assert_eq!(site.store.redrive(dead.agent(), letter.input.id).await, Ok(()));
}

async fn a_broken_agent_retires_by_giving_up_its_inputs(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.accept("one").await;
    desk.accept("two").await;
    desk.verb(&broken()).await.unwrap();
    let standing = desk.verb(&Verb::Retire).await.unwrap();
    assert_eq!((&standing.lifecycle, standing.inputs_abandoned), (&Lifecycle::Retired, 2));
    assert_eq!((standing.inputs_open, standing.token), (0, desk.owner.token));
    for seq in [1, 2] {
        assert_eq!(outcome_of(&desk, seq).await, abandoned(AbandonReason::Retired));
    }
    assert_eq!(events_of(&desk, EventKind::InputsAbandoned).await, 1);
    assert_eq!(desk.store().open_inputs(desk.agent(), ALL).await, Ok(vec![]));
}

async fn an_interrupt_ends_the_inputs_it_names(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    for body in ["one", "two", "three"] {
        desk.accept(body).await;
    }
    let staged = desk.chain().await.attempt(Seq(2), InputState::Staged, 1).unit();
    assert_eq!(desk.commit(staged).await, done(1));
    let interrupt = Verb::Interrupt { inputs: vec![Seq(2), Seq(9)] };
    let standing = desk.verb(&interrupt).await.unwrap();
    assert_eq!((standing.inputs_abandoned, standing.inputs_open), (1, 2));
    assert_eq!(standing.lifecycle, Lifecycle::Active);
    assert_eq!(outcome_of(&desk, 2).await, abandoned(AbandonReason::Cancelled));
    let open = desk.store().open_inputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(open.iter().map(|input| input.seq.0).collect::<Vec<_>>(), [1, 3]);
    let after = picture(desk.store(), desk.agent()).await;
    assert_eq!(desk.verb(&interrupt).await.unwrap().inputs_abandoned, 0);
    assert_eq!(picture(desk.store(), desk.agent()).await, after, "they have ended already");
}

async fn a_stop_ends_its_inputs_only_when_told(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.accept("one").await;
    let standing = desk.verb(&STOP).await.unwrap();
    assert_eq!((standing.inputs_abandoned, standing.inputs_open), (0, 1));
    desk.verb(&Verb::Resume).await.unwrap();
    let standing = desk.verb(&Verb::Stop { is_abandoning: true }).await.unwrap();
    assert_eq!((standing.inputs_abandoned, standing.inputs_open), (1, 0));
    assert_eq!(outcome_of(&desk, 1).await, abandoned(AbandonReason::Stopped));
}

async fn a_move_that_somebody_else_made_first_has_ended_no_inputs(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let stop = desk.plan(&Verb::Stop { is_abandoning: true }).await;
    desk.accept("one").await;
    desk.verb(&Verb::Pause).await.unwrap();
    let refused = desk.store().commit_lifecycle(&desk.owner, stop.clone()).await;
    assert_eq!(refused, Err(StoreError::Lifecycle { state: Lifecycle::Paused }), "its input is still open");
    let standing = desk.verb(&Verb::Stop { is_abandoning: true }).await.unwrap();
    assert_eq!(standing.inputs_abandoned, 1);
    let repeated = desk.store().commit_lifecycle(&desk.owner, stop).await;
    assert_eq!(repeated.map(|standing| standing.inputs_open), Ok(0), "nothing is left to do");
}

async fn a_respawn_raises_the_token_alone(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let before = picture(desk.store(), desk.agent()).await;
    let standing = desk.verb(&Verb::Respawn).await.unwrap();
    let lease = standing.lease.clone().unwrap();
    assert_eq!(lease.token, desk.owner.token.next());
    assert_eq!((lease.incarnation, lease.generation), (desk.owner.incarnation, desk.owner.generation));
    let after = picture(desk.store(), desk.agent()).await;
    assert_eq!(
        (&after.inputs, &after.state, &after.outputs),
        (&before.inputs, &before.state, &before.outputs)
    );
    assert_eq!(after.receipts, before.receipts);
    let unit = desk.chain().await.turn(Turn::ends([])).unit();
    assert_failed(&desk.store().commit_turns(unit).await, 0, super::fixture::is_fenced);
    site.desk(lease).turn(Turn::ends([])).await;
}

async fn a_reset_starts_the_next_generation_and_fences_the_former_owner(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    desk.accept("waits").await;
    let before = desk.row().await;
    assert!(before.open_inputs > 0 && before.revision > Revision(0));
    let standing = desk.verb(&Verb::Reset).await.unwrap();
    assert_eq!(standing.inputs_abandoned, before.open_inputs);
    let row = desk.row().await;
    assert_eq!((row.generation, row.revision), (before.generation.next(), Revision(0)));
    assert_eq!((row.head, row.token), (Digest::ZERO, before.token.next()));
    assert_eq!((row.next_seq, row.open_inputs), (before.next_seq, 0), "seqs go on");
    assert_eq!(row.lifecycle, Lifecycle::Active);
    assert_eq!(outcome_of(&desk, before.next_seq.0 - 1).await, abandoned(AbandonReason::Reset));
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.check(), image.snapshot, image.receipts.len()), (Ok(()), None, 0));
    assert_eq!(site.store.state_keys(desk.agent(), "", None, 10).await, Ok(vec![]));
    let old = site.store.receipts(desk.agent(), before.generation, Revision(0), PAGE_MAX).await.unwrap();
    assert_eq!(old.len() as u64, before.revision.0, "what happened stays told");

    let unit = desk.chain().await.turn(Turn::ends([])).unit();
    assert_failed(&desk.store().commit_turns(unit).await, 0, super::fixture::is_fenced);
    let anew = site.desk(standing.lease.unwrap());
    assert_eq!(anew.owner.generation, before.generation.next());
    anew.turn(Turn::of(BoundaryKind::Init).state("a", Some("new")).snapshot("new")).await;
    let image = site.store.image(desk.agent(), None).await.unwrap().unwrap();
    assert_eq!((image.check(), image.row.revision), (Ok(()), Revision(1)));
    assert_eq!(image.snapshot.map(|snapshot| snapshot.generation), Some(anew.owner.generation));
}

async fn a_repeated_raise_is_answered_as_it_stands(world: World) {
    let same = |first: &Standing, again: &Standing| {
        (&first.lifecycle, first.generation, first.token, &first.lease)
            == (&again.lifecycle, again.generation, again.token, &again.lease)
    };
    for (number, verb) in [Verb::Respawn, Verb::Reset, Verb::Delete].into_iter().enumerate() {
        let site = world.site(&format!("a{number}")).await;
        let desk = site.own("agent").await;
        desk.furnish().await;
        let commit = desk.plan(&verb).await;
        let first = site.store.commit_lifecycle(&desk.owner, commit.clone()).await.unwrap();
        let after = picture(desk.store(), desk.agent()).await;
        let again = site.store.commit_lifecycle(&desk.owner, commit.clone()).await.unwrap();
        assert!(same(&first, &again), "{}: {first:?} {again:?}", verb.name());
        assert_eq!(picture(desk.store(), desk.agent()).await, after, "{}", verb.name());
        // A later grant is another story.
        if let Some(lease) = first.lease {
            site.store.release(&site.desk(lease).owner).await.unwrap();
        }
        site.take(desk.agent()).await;
        let refused = site.store.commit_lifecycle(&desk.owner, commit).await;
        assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{}: {refused:?}", verb.name());
    }
}

async fn outputs_of_an_ended_generation_are_still_delivered(world: World) {
    for (number, verb) in [Verb::Reset, Verb::Delete].into_iter().enumerate() {
        let site = world.site(&format!("a{number}")).await;
        let friend = site.create("friend").await;
        let desk = site.own("agent").await;
        desk.turn(Turn::of(BoundaryKind::Init).output(&friend, "old")).await;
        let standing = desk.verb(&verb).await.unwrap();
        let named = site.store.runnable(site.incarnation, PAGE_MAX).await.unwrap();
        assert_eq!(named, std::slice::from_ref(desk.agent()), "{}", verb.name());
        let owner = match standing.lease {
            Some(lease) => site.desk(lease),
            None => site.take(desk.agent()).await,
        };
        let pending = site.store.pending_outputs(desk.agent(), ALL).await.unwrap();
        assert_eq!((pending.len(), pending[0].generation), (1, desk.owner.generation));
        let key = OutputKey { destination: friend, generation: desk.owner.generation, number: 1 };
        site.store.end_outputs(&owner.owner, &[(key, OutputEnd::Acknowledged)]).await.unwrap();
        assert_eq!(site.store.runnable(site.incarnation, PAGE_MAX).await, Ok(vec![]));
    }
}

async fn a_raise_closes_the_open_migrations(world: World) {
    for (number, verb) in [Verb::Respawn, Verb::Reset, Verb::Delete].into_iter().enumerate() {
        let site = world.site(&format!("a{number}")).await;
        let desk = site.own("agent").await;
        desk.furnish().await;
        let open = record(1, "agent", Role::Source, Phase::Transfer);
        site.store.put_migration(open).await.unwrap();
        desk.verb(&verb).await.unwrap();
        let closed = site.store.migration(migration(1)).await.unwrap().unwrap();
        assert_eq!((closed.phase, closed.failure), (Phase::Aborted, Some(Failure::Fenced)));
        let frames = site.store.export_rows(desk.agent(), 0, usize::MAX).await.unwrap();
        assert!(frames.iter().all(|frame| !matches!(frame.row, crate::store::Row::Deleted(_))));
    }
}

async fn a_deleted_agent_is_gone_and_keeps_its_numbers(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    desk.accept("waits").await;
    let before = desk.row().await;
    let standing = desk.verb(&Verb::Delete).await.unwrap();
    assert_eq!((standing.lease, standing.inputs_open), (None, 0));
    assert_eq!(outcome_of(&desk, before.next_seq.0 - 1).await, abandoned(AbandonReason::Destroyed));
    let row = desk.row().await;
    assert_eq!((row.lifecycle, row.holder), (Lifecycle::Deleted, None));
    assert_eq!((row.generation, row.token), (before.generation, before.token.next()));
    assert_eq!(site.store.state_keys(desk.agent(), "", None, 10).await, Ok(vec![]));
    let unit = desk.chain().await.turn(Turn::ends([])).unit();
    assert_failed(&desk.store().commit_turns(unit).await, 0, super::fixture::is_fenced);
    let gone = Err(StoreError::Lifecycle { state: Lifecycle::Deleted });
    assert_eq!(site.store.create(new_agent("agent", "plain")).await, gone);
    drop(desk);
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    let kept = store.agent(&id("agent")).await.unwrap().unwrap();
    assert_eq!((kept.lifecycle, kept.token), (Lifecycle::Deleted, row.token));
}

async fn a_deleted_agent_is_made_anew_only_by_recreate(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    put_plugin(&site.store, "other").await;
    let mut new = new_agent("agent", "other");
    new.labels.clear();
    let before = desk.row().await;
    let alive = site.store.recreate(new.clone()).await;
    assert!(matches!(&alive, Err(error) if is_conflict(error)), "{alive:?}");
    desk.verb(&Verb::Pause).await.unwrap();
    let paused = site.store.recreate(new.clone()).await;
    assert_eq!(paused, Err(StoreError::Lifecycle { state: Lifecycle::Paused }));
    desk.verb(&Verb::Delete).await.unwrap();
    let unknown = new_agent("agent", "nowhere");
    let plugin = unknown.spec.plugin;
    assert_eq!(site.store.recreate(unknown).await, Err(StoreError::NoPlugin { plugin }));
    assert_eq!(site.store.recreate(new.clone()).await, Ok(true));
    let row = desk.row().await;
    assert_eq!((row.generation, row.revision), (before.generation.next(), Revision(0)));
    assert_eq!((row.token, row.holder), (FencingToken(before.token.0 + 2), None));
    assert_eq!((row.lifecycle, row.plugin), (Lifecycle::Active, new.spec.plugin));
    assert_eq!((row.spec_revision, row.labels), (SpecRevision(2), new.labels.clone()));
    let after = picture(desk.store(), desk.agent()).await;
    assert_eq!(site.store.recreate(new).await, Ok(false));
    assert_eq!(picture(desk.store(), desk.agent()).await, after);
    let anew = site.take(desk.agent()).await;
    assert_eq!(anew.owner.generation, Generation(2));
    anew.turn(Turn::of(BoundaryKind::Init)).await;
}

async fn a_suspended_agent_takes_nothing(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.accept("waits").await;
    let standing = desk.verb(&Verb::Suspend(SuspendReason::Restored)).await.unwrap();
    assert_eq!((standing.lease, standing.inputs_open), (None, 1), "its inputs are kept");
    let taken = site.take(desk.agent()).await;
    let unit = taken.chain().await.turn(Turn::ends([])).unit();
    let outcome = taken.commit(unit).await;
    let state = Lifecycle::Suspended(SuspendReason::Restored);
    let refused = StoreError::Lifecycle { state };
    assert_eq!(outcome.failure, Some(UnitFailure::Store(refused)));
    let checkpoint = taken.chain().await;
    let snapshot = checkpoint.snapshot(Revision(0), "state");
    let unit = checkpoint.step(Step::Checkpoint(snapshot)).unit();
    assert_eq!(taken.commit(unit).await, done(1), "a checkpoint changes nothing of the history");
    taken.verb(&Verb::Resume).await.unwrap();
    taken.turn(Turn::ends([])).await;
}
