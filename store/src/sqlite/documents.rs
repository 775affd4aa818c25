//! `StoreDocuments`: each method as one write or one read.

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::store::{AuthFlowError, AuthFlowUpdate, StoreDocuments, StoreError};

use super::{SqliteStore, auth, edges};

#[async_trait]
impl StoreDocuments for SqliteStore {
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError> {
        self.write(move |tx| edges::put_roster(tx, &roster)).await
    }

    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.read(edges::roster).await
    }

    fn auth_authority_key(&self) -> Option<String> {
        self.env.vault.is_some().then(|| format!("store:{}", self.id))
    }

    async fn persist_auth_flow(&self, payload: Bytes) -> Result<(), StoreError> {
        let vault = self.vault()?;
        self.write(move |tx| auth::persist(tx, &vault, &payload)).await
    }

    async fn load_auth_flow(&self) -> Result<Option<Bytes>, StoreError> {
        let vault = self.vault()?;
        self.read(move |conn| auth::load(conn, &vault)).await
    }

    async fn update_auth_flow(&self, update: AuthFlowUpdate) -> Result<Bytes, AuthFlowError> {
        let vault = self.vault()?;
        let mut once = auth::Once::new(update);
        let answer = self.write(move |tx| auth::update(tx, &vault, &mut once)).await?;
        answer.map_err(|reason| AuthFlowError::Refused { reason })
    }
}
