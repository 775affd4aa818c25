//! A backup of the store, taken while it is used.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use godwit_core::digest::Digest;
use godwit_core::store::StoreMark;

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A backup that is on this machine's disk as long as it is held: its file has no name any more.
#[derive(Debug)]
pub struct Backup {
    /// The copy, at its beginning.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    /// BLAKE3 of it.
    pub digest: Digest,
    /// How far the store had come at least.
    pub mark: StoreMark,
}

impl Runtime {
    /// Takes a backup of this host's store.
    ///
    /// # Errors
    /// `Unavailable` when there is no room or no place for it; nothing is left behind.
    pub async fn backup(&self) -> Result<Backup, CallError> {
        let Some(scratch) = &self.inner().scratch else {
            return Err(CallError::Unavailable { reason: "the host has no directory for backups".into() });
        };
        let mark = self.inner().store.mark().await.map_err(store_error)?;
        let [a, b] = self.inner().clock.random();
        let path = scratch.join(format!("backup-{}-{:04x}.db", self.now_ms(), u16::from_be_bytes([a, b])));
        self.inner().store.backup(&path).await.map_err(store_error)?;
        let opened = tokio::task::spawn_blocking(move || take(&path)).await;
        let failed = |error: std::io::Error| CallError::Unavailable {
            reason: format!("the backup can't be read back: {error}"),
        };
        let (file, bytes, digest) =
            opened.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)?;
        tracing::info!(bytes, epoch = %mark.epoch, event = mark.event, "backup taken");
        Ok(Backup { file, bytes, digest, mark })
    }
}

/// Opens a file, takes its name away, and reads it once.
fn take(path: &Path) -> std::io::Result<(File, u64, Digest)> {
    let opened = File::open(path);
    std::fs::remove_file(path)?;
    let mut file = opened?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
    file.rewind()?;
    Ok((file, bytes, Digest(*hasher.finalize().as_bytes())))
}
