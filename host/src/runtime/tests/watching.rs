//! Tests of following agents, of waiting for what they say, and of looking at them.

use godwit_core::event::{Event, EventKind, EventPlace};
use godwit_core::id::Revision;
use godwit_core::limits::Quotas;
use godwit_core::store::{Sharing, StoreError};

use super::*;
use crate::runtime::events::{GapReason, Subscription, Told, WATCHERS_MAX};
use crate::runtime::outputs::{Output, OutputPlace};
use crate::runtime::verbs::VerbCall;

const LONG: Duration = Duration::from_secs(10);

async fn verb(runtime: &Runtime, agent: &str, verb: VerbCall) {
    let done = call(runtime, agent, AgentCall::Verb(verb)).await;
    assert!(matches!(done, Ok(AgentReply::Verb(_))), "{done:?}");
}

async fn follow(runtime: &Runtime, agent: &str, after: Option<EventPlace>) -> Subscription {
    runtime.subscribe(&id(agent), after).await.unwrap()
}

async fn next(subscription: &mut Subscription) -> Told {
    let told = within(LONG, subscription.next()).await.expect("something is told");
    told.unwrap().expect("the stream goes on")
}

async fn next_event(subscription: &mut Subscription) -> Event {
    match next(subscription).await {
        Told::Event(event) => *event,
        other => panic!("{other:?}"),
    }
}

/// The next events, up to one of a kind.
async fn until(subscription: &mut Subscription, kind: EventKind) -> Vec<Event> {
    let mut events = vec![next_event(subscription).await];
    while events.last().is_some_and(|event| event.event.kind != kind) {
        events.push(next_event(subscription).await);
    }
    events
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.place.unwrap().number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_late_and_returning_subscribers_see_every_event_once_in_order() {
    let host = lone_host().await;
    create(&host, "a").await;
    create(&host, "noise").await;
    let mut live = follow(&host, "a", None).await;
    let live = tokio::spawn(async move { until(&mut live, EventKind::AgentDeleted).await });
    let mut returning = follow(&host, "a", None).await;
    let mut seen = vec![next_event(&mut returning).await];
    let (mut place, mut rest) = (returning.after(), Vec::new());
    drop(returning);
    assert_eq!(ask(&host, "a", "add 1").await, "1");
    for call in [VerbCall::Pause, VerbCall::Resume, VerbCall::Respawn, VerbCall::Reset, VerbCall::Retire] {
        verb(&host, "a", call).await;
        verb(&host, "noise", VerbCall::Respawn).await;
        // One that comes back each time for one event.
        let mut back = follow(&host, "a", Some(place)).await;
        rest.push(next_event(&mut back).await);
        place = back.after();
    }
    verb(&host, "a", VerbCall::Delete).await;
    let live = within(LONG, live).await.unwrap().unwrap();
    let late = until(&mut follow(&host, "a", None).await, EventKind::AgentDeleted).await;
    seen.extend(rest);
    seen.extend(until(&mut follow(&host, "a", Some(place)).await, EventKind::AgentDeleted).await);
    assert_eq!((&live, &seen), (&late, &late));
    assert_eq!(numbers(&late), (1..=late.len() as u64).collect::<Vec<_>>());
    let of = |kinds: &[EventKind]| late.iter().filter(|event| kinds.contains(&event.event.kind)).count();
    use EventKind::*;
    let life =
        [AgentCreated, AgentPaused, AgentResumed, AgentRespawned, AgentReset, AgentRetiring, AgentDeleted];
    assert!(life.iter().all(|kind| of(&[*kind]) == 1), "{late:?}");
    assert_eq!(of(&[LeaseAcquired]), 3, "taken, and held on through respawn and reset");
    assert!(late.is_sorted_by_key(|event| event.place));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_follows_an_agent_from_host_to_host() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    let mut there = follow(&hosts[0], "a", None).await;
    let refused = hosts[1].subscribe(&id("a"), None).await.map(|_| ());
    assert!(
        matches!(&refused, Err(CallError::Misdirected { host, .. }) if *host == hosts[0].host()),
        "{refused:?}"
    );
    assert!(matches!(hosts[1].subscribe(&id("nobody"), None).await, Err(CallError::NotFound { .. })));
    migrate(&hosts[0], "a", &hosts[1]).await;
    let mut seen = Vec::new();
    let moved = loop {
        match next(&mut there).await {
            Told::Event(event) => seen.push(*event),
            Told::Moved { host } => break host,
            gap => panic!("{gap:?}"),
        }
    };
    assert_eq!(moved, hosts[1].host());
    assert_eq!(within(LONG, there.next()).await.unwrap(), Ok(None), "that was the last");
    assert!(matches!(hosts[0].subscribe(&id("a"), None).await, Err(CallError::Misdirected { .. })));
    let mut here = follow(&hosts[1], "a", Some(there.after())).await;
    verb(&hosts[0], "a", VerbCall::Pause).await;
    seen.extend(until(&mut here, EventKind::AgentPaused).await);
    assert_eq!(
        numbers(&seen),
        (1..=seen.len() as u64).collect::<Vec<_>>(),
        "nothing twice, nothing left out"
    );
    let of = |kind| seen.iter().filter(|event| event.event.kind == kind).count();
    assert_eq!((of(EventKind::LeaseAcquired), of(EventKind::HomeMoved)), (2, 1));
    // Whoever begins here is told that something happened elsewhere; and after a way back, in the middle.
    let mut late = follow(&hosts[1], "a", None).await;
    let Told::Gap(gap) = next(&mut late).await else { panic!("a gap comes first") };
    assert_eq!((gap.reason, gap.after), (GapReason::NotHere, EventPlace::START));
    assert_eq!(next_event(&mut late).await.place.unwrap().number, gap.to.number + 1);
    let place = seen.last().unwrap().place.unwrap();
    verb(&hosts[1], "a", VerbCall::Resume).await;
    migrate(&hosts[1], "a", &hosts[0]).await;
    let mut back = follow(&hosts[0], "a", Some(place)).await;
    assert!(matches!(next(&mut back).await, Told::Gap(gap) if gap.after == place));
    let page = call(&hosts[1], "a", AgentCall::Events { after: place, limit: 100 }).await;
    let Ok(AgentReply::Events(page)) = page else { panic!("{page:?}") };
    assert!(
        matches!(page.told[0], Told::Gap(_)) && page.told.len() > 1,
        "a page comes from anywhere: {page:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_is_a_gap() {
    let quotas = Quotas { events_kept: 3, ..Quotas::default() };
    let store = Arc::new(MemoryStore::new(Sharing::Exclusive, Arc::new(SystemClock), quotas));
    let host = host(&SimNetwork::default(), 1, store.clone()).await;
    create(&host, "a").await;
    let mut slow = follow(&host, "a", None).await;
    assert_eq!(next_event(&mut slow).await.event.kind, EventKind::AgentCreated);
    for _ in 0..4 {
        verb(&host, "a", VerbCall::Pause).await;
        verb(&host, "a", VerbCall::Resume).await;
    }
    let Told::Gap(gap) = next(&mut slow).await else { panic!("a gap comes first") };
    assert_eq!((gap.after.number, slow.after()), (1, gap.to));
    let rest = [next_event(&mut slow).await, next_event(&mut slow).await, next_event(&mut slow).await];
    assert_eq!(numbers(&rest), [gap.to.number + 1, gap.to.number + 2, gap.to.number + 3]);
    // All of them gone: the row still knows that there were some.
    create(&host, "b").await;
    for _ in 0..4 {
        verb(&host, "b", VerbCall::Pause).await;
        verb(&host, "b", VerbCall::Resume).await;
    }
    let mut late = follow(&host, "a", Some(slow.after())).await;
    assert!(futures::FutureExt::now_or_never(late.next()).is_none(), "nothing is missing behind the last");
    let mut early = follow(&host, "a", Some(gap.after)).await;
    assert!(matches!(next(&mut early).await, Told::Gap(all) if all.to == slow.after()));
    // A place where the agent has never been.
    let ahead = EventPlace { number: 1_000, ..slow.after() };
    let mut ahead = follow(&host, "a", Some(ahead)).await;
    assert!(matches!(next(&mut ahead).await, Told::Gap(gap) if gap.reason == GapReason::Ahead));
    assert!(matches!(next(&mut ahead).await, Told::Gap(gap) if gap.reason == GapReason::NotHere));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_a_while_costs_no_event() {
    let store = MemoryStore::shared(Arc::new(SystemClock));
    let host = host(&SimNetwork::default(), 1, Arc::new(store.clone())).await;
    create(&host, "a").await;
    assert_eq!(ask(&host, "a", "add 1").await, "1");
    let mut following = follow(&host, "a", None).await;
    let mut seen = until(&mut following, EventKind::LeaseAcquired).await;
    let outage = store.outage();
    // What the session's death has to say must wait.
    store.leave(host.session().incarnation).await.unwrap();
    let refused = within(LONG, following.next()).await.unwrap();
    assert!(matches!(refused, Err(CallError::Unavailable { .. })), "{refused:?}");
    let dead = host.session().incarnation;
    let joined = async {
        while host.session().incarnation == dead {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(LONG, joined).await.expect("it joins again");
    assert!(matches!(following.next().await, Err(CallError::Unavailable { .. })));
    drop(outage);
    seen.extend(until(&mut following, EventKind::LeaseLost).await);
    assert_eq!(ask(&host, "a", "add 1").await, "2");
    verb(&host, "a", VerbCall::Pause).await;
    seen.extend(until(&mut following, EventKind::AgentPaused).await);
    assert_eq!(numbers(&seen), (1..=seen.len() as u64).collect::<Vec<_>>());
    let lost = seen.iter().filter(|event| event.event.kind == EventKind::LeaseLost).count();
    assert_eq!(lost, 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_may_watch_and_no_more() {
    let host = lone_host().await;
    create(&host, "a").await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS_MAX {
        watching.push(follow(&host, "a", None).await);
    }
    let full = CallError::TooManyWatch { most: WATCHERS_MAX as u64 };
    assert_eq!(host.subscribe(&id("a"), None).await.map(|_| ()), Err(full.clone()));
    let waited = host.wait_for_output(&id("a"), None, LONG, Forward::Yes).await;
    assert_eq!(waited, Err(full));
    watching.pop();
    let mut last = follow(&host, "a", None).await;
    next_event(&mut last).await;
    host.stop().await;
    while let Ok(Some(_)) = last.next().await {}
    assert_eq!(last.next().await, Ok(None), "shutdown ends it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_tells_of_the_leases_that_went_with_its_session_once() {
    let World { hosts, .. } = two_hosts_on_one_store().await;
    for agent in ["a", "b"] {
        create(&hosts[0], agent).await;
        assert_eq!(ask(&hosts[0], agent, "add 1").await, "1");
    }
    let store = hosts[0].inner().store.clone();
    let dead = hosts[0].session().incarnation;
    // As if it had been buried.
    store.leave(dead).await.unwrap();
    let mut following = follow(&hosts[1], "a", None).await;
    let events = until(&mut following, EventKind::LeaseLost).await;
    let lost = &events.last().unwrap().event;
    let detail =
        |name: &str| lost.data.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let under = hosts[0].session().incarnation;
    assert!(under > dead, "it has joined again before it says so");
    assert_eq!(detail("incarnation"), Some(dead.to_string()));
    assert_eq!(detail("under"), Some(under.to_string()));
    assert_eq!(detail("token"), Some("1".to_owned()));
    assert_eq!(ask(&hosts[1], "a", "add 1").await, "2");
    assert_eq!(ask(&hosts[1], "b", "add 1").await, "2");
    for agent in ["a", "b"] {
        let lost = store.events(0, Some(&id(agent)), Some(EventKind::LeaseLost), 10).await.unwrap();
        assert_eq!(lost.len(), 1, "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_under_a_lease_that_is_another_s_is_an_event() {
    let World { hosts, .. } = two_hosts_on_one_store().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    let store = hosts[0].inner().store.clone();
    let owned = hosts[0].own(&id("a")).await.unwrap();
    // Behind the host's back, under its own session.
    store.release(&owned.owner()).await.unwrap();
    let taken = store.acquire(hosts[1].session().incarnation, &[id("a")]).await.unwrap();
    assert!(taken[0].is_ok());
    let paused = store
        .commit_lifecycle(
            &owned.owner(),
            godwit_core::store::LifecycleCommit::plan(
                &id("a"),
                &godwit_core::store::Lifecycle::Active,
                &godwit_core::lifecycle::Verb::Pause,
                hosts[0].now_ms(),
            )
            .unwrap(),
        )
        .await;
    assert!(matches!(paused, Err(StoreError::Fenced { .. })), "{paused:?}");
    // The host finds out by its next turn.
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "2");
    let mut following = follow(&hosts[1], "a", None).await;
    let events = until(&mut following, EventKind::Fenced).await;
    assert!(events.iter().any(|event| event.event.kind == EventKind::LeaseReleased));
    until(&mut following, EventKind::LeaseLost).await;
    let lost = store.events(0, Some(&id("a")), Some(EventKind::LeaseLost), 10).await.unwrap();
    assert_eq!(lost.len(), 1);
}

fn said(output: &Output) -> String {
    match &output.reply.outcome {
        ReplyOutcome::Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_output_is_waited_for_and_earlier_ones_are_read() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    let wait = |host: &Runtime, after| {
        let host = host.clone();
        tokio::spawn(async move { host.wait_for_output(&id("a"), after, LONG, Forward::Yes).await })
    };
    let waiting = wait(&hosts[1], None);
    let watched = async {
        while hosts[0].inner().watchers.available_permits() == WATCHERS_MAX {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(LONG, watched).await.expect("it waits where the agent is");
    assert_eq!(ask(&hosts[0], "a", "add 2").await, "3");
    let output = within(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(said(&output), "3", "not what was said before");
    let place = |revision| Some(OutputPlace { revision: Revision(revision), ..output.place });
    // What was said is there for whoever names the boundary before it.
    let mut at = place(0);
    for expected in ["1", "3"] {
        let earlier = wait(&hosts[0], at).await.unwrap().unwrap();
        assert_eq!(said(&earlier), expected);
        at = Some(earlier.place);
    }
    let containing = |needle: &'static str, after| {
        let host = hosts[0].clone();
        async move {
            let needle = Bytes::from_static(needle.as_bytes());
            host.wait_for_output_containing(&id("a"), needle, after, Duration::from_millis(50), Forward::Yes)
                .await
        }
    };
    assert_eq!(containing("3", place(0)).await.map(|output| said(&output)), Ok("3".to_owned()));
    assert_eq!(containing("4", place(0)).await, Err(CallError::NoOutput { after: output.place }));
    let ahead = containing("", place(99)).await;
    assert!(matches!(ahead, Err(CallError::Conflict { .. })), "{ahead:?}");
    // A reset is a new beginning: what comes then is behind everything.
    verb(&hosts[0], "a", VerbCall::Reset).await;
    let waiting = wait(&hosts[0], Some(output.place));
    assert_eq!(ask(&hosts[0], "a", "add 7").await, "7");
    assert_eq!(said(&waiting.await.unwrap().unwrap()), "7");
    verb(&hosts[0], "a", VerbCall::Delete).await;
    assert_eq!(wait(&hosts[1], None).await.unwrap(), Err(CallError::Deleted), "it will say nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_goes_with_the_agent() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    let (host, agent) = (hosts[0].clone(), id("a"));
    let waiting = tokio::spawn(async move { host.wait_for_output(&agent, None, LONG, Forward::Yes).await });
    let watched = async {
        while hosts[0].inner().watchers.available_permits() == WATCHERS_MAX {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(LONG, watched).await.expect("it waits");
    migrate(&hosts[0], "a", &hosts[1]).await;
    assert_eq!(ask(&hosts[1], "a", "add 2").await, "3");
    assert_eq!(said(&within(LONG, waiting).await.unwrap().unwrap().unwrap()), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_look_shows_everything_about_an_agent() {
    let World { hosts, .. } = two_hosts().await;
    create(&hosts[0], "a").await;
    assert_eq!(ask(&hosts[0], "a", "add 1").await, "1");
    verb(&hosts[0], "a", VerbCall::Pause).await;
    send(&hosts[0], "a", "add 2").await;
    let seen = hosts[1].inspect(&id("a"), 2, Forward::Yes).await.unwrap();
    assert_eq!((seen.view.id.as_str(), seen.view.state.as_str()), ("a", "paused"));
    assert_eq!(seen.holder.map(|holder| holder.host), Some(hosts[0].host()));
    assert!(seen.spec.is_some() && seen.damage.is_none());
    assert_eq!((seen.counters.open_inputs, seen.inputs.items.len()), (1, 1));
    assert!(seen.inputs.items[0].input.payload.is_empty(), "payloads stay where they are");
    assert_eq!(seen.receipts.last().map(|receipt| receipt.revision), Some(seen.view.revision));
    let kinds: Vec<_> = seen.events.iter().map(|event| event.event.kind).collect();
    assert_eq!(kinds, [EventKind::LeaseAcquired, EventKind::AgentPaused]);
    assert_eq!(seen.last_error, None);
    assert_eq!(seen.counters.next_event, 4);
}
