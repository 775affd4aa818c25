//! Tests of the list of peers.

use cap_std::ambient_authority;

use super::*;

#[test]
fn peers_outlive_the_process_and_a_damaged_list_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let open = || PeerBook::open(Dir::open_ambient_dir(place.path(), ambient_authority()).unwrap());
    let (a, b) = (HostId([1; 32]), HostId([2; 32]));
    let address: SocketAddr = "127.0.0.1:7701".parse().unwrap();
    let book = open().unwrap();
    book.insert(a, address).unwrap();
    book.insert(b, address).unwrap();
    book.remove(a).unwrap();
    assert_eq!(open().unwrap().entries(), vec![(b, address)]);
    std::fs::write(place.path().join(FILE), "nonsense\n").unwrap();
    assert!(format!("{:#}", open().unwrap_err()).contains("nonsense"));
}
