//! What a store keeps for its hosts that belongs to no agent, and of which it understands nothing: the roster, and one payload
//! with all auth flows. Part of the contract of `store`.

use async_trait::async_trait;
use bytes::Bytes;

use super::{AuthFlowError, AuthFlowUpdate, StoreError};

/// The documents of a store.
#[async_trait]
pub trait StoreDocuments: Send + Sync + 'static {
    /// Replaces the roster and appends `RosterChanged`; nothing, when it is so already. Answers its revision, 1.. .
    ///
    /// # Errors
    /// `Full` above `ROSTER_BYTES_MAX`.
    async fn put_roster(&self, roster: Bytes) -> Result<u64, StoreError>;

    /// The roster and its revision, `None` before the first. **R**
    ///
    /// # Errors
    /// `Corrupt` when its bytes are damaged.
    async fn roster(&self) -> Result<Option<(u64, Bytes)>, StoreError>;

    /// Names the store's auth flows for what a process keeps in memory about them: the same from every handle to the same
    /// store. `None` when the store keeps none.
    fn auth_authority_key(&self) -> Option<String> {
        None
    }

    /// Replaces the payload of auth flows, whatever it was.
    ///
    /// # Errors
    /// `Full` above `AUTH_FLOW_BYTES_MAX`; `Unsupported`.
    async fn persist_auth_flow(&self, _payload: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Unsupported { what: "auth flows" })
    }

    /// The payload of auth flows, `None` before the first. **R**
    ///
    /// # Errors
    /// `Corrupt` when its seal is damaged, `Conflict` when another key seals it; `Unsupported`.
    async fn load_auth_flow(&self) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Unsupported { what: "auth flows" })
    }

    /// Replaces the payload of auth flows by what the closure makes of it, in one transaction, and answers that. An error
    /// of the closure leaves the payload as it is. The closure is called at most once; nobody else writes in between.
    ///
    /// # Errors
    /// `AuthFlowError`; as `load_auth_flow` and `persist_auth_flow`. `Busy` when a try was rolled back and another process
    /// wrote since.
    async fn update_auth_flow(&self, _update: AuthFlowUpdate) -> Result<Bytes, AuthFlowError> {
        Err(StoreError::Unsupported { what: "auth flows" }.into())
    }
}
