//! The rows of an agent that moves: packed where that saves, written behind the sender's back, and little when it is held.

use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::id::{FencingToken, Generation, Revision, SpecRevision};
use godwit_core::migration::{Failure, Refusal};
use godwit_core::spec::{Durability, Spec, SpecPatch};
use godwit_core::store::{Row, RowFrame};

use super::*;
use crate::runtime::respec::SpecUpdate;
use crate::runtime::wire::{self, BulkHeader, MigrationAnswer, MigrationMessage, Preparation, Reservation};

/// Two hosts with stores of their own, and what may be left of an agent that is held.
async fn pair(network: &SimNetwork, delta_bytes_max: usize) -> [Runtime; 2] {
    hosts_apart(network, |_, config| config.delta_bytes_max = delta_bytes_max).await
}

/// Adds one to agent `a` again and again, until that is cancelled; then it answers how often.
fn kept_busy(door: &Runtime) -> (CancellationToken, tokio::task::JoinHandle<u32>) {
    let rests = CancellationToken::new();
    let (host, is_over) = (door.clone(), rests.clone());
    let load = tokio::spawn(async move {
        let mut asked = 0;
        while !is_over.is_cancelled() {
            ask(&host, "a", "add 1").await;
            asked += 1;
        }
        asked
    });
    (rests, load)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_writes_faster_than_it_is_sent_is_not_held_for_long() {
    let network = SimNetwork::default();
    let [one, other] = pair(&network, 1).await;
    create(&one, "a").await;
    ask(&one, "a", "add 1").await;
    // Whenever a bundle has arrived, there is something new.
    network.set_bulk_delay(Duration::from_millis(20));
    let (rests, load) = kept_busy(&one);
    let record = try_to_migrate(&one, "a", &other).await;
    rests.cancel();
    let asked = load.await.unwrap();
    let Some(failure @ Failure::DeltaTooLarge { bytes_max: 1, .. }) = &record.failure else {
        panic!("{record:?}");
    };
    assert!(failure.is_retryable());
    assert_eq!((record.phase, record.pause_us), (Phase::Failed, None));
    // It is where it was, and unharmed; nothing of it is at the target.
    assert_eq!(ask(&one, "a", "get").await, (asked + 1).to_string());
    assert!(other.inner().store.agent(&id("a")).await.unwrap().is_none());
    // When it rests, and retention has removed what it is to remove, there is nothing left to send.
    let moves = async || try_to_migrate(&one, "a", &other).await.phase == Phase::Complete;
    until("the agent to move in the end", moves).await;
    assert_eq!(ask(&other, "a", "get").await, (asked + 1).to_string());
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_pack_well_travel_packed() {
    const TEXT_BYTES: usize = 100_000;
    let network = SimNetwork::default();
    let [one, other] = pair(&network, 1 << 20).await;
    create(&one, "a").await;
    let text = "words that come again and again ".repeat(TEXT_BYTES / 32);
    for row in 0..10 {
        ask(&one, "a", &format!("write row-{row} {text}")).await;
    }
    network.tap();
    let record = try_to_migrate(&one, "a", &other).await;
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
    let sent: usize = network.tapped().iter().map(Bytes::len).sum();
    assert!(sent < TEXT_BYTES && record.bytes < TEXT_BYTES as u64, "{sent} bytes, {record:?}");
    for row in 0..10 {
        assert_eq!(ask(&other, "a", &format!("read row-{row}")).await, text);
    }
    for host in [&one, &other] {
        host.stop().await;
    }
}

/// A migration that was reserved at a host; rows go to it as its source would send them.
struct Sent<'a> {
    to: &'a Runtime,
    from: HostId,
    id: MigrationId,
}

impl<'a> Sent<'a> {
    async fn reserved(to: &'a Runtime, number: u8) -> Self {
        let this = Self { to, from: HostId([9; 32]), id: MigrationId([number; 16]) };
        let reservation = Reservation {
            token: FencingToken(1),
            generation: Generation(1),
            revision: Revision(0),
            plugin: script_plugin().0,
            spec: Spec::new(script_plugin().0.digest),
            public_key: None,
            residency: None,
            is_shared: false,
            deadline_ms: u64::MAX,
        };
        let reserved = this.tell(MigrationMessage::Reserve(Box::new(reservation))).await;
        assert_eq!(reserved, MigrationAnswer::Ok);
        this
    }

    async fn tell(&self, message: MigrationMessage) -> MigrationAnswer {
        self.to.on_migration(self.from, self.id, id("a"), message).await
    }

    async fn rows(&self, frames: &[RowFrame]) -> MigrationAnswer {
        let header = BulkHeader::Rows { id: self.id, agent: id("a") };
        let body = wire::encode_list(2, frames);
        self.to.take_bulk(self.from, header, bulk(body.into())).await
    }
}

fn state(change: u64, key: &str) -> RowFrame {
    RowFrame { change, row: Row::State { key: key.into(), value: Bytes::from_static(b"value") } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_written_is_the_answer_to_all_that_follows() {
    let host = lone_host().await;
    let sent = Sent::reserved(&host, 1).await;
    assert_eq!(sent.rows(&[state(1, "good")]).await, MigrationAnswer::Ok);
    assert_eq!(sent.rows(&[]).await, MigrationAnswer::Ok, "it is written");
    // It reads well; only the store finds out that this number is another row's.
    assert_eq!(sent.rows(&[state(1, "bad")]).await, MigrationAnswer::Ok);
    let is_no = |answer: &MigrationAnswer| matches!(answer, MigrationAnswer::Refused { reason, .. } if reason.contains("change 1 is two rows"));
    let restore = MigrationMessage::Restore { revision: Revision(0) };
    for answer in [sent.rows(&[]).await, sent.rows(&[state(2, "late")]).await, sent.tell(restore).await] {
        assert!(is_no(&answer), "{answer:?}");
    }
    assert_eq!(sent.tell(MigrationMessage::Abort).await, MigrationAnswer::Ok);
    assert!(!matches!(sent.rows(&[state(3, "after")]).await, MigrationAnswer::Ok));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_not_written_any_more() {
    let memory = MemoryStore::exclusive(Arc::new(SystemClock));
    let host = host(&SimNetwork::default(), 1, Arc::new(memory.clone())).await;
    let sent = Sent::reserved(&host, 1).await;
    let disk = memory.hold_commits().await;
    assert_eq!(sent.rows(&[state(1, "row")]).await, MigrationAnswer::Ok);
    let forgetting = tokio::spawn({
        let host = host.clone();
        async move { host.forget_silent(Duration::ZERO).await }
    });
    sleep(Duration::from_millis(50)).await;
    assert!(!forgetting.is_finished(), "a row is on its way to the disk still");
    drop(disk);
    forgetting.await.unwrap();
    let late = sent.rows(&[state(2, "late")]).await;
    assert!(matches!(late, MigrationAnswer::Refused { .. }), "{late:?}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_agent_are_refused_before_anything_is_written() {
    let host = lone_host().await;
    let sent = Sent::reserved(&host, 1).await;
    create(&host, "b").await;
    let rows = host.inner().store.export_rows(&id("b"), 0, 1 << 20).await.unwrap();
    assert_eq!(sent.rows(&rows).await, MigrationAnswer::Ok, "it is here, and not read yet");
    for answer in [sent.rows(&[state(1, "row")]).await, sent.rows(&[]).await] {
        let is_no =
            matches!(&answer, MigrationAnswer::Refused { reason, .. } if reason.contains("of agent b"));
        assert!(is_no, "{answer:?}");
    }
    assert!(host.inner().store.agent(&id("a")).await.unwrap().is_none(), "nothing of it is kept");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_unpacks_to_something_else_is_refused() {
    let host = lone_host().await;
    let bundle = wire::encode_list(2, &[state(1, "row")]);
    let packed = Bytes::from(zstd::bulk::compress(&bundle, 1).unwrap());
    let bytes = bundle.len() as u64;
    let take = async |sent: &Sent<'_>, packed: Bytes, bytes| {
        let header = BulkHeader::PackedRows { id: sent.id, agent: id("a"), bytes };
        assert_eq!(host.take_bulk(sent.from, header, bulk(packed)).await, MigrationAnswer::Ok, "it is here");
        sent.rows(&[]).await
    };
    let whole = packed.clone();
    let broken = [
        (packed.clone(), bytes - 1),
        (packed.clone(), bytes + 1),
        (packed.slice(1..), bytes),
        (packed, u64::MAX),
    ];
    for ((body, bytes), number) in broken.into_iter().zip(1..) {
        let sent = Sent::reserved(&host, number).await;
        let answer = take(&sent, body, bytes).await;
        assert!(matches!(answer, MigrationAnswer::Refused { .. }), "{answer:?}");
        assert_eq!(sent.tell(MigrationMessage::Abort).await, MigrationAnswer::Ok);
    }
    let sent = Sent::reserved(&host, 9).await;
    assert_eq!(take(&sent, whole, bytes).await, MigrationAnswer::Ok);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_does_not_count_as_left_whatever_its_size() {
    let network = SimNetwork::default();
    let [one, other] = pair(&network, 48 << 10).await;
    create(&one, "a").await;
    let policy = SpecUpdate {
        base: SpecRevision(1),
        plugin: "script".into(),
        labels: None,
        patch: SpecPatch { durability: Some(Durability::Snapshot), ..SpecPatch::default() },
    };
    call(&one, "a", AgentCall::Update(policy)).await.unwrap();
    let padded = ask(&one, "a", "pad 60000").await;
    assert!(padded.parse::<u64>().is_ok(), "{padded}");
    let (rests, load) = kept_busy(&one);
    // Each turn writes one, and there is a turn whenever a bundle has arrived.
    network.set_bulk_delay(Duration::from_millis(20));
    let record = try_to_migrate(&one, "a", &other).await;
    rests.cancel();
    let asked = load.await.unwrap();
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
    assert_eq!(ask(&other, "a", "get").await, asked.to_string());
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_reserved_and_not_what_has_arrived_is_not_bound() {
    let network = SimNetwork::default();
    let [one, other] = pair(&network, 1 << 20).await;
    create(&one, "a").await;
    ask(&one, "a", "add 1").await;
    let row = one.inner().store.agent(&id("a")).await.unwrap().unwrap();
    let mut frames = one.inner().store.export_rows(&id("a"), 0, 1 << 20).await.unwrap();
    frames.retain(|frame| !matches!(frame.row, Row::EntityKey(_)));
    for (number, is_upgraded) in [(1, true), (2, false)] {
        let sent = Sent::reserved(&other, number).await;
        let mut frames = frames.clone();
        if is_upgraded {
            // Since the reservation.
            let spec = frames.iter_mut().find_map(|frame| match &mut frame.row {
                Row::Spec { spec, .. } => Some(spec),
                _ => None,
            });
            spec.unwrap().plugin = Digest([7; 32]);
        }
        let mut digest = RunningDigest::default();
        digest.add(Digest::of(&wire::encode_list(2, &frames)));
        assert_eq!(sent.rows(&frames).await, MigrationAnswer::Ok);
        let preparation = Preparation {
            granted: FencingToken(2),
            generation: row.generation,
            revision: row.revision,
            frames: Vec::new(),
            bundle: digest.finish(),
        };
        match sent.tell(MigrationMessage::Prepare(Box::new(preparation))).await {
            MigrationAnswer::Refused { why: Refusal::Plugin, .. } if is_upgraded => {
                assert_eq!(sent.tell(MigrationMessage::Abort).await, MigrationAnswer::Ok);
            }
            MigrationAnswer::Prepared { .. } if !is_upgraded => {}
            answer => panic!("{is_upgraded}: {answer:?}"),
        }
        let bound = other.inner().store.agent(&id("a")).await.unwrap();
        assert_eq!(bound.is_some(), !is_upgraded);
    }
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_long_line_no_quick_round_is_waited_for() {
    let network = SimNetwork::default();
    let [one, other] = pair(&network, 1 << 20).await;
    create(&one, "a").await;
    ask(&one, "a", "add 1").await;
    network.set_bulk_delay(Duration::from_millis(15));
    let record = try_to_migrate(&one, "a", &other).await;
    assert_eq!((record.phase, &record.failure), (Phase::Complete, &None), "{record:?}");
    // Until it gave up they would be some ninety.
    assert!(record.rounds < 25, "{record:?}");
    for host in [&one, &other] {
        host.stop().await;
    }
}
