//! Tests of the list of peers.

use std::sync::Arc;

use cap_std::ambient_authority;

use super::*;

const A: HostId = HostId([1; 32]);
const B: HostId = HostId([2; 32]);
const C: HostId = HostId([3; 32]);

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn open(place: &tempfile::TempDir, configured: &[HostId]) -> Result<PeerBook, DataDirError> {
    let dir = Dir::open_ambient_dir(place.path(), ambient_authority()).unwrap();
    PeerBook::open(dir, configured.iter().map(|key| (*key, address(1))), None)
}

fn keys(book: &PeerBook) -> Vec<HostId> {
    book.peers().into_keys().collect()
}

#[test]
fn peers_outlive_the_process_and_a_damaged_list_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let book = open(&place, &[]).unwrap();
    book.insert(A, address(7701)).unwrap();
    book.insert(B, address(7701)).unwrap();
    book.remove(A).unwrap();
    assert_eq!(open(&place, &[]).unwrap().peers(), Peers::from([(B, address(7701))]));
    for nonsense in ["nonsense\n", "!nonsense\n"] {
        std::fs::write(place.path().join(FILE), nonsense).unwrap();
        assert!(format!("{:#}", open(&place, &[]).unwrap_err()).contains("nonsense"));
    }
}

#[test]
fn a_configured_peer_that_was_removed_stays_so_until_it_is_added() {
    let place = tempfile::tempdir().unwrap();
    open(&place, &[A, B]).unwrap().remove(A).unwrap();
    let again = open(&place, &[A, B]).unwrap();
    assert_eq!(keys(&again), [B]);
    again.insert(A, address(2)).unwrap();
    let configured = open(&place, &[A, B]).unwrap().peers();
    assert_eq!(configured, Peers::from([(A, address(1)), (B, address(1))]), "and listens where that says");
    assert_eq!(open(&place, &[]).unwrap().peers(), Peers::from([(A, address(2))]));
}

#[test]
fn the_configuration_is_read_again_beside_what_operators_have_said() {
    let place = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(place.path(), ambient_authority()).unwrap();
    let configured = Arc::new(Mutex::new(Ok(vec![(B, address(2)), (C, address(3))])));
    let read = configured.clone();
    let read: ReadPeers = Box::new(move || read.lock().unwrap().clone());
    let book = PeerBook::open(dir, [(A, address(1)), (B, address(1))], Some(read)).unwrap();
    book.insert(A, address(9)).unwrap();
    book.remove(B).unwrap();
    let (before, after) = book.reload().unwrap();
    assert_eq!(before, Peers::from([(A, address(1))]));
    assert_eq!(after, Peers::from([(A, address(9)), (C, address(3))]), "struck out is struck out");
    *configured.lock().unwrap() = Err("it is a mess".to_owned());
    assert_eq!(book.reload(), Err("it is a mess".to_owned()));
    assert_eq!(book.peers(), after);
}
