//! Tries of `init`: counted in the agent's row before they start, and what becomes of them.

use super::*;
use crate::id::SpecRevision;

use crate::spec::SpecChange;
use crate::store::{Step, Unit};
use crate::time::boot_now;

/// An agent whose `init` does what the text says.
async fn world_with(init: &str) -> World {
    let world = world().await;
    let mut spec = Spec::new(script_plugin().0.digest);
    spec.config.insert("init".into(), init.into());
    let change = SpecChange { revision: SpecRevision(2), spec };
    let unit = unit(world.grant().await.lease, Step::Configure(change));
    assert_eq!(world.env.store.commit_turns(unit).await.failure, None);
    world
}

fn unit(lease: Lease, step: Step) -> Unit {
    let Lease { agent, generation, token, incarnation, .. } = lease;
    let owner = Owner { agent, generation, incarnation, token };
    Unit { owner, base: Revision(0), steps: vec![step] }
}

impl World {
    /// As if so many tries had been under way when a process died.
    async fn die_in_init(&self, times: u32) {
        let unit = unit(self.grant().await.lease, Step::InitAttempts(times));
        assert_eq!(self.env.store.commit_turns(unit).await.failure, None);
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

    async fn broken(&self) -> (String, u32) {
        let row = self.until("broken", |row| matches!(row.lifecycle, Lifecycle::Broken(_))).await;
        match row.lifecycle {
            Lifecycle::Broken(BrokenReason::Init { message }) => (message, row.init_attempts),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn its_attempts_are_used_up_by_errors() {
    let world = world_with("retry").await;
    let _handle = world.drive().await;
    let (message, attempts) = world.broken().await;
    assert!(message.starts_with("3 attempts are used up: ") && message.contains("later"), "{message}");
    assert_eq!(attempts, 3);
}

#[tokio::test]
async fn one_that_says_never_is_not_asked_again() {
    let world = world_with("fatal").await;
    let _handle = world.drive().await;
    let (message, attempts) = world.broken().await;
    assert!(message.contains("never"), "{message}");
    assert_eq!(attempts, 1);
}

#[tokio::test]
async fn the_number_is_the_attempt_that_the_guest_sees_and_its_boundary_ends_the_count() {
    let world = world_with("retry-until 3").await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
    assert_eq!(world.row().await.init_attempts, 0);
}

#[tokio::test]
async fn deaths_count_and_after_the_last_it_is_not_run_again() {
    // It would succeed.
    let mut world = world().await;
    world.die_in_init(3).await;
    world.incarnation = join(world.env.store.as_ref()).await;
    let _handle = world.drive().await;
    let (message, attempts) = world.broken().await;
    assert!(message.starts_with("3 attempts are used up: the host's process ended"), "{message}");
    assert_eq!((attempts, world.row().await.revision), (3, Revision(0)));
    // An operator's word gives it all of them again.
    world.change(&Verb::Recover).await;
    assert_eq!(world.row().await.init_attempts, 0);
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
}

#[tokio::test]
async fn a_death_and_errors_use_up_the_same_attempts() {
    let mut world = world_with("retry").await;
    world.die_in_init(1).await;
    world.incarnation = join(world.env.store.as_ref()).await;
    let _handle = world.drive().await;
    let (message, attempts) = world.broken().await;
    assert!(message.contains("the host's process ended"), "one of them nobody saw: {message}");
    assert_eq!(attempts, 3);
}

#[tokio::test]
async fn after_two_deaths_it_runs_while_nobody_else_does() {
    let mut world = world().await;
    world.die_in_init(2).await;
    world.incarnation = join(world.env.store.as_ref()).await;
    let (begin, begun) = oneshot::channel();
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let pool = world.env.pool.clone();
    let other = tokio::spawn(async move {
        let job = move || {
            begin.send(()).unwrap();
            released.recv().unwrap();
        };
        pool.run(crate::digest::Digest::of(b"other"), job).await
    });
    begun.await.unwrap();
    let handle = world.drive().await;
    let asked = world.ask(&handle, "add 1");
    tokio::pin!(asked);
    assert_eq!(within(Duration::from_millis(100), &mut asked).await, None);
    let row = world.row().await;
    assert_eq!((row.revision, row.init_attempts), (Revision(0), 2), "it waits");
    release.send(()).unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(reply(&asked.await), "1");
    assert_eq!(world.row().await.init_attempts, 0);
}

#[tokio::test]
async fn it_is_counted_before_it_runs_and_an_interrupt_takes_that_back() {
    let world = world_with("hang").await;
    let handle = world.drive().await;
    for _ in 0..5 {
        world.until("a try", |row| row.init_attempts == 1).await;
        while !handle.is_running() {
            sleep(Duration::from_millis(1)).await;
        }
        handle.interrupt().await.unwrap();
    }
    world.until("taken back", |row| row.init_attempts == 0).await;
    assert_eq!(world.row().await.lifecycle, Lifecycle::Active);
}

#[tokio::test]
async fn want_of_room_is_not_counted() {
    let world = world_with("no-room").await;
    let _handle = world.drive().await;
    let is_told = |times| {
        let notices = world.notices.lock().unwrap();
        notices.iter().filter(|notice| matches!(notice, Notice::NoRoom(_))).count() > times
    };
    let row = world.until("five tries, taken back", |row| is_told(5) && row.init_attempts == 0).await;
    assert_eq!(row.lifecycle, Lifecycle::Active);
}

#[tokio::test]
async fn a_lease_that_runs_out_meanwhile_is_not_counted() {
    let mut world = world_with("hang").await;
    let profile = LeaseProfile::FAST;
    let valid = |time: Duration| boot_now() + profile.margin + time - profile.ttl;
    world.session = SessionLease::started(valid(Duration::from_millis(100)), &profile);
    let _handle = world.drive().await;
    for _ in 0..4 {
        world.until("a try", |row| row.init_attempts == 1).await;
        world.until("taken back", |row| row.init_attempts == 0).await;
        world.session.renewed(valid(Duration::from_millis(100)), &profile);
    }
    assert_eq!(world.row().await.lifecycle, Lifecycle::Active);
}

#[tokio::test]
async fn another_plugin_or_configuration_has_all_attempts() {
    let world = world_with("retry").await;
    let _handle = world.drive().await;
    world.broken().await;
    let spec = Spec::new(script_plugin().0.digest);
    let change = SpecChange { revision: SpecRevision(3), spec };
    let unit = unit(world.grant().await.lease, Step::Configure(change));
    assert_eq!(world.env.store.commit_turns(unit).await.failure, None);
    assert_eq!(world.row().await.init_attempts, 0);
    world.change(&Verb::Recover).await;
    let handle = world.drive().await;
    assert_eq!(reply(&world.ask(&handle, "add 1").await), "1");
}
