//! The lock file `PATH.lock`: who may have the database open.
//!
//! An exclusive `flock` is held by the one process of an exclusive store, and holding it is that process's session. A
//! shared one is held by each process of a shared store. The file lists their process ids, for people: the lock itself
//! is what counts, and the kernel drops it with the process. The database file itself is never locked by us.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::OpenError;

/// How often, and how long each time, a shared opener waits for another that is starting.
pub(super) const STARTS_WAITED_MAX: u32 = 500;
const START_WAIT: Duration = Duration::from_millis(10);
/// How often an opener looks again for whoever may have prepared the database for it.
const JOINS_MAX: u32 = 8;

/// A held lock. Dropping it releases it.
#[derive(Debug)]
pub(super) struct StoreLock {
    file: File,
    path: PathBuf,
    database: PathBuf,
}

/// `PATH` with a suffix: `PATH.lock`, `PATH-wal`.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl StoreLock {
    /// Opens the lock file of a database without locking it. `None` when there is none and `create` is false.
    pub(super) fn open(database: &Path, create: bool) -> Result<Option<Self>, OpenError> {
        let path = beside(database, ".lock");
        let opened =
            OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if !create && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // A read-only directory: the lock works on a descriptor that can't write, too.
            Err(_) if !create => File::open(&path).map_err(io("open", &path))?,
            Err(error) => return Err(io("open", &path)(error)),
        };
        Ok(Some(Self { file, path, database: database.to_owned() }))
    }

    fn try_lock(&self, operation: FlockOperation) -> Result<bool, OpenError> {
        loop {
            match flock(&self.file, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(io("lock", &self.path)(errno.into())),
            }
        }
    }

    /// Tries to be the only one. On failure no lock is held.
    pub(super) fn try_exclusive(&self) -> Result<bool, OpenError> {
        self.try_lock(FlockOperation::NonBlockingLockExclusive)
    }

    /// Tries to be one of several. On failure no lock is held.
    pub(super) fn try_shared(&self) -> Result<bool, OpenError> {
        self.try_lock(FlockOperation::NonBlockingLockShared)
    }

    /// Takes the exclusive lock.
    ///
    /// # Errors
    /// `Locked` names who has it.
    pub(super) fn exclusive(&self) -> Result<(), OpenError> {
        if self.try_exclusive()? { Ok(()) } else { Err(self.locked()) }
    }

    /// Takes the exclusive lock where nobody has one, otherwise the shared one beside those who use the database. True when
    /// it is the exclusive one.
    ///
    /// Whoever kept this opener waiting may be gone by now and have prepared nothing: it only looked, or was refused. So
    /// the shared lock is kept only beside somebody who signed. Whose processes can't be seen from here has none that
    /// lives, and after a few tries the lock has to do.
    ///
    /// # Errors
    /// `Locked` names who has it.
    pub(super) fn join(&self, waits: u32) -> Result<bool, OpenError> {
        for _ in 0..JOINS_MAX {
            if self.try_exclusive()? {
                return Ok(true);
            }
            self.shared_within(waits)?;
            if !living_signers(&self.path).is_empty() {
                return Ok(false);
            }
            self.release()?;
        }
        self.shared_within(waits)?;
        Ok(false)
    }

    /// Takes the shared lock. Waits a while, because another shared opener is alone for as long as it starts.
    ///
    /// # Errors
    /// `Locked` names who has it.
    pub(super) fn shared(&self) -> Result<(), OpenError> {
        self.shared_within(STARTS_WAITED_MAX)
    }

    fn shared_within(&self, waits: u32) -> Result<(), OpenError> {
        for _ in 0..waits {
            if self.try_shared()? {
                return Ok(());
            }
            std::thread::sleep(START_WAIT);
        }
        Err(self.locked())
    }

    /// Releases the lock and keeps the file open.
    pub(super) fn release(&self) -> Result<(), OpenError> {
        self.try_lock(FlockOperation::Unlock).map(drop)
    }

    /// Adds this process to the list. Whoever is alone starts the list anew.
    pub(super) fn sign(&mut self, is_alone: bool) -> Result<(), OpenError> {
        let path = self.path.clone();
        if is_alone {
            self.file.set_len(0).map_err(io("write", &path))?;
        }
        self.file.seek(std::io::SeekFrom::End(0)).map_err(io("write", &path))?;
        let line = format!("{}\n", std::process::id());
        self.file.write_all(line.as_bytes()).map_err(io("write", &path))
    }

    pub(super) fn locked(&self) -> OpenError {
        OpenError::Locked { path: self.database.clone(), pids: living_signers(&self.path) }
    }
}

/// Processes in the list that live.
pub(super) fn living_signers(lock_path: &Path) -> Vec<u32> {
    let mut text = String::new();
    // Who holds the lock is only said to people: an unreadable list is an empty one.
    if File::open(lock_path).and_then(|mut file| file.read_to_string(&mut text)).is_err() {
        return Vec::new();
    }
    let mut pids: Vec<u32> = text
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| Path::new("/proc").join(u32::to_string(pid)).exists())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Processes in the list that are stopped (SIGSTOP, a debugger): one of them may hold the write lock.
pub(super) fn stopped_signers(lock_path: &Path) -> Vec<u32> {
    let is_stopped = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
            matches!(state, Some('T' | 't'))
        })
    };
    living_signers(lock_path).into_iter().filter(is_stopped).collect()
}

/// Builds an `OpenError::Io`.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}
