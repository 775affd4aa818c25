//! Tests of the host's key file.

use super::*;

#[test]
fn a_key_is_made_once_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let made = HostKey::load_or_create(&data).unwrap().id();
    assert_eq!(HostKey::load_or_create(&data).unwrap().id(), made);
    let mode = std::fs::metadata(data.join(KEY_FILE)).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}

#[test]
fn a_damaged_or_open_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    HostKey::load_or_create(dir.path()).unwrap();
    let path = dir.path().join(KEY_FILE);
    std::fs::write(&path, "not a key").unwrap();
    assert!(format!("{:#}", HostKey::load_or_create(dir.path()).unwrap_err()).contains("damaged"));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(format!("{:#}", HostKey::load_or_create(dir.path()).unwrap_err()).contains("readable by others"));
}

#[test]
fn hosts_that_share_a_store_seal_under_one_key_and_others_under_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let host = |name: &str| HostKey::load_or_create(&dir.path().join(name)).unwrap();
    let (a, b, store) = (host("a"), host("b"), dir.path().join("store.db"));
    let (alone_a, alone_b) = (a.seal_key_of(&store, false).unwrap(), b.seal_key_of(&store, false).unwrap());
    assert_ne!(alone_a, alone_b);
    assert!(!dir.path().join("store.db.seal").exists());
    assert_eq!(a.seal_key_of(&store, true).unwrap(), alone_a, "what it has sealed alone it opens");
    assert_eq!(b.seal_key_of(&store, true).unwrap(), alone_a);
    assert_eq!(b.seal_key_of(&store, false).unwrap(), alone_a, "also when it is alone now");
    let mode = std::fs::metadata(dir.path().join("store.db.seal")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left over");
}
