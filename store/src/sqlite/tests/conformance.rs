//! The suite that every runtime store passes, in both modes.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_core::store::conformance::{self, Opening, StoreFactory};
use godwit_core::store::{RuntimeStore, Sharing};
use tempfile::TempDir;

use crate::sqlite::{SealKey, SqliteMode, SqliteStore};

/// Opens stores as files of one directory.
struct Files {
    directory: TempDir,
    /// Whether cases that open exclusive stores get shared ones.
    is_always_shared: bool,
}

impl Files {
    fn new(is_always_shared: bool) -> Arc<Self> {
        Arc::new(Self { directory: TempDir::new().unwrap(), is_always_shared })
    }
}

#[async_trait]
impl StoreFactory for Files {
    async fn open(&self, name: &str, opening: Opening) -> Arc<dyn RuntimeStore> {
        let Opening { sharing, clock, quotas } = opening;
        let mode = match sharing {
            Sharing::Exclusive if !self.is_always_shared => SqliteMode::Exclusive,
            Sharing::Exclusive | Sharing::Shared => SqliteMode::Shared,
        };
        let path = self.directory.path().join(format!("{name}.db"));
        SqliteStore::open_sealing(&path, mode, clock, SealKey::new([7; 32]), quotas).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honours_the_contract() {
    conformance::run(Files::new(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honours_the_contract_when_every_store_is_shared() {
    let failures = conformance::failures(Files::new(true)).await;
    let failed: Vec<&str> = failures.iter().map(|failure| failure.case).collect();
    // Exactly the cases that rest on a join ending all other sessions and what they receive, or on a session without a ttl.
    let expected = [
        "sessions::an_exclusive_session_never_expires",
        "sessions::joining_an_exclusive_store_ends_all_other_sessions",
        "standby::a_part_of_a_copy_does_not",
        "handoff::a_handoff_is_aborted_by_a_later_session",
        "handoff::adoption_takes_up_the_granted_lease_once",
    ];
    assert_eq!(failed, expected, "{failures:?}");
}
