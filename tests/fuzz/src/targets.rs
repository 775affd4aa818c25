//! What is fuzzed, and what must hold for any bytes: no panic, little memory, and what was read is written and read again as
//! the same.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use godwit_core::journal::JournalEntry;
use godwit_core::limits::SNAPSHOT_BYTES_MAX;
use godwit_core::receipt::Receipt;
use godwit_core::snapshot::Snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::novelty::Shape;

/// Something that reads bytes of others.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The folder of its corpus.
    pub name: &'static str,
    /// Makes digests right that would hide everything behind them; done with half of the inputs.
    pub mend: fn(&mut [u8]),
    /// Reads, and checks what must hold.
    pub check: fn(&[u8], &mut Shape) -> Result<()>,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "frames", mend: godwit_mesh::fuzzing::reseal, check: frames },
    Target { name: "messages", mend: |_| {}, check: messages },
    Target { name: "rows", mend: |_| {}, check: rows },
    Target { name: "snapshot", mend: reseal_snapshot, check: snapshot },
    Target { name: "journal", mend: |_| {}, check: journal },
    Target { name: "manifest", mend: |_| {}, check: manifest },
];

/// Frames are canonical: what is read is written as it was.
fn frames(bytes: &[u8], shape: &mut Shape) -> Result<()> {
    let (again, ended) = godwit_mesh::fuzzing::frames(bytes, &mut |value| shape.look(value));
    shape.say(&ended);
    ensure!(bytes.starts_with(&again), "frames were written in another way than they were read");
    Ok(())
}

type Read = fn(&[u8], &mut dyn FnMut(&dyn Debug)) -> Result<Vec<u8>, String>;

fn read_again(read: Read, bytes: &[u8], shape: &mut Shape) -> Result<()> {
    let once = match read(bytes, &mut |value| shape.look(value)) {
        Ok(once) => once,
        Err(reason) => {
            shape.say(&reason);
            return Ok(());
        }
    };
    match read(&once, &mut |_| {}) {
        Ok(twice) => ensure!(once == twice, "what was written is read as something else"),
        Err(reason) => anyhow::bail!("what was written can't be read: {reason}"),
    }
    Ok(())
}

/// A byte says which kind of message it is.
fn messages(bytes: &[u8], shape: &mut Shape) -> Result<()> {
    let Some((kind, bytes)) = bytes.split_first() else { return Ok(()) };
    let read: Read = match kind % 3 {
        0 => |bytes, look| godwit::fuzzing::request(bytes, look),
        1 => |bytes, look| godwit::fuzzing::answer(bytes, look),
        _ => |bytes, look| godwit::fuzzing::bulk_header(bytes, look),
    };
    read_again(read, bytes, shape)
}

fn rows(bytes: &[u8], shape: &mut Shape) -> Result<()> {
    read_again(|bytes, look| godwit::fuzzing::rows(bytes, look), bytes, shape)
}

fn snapshot(bytes: &[u8], shape: &mut Shape) -> Result<()> {
    match Snapshot::from_envelope(bytes, SNAPSHOT_BYTES_MAX) {
        Ok(snapshot) => {
            shape.look(&snapshot);
            let again = Snapshot::from_envelope(&snapshot.to_envelope(), SNAPSHOT_BYTES_MAX)?;
            ensure!(again == snapshot, "an envelope holds another snapshot than was put in");
        }
        Err(error) => shape.say(&error.to_string()),
    }
    ensure!(
        bytes.is_empty() || Snapshot::from_envelope(bytes, bytes.len() - 1).is_err(),
        "too large, and read"
    );
    Ok(())
}

fn reseal_snapshot(bytes: &mut [u8]) {
    const HEAD: [u8; 5] = *b"GWSN\x01";
    if let Some((head, body)) = bytes.split_at_mut_checked(HEAD.len() + 32) {
        head[..HEAD.len()].copy_from_slice(&HEAD);
        head[HEAD.len()..].copy_from_slice(blake3::hash(body).as_bytes());
    }
}

fn plain<T: DeserializeOwned + Serialize + Debug + PartialEq>(
    bytes: &[u8],
    shape: &mut Shape,
) -> Result<Option<T>> {
    let value: T = match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => value,
        Ok(_) => {
            shape.say("followed");
            return Ok(None);
        }
        Err(error) => {
            shape.say(&error.to_string());
            return Ok(None);
        }
    };
    shape.look(&value);
    let written = postcard::to_stdvec(&value)?;
    let again: T = postcard::from_bytes(&written)?;
    ensure!(again == value, "what was written is read as something else");
    Ok(Some(value))
}

/// A byte says whether it is an entry or its receipt.
fn journal(bytes: &[u8], shape: &mut Shape) -> Result<()> {
    match bytes.split_first() {
        Some((0, bytes)) => {
            if let Some(entry) = plain::<JournalEntry>(bytes, shape)? {
                ensure!(entry.digest() == entry.clone().digest() && entry.weight() >= entry.answers.len());
            }
        }
        Some((_, bytes)) => {
            let read = Receipt::from_bytes(bytes).ok();
            let plain = plain::<Receipt>(bytes, shape)?;
            ensure!(read == plain, "two ways to read a receipt");
        }
        None => {}
    }
    Ok(())
}

fn manifest(bytes: &[u8], shape: &mut Shape) -> Result<()> {
    let problems = godwit_engine::fuzzing::manifest(bytes, &mut |value| shape.look(value));
    let again = godwit_engine::fuzzing::manifest(bytes, &mut |_| {});
    ensure!(problems == again, "one manifest, two verdicts");
    for problem in &problems {
        shape.say(problem);
        ensure!(!problem.is_empty(), "a problem that says nothing");
    }
    Ok(())
}
