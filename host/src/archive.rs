//! Archives: one agent as a file, without any authority to run it.
//!
//! ```text
//! magic GWAR | format u8 | record ...            record = length u32 le | BLAKE3 32 bytes | postcard of `Record`
//! records: Head, (Plugin, Component ...)?, Rows ..., End
//! ```
//! `End` says how many records came before it and chains their digests, so that nothing can be left out, added or moved.
//! Nothing of a record is decoded before its length and digest have been checked, and nothing may follow `End`.

use std::io::{Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Generation, Revision, StoreId};
use godwit_core::limits::SNAPSHOT_BYTES_MAX;
use godwit_core::spec::PluginInfo;
use godwit_core::store::RowFrame;

const MAGIC: [u8; 4] = *b"GWAR";
const FORMAT: u8 = 1;
/// One record in bytes: the largest row is a snapshot.
const RECORD_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + (4 << 20);
/// Bytes of a component in one record.
pub const COMPONENT_PART_BYTES: usize = 1 << 20;

/// What an archive is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHead {
    /// Which agent.
    pub agent: AgentId,
    /// Its generation.
    pub generation: Generation,
    /// Its revision.
    pub revision: Revision,
    /// The highest token that it had been given.
    pub token: FencingToken,
    /// The store that it was in.
    pub store: StoreId,
    /// Wall time of the export in Unix milliseconds.
    pub exported_at_ms: u64,
}

/// A part of an archive. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first one.
    Head(ArchiveHead),
    /// The plugin that the agent's spec names; its component follows.
    Plugin(PluginInfo),
    /// The next bytes of the component.
    Component(Bytes),
    /// Rows, in order of their change numbers.
    Rows(Vec<RowFrame>),
    /// The last one.
    End {
        /// Records before it.
        records: u64,
        /// Chain over their digests.
        chain: Digest,
    },
}

/// Why bytes are not an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Something else.
    #[error("not an archive of an agent")]
    Magic,
    /// Written by another format.
    #[error("the archive has format {found}, this build reads {FORMAT}")]
    Format {
        /// Its format.
        found: u8,
    },
    /// It ends too early.
    #[error("the archive is cut off after {records} records")]
    Truncated {
        /// Whole records before the cut.
        records: u64,
    },
    /// A record is larger than any may be.
    #[error("record {record} of the archive claims {bytes} bytes")]
    TooLarge {
        /// Which.
        record: u64,
        /// How many.
        bytes: u64,
    },
    /// A record's bytes are damaged.
    #[error("record {record} of the archive is damaged: {what}")]
    Damaged {
        /// Which.
        record: u64,
        /// In which way.
        what: &'static str,
    },
    /// It can't be read or written.
    #[error("the archive can't be read or written")]
    Io(#[from] std::io::Error),
}

/// Writes an archive, record by record.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    target: W,
    records: u64,
    chain: Digest,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(mut target: W) -> Result<Self, ArchiveError> {
        target.write_all(&MAGIC)?;
        target.write_all(&[FORMAT])?;
        Ok(Self { target, records: 0, chain: Digest::ZERO })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// `TooLarge` when no reader would take it; `Io`.
    pub fn push(&mut self, record: &Record) -> Result<(), ArchiveError> {
        let body = postcard::to_stdvec(record).expect("a record has no type that postcard can't write");
        let too_large = ArchiveError::TooLarge { record: self.records, bytes: body.len() as u64 };
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= RECORD_BYTES_MAX);
        let length = length.ok_or(too_large)?;
        let digest = Digest::of(&body);
        self.target.write_all(&length.to_le_bytes())?;
        self.target.write_all(&digest.0)?;
        self.target.write_all(&body)?;
        self.records += 1;
        self.chain = Digest::of_parts([&self.chain.0[..], &digest.0]);
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let end = Record::End { records: self.records, chain: self.chain };
        self.push(&end)?;
        self.target.flush()?;
        Ok(self.target)
    }
}

/// Reads an archive, record by record, each checked before it is decoded.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    source: R,
    head: ArchiveHead,
    records: u64,
    chain: Digest,
    is_over: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Reads the beginning of an archive.
    ///
    /// # Errors
    /// `ArchiveError`.
    pub fn new(mut source: R) -> Result<Self, ArchiveError> {
        let mut start = [0; 5];
        match source.read_exact(&mut start) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(ArchiveError::Magic);
            }
            Err(error) => return Err(error.into()),
        }
        let [magic @ .., format] = start;
        if magic != MAGIC {
            return Err(ArchiveError::Magic);
        }
        if format != FORMAT {
            return Err(ArchiveError::Format { found: format });
        }
        let (mut records, mut chain) = (0, Digest::ZERO);
        match read_record(&mut source, &mut records, &mut chain)? {
            Record::Head(head) => Ok(Self { source, head, records, chain, is_over: false }),
            _ => Err(ArchiveError::Damaged { record: 0, what: "it is not the head" }),
        }
    }

    /// What the archive is about.
    pub fn head(&self) -> &ArchiveHead {
        &self.head
    }

    /// The next record; `None` behind the last one, once nothing follows it. Never `Head` or `End`.
    ///
    /// # Errors
    /// `ArchiveError`; only with `None` the archive is whole.
    pub fn next_record(&mut self) -> Result<Option<Record>, ArchiveError> {
        if self.is_over {
            return Ok(None);
        }
        let before = (self.records, self.chain);
        let damaged = |what| ArchiveError::Damaged { record: before.0, what };
        match read_record(&mut self.source, &mut self.records, &mut self.chain)? {
            Record::Head(_) => Err(damaged("it is a second head")),
            Record::End { records, chain } if (records, chain) == before => {
                if self.source.read(&mut [0])? != 0 {
                    return Err(damaged("something follows the end"));
                }
                self.is_over = true;
                Ok(None)
            }
            Record::End { .. } => Err(damaged("it ends another archive")),
            record => Ok(Some(record)),
        }
    }
}

fn read_record(
    source: &mut impl Read,
    records: &mut u64,
    chain: &mut Digest,
) -> Result<Record, ArchiveError> {
    let record = *records;
    let torn = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ArchiveError::Truncated { records: record },
        _ => ArchiveError::Io(error),
    };
    let (mut length, mut digest) = ([0; 4], [0; 32]);
    source.read_exact(&mut length).map_err(torn)?;
    source.read_exact(&mut digest).map_err(torn)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(ArchiveError::TooLarge { record, bytes: length as u64 });
    }
    let mut body = Vec::new();
    // No more memory than there are bytes: a claim alone takes none.
    source.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(ArchiveError::Truncated { records: record });
    }
    if Digest::of(&body) != Digest(digest) {
        return Err(ArchiveError::Damaged { record, what: "its digest does not match" });
    }
    *records += 1;
    *chain = Digest::of_parts([&chain.0[..], &digest]);
    match postcard::take_from_bytes(&body) {
        Ok((record, [])) => Ok(record),
        _ => Err(ArchiveError::Damaged { record, what: "it holds something else" }),
    }
}

#[cfg(test)]
mod tests;
