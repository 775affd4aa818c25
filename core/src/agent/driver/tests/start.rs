//! Starts of an agent that fail: what counts, what does not, and what becomes of the agent.

use super::*;
use crate::agent::LoadNotes;
use crate::id::SpecRevision;
use crate::spec::SpecChange;
use crate::store::{Step, Unit};
use crate::time::{SystemClock, boot_now};

/// An agent whose `init` does what the text says.
async fn world_with(init: &str) -> World {
    let world = world().await;
    let mut spec = Spec::new(script_plugin().0.digest);
    spec.config.insert("init".into(), init.into());
    let change = SpecChange { revision: SpecRevision(2), spec };
    world.commit(Step::Configure(change)).await;
    world
}

/// An agent of a journal that has done two turns, and rests.
async fn world_with_state() -> World {
    let world = world_of(Durability::Journal).await;
    let handle = world.drive().await;
    world.ask(&handle, "add 2").await;
    assert_eq!(reply(&world.ask(&handle, "add 3").await), "5");
    handle.park().await;
    world
}

impl World {
    async fn commit(&self, step: Step) {
        let Lease { agent, generation, token, incarnation, .. } = self.grant().await.lease;
        let owner = Owner { agent, generation, incarnation, token };
        let unit = Unit { owner, base: self.row().await.revision, steps: vec![step] };
        assert_eq!(self.env.store.commit_turns(unit).await.failure, None);
    }

    /// As if so many starts had been under way when a process died, and the last one had been this one's.
    async fn die_starting(&mut self, times: u32) {
        self.commit(Step::FailedStarts(times - 1)).await;
        self.load_notes.begin(&self.agent).unwrap();
        self.die().await;
    }

    /// The process dies, and the next one begins.
    async fn die(&mut self) {
        self.load_notes = Arc::new(self.load_notes.after_death());
        self.env.load_notes = self.load_notes.clone();
        self.incarnation = join(self.env.store.as_ref()).await;
    }

    /// Whether the agent would be a suspect if the process died now.
    fn is_noted(&self) -> bool {
        self.load_notes.after_death().is_suspect(&self.agent)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&AgentRow) -> bool) -> AgentRow {
        let wait = async {
            loop {
                let row = self.row().await;
                if is_so(&row) {
                    return row;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        within(Duration::from_secs(20), wait).await.unwrap_or_else(|| panic!("never: {what}"))
    }

    async fn broken(&self) -> BrokenReason {
        let row = self.until("broken", |row| matches!(row.lifecycle, Lifecycle::Broken(_))).await;
        match row.lifecycle {
            Lifecycle::Broken(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn broken_in_init(&self) -> String {
        match self.broken().await {
            BrokenReason::Init { message } => message,
            other => panic!("{other:?}"),
        }
    }
}

// --- init

#[tokio::test]
async fn its_attempts_are_used_up_by_errors() {
    let world = world_with("retry").await;
    let _handle = world.drive().await;
    let message = world.broken_in_init().await;
    assert!(message.starts_with("3 attempts are used up: ") && message.contains("later"), "{message}");
    assert!(!message.contains("died"), "{message}");
}

#[tokio::test]
async fn errors_are_counted_over_restarts() {
    let mut world = world_with("retry").await;
    let _first = world.drive().await;
    world.until("an error", |row| row.failed_starts > 0).await;
    world.die().await;
    let counted = world.row().await.failed_starts;
    assert!(counted < 3, "{counted}");
    let _second = world.drive().await;
    world.broken_in_init().await;
    assert_eq!(world.row().await.failed_starts, 2, "the last one broke it");
}

#[tokio::test]
async fn one_that_says_never_is_not_asked_again() {
    let world = world_with("fatal").await;
    let _handle = world.drive().await;
    let message = world.broken_in_init().await;
    assert!(message.contains("never"), "{message}");
    assert_eq!(world.row().await.failed_starts, 0);
}

#[tokio::test]
async fn the_number_is_the_attempt_that_the_guest_sees_and_its_boundary_ends_the_count() {
    let world = world_with("retry-until 3").await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    assert_eq!(world.row().await.failed_starts, 0);
}

#[tokio::test]
async fn deaths_count_and_after_the_last_it_is_not_run_again() {
    // It would succeed.
    let mut world = world().await;
    world.die_starting(3).await;
    let _handle = world.drive().await;
    let message = world.broken_in_init().await;
    assert!(message.starts_with("3 attempts are used up: in 3 of them the host's process died"), "{message}");
    assert_eq!((world.row().await.revision, world.loader.started()), (Revision(0), 0));
    // An operator's word gives it all of them again.
    world.change(&Verb::Recover).await;
    assert_eq!(world.row().await.failed_starts, 0);
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
}

#[tokio::test]
async fn a_death_and_errors_use_up_the_same_attempts() {
    let mut world = world_with("retry").await;
    world.die_starting(1).await;
    let _handle = world.drive().await;
    let message = world.broken_in_init().await;
    assert!(message.contains("in 1 of them the host's process died"), "one of them nobody saw: {message}");
    assert!(message.contains("the last error: "), "{message}");
}

#[tokio::test]
async fn after_two_deaths_init_runs_while_nobody_else_does() {
    let mut world = world().await;
    world.die_starting(2).await;
    let (release, other) = world.occupy().await;
    let handle = world.drive().await;
    let asked = world.ask(&handle, "add 1");
    tokio::pin!(asked);
    assert_eq!(within(Duration::from_millis(100), &mut asked).await, None);
    let row = world.row().await;
    assert_eq!((row.revision, row.failed_starts), (Revision(0), 2), "it waits");
    release.send(()).unwrap();
    other.await;
    assert_eq!(reply(&asked.await), "1");
    assert_eq!(world.row().await.failed_starts, 0);
}

#[tokio::test]
async fn two_errors_hold_nobody_back() {
    let world = world_with("retry-until 3").await;
    let (release, other) = world.occupy().await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    release.send(()).unwrap();
    other.await;
}

#[tokio::test]
async fn it_is_noted_while_it_runs_and_an_interrupt_is_not_counted() {
    let world = world_with("hang").await;
    let handle = world.drive().await;
    for _ in 0..5 {
        eventually("a try", || handle.is_running() && world.is_noted()).await;
        handle.interrupt().await.unwrap();
        eventually("its end", || !world.is_noted()).await;
    }
    let row = world.row().await;
    assert_eq!((row.failed_starts, row.lifecycle), (0, Lifecycle::Active));
}

#[tokio::test]
async fn who_dies_in_init_is_counted_by_the_next_process() {
    let mut world = world_with("hang").await;
    for deaths in 0..3 {
        let handle = world.drive().await;
        eventually("a try", || handle.is_running() && world.is_noted()).await;
        assert_eq!(world.row().await.failed_starts, deaths);
        world.die().await;
        // What is left of it here must give its thread back.
        handle.interrupt().await.unwrap();
    }
    let _handle = world.drive().await;
    assert!(world.broken_in_init().await.contains("in 3 of them the host's process died"));
}

#[tokio::test]
async fn want_of_room_is_not_counted() {
    let world = world_with("no-room").await;
    let _handle = world.drive().await;
    let tries = || {
        let notices = world.notices.lock().unwrap();
        notices.iter().filter(|notice| matches!(notice, Notice::NoRoom(_))).count()
    };
    eventually("five tries", || tries() > 5).await;
    let row = world.row().await;
    assert_eq!((row.failed_starts, row.lifecycle), (0, Lifecycle::Active));
}

#[tokio::test]
async fn a_lease_that_runs_out_meanwhile_is_not_counted() {
    let mut world = world_with("hang").await;
    let profile = LeaseProfile::FAST;
    let valid = |time: Duration| boot_now() + profile.margin + time - profile.ttl;
    world.session = SessionLease::started(valid(Duration::from_millis(100)), &profile, Arc::new(SystemClock));
    let handle = world.drive().await;
    for _ in 0..4 {
        // On a busy machine it may be over before the try begins.
        let is_tried = || {
            let is_running = handle.is_running();
            if !is_running {
                world.session.renewed(valid(Duration::from_millis(100)), &profile);
            }
            is_running
        };
        eventually("a try", is_tried).await;
        eventually("its end", || !handle.is_running()).await;
    }
    let row = world.row().await;
    assert_eq!((row.failed_starts, row.lifecycle), (0, Lifecycle::Active));
}

#[tokio::test]
async fn another_plugin_or_configuration_has_all_attempts() {
    let world = world_with("retry").await;
    let _handle = world.drive().await;
    world.broken().await;
    let spec = Spec::new(script_plugin().0.digest);
    world.commit(Step::Configure(SpecChange { revision: SpecRevision(3), spec })).await;
    assert_eq!(world.row().await.failed_starts, 0);
    world.change(&Verb::Recover).await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
}

// --- loading

#[tokio::test]
async fn loading_writes_nothing_and_leaves_no_note() {
    let world = world_with_state().await;
    let before = world.row().await;
    let handle = world.drive().await;
    let started = world.loader.started();
    handle.recycle().await.unwrap();
    assert!(world.loader.started() > started);
    assert_eq!(world.row().await.change, before.change, "nothing was written");
    assert!(!world.is_noted());
}

#[tokio::test]
async fn a_death_is_counted_before_the_agent_is_loaded_again_and_the_load_ends_the_count() {
    let mut world = world_with_state().await;
    world.die_starting(2).await;
    let (release, other) = world.occupy().await;
    let started = world.loader.started();
    let handle = world.drive().await;
    let row = world.until("counted", |row| row.failed_starts == 2).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(world.loader.started(), started, "it waits until it is alone");
    release.send(()).unwrap();
    other.await;
    let forgiven = world.until("loaded", |row| row.failed_starts == 0).await;
    assert_eq!(forgiven.revision, row.revision, "no boundary");
    assert_eq!(reply(&world.ask(&handle, "get").await), "5");
    // What is counted is counted once.
    handle.park().await;
    let before = world.row().await;
    world.drive().await.recycle().await.unwrap();
    assert_eq!(world.row().await.change, before.change);
}

#[tokio::test]
async fn a_death_that_nobody_has_counted_is_not_forgotten() {
    let mut world = world_with_state().await;
    world.load_notes.begin(&world.agent).unwrap();
    world.die().await;
    // Nobody needs the agent in this life.
    world.die().await;
    world.commit(Step::FailedStarts(2)).await;
    let _handle = world.drive().await;
    assert!(matches!(world.broken().await, BrokenReason::Restore { .. }));
}

#[tokio::test]
async fn after_the_last_death_it_is_not_loaded_again_until_it_is_recovered() {
    let mut world = world_with_state().await;
    world.die_starting(3).await;
    let started = world.loader.started();
    let _handle = world.drive().await;
    match world.broken().await {
        BrokenReason::Restore { message } => {
            assert!(
                message.starts_with("the host's process died 3 times while it loaded the agent"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.loader.started(), started);
    world.change(&Verb::Recover).await;
    assert_eq!(world.row().await.failed_starts, 0);
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "get").await), "5");
}
