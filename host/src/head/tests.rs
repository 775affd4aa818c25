//! Tests of the note.

use godwit_core::id::{Incarnation, StoreEpoch, StoreId};
use godwit_core::store::SessionRequest;
use godwit_core::store::memory::MemoryStore;
use godwit_core::time::SystemClock;

use super::*;

fn dir() -> (tempfile::TempDir, Dir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
    (folder, dir)
}

fn mark(store: u8, epoch: u64, incarnation: u64, event: u64) -> StoreMark {
    StoreMark {
        store: StoreId([store; 16]),
        epoch: StoreEpoch(epoch),
        incarnation: Incarnation(incarnation),
        event,
    }
}

async fn join(store: &MemoryStore) {
    let address = "127.0.0.1:1".parse().unwrap();
    let request = SessionRequest {
        host: godwit_core::id::HostId([1; 32]),
        name: "a".into(),
        api: address,
        mesh: address,
        ttl: std::time::Duration::from_secs(1),
        now_ms: 1,
    };
    store.join(request).await.unwrap();
}

#[tokio::test]
async fn what_was_noted_is_read_back_and_never_goes_back() {
    let (_folder, dir) = dir();
    let store = MemoryStore::exclusive(Arc::new(SystemClock));
    let head = Head::open(dir.try_clone().unwrap()).unwrap();
    assert_eq!(head.noted().await, None);
    for _ in 0..3 {
        join(&store).await;
        head.note(&store).await.unwrap();
        let again = Head::open(dir.try_clone().unwrap()).unwrap();
        assert_eq!(again.noted().await, Some(store.mark().await.unwrap()));
    }
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_is_noticed() {
    let (_folder, dir) = dir();
    let whole = to_bytes(&mark(1, 2, 3, 400));
    assert_eq!(parse(&whole), Ok(mark(1, 2, 3, 400)));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert!(parse(&flipped).is_err(), "byte {at}");
        assert!(parse(&whole[..at]).is_err(), "cut at {at}");
    }
    assert!(parse(&[&whole[..], &[0]].concat()).is_err());
    dir.write(FILE, vec![0; 1_000]).unwrap();
    assert!(matches!(Head::open(dir), Err(HeadError::Damaged { .. })));
}

#[tokio::test]
async fn only_a_restored_store_needs_to_be_restored() {
    let (_folder, dir) = dir();
    let noted = mark(1, 1, 10, 100);
    dir.write(FILE, to_bytes(&noted)).unwrap();
    let head = Head::open(dir).unwrap();
    let name = |decided: Result<Option<StoreMark>, HeadError>| match decided {
        Ok(None) => "join",
        Ok(Some(above)) if above == noted => "restore above the note",
        Ok(Some(_)) => "restore",
        Err(HeadError::Behind { .. }) => "behind",
        Err(HeadError::Foreign { .. }) => "foreign",
        Err(HeadError::Backup) => "backup",
        Err(HeadError::NotRestored) => "not restored",
        Err(error) => panic!("{error}"),
    };
    let (current, behind, foreign) = (mark(1, 1, 10, 100), mark(1, 1, 10, 99), mark(2, 1, 10, 100));
    let cases = [
        (current, false, false, "join"),
        (current, true, false, "backup"),
        (current, false, true, "not restored"),
        (current, true, true, "restore above the note"),
        (behind, false, false, "behind"),
        (behind, true, false, "behind"),
        (behind, false, true, "restore above the note"),
        (foreign, false, false, "foreign"),
        (foreign, false, true, "restore"),
    ];
    for (found, is_backup, is_restoring, expected) in cases {
        let decided = name(head.check(found, is_backup, is_restoring).await);
        assert_eq!(decided, expected, "{found:?} {is_backup} {is_restoring}");
    }
}

#[tokio::test]
async fn without_a_note_only_a_backup_is_refused() {
    let (_folder, dir) = dir();
    let head = Head::open(dir).unwrap();
    let found = mark(1, 1, 1, 1);
    assert!(matches!(head.check(found, false, false).await, Ok(None)));
    assert!(matches!(head.check(found, true, false).await, Err(HeadError::Backup)));
    assert!(matches!(head.check(found, false, true).await, Ok(Some(_))));
}
