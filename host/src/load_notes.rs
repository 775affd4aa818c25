//! `DATA/loading`: which agents this host is loading, for the process after it to read if this one dies of one of them.
//!
//! The file has one length and is written in place, without a sync: what a process has written outlives it, and a machine
//! that lost power says nothing of a guest. It never stands in the way of a start: what can't be read is ignored, with a
//! warning, and so is what can't be written.
//!
//! The file: slots of 256 bytes. The first holds magic `GWLD` and format version (u8). Each of the others: length of an agent's
//! id (u8, 0 when the slot is free), the first 8 bytes of the id's BLAKE3, the id.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use godwit_core::agent::LoadNotes;
use godwit_core::digest::Digest;
use godwit_core::id::{AGENT_ID_BYTES_MAX, AgentId};

const FILE: &str = "loading";
const MAGIC: [u8; 4] = *b"GWLD";
const FORMAT: u8 = 1;
/// Divides a page, so that no write of a slot is ever seen by half.
const SLOT_BYTES: usize = 256;
/// Agents that are loaded at the same time, one per guest thread, and suspects that nobody has loaded since.
const SLOTS: usize = 255;
const FILE_BYTES: usize = SLOT_BYTES * (SLOTS + 1);
const CHECK_BYTES: usize = 8;

const _: () = assert!(1 + CHECK_BYTES + AGENT_ID_BYTES_MAX <= SLOT_BYTES);
const _: () = assert!(AGENT_ID_BYTES_MAX <= u8::MAX as usize);

/// The notes of one data directory.
#[derive(Debug)]
pub struct LoadingFile {
    file: File,
    slots: Mutex<Vec<Slot>>,
    has_warned: AtomicBool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Free,
    /// Named by a former process.
    Suspect(AgentId),
    /// Being loaded now.
    Begun,
}

impl LoadingFile {
    /// Reads what the process before has left in a data directory; makes the file if it is missing.
    ///
    /// # Errors
    /// When it can't be opened, read, or made anew.
    pub fn open(dir: &Dir) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = dir.open_with(FILE, &options)?.into_std();
        let mut bytes = Vec::with_capacity(FILE_BYTES + 1);
        Read::by_ref(&mut file).take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let (slots, is_sound) = parse(&bytes);
        if !is_sound {
            file.set_len(FILE_BYTES as u64)?;
            file.write_all_at(&to_bytes(&slots), 0)?;
        }
        let suspects = slots.iter().filter(|slot| **slot != Slot::Free).count();
        if suspects > 0 {
            tracing::warn!(suspects, "a former process of this host died while it loaded agents");
        }
        Ok(Self { file, slots: Mutex::new(slots), has_warned: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, number: usize, bytes: &[u8]) {
        let written = self.file.write_all_at(bytes, (SLOT_BYTES * (number + 1)) as u64);
        if let Err(error) = written
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "DATA/loading can't be written: a guest that kills this host may do it again");
        }
    }

    /// Frees a slot, in the file first: what is there when it is taken again is written after this.
    fn free(&self, slot: &mut Slot, number: usize) {
        self.write(number, &[0]);
        *slot = Slot::Free;
    }
}

impl LoadNotes for LoadingFile {
    fn begin(&self, agent: &AgentId) -> Option<usize> {
        let mut slots = self.lock();
        let free = slots.iter().position(|slot| *slot == Slot::Free);
        // What is loaded now matters more than a suspect that nobody has asked for since.
        let number = free.or_else(|| slots.iter().position(|slot| *slot != Slot::Begun))?;
        slots[number] = Slot::Begun;
        self.write(number, &note(agent));
        Some(number)
    }

    fn end(&self, number: usize) {
        if let Some(slot) = self.lock().get_mut(number) {
            self.free(slot, number);
        }
    }

    fn is_suspect(&self, agent: &AgentId) -> bool {
        self.lock().iter().any(|slot| is_of(slot, agent))
    }

    fn acquit(&self, agent: &AgentId) {
        for (number, slot) in self.lock().iter_mut().enumerate() {
            if is_of(slot, agent) {
                self.free(slot, number);
            }
        }
    }
}

fn is_of(slot: &Slot, agent: &AgentId) -> bool {
    matches!(slot, Slot::Suspect(suspect) if suspect == agent)
}

/// What a slot holds while an agent is loaded.
fn note(agent: &AgentId) -> Vec<u8> {
    let id = agent.as_str().as_bytes();
    let length = u8::try_from(id.len()).expect("an id is shorter, see above");
    [&[length], &Digest::of(id).0[..CHECK_BYTES], id].concat()
}

fn to_bytes(slots: &[Slot]) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[MAGIC.len()] = FORMAT;
    for (slot, place) in slots.iter().zip(bytes.chunks_exact_mut(SLOT_BYTES).skip(1)) {
        if let Slot::Suspect(agent) = slot {
            let note = note(agent);
            place[..note.len()].copy_from_slice(&note);
        }
    }
    bytes
}

/// The slots of a file, and whether it is what it should be.
fn parse(bytes: &[u8]) -> (Vec<Slot>, bool) {
    let empty = vec![Slot::Free; SLOTS];
    let is_ours = bytes.starts_with(&MAGIC) && bytes.get(MAGIC.len()) == Some(&FORMAT);
    if bytes.len() != FILE_BYTES || !is_ours {
        if !bytes.is_empty() {
            tracing::warn!(
                "DATA/loading is damaged, or of another version of godwit: it is ignored and made anew"
            );
        }
        return (empty, false);
    }
    let read: Vec<_> = bytes.chunks_exact(SLOT_BYTES).skip(1).map(parse_slot).collect();
    let damaged = read.iter().filter(|slot| slot.is_none()).count();
    if damaged > 0 {
        tracing::warn!(damaged, "notes in DATA/loading are damaged: they are ignored");
    }
    (read.into_iter().map(|slot| slot.unwrap_or(Slot::Free)).collect(), damaged == 0)
}

/// `None` when it is damaged.
fn parse_slot(slot: &[u8]) -> Option<Slot> {
    let (length, rest) = slot.split_first()?;
    if *length == 0 {
        return Some(Slot::Free);
    }
    let (check, rest) = rest.split_first_chunk::<CHECK_BYTES>()?;
    let id = rest.get(..usize::from(*length))?;
    if Digest::of(id).0[..CHECK_BYTES] != *check {
        return None;
    }
    AgentId::parse(std::str::from_utf8(id).ok()?).ok().map(Slot::Suspect)
}

#[cfg(test)]
mod tests;
