//! Auth flows: one payload per store with the sign-ins that are under way, which only its user understands.
//!
//! It holds secrets, so a store that outlives the process seals it. Whoever admits, counts or consumes flows does so in
//! `update_auth_flow`, which reads, computes and writes in one transaction; reading and persisting apart would let two
//! callers consume one flow.

use crate::store::error::StoreError;

/// Computes the next payload from the current one, `None` before the first. It runs at most once, in the middle of a write:
/// it must neither wait nor call the store.
///
/// # Errors
/// Why the payload stays as it is.
pub type AuthFlowUpdate = Box<dyn FnOnce(Option<&[u8]>) -> Result<Vec<u8>, String> + Send>;

/// Why the payload was not replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFlowError {
    /// The caller's closure said no, or panicked. Nothing was written.
    #[error("auth flow update refused: {reason}")]
    Refused {
        /// In the closure's words.
        reason: String,
    },
    /// The store refused or failed. With `Unknown` it may have been written.
    #[error(transparent)]
    Store(#[from] StoreError),
}
