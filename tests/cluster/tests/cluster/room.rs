//! Who may use the machine: most tests share it, one that measures has it for itself.

use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static ROOM: RwLock<()> = RwLock::const_new(());

/// Longest wait for anything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Together with others.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    ROOM.read().await
}

/// Alone.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    ROOM.write().await
}
