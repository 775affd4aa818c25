//! `DATA/head`: what this host knows of how far its store has come, kept outside the store.
//!
//! A store that was put back from a backup looks whole, and may have lost that agents moved away. The note is written when
//! the host joins and when an agent's home moves, and the store is compared with it before the host joins again.
//!
//! The file: magic `GWHD`, format version (u8), BLAKE3 of the rest (32 bytes), then postcard of the mark.

use std::io::{self, Write};
use std::sync::Arc;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::store::{Relation, RuntimeStore, StoreError, StoreMark};
use tokio::sync::Mutex;

const FILE: &str = "head";
const MAGIC: [u8; 4] = *b"GWHD";
const FORMAT: u8 = 1;
/// More than any note of this format.
const BYTES_MAX: u64 = 256;

/// Why a host does not start on a store, or can't note how far it is.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The store is older than the note.
    #[error(
        "the store is older than what this host has seen of it (noted in DATA/head: epoch {}, session {}, event {}; the \
         store: epoch {}, session {}, event {}): it is a backup that was put back, and agents in it may have moved away \
         since. Put the newer file back; or start once with `serve --restored`, which suspends its agents until you \
         resume each",
        noted.epoch, noted.incarnation, noted.event, found.epoch, found.incarnation, found.event
    )]
    Behind {
        /// What was noted.
        noted: StoreMark,
        /// What the store is.
        found: StoreMark,
    },
    /// Another store than the note is about.
    #[error(
        "DATA/head is about store {}, this is store {}: give the data directory its own store back; or, if this host is \
         to use another store from now on, start once with `serve --restored`, which suspends the agents in it until you \
         resume each",
        noted.store, found.store
    )]
    Foreign {
        /// What was noted.
        noted: StoreMark,
        /// What the store is.
        found: StoreMark,
    },
    /// The store's file is gone.
    #[error(
        "DATA/head is about store {}, and {path} does not exist: put the store back; or, to begin with an empty one, remove \
         DATA/head",
        noted.store
    )]
    Missing {
        /// What was noted.
        noted: StoreMark,
        /// Where the store should be.
        path: String,
    },
    /// It is a backup.
    #[error(
        "the store is a backup: start once with `serve --restored`, which suspends its agents until you resume each"
    )]
    Backup,
    /// `--restored` was given and nothing was restored.
    #[error(
        "the store is no backup that was put back: it has all that DATA/head knows of. Start without --restored; or \
         remove the -wal and -shm files beside it, which belong to the file before, if it was put back"
    )]
    NotRestored,
    /// The note is damaged.
    #[error("DATA/head is damaged: {what}. Remove it if you are sure that the store is the newest one")]
    Damaged {
        /// In which way.
        what: &'static str,
    },
    /// The file can't be read or written.
    #[error("cannot {action} DATA/head")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The note of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Head {
    dir: Arc<Dir>,
    /// What the file says; writes go one at a time.
    noted: Arc<Mutex<Option<StoreMark>>>,
}

impl Head {
    /// Reads the note of a data directory.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn open(dir: Dir) -> Result<Self, HeadError> {
        let noted = read(&dir)?;
        Ok(Self { dir: Arc::new(dir), noted: Arc::new(Mutex::new(noted)) })
    }

    /// What was noted last.
    pub async fn noted(&self) -> Option<StoreMark> {
        *self.noted.lock().await
    }

    /// Decides whether a host may join a store, and whether it must be restored first: the mark to restore it above.
    ///
    /// # Errors
    /// `Behind`, `Foreign`, `Backup`; with `is_restoring` only `NotRestored`.
    pub async fn check(
        &self,
        found: StoreMark,
        is_backup: bool,
        is_restoring: bool,
    ) -> Result<Option<StoreMark>, HeadError> {
        let noted = self.noted().await;
        let relation = noted.map(|noted| (found.relation_to(&noted), noted));
        if is_restoring {
            return match relation {
                Some((Relation::Current, _)) if !is_backup => Err(HeadError::NotRestored),
                Some((Relation::Foreign, _)) | None => Ok(Some(found)),
                Some((_, noted)) => Ok(Some(noted)),
            };
        }
        match relation {
            Some((Relation::Behind, noted)) => Err(HeadError::Behind { noted, found }),
            Some((Relation::Foreign, noted)) => Err(HeadError::Foreign { noted, found }),
            _ if is_backup => Err(HeadError::Backup),
            Some((Relation::Current, _)) | None => Ok(None),
        }
    }

    /// Notes how far the store is now, durably. Concurrent calls share a write where one covers both.
    ///
    /// # Errors
    /// `Io`, `Store`; the note is as it was, or the new one.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the note is the one before or the new one.
    pub async fn note(&self, store: &dyn RuntimeStore) -> Result<(), HeadError> {
        let needed = store.mark().await?;
        let mut noted = self.noted.lock().await;
        if noted.is_some_and(|noted| noted.relation_to(&needed) == Relation::Current) {
            return Ok(());
        }
        let mark = store.mark().await?;
        let dir = Arc::clone(&self.dir);
        let written = tokio::task::spawn_blocking(move || write(&dir, &mark)).await;
        written
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| HeadError::Io { action: "write", source })?;
        *noted = Some(mark);
        Ok(())
    }
}

fn read(dir: &Dir) -> Result<Option<StoreMark>, HeadError> {
    let failed = |source| HeadError::Io { action: "read", source };
    let bytes = match dir.metadata(FILE) {
        Ok(file) if file.len() > BYTES_MAX => return Err(HeadError::Damaged { what: "it is too large" }),
        Ok(_) => dir.read(FILE).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    parse(&bytes).map(Some).map_err(|what| HeadError::Damaged { what })
}

fn parse(bytes: &[u8]) -> Result<StoreMark, &'static str> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or("it does not begin with GWHD")?;
    let (format, rest) = rest.split_first().ok_or("it is cut off")?;
    if *format != FORMAT {
        return Err("another version of godwit wrote it");
    }
    let (digest, body) = rest.split_first_chunk::<32>().ok_or("it is cut off")?;
    if Digest::of(body) != Digest(*digest) {
        return Err("its digest does not match");
    }
    match postcard::take_from_bytes(body) {
        Ok((mark, [])) => Ok(mark),
        _ => Err("it holds something else"),
    }
}

fn to_bytes(mark: &StoreMark) -> Vec<u8> {
    let body = postcard::to_stdvec(mark).expect("a mark has no type that postcard can't write");
    [&MAGIC[..], &[FORMAT], &Digest::of(&body).0, &body].concat()
}

fn write(dir: &Dir, mark: &StoreMark) -> io::Result<()> {
    let temporary = format!("{FILE}.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = dir.open_with(&temporary, &options)?;
    file.write_all(&to_bytes(mark))?;
    file.sync_all()?;
    failpoint::hit("head.before-rename");
    dir.rename(&temporary, dir, FILE)?;
    failpoint::hit("head.after-rename");
    dir.open(".")?.sync_all()
}

#[cfg(test)]
mod tests;
