//! Arriving transfers: resumed by offset, given out once, bounded.

use godwit_core::limits::CHUNK_BYTES_MAX;

use super::*;

const PEER: HostId = HostId([1; 32]);
const OTHER: HostId = HostId([2; 32]);

fn open_of(body: &[u8]) -> BulkOpen {
    BulkOpen {
        transfer: TransferId::generate(),
        bytes: body.len() as u64,
        header: Bytes::from_static(b"header"),
        was_whole: false,
    }
}

fn chunk(offset: u64, bytes: &[u8]) -> Chunk {
    Chunk { offset, bytes: Bytes::copy_from_slice(bytes), digest: Digest::of(bytes) }
}

fn body() -> Vec<u8> {
    (0..3 * CHUNK_BYTES_MAX + 17).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn a_broken_transfer_goes_on_from_its_offset_and_is_given_out_once() {
    let (arrivals, body) = (Arrivals::default(), body());
    let open = open_of(&body);
    let (first, rest) = body.split_at(2 * CHUNK_BYTES_MAX);

    let broken = arrivals.open(PEER, open.clone()).unwrap().attach();
    for (bytes, at) in first.chunks(CHUNK_BYTES_MAX).zip(0..) {
        assert!(broken.append(&chunk(at * CHUNK_BYTES_MAX as u64, bytes)).unwrap().is_none());
    }
    drop(broken);

    let arrival = arrivals.open(PEER, open.clone()).unwrap();
    let resumed = arrival.attach();
    assert_eq!(resumed.offset(), first.len() as u64);
    assert!(arrival.handled().is_none());
    let whole =
        resumed.append(&chunk(first.len() as u64, rest)).unwrap().expect("the last byte makes it whole");
    assert_eq!(whole.body, body);

    // The answer is lost with the connection: whoever comes back hears it, and the body is not given out again.
    whole.handled.send_replace(Handled::Answer(Bytes::from_static(b"done")));
    let again = arrivals.open(PEER, BulkOpen { was_whole: true, ..open }).unwrap();
    let attachment = again.attach();
    assert_eq!(attachment.offset(), body.len() as u64);
    assert!(attachment.append(&chunk(body.len() as u64, b"")).unwrap().is_none());
    assert_eq!(*again.handled().unwrap().borrow(), Handled::Answer(Bytes::from_static(b"done")));
}

#[tokio::test]
async fn a_new_stream_displaces_the_one_before() {
    let (arrivals, body) = (Arrivals::default(), body());
    let arrival = arrivals.open(PEER, open_of(&body)).unwrap();
    let old = arrival.attach();
    old.append(&chunk(0, &body[..10])).unwrap();
    let new = arrival.attach();
    assert_eq!(old.append(&chunk(10, &body[10..20])).unwrap_err(), Refusal::Displaced);
    drop(old);
    assert_eq!(arrival.idle_since(), None, "the newer stream still holds it");
    assert_eq!(new.offset(), 10);
}

#[tokio::test]
async fn a_chunk_is_taken_where_the_body_ends_and_nowhere_else() {
    let (arrivals, body) = (Arrivals::default(), body());
    let arrival = arrivals.open(PEER, open_of(&body)).unwrap();
    let attachment = arrival.attach();
    attachment.append(&chunk(0, &body[..10])).unwrap();
    for elsewhere in [0, 9, 11, u64::MAX] {
        assert_eq!(attachment.append(&chunk(elsewhere, &body[10..20])).unwrap_err(), Refusal::Malformed);
    }
    assert_eq!(attachment.append(&chunk(10, &body[10..])).unwrap().unwrap().body, body);
}

#[tokio::test]
async fn bytes_past_the_end_are_refused() {
    let arrivals = Arrivals::default();
    let attachment = arrivals.open(PEER, open_of(b"12345")).unwrap().attach();
    assert_eq!(attachment.append(&chunk(0, b"123456")).unwrap_err(), Refusal::Malformed);
    assert_eq!(attachment.append(&chunk(0, b"12345")).unwrap().unwrap().body, "12345");
    assert_eq!(attachment.append(&chunk(5, b"6")).unwrap_err(), Refusal::Malformed);
}

#[tokio::test]
async fn a_body_of_no_bytes_is_whole_from_the_start() {
    let attachment = Arrivals::default().open(PEER, open_of(b"")).unwrap().attach();
    assert_eq!(attachment.append(&chunk(0, b"")).unwrap().unwrap().body, "");
}

#[tokio::test]
async fn what_is_announced_is_judged() {
    let arrivals = Arrivals::default();
    let open = open_of(b"body");
    let too_large = BulkOpen { bytes: BULK_BYTES_MAX as u64 + 1, ..open.clone() };
    let expected = Refusal::TooLarge { size: BULK_BYTES_MAX as u64 + 1, max: BULK_BYTES_MAX as u64 };
    assert_eq!(arrivals.open(PEER, too_large).unwrap_err(), expected);
    let header = Bytes::from(vec![0; BULK_HEADER_BYTES_MAX + 1]);
    assert!(matches!(
        arrivals.open(PEER, BulkOpen { header, ..open.clone() }),
        Err(Refusal::TooLarge { .. })
    ));
    let whole = BulkOpen { was_whole: true, ..open.clone() };
    assert_eq!(arrivals.open(PEER, whole).unwrap_err(), Refusal::Forgotten);

    arrivals.open(PEER, open.clone()).unwrap();
    let contradicting = BulkOpen { header: Bytes::from_static(b"another"), ..open.clone() };
    assert_eq!(arrivals.open(PEER, contradicting).unwrap_err(), Refusal::Malformed);
    // Another peer's transfer of the same id is another transfer.
    arrivals.open(PEER, open.clone()).unwrap().attach().append(&chunk(0, b"bo")).unwrap();
    assert_eq!(arrivals.open(OTHER, open).unwrap().attach().offset(), 0);
}

#[tokio::test]
async fn a_peer_holds_no_more_than_its_share() {
    let arrivals = Arrivals::default();
    let large = || BulkOpen { bytes: BULK_BYTES_MAX as u64, ..open_of(b"") };
    let held: Vec<_> = (0..2).map(|_| arrivals.open(PEER, large()).unwrap().attach()).collect();
    assert_eq!(arrivals.open(PEER, open_of(b"x")).unwrap_err(), Refusal::Busy);
    arrivals.open(OTHER, large()).expect("another peer has its own share");
    drop(held);
    arrivals.open(PEER, large()).expect("interrupted transfers make room");

    let many: Vec<_> =
        (0..TRANSFERS_MAX).map(|_| arrivals.open(PEER, open_of(b"x")).unwrap().attach()).collect();
    assert_eq!(arrivals.open(PEER, open_of(b"x")).unwrap_err(), Refusal::Busy);
    drop(many);
    assert!(lock(&arrivals.table).len() <= TRANSFERS_MAX + 1);
}

#[tokio::test]
async fn only_what_nobody_works_on_expires() {
    let arrivals = Arrivals { kept: Duration::ZERO, table: Mutex::default() };
    let body = body();
    let interrupted = arrivals.open(PEER, open_of(&body)).unwrap().attach();
    interrupted.append(&chunk(0, &body[..10])).unwrap();
    let handled =
        arrivals.open(PEER, open_of(b"x")).unwrap().attach().append(&chunk(0, b"x")).unwrap().unwrap();
    arrivals.sweep();
    assert_eq!(lock(&arrivals.table).len(), 2, "a stream works on one, the handler on the other");

    drop(interrupted);
    arrivals.sweep();
    assert_eq!(lock(&arrivals.table).len(), 1);

    // The handler died without an answer.
    drop(handled);
    arrivals.sweep();
    assert_eq!(lock(&arrivals.table).len(), 0);
}
