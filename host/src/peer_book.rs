//! The peers that an operator listed while the host ran: `DATA/peers`, a line `KEY@ADDR` each.
//!
//! A host that forgot its peers at a restart would take their agents for unknown.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap_std::fs::Dir;
use godwit_core::failpoint;
use godwit_core::id::HostId;

use crate::config::parse_peer;
use crate::data_dir::DataDirError;

const FILE: &str = "peers";
/// The file's name in messages.
const SHOWN: &str = "DATA/peers";

/// The listed peers, durable.
#[derive(Debug)]
pub struct PeerBook {
    dir: Dir,
    entries: Mutex<BTreeMap<HostId, SocketAddr>>,
}

impl PeerBook {
    /// Reads the book of a data directory; a missing one is empty.
    ///
    /// # Errors
    /// When the file can't be read, or a line is no `KEY@ADDR`.
    pub fn open(dir: Dir) -> Result<Self, DataDirError> {
        let text = match dir.read_to_string(FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(DataDirError::io("read the list of peers", SHOWN)(error)),
        };
        let parse = |line: &str| {
            parse_peer(line).map_err(|reason| {
                let what = format!("{line:?} {reason}");
                DataDirError::Damaged { path: SHOWN.into(), what }
            })
        };
        let entries = text.lines().filter(|line| !line.is_empty()).map(parse).collect::<Result<_, _>>()?;
        Ok(Self { dir, entries: Mutex::new(entries) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostId, SocketAddr>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All entries, by key.
    pub fn entries(&self) -> Vec<(HostId, SocketAddr)> {
        self.lock().iter().map(|(key, address)| (*key, *address)).collect()
    }

    /// Adds a peer, or gives it another address. Durable when it returns.
    ///
    /// # Errors
    /// When the file can't be written; the book is as before.
    pub fn insert(&self, key: HostId, address: SocketAddr) -> io::Result<()> {
        self.change(|entries| entries.insert(key, address) != Some(address))
    }

    /// Removes a peer. Durable when it returns.
    ///
    /// # Errors
    /// When the file can't be written; the book is as before.
    pub fn remove(&self, key: HostId) -> io::Result<()> {
        self.change(|entries| entries.remove(&key).is_some())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<HostId, SocketAddr>) -> bool) -> io::Result<()> {
        let mut entries = self.lock();
        let mut changed = entries.clone();
        if change(&mut changed) {
            self.write(&changed)?;
            *entries = changed;
        }
        Ok(())
    }

    fn write(&self, entries: &BTreeMap<HostId, SocketAddr>) -> io::Result<()> {
        let temporary = format!("{FILE}.new");
        let mut file = self.dir.create(&temporary)?;
        for (key, address) in entries {
            writeln!(file, "{key}@{address}")?;
        }
        file.sync_all()?;
        failpoint::hit("peers.before-rename");
        self.dir.rename(&temporary, &self.dir, FILE)?;
        self.dir.open(".")?.sync_all()
    }
}

#[cfg(test)]
mod tests;
