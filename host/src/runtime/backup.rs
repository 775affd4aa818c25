//! A backup of the store, taken while it is used.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use godwit_core::digest::Digest;
use godwit_core::store::StoreMark;

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file that is on this machine's disk as long as it is held: it has no name any more.
#[derive(Debug)]
pub struct Staged {
    /// The file, at its beginning.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    /// BLAKE3 of it.
    pub digest: Digest,
}

impl Runtime {
    /// Takes a backup of this host's store.
    ///
    /// # Errors
    /// `Unavailable` when there is no room or no place for it; nothing is left behind.
    pub async fn backup(&self) -> Result<(Staged, StoreMark), CallError> {
        let mark = self.inner().store.mark().await.map_err(store_error)?;
        let path = self.scratch_file("backup")?;
        self.inner().store.backup(&path).await.map_err(store_error)?;
        let staged = stage(path).await?;
        tracing::info!(bytes = staged.bytes, epoch = %mark.epoch, event = mark.event, "backup taken");
        Ok((staged, mark))
    }

    /// A path for a file in the making.
    pub(super) fn scratch_file(&self, what: &str) -> Result<PathBuf, CallError> {
        let Some(scratch) = &self.inner().scratch else {
            return Err(CallError::Unavailable {
                reason: "the host has no directory for files in the making".into(),
            });
        };
        let random: [u8; 8] = self.inner().clock.random();
        Ok(scratch.join(format!("{what}-{:016x}", u64::from_be_bytes(random))))
    }

    /// A file in the making that has no name already.
    ///
    /// # Errors
    /// `Unavailable` when there is no place for it.
    pub fn scratch_unnamed(&self, what: &str) -> Result<File, CallError> {
        let path = self.scratch_file(what)?;
        let made = File::options().read(true).write(true).create_new(true).open(&path);
        made.and_then(|file| std::fs::remove_file(&path).map(|()| file))
            .map_err(|error| CallError::Unavailable { reason: format!("no file can be made: {error}") })
    }
}

/// Takes a file's name away and reads it once.
pub(super) async fn stage(path: PathBuf) -> Result<Staged, CallError> {
    let opened = tokio::task::spawn_blocking(move || take(&path)).await;
    let failed = |error: std::io::Error| CallError::Unavailable {
        reason: format!("the file can't be read back: {error}"),
    };
    opened.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)
}

/// Opens a file, takes its name away, and reads it once.
fn take(path: &Path) -> std::io::Result<Staged> {
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
    Ok(Staged { file, bytes, digest: Digest(*hasher.finalize().as_bytes()) })
}
