//! Errors inside the store, and what callers of the port see of them.

use std::path::PathBuf;

use godwit_core::store::StoreError;
use rusqlite::ErrorCode;

/// What ends a job early. Everything it wrote is undone.
#[derive(Debug)]
pub(super) enum Fail {
    /// An answer of the contract.
    Store(StoreError),
    /// The engine failed.
    Engine(rusqlite::Error),
}

pub(super) type Fallible<T> = Result<T, Fail>;

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Fail> for StoreError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Store(error) => error,
            Fail::Engine(error) => of_engine(&error),
        }
    }
}

/// Stored bytes that can't be what was written.
pub(super) fn corrupt(what: impl Into<String>) -> Fail {
    Fail::Store(StoreError::Corrupt { what: what.into() })
}

/// Something else is in the way.
pub(super) fn conflict(what: impl Into<String>) -> Fail {
    Fail::Store(StoreError::Conflict { what: what.into() })
}

/// Whether the engine met an I/O error: afterwards the page cache may show what the disk lacks.
pub(super) fn is_io(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

/// Whether an error ended its statement alone: a value that can't be bound or read, or a broken constraint.
pub(super) fn spares_transaction(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), None | Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig))
}

/// What an engine error means to a caller when nothing was written.
pub(super) fn of_engine(error: &rusqlite::Error) -> StoreError {
    let reason = error.to_string();
    match error {
        rusqlite::Error::ToSqlConversionFailure(_) => StoreError::Conflict {
            what: "a number is above 2^63 - 1, the highest that this store holds".to_owned(),
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt { what: reason },
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full,
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted,
            ) => StoreError::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt { what: format!("database file: {reason}") }
            }
            Some(ErrorCode::ConstraintViolation) => StoreError::Conflict { what: reason },
            Some(ErrorCode::ReadOnly) => {
                StoreError::Unsupported { what: "writing: it was opened for reading" }
            }
            Some(ErrorCode::TooBig) => StoreError::Unsupported { what: "a value above 1 GB" },
            _ => StoreError::Closed { reason },
        },
    }
}

/// Why a store file can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "{path} is in use by {}: stop it, or open the store as shared in every process (sqlite:PATH?shared)",
        named(.pids)
    )]
    Locked {
        /// The database file.
        path: PathBuf,
        /// Living processes that said in the lock file that they have it open; empty when none is known.
        pids: Vec<u32>,
    },
    /// A newer build wrote it.
    #[error("{path} has schema {found}, this build knows up to {known}: use the newer godwit")]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema of this build.
        known: u32,
    },
    /// Its schema must be brought up to date by a process that is alone on the file.
    #[error(
        "{path} has schema {found} and needs {known}: stop every process that has it open, then start one"
    )]
    OlderSchema {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The schema of this build.
        known: u32,
    },
    /// It is something else.
    #[error("{path} is not a godwit store: {reason}")]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        reason: String,
    },
    /// It was put in the place of a file whose log is still there.
    #[error(
        "{path} is a backup that was put back, and {log} belongs to the file before it: remove that log and the -shm beside \
         it, or put the file before back"
    )]
    ForeignLog {
        /// The database file.
        path: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// The linked SQLite has known faults.
    #[error("SQLite {found} is linked, {needed} or newer is needed")]
    OldEngine {
        /// Its version.
        found: &'static str,
        /// The oldest that is accepted.
        needed: &'static str,
    },
    /// A setting that durability rests on did not take.
    #[error("{path} can't be used: {name} is {found}, needed is {needed}")]
    Setting {
        /// The database file.
        path: PathBuf,
        /// Name of the pragma.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        needed: &'static str,
    },
    /// Locks and shared memory don't work there.
    #[error("{path} is on a network file system ({kind}): put the store on a local disk")]
    NetworkFileSystem {
        /// The database file.
        path: PathBuf,
        /// Which.
        kind: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot {action} {path}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What a caller of the port sees when another file could not be written.
    pub(super) fn into_store_error(self) -> StoreError {
        match &self {
            Self::Engine { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                StoreError::Full
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => StoreError::Full,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
                StoreError::Conflict { what: format!("{self}: {source}") }
            }
            _ => {
                let mut reason = self.to_string();
                if let Some(source) = std::error::Error::source(&self) {
                    reason = format!("{reason}: {source}");
                }
                StoreError::Closed { reason }
            }
        }
    }
}

fn named(pids: &[u32]) -> String {
    match pids {
        [] => "another process".to_owned(),
        [pid] => format!("process {pid}"),
        many => {
            let list: Vec<String> = many.iter().map(u32::to_string).collect();
            format!("processes {}", list.join(", "))
        }
    }
}
