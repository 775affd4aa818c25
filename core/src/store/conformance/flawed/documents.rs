//! The documents of a flawed store.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Flaw, Flawed};
use crate::store::{AuthFlowError, AuthFlowUpdate, StoreDocuments, StoreError};

#[async_trait]
impl StoreDocuments for Flawed {
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError> {
        self.inner.put_roster(roster).await
    }

    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.inner.roster().await
    }

    fn auth_authority_key(&self) -> Option<String> {
        self.inner.auth_authority_key()
    }

    async fn persist_auth_flow(&self, payload: Bytes) -> Result<(), StoreError> {
        self.inner.persist_auth_flow(payload).await
    }

    async fn load_auth_flow(&self) -> Result<Option<Bytes>, StoreError> {
        self.inner.load_auth_flow().await
    }

    async fn update_auth_flow(&self, update: AuthFlowUpdate) -> Result<Bytes, AuthFlowError> {
        if self.flaw != Flaw::UpdatesTorn {
            return self.inner.update_auth_flow(update).await;
        }
        let current = self.inner.load_auth_flow().await?;
        tokio::task::yield_now().await;
        let next = update(current.as_deref()).map_err(|reason| AuthFlowError::Refused { reason })?;
        tokio::task::yield_now().await;
        self.inner.persist_auth_flow(Bytes::from(next.clone())).await?;
        Ok(Bytes::from(next))
    }
}
