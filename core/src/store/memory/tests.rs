//! The reference implementation honours the contract, and the suite notices stores that do not.

use std::collections::HashMap;

use super::*;
use crate::store::conformance::{self, StoreFactory};

/// Stores that live as long as the factory.
#[derive(Default)]
struct Memory {
    stores: Mutex<HashMap<String, MemoryStore>>,
}

#[async_trait]
impl StoreFactory for Memory {
    async fn open(&self, name: &str, sharing: Sharing, clock: Arc<dyn Clock>) -> Arc<dyn RuntimeStore> {
        let mut stores = self.stores.lock().unwrap();
        let store = stores
            .entry(name.to_owned())
            .or_insert_with(|| MemoryStore::new(sharing, clock));
        Arc::new(store.clone())
    }
}

#[tokio::test]
async fn honours_the_contract() {
    conformance::run(Arc::new(Memory::default())).await;
}
