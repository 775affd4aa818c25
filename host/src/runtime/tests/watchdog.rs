//! The watchdog names what stands still, and nothing else.

use godwit_core::input::AbandonReason;
use godwit_core::store::Page;

use super::verbs::{act, is_running, show};
use super::*;
use crate::runtime::verbs::VerbCall;
use crate::runtime::watchdog::{self, LOOKED_AT_MAX};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stands_still_is_named_with_the_reason_until_it_moves_on() {
    let World { hosts, .. } = two_hosts().await;
    let runtime = &hosts[0];
    for agent in ["stuck", "idle", "paused"] {
        create(runtime, agent).await;
        ask(runtime, agent, "get").await;
    }
    act(runtime, "paused", VerbCall::Pause, "paused").await;
    send(runtime, "paused", "add 1").await;
    send(runtime, "stuck", "hang").await;
    is_running(runtime, "stuck").await;
    let now = runtime.inner().clock.boot();
    watchdog::look(runtime, now, LOOKED_AT_MAX).await.unwrap();
    watchdog::look(runtime, now + Duration::from_secs(10), LOOKED_AT_MAX).await.unwrap();
    assert_eq!(runtime.inner().watchdog.stuck(), [], "not for long enough");
    // More work is no progress.
    send(runtime, "stuck", "add 1").await;
    for later in [20, 30] {
        watchdog::look(runtime, now + Duration::from_secs(later), LOOKED_AT_MAX).await.unwrap();
        let reason = "a turn runs and does not end".to_owned();
        assert_eq!(runtime.inner().watchdog.stuck(), [(id("stuck"), reason.clone())]);
        assert_eq!(show(runtime, "stuck").await.stuck, Some(reason));
    }
    assert_eq!(show(runtime, "idle").await.stuck, None);
    let kind = Some(godwit_core::event::EventKind::AgentStuck);
    let events = runtime.inner().store.events(0, Some(&id("stuck")), kind, 10).await.unwrap();
    assert_eq!(events.len(), 1, "it is said once");
    act(runtime, "stuck", VerbCall::Interrupt, "active").await;
    assert_eq!(ask(runtime, "stuck", "get").await, "1");
    watchdog::look(runtime, now + Duration::from_secs(40), LOOKED_AT_MAX).await.unwrap();
    assert_eq!(runtime.inner().watchdog.stuck(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_can_not_retire_is_named() {
    let World { hosts, .. } = two_hosts().await;
    let runtime = &hosts[0];
    create(runtime, "a").await;
    ask(runtime, "a", "get").await;
    // What is enqueued wakes nobody, and runs last when its agent retires.
    let hang = Submission { is_silent: true, ..submission(runtime, "hang") };
    call(runtime, "a", AgentCall::Send { submission: hang }).await.unwrap();
    act(runtime, "a", VerbCall::Retire, "retiring").await;
    is_running(runtime, "a").await;
    let now = runtime.inner().clock.boot();
    for later in [0, 20] {
        watchdog::look(runtime, now + Duration::from_secs(later), LOOKED_AT_MAX).await.unwrap();
    }
    assert_eq!(show(runtime, "a").await.stuck.as_deref(), Some("a turn runs and does not end"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_have_finished_are_forgotten_while_more_have_work_than_one_look_takes() {
    const AT_ONCE: usize = 2;
    let memory = MemoryStore::exclusive(Arc::new(SystemClock));
    let network = SimNetwork::default();
    let runtime = &host(&network, 1, Arc::new(memory.clone())).await;
    let (done, stuck) = (["done-1", "done-2", "done-3"], ["stuck-1", "stuck-2", "stuck-3"]);
    for agent in done.into_iter().chain(stuck) {
        create(runtime, agent).await;
        ask(runtime, agent, "get").await;
    }
    let held = memory.hold_commits().await;
    for agent in done.into_iter().chain(stuck) {
        send(runtime, agent, "add 1").await;
    }
    let now = runtime.inner().clock.boot();
    let looks = async |later: u64| {
        for _ in 0..6 {
            watchdog::look(runtime, now + Duration::from_secs(later), AT_ONCE).await.unwrap();
        }
        let stuck = runtime.inner().watchdog.stuck().into_iter();
        stuck.map(|(agent, _)| agent.to_string()).collect::<Vec<_>>()
    };
    looks(0).await;
    assert_eq!(looks(20).await, [done, stuck].concat());
    for agent in done.map(id) {
        let open = memory.open_inputs(&agent, Page { after: 0, limit: 1 }).await.unwrap().remove(0);
        let reason = AbandonReason::Cancelled;
        memory.abandon(&agent, open.input.id, open.state, reason).await.unwrap();
    }
    assert_eq!(looks(30).await, stuck);
    drop(held);
}
