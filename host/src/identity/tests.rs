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
