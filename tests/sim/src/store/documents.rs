//! The documents of the simulated store.

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::store::{StoreDocuments, StoreError};

use super::{FaultyStore, Way};
use crate::world::now;

#[async_trait]
impl StoreDocuments for FaultyStore {
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError> {
        self.call("put_roster", Way::Write, move |world, _| now(world.memory.put_roster(roster))).await
    }

    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.call("roster", Way::Read, move |world, _| now(world.memory.roster())).await
    }
}
