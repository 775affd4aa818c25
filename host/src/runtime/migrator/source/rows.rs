//! The rows of an agent that leaves: in rounds while it works, and the last of them while it stands still.

use std::time::Duration;

use bytes::Bytes;
use godwit_core::migration::Failure;
use godwit_core::store::{MigrationRecord, Row, RowFrame};
use godwit_core::time::sleep;

use super::Source;
use crate::runtime::migrator::identity::{Passage, Purpose};
use crate::runtime::migrator::refused_by_store;
use crate::runtime::wire::{self, BulkHeader};

/// Bytes of rows in one bulk transfer.
const BUNDLE_BYTES: usize = 2 << 20;
/// Rows that travel with the `Prepare` message itself; more go ahead of it in bulk.
const PREPARE_BYTES_MAX: usize = 256 * 1024;
/// Rounds of rows while the agent works; then it is frozen whatever is left.
const ROUNDS_MAX: u32 = 8;
/// A round of fewer bytes ends the pre-copy.
const ROUND_BYTES_SMALL: u64 = 64 * 1024;
/// A round of little that takes no longer shows that the last rows will not either; how long that is waited for, and the pause
/// between rounds meanwhile.
const ROUND_QUICK: Duration = Duration::from_millis(6);
const QUICK_WITHIN: Duration = Duration::from_secs(3);
const QUICK_PAUSE: Duration = Duration::from_millis(50);

impl Source {
    /// Rounds of rows while the agent works, as long as they shrink.
    pub(super) async fn transfer(&mut self) -> Result<(), Failure> {
        let mut last = u64::MAX;
        for _ in 0..ROUNDS_MAX {
            let bytes = self.send_round().await?;
            self.runtime.record(&self.record).await;
            if bytes >= last || (bytes < ROUND_BYTES_SMALL && self.is_rest_small().await?) {
                break;
            }
            last = bytes;
        }
        Ok(())
    }

    /// Sends what has changed since the last round: what there was when it began, since a busy agent writes on. Answers how
    /// many bytes that was.
    async fn send_round(&mut self) -> Result<u64, Failure> {
        let before = self.record.bytes;
        let row = self.runtime.inner().store.agent(&self.record.agent).await;
        let newest = row.map_err(|error| refused_by_store(&error))?.ok_or(Failure::Fenced)?.change;
        self.send_up_to(newest).await?;
        Ok(self.record.bytes - before)
    }

    /// Goes on with rounds, while the agent works, until one is quick, or for a while: after a large agent's rows the target's
    /// disk has still much to write, and for the last rows the agent would stand still until it has.
    pub(super) async fn until_quick(&mut self) -> Result<(), Failure> {
        let clock = self.runtime.inner().clock.clone();
        let give_up_at = clock.boot() + QUICK_WITHIN;
        loop {
            let began = clock.boot();
            self.send_round().await?;
            let now = clock.boot();
            if now - began <= ROUND_QUICK || now >= give_up_at {
                return Ok(());
            }
            self.check_wanted()?;
            sleep(QUICK_PAUSE).await;
        }
    }

    /// Sends what has changed up to a change number, and what lies in one bundle with that. While a bundle is on its way the
    /// next one is read.
    pub(super) async fn send_up_to(&mut self, newest: u64) -> Result<(), Failure> {
        let mut frames = self.export_up_to(newest).await?;
        while !frames.is_empty() {
            let body = self.note(&frames);
            let (sent, next) = tokio::join!(self.send_rows(body), self.export_up_to(newest));
            sent?;
            frames = next?;
        }
        self.record.rounds += 1;
        Ok(())
    }

    pub(super) async fn send_rows(&self, body: Bytes) -> Result<(), Failure> {
        let header = BulkHeader::Rows { id: self.record.id, agent: self.record.agent.clone() };
        self.send_bulk(header, body).await
    }

    /// The next rows; none when all up to a change number were noted.
    async fn export_up_to(&self, newest: u64) -> Result<Vec<RowFrame>, Failure> {
        if self.sent < newest { self.export().await } else { Ok(Vec::new()) }
    }

    /// Whether little is left: a bundle also ends before a row that would make it too large.
    async fn is_rest_small(&self) -> Result<bool, Failure> {
        Ok((wire::encode(&self.export().await?).len() as u64) < ROUND_BYTES_SMALL)
    }

    fn passage(&self) -> Passage {
        let MigrationRecord { id: migration, agent, .. } = &self.record;
        Passage {
            agent: agent.clone(),
            migration: *migration,
            token: self.token,
            purpose: Purpose::Migration,
        }
    }

    pub(super) async fn export(&self) -> Result<Vec<RowFrame>, Failure> {
        let store = &self.runtime.inner().store;
        let exported = store.export_rows(&self.record.agent, self.sent, BUNDLE_BYTES).await;
        let exported = exported.map_err(|error| refused_by_store(&error))?;
        Ok(self.runtime.sealed(exported, self.target(), &self.passage()))
    }

    /// Counts frames as sent. Answers them as they are sent.
    pub(super) fn note(&mut self, frames: &[RowFrame]) -> Bytes {
        for frame in frames {
            self.digest.update(frame);
            self.has_sent_snapshot |= is_snapshot(frame);
        }
        self.sent = frames.last().map_or(self.sent, |frame| frame.change);
        let body = wire::encode_in(self.protocol, &frames);
        self.record.bytes += body.len() as u64;
        body
    }

    pub(super) fn fits_prepare(&self, frames: &[RowFrame]) -> bool {
        frames.len() <= wire::PREPARE_FRAMES_MAX && wire::encode(&frames).len() <= PREPARE_BYTES_MAX
    }
}

fn is_snapshot(frame: &RowFrame) -> bool {
    matches!(frame.row, Row::Snapshot { .. })
}
