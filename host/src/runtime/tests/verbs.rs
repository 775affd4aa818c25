//! The lifecycle verbs on whole runtimes: what each report says is what the next call sees.

use std::time::Instant;

use godwit_core::agent::Checkpointed;
use godwit_core::agent::recover::Recovery;
use godwit_core::id::{Generation, Revision};
use godwit_core::input::{AbandonReason, InputState};
use godwit_core::output::{OutputState, UndeliverableReason};

use super::*;
use crate::runtime::call::{AgentView, Sent};
use crate::runtime::verbs::{TurnEnd, VerbCall, VerbDetail, VerbReport};

/// Longer than an interrupt ever takes, and shorter than the turn that it ends.
const SLACK: Duration = Duration::from_secs(2);
const STOP: VerbCall = VerbCall::Stop { is_abandoning: false };

async fn verb(runtime: &Runtime, agent: &str, verb: VerbCall) -> Result<VerbReport, CallError> {
    match call(runtime, agent, AgentCall::Verb(verb)).await? {
        AgentReply::Verb(report) => Ok(*report),
        other => panic!("{other:?}"),
    }
}

/// Does a verb that must succeed, and checks that the report's state is the one that is shown.
pub(super) async fn act(runtime: &Runtime, agent: &str, what: VerbCall, state: &str) -> VerbReport {
    let report = verb(runtime, agent, what).await.unwrap();
    assert_eq!(report.to, state, "{report:?}");
    report
}

pub(super) async fn show(runtime: &Runtime, agent: &str) -> AgentView {
    match call(runtime, agent, AgentCall::Show).await {
        Ok(AgentReply::Agent(view)) => *view,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn becomes(runtime: &Runtime, agent: &str, state: &str) -> AgentView {
    let seen = async {
        loop {
            let view = show(runtime, agent).await;
            if view.state == state {
                return view;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    within(Duration::from_secs(10), seen).await.unwrap_or_else(|| panic!("{agent} does not become {state}"))
}

async fn sent(runtime: &Runtime, agent: &str, text: &str) -> Sent {
    match call(runtime, agent, AgentCall::Send { submission: submission(runtime, text) }).await {
        Ok(AgentReply::Sent(sent)) => sent,
        other => panic!("{other:?}"),
    }
}

async fn end_of(runtime: &Runtime, agent: &str, sent: &Sent) -> (InputState, Option<Outcome>) {
    match call(runtime, agent, AgentCall::Input { input: sent.input }).await {
        Ok(AgentReply::Input(Some(stored))) => (stored.state, stored.outcome),
        other => panic!("{other:?}"),
    }
}

fn abandoned(reason: AbandonReason) -> (InputState, Option<Outcome>) {
    (InputState::Abandoned, Some(Outcome::Abandoned { reason }))
}

/// Sends an input that never ends by itself, and waits until its turn runs.
async fn hang(runtime: &Runtime, agent: &str) -> Sent {
    let hanging = sent(runtime, agent, "hang").await;
    is_running(runtime, agent).await;
    hanging
}

pub(super) async fn is_running(runtime: &Runtime, agent: &str) {
    let handle = async {
        loop {
            let handle = runtime.inner().directory.handle(&id(agent));
            if handle.is_some_and(|handle| handle.is_running()) {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(Duration::from_secs(10), handle).await.expect("a turn runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_agent_accepts_and_waits() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    let report = act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    assert_eq!((report.from.as_str(), report.inputs_pending), ("active", 0));
    assert_eq!(show(&hosts[0], "a").await.state, "paused");
    send(&hosts[0], "a", "add 10").await;
    let patient = AgentCall::Ask { submission: submission(&hosts[0], "add 100"), timeout_ms: 100 };
    let unknown = call(&hosts[0], "a", patient).await;
    assert!(matches!(unknown, Err(CallError::Unknown { .. })), "{unknown:?}");
    assert_eq!(show(&hosts[0], "a").await.queue_depth, 2, "nothing has run");

    let runtime = hosts[0].clone();
    let waiting = tokio::spawn(async move { ask(&runtime, "a", "add 1000").await });
    while show(&hosts[0], "a").await.queue_depth < 3 {
        sleep(Duration::from_millis(2)).await;
    }
    let report = act(&hosts[0], "a", VerbCall::Resume, "active").await;
    assert_eq!(report.inputs_pending, 3);
    assert_eq!(waiting.await.unwrap(), "1111", "in the order of admission");
    assert_eq!(act(&hosts[0], "a", VerbCall::Pause, "paused").await.from, "active");
    assert_eq!(act(&hosts[0], "a", VerbCall::Pause, "paused").await.from, "paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retiring_agent_drains_and_rests() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    for _ in 0..3 {
        send(&hosts[0], "a", "add 1").await;
    }
    let report = act(&hosts[0], "a", VerbCall::Retire, "retiring").await;
    assert_eq!((report.inputs_pending, report.inputs_abandoned), (3, 0));
    let view = becomes(&hosts[0], "a", "retired").await;
    assert_eq!(view.queue_depth, 0);
    let refused = call(&hosts[0], "a", AgentCall::Send { submission: submission(&hosts[0], "add 1") }).await;
    assert!(matches!(refused, Err(CallError::Retired { .. })), "{refused:?}");
    assert!(ask(&hosts[0], "a", "add 1").await.contains("Retired"));
    act(&hosts[0], "a", VerbCall::Resume, "active").await;
    assert_eq!(ask(&hosts[0], "a", "get").await, "3");
    act(&hosts[0], "a", VerbCall::Retire, "retiring").await;
    becomes(&hosts[0], "a", "retired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_an_input_that_is_not_there_yet_learns_its_end() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    let (runtime, submission) = (hosts[0].clone(), submission(&hosts[0], "add 1"));
    let (id, agent) = (submission.id, AgentId::parse("a").unwrap());
    let waiting =
        tokio::spawn(
            async move { runtime.end_of_input(&agent, id, Duration::from_secs(10), Forward::Yes).await },
        );
    sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished(), "it may be an ask whose turn runs");
    call(&hosts[0], "a", AgentCall::Send { submission }).await.unwrap();
    let ended = waiting.await.unwrap().unwrap().map(|stored| stored.state);
    assert_eq!(ended, Some(InputState::Consumed));
}

/// The driver's own end of draining falls between a verb's look at the agent and its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_that_meet_the_end_of_draining_are_done() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    for round in 0..200 {
        for _ in 0..round % 7 {
            sent(&hosts[0], "a", "add 1").await;
        }
        act(&hosts[0], "a", VerbCall::Retire, "retiring").await;
        for _ in 0..round % 11 {
            tokio::task::yield_now().await;
        }
        let next = if round % 2 == 0 { VerbCall::Reset } else { VerbCall::Resume };
        let done = verb(&hosts[0], "a", next).await;
        assert!(matches!(&done, Ok(report) if report.to == "active"), "round {round}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_agent_starts_anew() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    let before = show(&hosts[0], "a").await;
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    let waiting = sent(&hosts[0], "a", "add 1").await;
    act(&hosts[0], "a", VerbCall::Resume, "active").await;
    ask(&hosts[0], "a", "get").await;
    let hanging = hang(&hosts[0], "a").await;
    let report = act(&hosts[0], "a", VerbCall::Reset, "active").await;
    assert_eq!((report.generation, report.revision), (Generation(2), Revision(0)));
    assert_eq!(report.inputs_abandoned, 1);
    let fenced = VerbDetail::Fenced {
        generation_before: Generation(1),
        token_before: before.token,
        token: before.token.next(),
    };
    assert_eq!(report.detail, fenced);
    assert_eq!(end_of(&hosts[0], "a", &hanging).await, abandoned(AbandonReason::Reset));
    assert!(matches!(end_of(&hosts[0], "a", &waiting).await.0, InputState::Consumed));
    assert_eq!(ask(&hosts[0], "a", "get").await, "0", "nothing of the state is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_agent_is_gone_until_it_is_made_anew() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    let waiting = sent(&hosts[0], "a", "add 1").await;
    let report = act(&hosts[0], "a", VerbCall::Delete, "deleted").await;
    assert_eq!(report.inputs_abandoned, 1);
    for host in &hosts {
        assert_eq!(show(host, "a").await.state, "deleted");
        let gone = call(host, "a", AgentCall::Send { submission: submission(host, "add 1") }).await;
        assert_eq!(gone, Err(CallError::Deleted));
        assert!(ask(host, "a", "get").await.contains("Deleted"));
    }
    assert_eq!(end_of(&hosts[0], "a", &waiting).await, abandoned(AbandonReason::Destroyed));
    let illegal = verb(&hosts[0], "a", VerbCall::Resume).await;
    assert!(matches!(illegal, Err(CallError::Illegal(_))), "{illegal:?}");
    let token = show(&hosts[0], "a").await.token;
    act(&hosts[0], "a", VerbCall::Delete, "deleted").await;
    assert_eq!(show(&hosts[0], "a").await.token, token, "nobody takes the lease of what is gone");

    let mut request = CreateAgent::new(id("a"), "script");
    assert_eq!(hosts[0].create_agent(request.clone()).await.unwrap_err(), CallError::Deleted);
    request.recreates = true;
    let (view, is_new) = hosts[0].create_agent(request).await.unwrap();
    assert_eq!((view.generation, is_new), (Generation(2), true));
    assert_eq!(ask(&hosts[0], "a", "add 2").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_turn_ends_soon_and_the_next_runs() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "get").await;
    let idle = act(&hosts[0], "a", VerbCall::Interrupt, "active").await;
    assert_eq!(idle.detail, VerbDetail::Ended(TurnEnd::NothingRan));
    let hanging = hang(&hosts[0], "a").await;
    send(&hosts[0], "a", "add 7").await;
    let begun = Instant::now();
    let report = act(&hosts[0], "a", VerbCall::Interrupt, "active").await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    let ended = TurnEnd::Abandoned { inputs: vec![hanging.input] };
    assert_eq!((report.detail, report.inputs_abandoned), (VerbDetail::Ended(ended), 1));
    assert_eq!(end_of(&hosts[0], "a", &hanging).await, abandoned(AbandonReason::Cancelled));
    assert_eq!(ask(&hosts[0], "a", "get").await, "7");

    let runtime = hosts[0].clone();
    let asking = tokio::spawn(async move {
        let ask = AgentCall::Ask { submission: submission(&runtime, "hang"), timeout_ms: 10_000 };
        call(&runtime, "a", ask).await
    });
    is_running(&hosts[0], "a").await;
    let report = act(&hosts[0], "a", VerbCall::Interrupt, "active").await;
    assert!(matches!(report.detail, VerbDetail::Ended(TurnEnd::NotAccepted { .. })), "{report:?}");
    assert_eq!(asking.await.unwrap(), Err(CallError::Interrupted));
    assert_eq!(ask(&hosts[0], "a", "get").await, "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_agent_rests_and_gives_nothing_up_unless_told() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    ask(&hosts[0], "a", "add 3").await;
    let hanging = hang(&hosts[0], "a").await;
    let begun = Instant::now();
    let report = act(&hosts[0], "a", STOP, "paused").await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    assert_eq!(report.detail, VerbDetail::Ended(TurnEnd::PutBack));
    assert_eq!((report.inputs_pending, report.inputs_abandoned), (1, 0));
    let (state, _) = end_of(&hosts[0], "a", &hanging).await;
    assert!(state.is_open(), "{state:?}");

    act(&hosts[0], "a", VerbCall::Resume, "active").await;
    is_running(&hosts[0], "a").await;
    let report = act(&hosts[0], "a", VerbCall::Stop { is_abandoning: true }, "paused").await;
    assert_eq!((report.inputs_pending, report.inputs_abandoned), (0, 1));
    assert_eq!(end_of(&hosts[0], "a", &hanging).await, abandoned(AbandonReason::Stopped));
    act(&hosts[0], "a", VerbCall::Resume, "active").await;
    assert_eq!(ask(&hosts[0], "a", "get").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_respawn_raises_the_token_and_keeps_everything_else() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
    let before = show(&hosts[0], "a").await;
    let report = act(&hosts[0], "a", VerbCall::Respawn, "active").await;
    let after = show(&hosts[0], "a").await;
    assert_eq!(after.token, before.token.next());
    assert_eq!((after.generation, after.revision), (before.generation, before.revision));
    assert!(matches!(report.detail, VerbDetail::Fenced { token, .. } if token == after.token), "{report:?}");
    let image = hosts[0].inner().store.image(&id("a"), None).await.unwrap().unwrap();
    let snapshot = image.snapshot.expect("a snapshot of the head");
    assert_eq!((snapshot.revision, snapshot.token), (before.revision, before.token), "that of its boundary");
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "6");
    act(&hosts[0], "a", VerbCall::Recycle, "active").await;
    assert_eq!(ask(&hosts[0], "a", "get").await, "6");
    assert_eq!(show(&hosts[0], "a").await.token, after.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_rise_with_the_state() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    let checkpoint = async || match call(&hosts[0], "a", AgentCall::Checkpoint).await {
        Ok(AgentReply::Checkpointed(report)) => report,
        other => panic!("{other:?}"),
    };
    let mut last: Option<Checkpointed> = None;
    for expected in 1..4 {
        assert_eq!(ask(&hosts[0], "a", "add 1").await, expected.to_string());
        let report = checkpoint().await;
        assert!(last.is_none_or(|last| last < report), "{last:?} {report:?}");
        assert_eq!(checkpoint().await, report, "the same state is the same checkpoint");
        last = Some(report);
    }
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    assert_eq!(checkpoint().await.revision, last.unwrap().revision, "a paused agent can be kept as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_work_from_any_host() {
    let worlds = [two_hosts().await, two_hosts_on_one_store().await];
    for World { hosts, .. } in worlds {
        create(&hosts[0], "a").await;
        assert_eq!(ask(&hosts[0], "a", "add 5").await, "5");
        for host in hosts.iter().rev() {
            act(host, "a", VerbCall::Pause, "paused").await;
            act(host, "a", VerbCall::Resume, "active").await;
            act(host, "a", VerbCall::Respawn, "active").await;
            let hanging = hang(&hosts[0], "a").await;
            let report = act(host, "a", VerbCall::Interrupt, "active").await;
            let ended = TurnEnd::Abandoned { inputs: vec![hanging.input] };
            assert_eq!(report.detail, VerbDetail::Ended(ended), "through {}", host.name());
            assert_eq!(ask(host, "a", "get").await, "5");
        }
        act(&hosts[1], "a", VerbCall::Delete, "deleted").await;
        assert_eq!(show(&hosts[0], "a").await.state, "deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_table_does_not_allow_is_refused_by_name() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    act(&hosts[0], "a", VerbCall::Pause, "paused").await;
    let refused = verb(&hosts[0], "a", VerbCall::Recover(Recovery::default())).await;
    let Err(CallError::Illegal(illegal)) = refused else { panic!("{refused:?}") };
    assert_eq!((illegal.state.as_str(), illegal.verb.as_str()), ("paused", "recover"));
    let unknown = verb(&hosts[0], "nobody", VerbCall::Pause).await;
    assert!(matches!(unknown, Err(CallError::NotFound { .. })), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_to_an_agent_that_takes_nothing_is_undeliverable() {
    let World { hosts, .. } = two_hosts().await;
    for agent in ["a", "retired", "deleted"] {
        create(&hosts[0], agent).await;
    }
    act(&hosts[0], "retired", VerbCall::Retire, "retiring").await;
    becomes(&hosts[0], "retired", "retired").await;
    act(&hosts[0], "deleted", VerbCall::Delete, "deleted").await;
    let expected = [("retired", UndeliverableReason::Retired), ("deleted", UndeliverableReason::Deleted)];
    for (destination, reason) in expected {
        ask(&hosts[0], "a", &format!("send {destination} hello")).await;
        let ended = async {
            loop {
                let outputs = call(&hosts[0], "a", AgentCall::Outputs { after: 0, limit: 10 }).await;
                let Ok(AgentReply::Outputs(outputs)) = outputs else { panic!("{outputs:?}") };
                let of = |output: &&godwit_core::output::StoredOutput| {
                    output.output.destination == id(destination) && output.state != OutputState::Pending
                };
                if let Some(output) = outputs.items.iter().find(of) {
                    return output.state.clone();
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        let state = within(Duration::from_secs(10), ended).await.expect("it ends");
        assert_eq!(state, OutputState::Undeliverable { reason });
    }
}
