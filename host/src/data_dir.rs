//! The data directory: that it is this process's alone, and why a file in it can't be used.

use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, File};
use rustix::fs::{FlockOperation, flock};

const LOCK: &str = "lock";
/// Files in the making.
const SCRATCH: &str = "scratch";

/// Why the data directory, or a file in it, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// One directory, one host.
    #[error("another host runs on the data directory {}", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// A secret that others can read is none.
    #[error("{} is readable by others (mode {mode:o}): chmod 600 it", path.display())]
    ReadableByOthers {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file that holds something else than it should.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl DataDirError {
    /// Says what was tried when the system refused it.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Holds the directory until the file is dropped.
///
/// # Errors
/// `InUse` while another host holds it, also one of this process; `Io`.
pub(crate) fn lock(dir: &Dir, data: &Path) -> Result<File, DataDirError> {
    let file = dir.create(LOCK).map_err(DataDirError::io("write", data.join(LOCK)))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(DataDirError::InUse { path: data.to_owned() }),
    }
}

/// A directory of this process for files in the making; what a former one left there goes.
///
/// # Errors
/// `Io`.
pub(crate) fn empty_scratch(dir: &Dir, data: &Path) -> Result<PathBuf, DataDirError> {
    let path = data.join(SCRATCH);
    match dir.remove_dir_all(SCRATCH) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DataDirError::io("empty", path)(error)),
    }
    dir.create_dir(SCRATCH).map_err(DataDirError::io("make", path.clone()))?;
    Ok(path)
}
