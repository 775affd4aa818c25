//! What goes, and what waits, of one look at an outbox.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::channel::{self, Ask, ChannelRequest};
use godwit_core::id::Revision;
use godwit_core::output::OutputState;
use godwit_core::store::memory::MemoryStore;
use godwit_core::testing::SimNetwork;
use godwit_core::time::SystemClock;

use super::*;
use crate::runtime::tests::{create, host, id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_key_can_not_be_read_now_waits_for_its_proof() {
    let store = MemoryStore::exclusive(Arc::new(SystemClock));
    let host = host(&SimNetwork::default(), 1, Arc::new(store.clone())).await;
    create(&host, "a").await;
    let owned = host.own(&id("a")).await.unwrap();
    let publisher = Publisher { credentials: host.credentials_of(&owned.lease).await.unwrap(), owned };
    let token = Some(Bytes::from_static(b"a token"));
    let request = ChannelRequest { channel: "news".parse().unwrap(), ask: Ask::Subscribe, token };
    let stored = StoredOutput {
        agent: id("a"),
        generation: publisher.owned.lease.generation,
        number: 1,
        revision: Revision(1),
        position: 1,
        committed_at_ms: host.now_ms(),
        output: channel::request(&id("owner"), request, Some("r".into())),
        state: OutputState::Pending,
    };
    let look = async || {
        let (mut known, mut sending) = (Destinations::default(), Sending::new());
        let lanes = Lanes::from([(id("owner"), vec![stored.clone()])]);
        host.begin(&publisher, lanes, &mut known, &mut sending).await;
        sending.next().await.unwrap().remove(0)
    };
    let outage = store.outage();
    let (_, next) = look().await;
    assert!(matches!(next, Next::Answered(answers) if matches!(answers[..], [Delivered::Later { .. }])));
    drop(outage);
    let (run, next) = look().await;
    assert!(matches!(next, Next::Goes(Way::Unknown)), "it was tried here");
    let sent = run.inputs[0].delivery.as_ref().and_then(|stamp| stamp.channel.as_deref());
    assert!(sent.is_some_and(|sent| sent.proof.is_some()));
    host.stop().await;
}
