//! Agents whose label says so are retired when they have been idle, and no others.

use super::verbs::act;
use super::*;
use crate::runtime::idle::{self, Seen};
use crate::runtime::verbs::VerbCall;

async fn labelled(runtime: &Runtime, agent: &str, seconds: &str) -> Result<(), CallError> {
    let labels = BTreeMap::from([(idle::LABEL.to_owned(), seconds.to_owned())]);
    let request = CreateAgent { labels, ..CreateAgent::new(id(agent), "script") };
    runtime.create_agent(request).await.map(drop)
}

async fn states(runtime: &Runtime, agents: &[&str]) -> Vec<String> {
    let mut states = Vec::new();
    for agent in agents {
        let row = runtime.inner().store.agent(&id(agent)).await.unwrap().unwrap();
        states.push(row.lifecycle.name().to_owned());
    }
    states
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_rests_once_it_was_idle_for_as_long_as_its_label_allows() {
    let runtime = lone_host().await;
    create(&runtime, "free").await;
    create(&runtime, "silent").await;
    act(&runtime, "silent", VerbCall::Pause, "paused").await;
    for (agent, seconds) in [("short", "100"), ("long", "1000"), ("waits", "100"), ("works", "100")] {
        labelled(&runtime, agent, seconds).await.unwrap();
        ask(&runtime, agent, "get").await;
    }
    // For an answer, or the timer that ends the waiting.
    ask(&runtime, "waits", "request 3600000 silent get").await;
    let agents = ["free", "short", "long", "waits", "works"];
    let (mut seen, now) = (Seen::default(), runtime.inner().clock.boot());
    let sweep = async |seen: &mut Seen, later: u64| {
        idle::sweep(&runtime, seen, now + Duration::from_secs(later)).await.unwrap();
        states(&runtime, &agents).await
    };
    assert_eq!(sweep(&mut seen, 0).await, ["active"; 5]);
    assert_eq!(sweep(&mut seen, 99).await, ["active"; 5]);
    // A turn in between: its time begins anew. A host that starts anew has seen nobody.
    ask(&runtime, "works", "add 1").await;
    assert_eq!(sweep(&mut Seen::default(), 100).await, ["active"; 5]);
    let states = sweep(&mut seen, 100).await;
    assert!(["retiring", "retired"].contains(&states[1].as_str()), "{states:?}");
    assert_eq!([&states[0], &states[2], &states[3], &states[4]], ["active"; 4]);
    // Brought back, it has the whole time again.
    while states_of(&runtime, "short").await != "retired" {
        sleep(Duration::from_millis(5)).await;
    }
    act(&runtime, "short", VerbCall::Resume, "active").await;
    sweep(&mut seen, 101).await;
    assert_eq!(states_of(&runtime, "short").await, "active");
    assert_ne!(sweep(&mut seen, 300).await[1], "active");
}

async fn states_of(runtime: &Runtime, agent: &str) -> String {
    states(runtime, &[agent]).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_is_no_number_of_seconds_is_refused() {
    let runtime = lone_host().await;
    for value in ["", "0", "-1", "1.5", "soon"] {
        let refused = labelled(&runtime, "a", value).await.unwrap_err();
        assert!(
            matches!(&refused, CallError::Invalid { reason } if reason.contains(idle::LABEL)),
            "{refused:?}"
        );
    }
}
