//! The suite that every runtime store passes, in both modes.

use std::sync::Arc;

use async_trait::async_trait;
use godwit_core::store::conformance::{self, StoreFactory};
use godwit_core::store::{RuntimeStore, Sharing};
use godwit_core::time::Clock;
use tempfile::TempDir;

use crate::sqlite::{SqliteMode, SqliteStore};

/// Opens stores as files of one directory.
struct Files {
    directory: TempDir,
}

#[async_trait]
impl StoreFactory for Files {
    async fn open(&self, name: &str, sharing: Sharing, clock: Arc<dyn Clock>) -> Arc<dyn RuntimeStore> {
        let mode = match sharing {
            Sharing::Exclusive => SqliteMode::Exclusive,
            Sharing::Shared => SqliteMode::Shared,
        };
        let path = self.directory.path().join(format!("{name}.db"));
        SqliteStore::open(&path, mode, clock).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honours_the_contract() {
    let directory = TempDir::new().unwrap();
    conformance::run(Arc::new(Files { directory })).await;
}
