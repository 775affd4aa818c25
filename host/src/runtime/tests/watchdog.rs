//! The watchdog names what stands still, and nothing else.

use super::verbs::{act, is_running, show};
use super::*;
use crate::runtime::verbs::VerbCall;
use crate::runtime::watchdog;

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
    watchdog::look(runtime, now).await.unwrap();
    watchdog::look(runtime, now + Duration::from_secs(10)).await.unwrap();
    assert_eq!(runtime.inner().watchdog.stuck(), [], "not for long enough");
    // More work is no progress.
    send(runtime, "stuck", "add 1").await;
    for later in [20, 30] {
        watchdog::look(runtime, now + Duration::from_secs(later)).await.unwrap();
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
    watchdog::look(runtime, now + Duration::from_secs(40)).await.unwrap();
    assert_eq!(runtime.inner().watchdog.stuck(), []);
}
