//! What goes, and what waits, of one look at an outbox.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::channel::{self, Ask, ChannelRequest};
use godwit_core::id::{FencingToken, Generation, Revision};
use godwit_core::input::Kind;
use godwit_core::limits::{OUTPUT_BYTES_MAX, OUTPUT_LIFETIME};
use godwit_core::output::{Output, OutputState, ReplyRole};
use godwit_core::store::memory::MemoryStore;
use godwit_core::testing::SimNetwork;
use godwit_core::time::SystemClock;

use super::*;
use crate::runtime::tests::{ask, create, host, id};

fn output(number: u64, output: Output) -> StoredOutput {
    StoredOutput {
        agent: id("a"),
        generation: Generation(1),
        number,
        revision: Revision(1),
        position: number,
        committed_at_ms: 0,
        output,
        state: OutputState::Pending,
    }
}

/// Outputs to a destination under the numbers from 1 on, of so many bytes each.
fn lane(destination: &str, count: u64, bytes: usize) -> Vec<StoredOutput> {
    let event = || Output {
        destination: id(destination),
        kind: Kind::Event,
        content_type: String::new(),
        payload: vec![0; bytes].into(),
        headers: Vec::new(),
        correlation: None,
        reply: ReplyRole::None,
        channel: None,
    };
    (1..=count).map(|number| output(number, event())).collect()
}

/// The run of a lane at a time.
fn run_at(now_ms: u64, lane: Vec<StoredOutput>) -> Run {
    let host = HostId([1; 32]);
    let (generation, token) = (Generation(2), FencingToken(7));
    let sender = Sender { generation, token, host, origin_hash: None, key: None };
    Run::new(lane[0].output.destination.clone(), lane, Arc::new(sender), now_ms)
}

/// The destinations of each request, with how many outputs.
fn packed(lanes: Vec<Vec<StoredOutput>>) -> Vec<Vec<(String, usize)>> {
    let shown = |run: &Run| (run.destination.to_string(), run.outputs.len());
    let requests = by_request(lanes.into_iter().map(|lane| run_at(1, lane)).collect());
    requests.iter().map(|request| request.iter().map(shown).collect()).collect()
}

#[test]
fn a_run_is_the_start_of_a_lane_that_fits_one_request() {
    let length = |now_ms, lane| run_at(now_ms, lane).outputs.len();
    assert_eq!(length(1, lane("b", 9, 10)), 9);
    assert_eq!(length(1, lane("b", 9, OUTPUT_BYTES_MAX)), 2, "by bytes");
    assert_eq!(length(1, lane("b", 2_000, 0)), BATCH_INPUTS_MAX);
    let mut mixed = lane("b", 4, 0);
    mixed[2].generation = Generation(2);
    assert_eq!(length(1, mixed), 2, "what is of another generation waits");
    let too_old = u64::try_from(OUTPUT_LIFETIME.as_millis()).unwrap() + 1;
    let mut old = lane("b", 3, 0);
    old[2].committed_at_ms = too_old;
    let run = run_at(too_old, old.clone());
    assert!(run.is_expired() && run.outputs.len() == 1, "too old ones alone");
    old.drain(..2);
    assert!(!run_at(too_old, old).is_expired());
    let inputs: Vec<NewInput> = run_at(1, lane("b", 3, 1).split_off(1)).inputs().collect();
    let stamps = inputs.iter().filter_map(|input| input.delivery.as_ref());
    let numbers: Vec<_> = stamps.map(|stamp| (stamp.number, stamp.lowest_open)).collect();
    assert_eq!(numbers, [(2, 2), (3, 2)]);
}

#[test]
fn runs_go_in_as_few_requests_as_hold_them_each_whole() {
    let said = |name: &str, count| (name.to_owned(), count);
    let lanes = vec![lane("b", 300, 0), lane("c", 212, 0), lane("d", 1, 0)];
    assert_eq!(packed(lanes), [vec![said("b", 300), said("c", 212)], vec![said("d", 1)]]);
    let lanes = vec![lane("b", 2, OUTPUT_BYTES_MAX), lane("c", 2, OUTPUT_BYTES_MAX), lane("d", 1, 0)];
    assert_eq!(packed(lanes), [vec![said("b", 2)], vec![said("c", 2), said("d", 1)]]);
    assert!(packed(Vec::new()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outbox_is_read_deep_and_for_many_while_somebody_takes_nothing() {
    let store = Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)));
    let host = host(&SimNetwork::default(), 1, store).await;
    create(&host, "a").await;
    host.own(&id("a")).await.unwrap();
    // So that nobody else publishes.
    host.inner().directory.begin_publishing(&id("a")).unwrap();
    let (names, each) = (10, ROUND_ENOUGH / 10 + 1);
    for _ in 0..each {
        for name in 0..names {
            ask(&host, "a", &format!("send b-{name} add 1")).await;
        }
    }
    let mut known = Destinations::default();
    let depths = async |known: &mut Destinations| {
        let lanes = host.read_lanes(&id("a"), known).await.unwrap();
        lanes.values().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(depths(&mut known).await.iter().sum::<usize>(), ROUND_ENOUGH);
    known.doubt();
    assert_eq!(depths(&mut known).await, vec![LANE_IN_DOUBT; names]);
    assert_eq!(depths(&mut known).await.first(), Some(&each), "one look only");
    (0..3).for_each(|name| known.went(&id(&format!("b-{name}"))));
    known.doubt();
    assert_eq!(depths(&mut known).await, vec![each; names - 3], "few hide nobody");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_gets_two_requests_at_once_with_what_waits_longest() {
    let store = Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)));
    let host = host(&SimNetwork::default(), 1, store).await;
    create(&host, "a").await;
    let owned = host.own(&id("a")).await.unwrap();
    let publisher = Publisher { credentials: host.credentials_of(&owned.lease).await.unwrap(), owned };
    // Of each as much as one request holds; the later the name, the longer it waits.
    let mut lanes = Lanes::new();
    for (name, position) in [("b", 70), ("c", 50), ("d", 30), ("e", 10)] {
        let mut lane = lane(name, 2, OUTPUT_BYTES_MAX);
        lane.iter_mut().for_each(|stored| {
            stored.position += position;
            stored.committed_at_ms = host.now_ms();
        });
        host.inner().hints.learn(&id(name), HostId([9; 32]));
        lanes.insert(id(name), lane);
    }
    let (mut known, mut sending) = (Destinations::default(), Sending::new());
    host.begin(&publisher, lanes, &mut known, &mut sending).await;
    let mut went = BTreeSet::new();
    while let Some((way, runs)) = sending.next().await {
        known.landed(way);
        went.extend(runs.into_iter().map(|(run, _)| run.destination));
    }
    assert_eq!(went, BTreeSet::from([id("d"), id("e")]));
    known.wake(Duration::ZERO);
    assert!(known.takes(&id("b")) && known.takes(&id("c")), "read again, now that there is room");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_no_more_ends_what_was_sent_to_it_together() {
    let store = Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)));
    let host = host(&SimNetwork::default(), 1, store).await;
    create(&host, "a").await;
    let owned = host.own(&id("a")).await.unwrap();
    let publisher = Publisher { credentials: host.credentials_of(&owned.lease).await.unwrap(), owned };
    let ended = async |reason| {
        let answers = vec![Delivered::Acknowledged, Delivered::Never(reason)];
        let (ends, round) = host.after_run(&publisher, &run_at(1, lane("b", 4, 0)), answers).await;
        assert!(matches!(round, Round::Done));
        ends.into_iter().map(|(key, end)| (key.number, end)).collect::<Vec<_>>()
    };
    let acknowledged = (1, OutputEnd::Acknowledged);
    let given_up = |number, reason| (number, OutputEnd::Undeliverable(reason));
    let reason = UndeliverableReason::Rejected;
    assert_eq!(ended(reason).await, [acknowledged, given_up(2, reason)], "a message alone");
    let reason = UndeliverableReason::Deleted;
    let all = [acknowledged, given_up(2, reason), given_up(3, reason), given_up(4, reason)];
    assert_eq!(ended(reason).await, all);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_key_can_not_be_read_now_waits_for_its_proof() {
    let store = MemoryStore::exclusive(Arc::new(SystemClock));
    let host = host(&SimNetwork::default(), 1, Arc::new(store.clone())).await;
    create(&host, "a").await;
    let owned = host.own(&id("a")).await.unwrap();
    let publisher = Publisher { credentials: host.credentials_of(&owned.lease).await.unwrap(), owned };
    let token = Some(Bytes::from_static(b"a token"));
    let request = ChannelRequest { channel: "news".parse().unwrap(), ask: Ask::Subscribe, token };
    let mut stored = output(1, channel::request(&id("owner"), request, Some("r".into())));
    (stored.generation, stored.committed_at_ms) = (publisher.owned.lease.generation, host.now_ms());
    let look = async || {
        let (mut known, mut sending) = (Destinations::default(), Sending::new());
        let lanes = Lanes::from([(id("owner"), vec![stored.clone()])]);
        host.begin(&publisher, lanes, &mut known, &mut sending).await;
        sending.next().await.unwrap().1.remove(0)
    };
    let outage = store.outage();
    let (_, next) = look().await;
    assert!(matches!(next, Next::Answered(answers) if matches!(answers[..], [Delivered::Later { .. }])));
    drop(outage);
    let (run, next) = look().await;
    assert!(matches!(next, Next::Goes(Way::Unknown)), "it was tried here");
    let stamp = run.inputs().next().unwrap().delivery.unwrap();
    assert!(stamp.channel.unwrap().proof.is_some());
    host.stop().await;
}
