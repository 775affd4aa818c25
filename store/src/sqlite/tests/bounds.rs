//! A store whose file may not grow: intake stops first, turns have room left, and all goes on when space comes back.

use godwit_core::channel::{Ask, ChannelDelivery, ChannelMessage, ChannelRequest};
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, Revision};
use godwit_core::input::{DeliveryStamp, NewInput, Source};
use godwit_core::lifecycle::{Lifecycle, LifecycleCommit, Verb};
use godwit_core::limits::Quotas;
use godwit_core::store::{
    AcceptError, Accepted, Boundary, RuntimeStore, Step, StoreError, Unit, UnitFailure,
};

use super::fixture::{Desk, Place, create, done, join, message};
use crate::sqlite::{SqliteMode, SqliteStore, WriteEnv};

const FILE_MAX: u64 = 4 << 20;

fn open(place: &Place) -> std::sync::Arc<SqliteStore> {
    let quotas = Quotas { store_bytes_max: Some(FILE_MAX), ..Quotas::default() };
    SqliteStore::open_in(&place.path(), WriteEnv { quotas, ..place.env(SqliteMode::Exclusive) }).unwrap()
}

fn unit(desk: &Desk, base: Revision, boundary: Boundary) -> Unit {
    Unit { owner: desk.owner.clone(), base, steps: vec![Step::Boundary(Box::new(boundary))] }
}

fn request(owner: &AgentId, number: u64, ask: Ask) -> NewInput {
    let origin = AgentId::parse("asks").unwrap();
    let mut new = message(owner, b"");
    new.idempotency_key = None;
    new.input.source = Source::Peer { agent: origin.clone(), expects_reply: false };
    let message =
        ChannelMessage::Request(ChannelRequest { channel: "news".parse().unwrap(), ask, token: None });
    new.delivery = Some(DeliveryStamp {
        origin,
        generation: Generation(1),
        number,
        lowest_open: 1,
        token: FencingToken(1),
        host: HostId([9; 32]),
        origin_hash: None,
        origin_generation: Generation(1),
        is_vouched_for: true,
        channel: Some(Box::new(ChannelDelivery { message, proof: None })),
    });
    new
}

#[tokio::test]
async fn a_file_at_its_bound_refuses_inputs_and_commits_turns() {
    let place = Place::new();
    let store = open(&place);
    let mut desk = Desk::new(&store, "worker").await;
    let incarnation = desk.owner.incarnation;
    let waiting = message(&desk.owner.agent, b"waits");
    let (seq, id) = (desk.next_seq, waiting.input.id);
    store.accept(waiting, incarnation).await.unwrap();
    desk.next_seq = seq.next();
    let filler = create(&store, "filler").await;
    let payload = vec![7; 100_000];
    let mut accepted = 0;
    let refused = loop {
        match store.accept(message(&filler, &payload), incarnation).await {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
        assert!(accepted < 100, "the file has no bound");
    };
    assert_eq!(refused, AcceptError::Store(StoreError::Full));
    // A request becomes rows as well; who leaves makes room.
    let refused = store.accept(request(&filler, 1, Ask::Subscribe), incarnation).await;
    assert_eq!(refused, Err(AcceptError::Store(StoreError::Full)));
    assert_eq!(
        store.accept(request(&filler, 1, Ask::Unsubscribe), incarnation).await,
        Ok(Accepted::Answered)
    );
    assert!(accepted > 20, "{accepted} inputs of 100 kB do not fill it");
    let boundary = desk.boundary(&[(seq, id)], b"state");
    let outcome = store.commit_turns(unit(&desk, Revision(0), boundary)).await;
    assert_eq!(outcome, done(1), "what was accepted can run");
    // A turn that is larger than all that is left is refused whole, and the store goes on.
    let revision = desk.revision;
    let mut large = desk.boundary(&[], &[]);
    large.state = vec![("k".into(), Some(vec![5; 1 << 20].into()))];
    let outcome = store.commit_turns(unit(&desk, revision, large)).await;
    assert_eq!(outcome.failure, Some(UnitFailure::Store(StoreError::Full)));
    assert_eq!(store.agent(&desk.owner.agent).await.unwrap().unwrap().revision, revision);
    let lease = Desk::take(&store, incarnation, &filler).await;
    let delete = LifecycleCommit::plan(&filler, &Lifecycle::Active, &Verb::Delete, 1).unwrap();
    assert!(store.commit_lifecycle(&lease.owner, delete).await.is_ok(), "a full store can't be cleared");
    store.close().await;
    assert!(std::fs::metadata(place.path()).unwrap().len() <= FILE_MAX, "the file has grown past its bound");
    // Under a higher bound it goes on where it was.
    let store = place.open(SqliteMode::Exclusive);
    let incarnation = join(&store, 1).await;
    let again = Desk::take(&store, incarnation, &desk.owner.agent).await;
    assert_eq!(again.revision, revision);
    assert!(store.accept(message(&desk.owner.agent, &payload), incarnation).await.is_ok());
}
