//! Which hosts are peers: those of the configuration, and what an operator has changed while the host ran, in `DATA/peers`.
//!
//! A line `KEY@ADDR` lists a peer, and `!KEY` strikes one out that the configuration names. A host that forgot its peers at a
//! restart would take their agents for unknown; one that forgot whom it was told to drop would let them in again.

use std::collections::{BTreeMap, BTreeSet};
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
/// Begins the line of a peer that is struck out.
const STRUCK: char = '!';

/// Keys and addresses, by key.
pub type Peers = BTreeMap<HostId, SocketAddr>;
/// Reads the configured peers once more; otherwise says what is wrong.
pub type ReadPeers = Box<dyn Fn() -> Result<Vec<(HostId, SocketAddr)>, String> + Send + Sync>;

/// The listed peers; what operators have changed is durable.
pub struct PeerBook {
    dir: Dir,
    entries: Mutex<Entries>,
    read: Option<ReadPeers>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entries {
    configured: Peers,
    added: Peers,
    struck: BTreeSet<HostId>,
}

impl Entries {
    /// All together; where a peer listens the configuration knows best.
    fn peers(&self) -> Peers {
        let configured = self.configured.iter().filter(|(key, _)| !self.struck.contains(key));
        self.added.iter().chain(configured).map(|(key, address)| (*key, *address)).collect()
    }

    fn warn(&self) {
        for key in self.configured.keys().filter(|key| self.struck.contains(key)) {
            tracing::warn!(peer = %key, "a configured peer was removed by `godwit peer remove`: `godwit peer add` lists it again");
        }
    }
}

impl PeerBook {
    /// Reads the book of a data directory, a missing one being empty. `configured` are the peers of the configuration, and
    /// `read` reads them again when that is asked for.
    ///
    /// # Errors
    /// When the file can't be read, or a line is neither `KEY@ADDR` nor `!KEY`.
    pub fn open(
        dir: Dir,
        configured: impl IntoIterator<Item = (HostId, SocketAddr)>,
        read: Option<ReadPeers>,
    ) -> Result<Self, DataDirError> {
        let text = match dir.read_to_string(FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(DataDirError::io("read the list of peers", SHOWN)(error)),
        };
        let mut entries = Entries { configured: configured.into_iter().collect(), ..Entries::default() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            let damaged = |reason: String| {
                let what = format!("{line:?} {reason}");
                DataDirError::Damaged { path: SHOWN.into(), what }
            };
            match line.strip_prefix(STRUCK) {
                Some(key) => {
                    let key = key.parse().map_err(|error| damaged(format!("{error}")))?;
                    entries.struck.insert(key);
                }
                None => {
                    let (key, address) = parse_peer(line).map_err(damaged)?;
                    entries.added.insert(key, address);
                }
            }
        }
        entries.warn();
        Ok(Self { dir, entries: Mutex::new(entries), read })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All peers.
    pub fn peers(&self) -> Peers {
        self.lock().peers()
    }

    /// Adds a peer, or gives it another address. Durable when it returns.
    ///
    /// # Errors
    /// When the file can't be written; the book is as before.
    pub fn insert(&self, key: HostId, address: SocketAddr) -> io::Result<()> {
        self.change(|entries| {
            entries.struck.remove(&key);
            entries.added.insert(key, address);
        })
    }

    /// Removes a peer. The configuration may name it, now or later: it stays struck out until it is added. Durable when it
    /// returns.
    ///
    /// # Errors
    /// When the file can't be written; the book is as before.
    pub fn remove(&self, key: HostId) -> io::Result<()> {
        self.change(|entries| {
            let was_added = entries.added.remove(&key).is_some();
            if was_added || entries.configured.contains_key(&key) {
                entries.struck.insert(key);
            }
        })
    }

    /// Reads the configured peers again. Answers all peers as they were before, and as they are now.
    ///
    /// # Errors
    /// What is wrong with the configuration; the book is as before.
    pub fn reload(&self) -> Result<(Peers, Peers), String> {
        let Some(read) = &self.read else {
            let peers = self.peers();
            return Ok((peers.clone(), peers));
        };
        let configured = read()?.into_iter().collect();
        let mut entries = self.lock();
        let before = entries.peers();
        entries.configured = configured;
        entries.warn();
        Ok((before, entries.peers()))
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) -> io::Result<()> {
        let mut entries = self.lock();
        let mut changed = entries.clone();
        change(&mut changed);
        if changed != *entries {
            self.write(&changed)?;
            *entries = changed;
        }
        Ok(())
    }

    fn write(&self, entries: &Entries) -> io::Result<()> {
        let temporary = format!("{FILE}.new");
        let mut file = self.dir.create(&temporary)?;
        for (key, address) in &entries.added {
            writeln!(file, "{key}@{address}")?;
        }
        for key in &entries.struck {
            writeln!(file, "{STRUCK}{key}")?;
        }
        file.sync_all()?;
        failpoint::hit("peers.before-rename");
        self.dir.rename(&temporary, &self.dir, FILE)?;
        self.dir.open(".")?.sync_all()
    }
}

impl std::fmt::Debug for PeerBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerBook").field("entries", &self.entries).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
