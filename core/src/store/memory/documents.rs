//! The roster and the auth flows.

use async_trait::async_trait;
use bytes::Bytes;

use super::MemoryStore;
use crate::store::{AuthFlowError, AuthFlowUpdate, StoreDocuments, StoreError};

#[async_trait]
impl StoreDocuments for MemoryStore {
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError> {
        self.tables().put_roster(roster, self.clock.wall_ms())
    }

    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        Ok(self.tables().roster.clone())
    }

    fn auth_authority_key(&self) -> Option<String> {
        Some(format!("store:{}", self.tables().id))
    }

    async fn persist_auth_flow(&self, payload: Bytes) -> Result<(), StoreError> {
        self.tables().persist_auth_flow(payload)
    }

    async fn load_auth_flow(&self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables().auth_flow.clone())
    }

    async fn update_auth_flow(&self, update: AuthFlowUpdate) -> Result<Bytes, AuthFlowError> {
        self.tables().update_auth_flow(update)
    }
}
