//! The rows of an agent that leaves: in rounds while it works, and the last of them while it stands still.

use std::time::Duration;

use bytes::Bytes;
use godwit_core::migration::Failure;
use godwit_core::store::{MigrationRecord, Row, RowFrame};
use godwit_core::time::sleep;

use super::Source;
use super::hold::Held;
use crate::runtime::migrator::QUIET_FOR;
use crate::runtime::migrator::claims;
use crate::runtime::migrator::identity::{Passage, Purpose};
use crate::runtime::migrator::packing::{self, BUNDLE_BYTES};
use crate::runtime::migrator::refused_by_store;
use crate::runtime::wire::{self, BulkHeader};

/// Rows that travel with the `Prepare` message itself; more go ahead of it in bulk.
const PREPARE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of rows in the first bundle, and each next one has twice as many up to `BUNDLE_BYTES`: so that the target has soon
/// something to do.
const BUNDLE_BYTES_FIRST: usize = 256 * 1024;
/// Rounds of rows while the agent works; then it must be little enough that is left.
const ROUNDS_MAX: u32 = 8;
/// Less than this is not worth another round.
const ROUND_BYTES_SMALL: usize = 64 * 1024;
/// How often an agent is held that has written much by then, and let go again.
const FREEZES_MAX: u32 = 3;
/// A round of little that takes no longer, until all is on the target's disk, shows that the last rows will not either; how long
/// that is waited for, and the pause between rounds meanwhile. There is none after the first, which has waited for all before it.
const ROUND_QUICK: Duration = Duration::from_millis(6);
const QUICK_WITHIN: Duration = Duration::from_secs(3);
/// So many rounds one after the other that are no quicker than the one before, by a quarter: the line takes that long.
const STEADY_ROUNDS: u32 = 3;
const QUICK_PAUSE: Duration = Duration::from_millis(20);
/// The first version of the protocol in which bundles may be packed.
const PACKING_SINCE: u8 = 2;

/// Rows on their way out.
struct Bundle {
    /// Change number of the last of them.
    last: u64,
    has_snapshot: bool,
    header: BulkHeader,
    /// Packed, if the header says so.
    body: Bytes,
}

impl Source {
    /// Rounds of rows while the agent works, as long as they shrink.
    ///
    /// # Errors
    /// `DeltaTooLarge` when too much is left after the last one.
    pub(super) async fn transfer(&mut self) -> Result<(), Failure> {
        let delta_bytes_max = self.runtime.inner().delta_bytes_max;
        let mut last = u64::MAX;
        for _ in 0..ROUNDS_MAX {
            let bytes = self.send_round().await?;
            self.runtime.record(&self.record).await;
            // What does not shrink any more is little enough, or may become so while the agent has less to do.
            let enough = if bytes < last { ROUND_BYTES_SMALL.min(delta_bytes_max) } else { delta_bytes_max };
            if self.is_rest_within(enough).await? {
                return Ok(());
            }
            last = bytes;
        }
        if self.is_rest_within(delta_bytes_max).await? { Ok(()) } else { Err(self.delta_too_large()) }
    }

    fn delta_too_large(&self) -> Failure {
        let bytes_max = self.runtime.inner().delta_bytes_max as u64;
        Failure::DeltaTooLarge { bytes_max, rounds: self.record.rounds }
    }

    /// Sends what has changed since the last round: what there was when it began, since a busy agent writes on. Answers how
    /// many bytes that was.
    async fn send_round(&mut self) -> Result<u64, Failure> {
        let before = self.record.bytes;
        let newest = self.newest().await?;
        self.send_up_to(newest).await?;
        Ok(self.record.bytes - before)
    }

    /// The last change number that was given.
    async fn newest(&self) -> Result<u64, Failure> {
        let row = self.runtime.inner().store.agent(&self.record.agent).await;
        Ok(row.map_err(|error| refused_by_store(&error))?.ok_or(Failure::Fenced)?.change)
    }

    /// Goes on with rounds, while the agent works, until one is quick, or they get no quicker, or for a while: after a large agent's
    /// rows both disks have still much to write, and for the last rows the agent would stand still until they have.
    pub(super) async fn until_quick(&mut self) -> Result<(), Failure> {
        let clock = self.runtime.inner().clock.clone();
        let give_up_at = clock.boot() + QUICK_WITHIN;
        let (mut pause, mut last, mut steady) = (Duration::ZERO, Duration::MAX, 0);
        loop {
            let began = clock.boot();
            self.send_round().await?;
            let (there, here) = tokio::join!(self.until_written(), self.own_disk());
            there?;
            here?;
            let now = clock.boot();
            let took = now - began;
            self.warm(false).await?;
            // Over a long line none is quick.
            steady = if took >= last - last / 4 { steady + 1 } else { 0 };
            if took <= ROUND_QUICK || steady == STEADY_ROUNDS || now >= give_up_at {
                return Ok(());
            }
            last = took;
            self.check_wanted()?;
            sleep(std::mem::replace(&mut pause, QUICK_PAUSE)).await;
        }
    }

    /// Holds the agent when little enough is left of it, and sends what does not go with the cutover's own message. As long as
    /// nothing is handed off, backing out costs nothing.
    ///
    /// # Errors
    /// `DeltaTooLarge` when it has written too much each time that it was held.
    pub(super) async fn freeze_with_little_left(&mut self) -> Result<Held, Failure> {
        let delta_bytes_max = self.runtime.inner().delta_bytes_max;
        for freeze in 1..=FREEZES_MAX {
            let held = self.freeze().await?;
            let newest = self.newest().await?;
            let rest = self.rest(newest, delta_bytes_max).await?;
            // A large snapshot goes ahead, once: who writes one with each turn always has one left.
            if let Some(rest) =
                rest.filter(|rest| freeze > 1 || fits_prepare(rest) || !rest.iter().any(is_snapshot))
            {
                if fits_prepare(&rest) {
                    return Ok(held);
                }
                self.send_up_to(newest).await?;
                // While that went, inputs were accepted.
                if self.is_rest_within(delta_bytes_max).await? {
                    return Ok(held);
                }
            }
            self.thaw(held);
            self.send_round().await?;
            self.warm(false).await?;
            self.check_wanted()?;
        }
        Err(self.delta_too_large())
    }

    /// What goes with the cutover's own message: the rest up to a change number, or none when it was too much and has gone ahead.
    pub(super) async fn last_rows(&mut self, newest: u64) -> Result<Vec<RowFrame>, Failure> {
        match self.rest(newest, PREPARE_BYTES_MAX).await? {
            Some(mut rest) if fits_prepare(&rest) => {
                claims::leave_behind(&mut rest, true);
                for frame in &rest {
                    self.digest.add(frame.digest());
                }
                self.record.bytes += bytes_of(&rest) as u64;
                Ok(rest)
            }
            _ => {
                self.send_up_to(newest).await?;
                Ok(Vec::new())
            }
        }
    }

    /// Sends what has changed up to a change number, and what lies in one bundle with that. While a bundle is on its way the
    /// next one is read.
    async fn send_up_to(&mut self, newest: u64) -> Result<(), Failure> {
        // While the agent stands still each bundle more is a wait more.
        let mut bytes_max = if self.frozen_at.is_some() { BUNDLE_BYTES } else { BUNDLE_BYTES_FIRST };
        let mut next = self.next_bundle(newest, bytes_max).await?;
        while let Some(bundle) = next {
            self.check_wanted()?;
            bytes_max = BUNDLE_BYTES.min(2 * bytes_max);
            self.sent = bundle.last;
            self.snapshots += u32::from(bundle.has_snapshot);
            self.record.bytes += bundle.body.len() as u64;
            let sending = self.send_bulk(bundle.header, bundle.body);
            let (sent, read) = tokio::join!(sending, self.next_bundle(newest, bytes_max));
            self.digest.add(sent?);
            next = read?;
        }
        self.record.rounds += 1;
        Ok(())
    }

    /// Waits until the target has on its disk what it has received: a bundle without rows asks for that.
    async fn until_written(&self) -> Result<(), Failure> {
        let MigrationRecord { id, agent, .. } = &self.record;
        let header = BulkHeader::Rows { id: *id, agent: agent.clone() };
        let nothing = wire::encode_list::<RowFrame>(self.protocol, &[]);
        self.send_bulk(header, nothing.into()).await.map(drop)
    }

    /// Waits for this host's disk where the agent is large: what it was written here with may be on its way there still.
    async fn own_disk(&self) -> Result<(), Failure> {
        if self.record.bytes < BUNDLE_BYTES as u64 {
            return Ok(());
        }
        let store = &self.runtime.inner().store;
        store.keep_quiet(QUIET_FOR).await;
        store.probe().await.map_err(|error| refused_by_store(&error))
    }

    /// The next rows; none when all up to a change number were sent.
    async fn next_bundle(&self, newest: u64, bytes_max: usize) -> Result<Option<Bundle>, Failure> {
        if self.sent >= newest {
            return Ok(None);
        }
        let mut frames = self.export(self.sent, bytes_max).await?;
        let Some(last) = frames.last().map(|frame| frame.change) else { return Ok(None) };
        claims::leave_behind(&mut frames, self.frozen_at.is_some());
        let body = wire::encode_list(self.protocol, &frames);
        let has_snapshot = frames.iter().any(is_snapshot);
        drop(frames);
        let (header, body) = self.packed(body).await;
        Ok(Some(Bundle { last, has_snapshot, header, body }))
    }

    /// A bundle as it is sent, packed where that saves.
    async fn packed(&self, bundle: Vec<u8>) -> (BulkHeader, Bytes) {
        let MigrationRecord { id, agent, .. } = &self.record;
        let (id, agent) = (*id, agent.clone());
        let packed = if self.protocol >= PACKING_SINCE { packing::pack(&bundle).await } else { None };
        match packed {
            Some(packed) => (BulkHeader::PackedRows { id, agent, bytes: bundle.len() as u64 }, packed.into()),
            None => (BulkHeader::Rows { id, agent }, bundle.into()),
        }
    }

    /// What is left up to a change number; `None` when that is more than so many bytes. A snapshot does not count: an agent that
    /// writes one with each turn always has one left.
    async fn rest(&self, newest: u64, bytes_max: usize) -> Result<Option<Vec<RowFrame>>, Failure> {
        let (mut rest, mut bytes, mut after) = (Vec::new(), 0, self.sent);
        while after < newest {
            // It ends before a row that would make it too large, too.
            let mut some = self.export(after, bytes_max).await?;
            let Some(last) = some.last() else { break };
            after = last.change;
            bytes += bytes_of(some.iter().filter(|frame| !is_snapshot(frame)));
            if bytes > bytes_max {
                return Ok(None);
            }
            rest.append(&mut some);
        }
        Ok(Some(rest))
    }

    async fn is_rest_within(&self, bytes_max: usize) -> Result<bool, Failure> {
        let newest = self.newest().await?;
        Ok(self.rest(newest, bytes_max).await?.is_some())
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

    async fn export(&self, after: u64, bytes_max: usize) -> Result<Vec<RowFrame>, Failure> {
        let store = &self.runtime.inner().store;
        let exported = store.export_rows(&self.record.agent, after, bytes_max).await;
        let exported = exported.map_err(|error| refused_by_store(&error))?;
        Ok(self.runtime.sealed(exported, self.target(), &self.passage()))
    }
}

fn fits_prepare(frames: &[RowFrame]) -> bool {
    frames.len() <= wire::PREPARE_FRAMES_MAX && bytes_of(frames) <= PREPARE_BYTES_MAX
}

fn is_snapshot(frame: &RowFrame) -> bool {
    matches!(frame.row, Row::Snapshot { .. })
}

/// What rows take when they are sent.
fn bytes_of<'a>(frames: impl IntoIterator<Item = &'a RowFrame>) -> usize {
    frames.into_iter().map(wire::encoded_len).sum()
}
