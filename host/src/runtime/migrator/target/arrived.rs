//! What has arrived of an agent, row by row: looked at in order, checked, and given to the store.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::failpoint;
use godwit_core::id::SpecRevision;
use godwit_core::identity::EntityPublicKey;
use godwit_core::migration::Refusal;
use godwit_core::placement::RESIDENCY_LABEL;
use godwit_core::retry::{Retry, Retryable};
use godwit_core::snapshot::Snapshot;
use godwit_core::spec::Spec;
use godwit_core::store::{Row, RowFrame, StoreError};
use tokio::sync::oneshot;

use super::{not_ready, refused, refused_for};
use crate::runtime::Runtime;
use crate::runtime::migrator::claims::{self, NamedStates};
use crate::runtime::migrator::identity::Passage;
use crate::runtime::migrator::packing;
use crate::runtime::wire::{self, MigrationAnswer};

/// Row frames that are decoded at a time. The smallest take four bytes each, and a hundred times that in memory.
const FRAMES_AT_ONCE: usize = 32_768;

/// Rows as they came.
pub(super) struct Bundle {
    pub(super) body: Bytes,
    /// Of what was sent.
    pub(super) digest: Digest,
    /// How many bytes they are to be, when they are packed with zstd.
    pub(super) unpacked: Option<u64>,
}

/// Rows that are being written, one part at a time.
#[derive(Default)]
pub(super) struct Writing {
    under_way: Option<oneshot::Receiver<MigrationAnswer>>,
    /// What became of one that failed: no later message of the migration is answered otherwise.
    failed: Option<MigrationAnswer>,
}

impl Writing {
    /// What became of a part that failed, as far as is known.
    pub(super) fn failure(&self) -> Option<&MigrationAnswer> {
        self.failed.as_ref()
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// The answer to whoever asks for something now, when a part could not be written.
    pub(super) async fn done(&mut self) -> Result<(), MigrationAnswer> {
        if let Some(under_way) = &mut self.under_way {
            // Whoever waits may be cut off: then the next one waits for the same.
            let written = under_way.await;
            self.under_way = None;
            match written {
                Ok(MigrationAnswer::Ok) => {}
                Ok(failed) => self.failed = Some(failed),
                Err(_) => self.failed = Some(not_ready("the rows were not written: the host stops")),
            }
        }
        self.failed.clone().map_or(Ok(()), Err)
    }
}

/// What has arrived.
pub(super) struct Arrived {
    /// Of all rows, unpacked.
    pub(super) bytes: u64,
    pub(super) digest: RunningDigest,
    /// The newest snapshot and agent time.
    pub(super) snapshot: Option<Snapshot>,
    /// Digest of its state.
    pub(super) state: Digest,
    named: NamedStates,
    /// What the rows say of what was reserved: whose they are, and where that agent must be kept.
    pub(super) public_key: Option<EntityPublicKey>,
    pub(super) residency: Option<String>,
    /// What it runs: as reserved, until the rows say otherwise.
    pub(super) spec: Arc<Spec>,
    spec_revision: Option<SpecRevision>,
    /// Whether it comes to rest here: no guest is built of it.
    pub(super) rests: bool,
    pub(super) writing: Writing,
}

impl Arrived {
    /// Nothing, of an agent of this spec.
    pub(super) fn of(spec: Arc<Spec>) -> Self {
        Self {
            bytes: 0,
            digest: RunningDigest::default(),
            snapshot: None,
            state: Digest::ZERO,
            named: NamedStates::default(),
            public_key: None,
            residency: None,
            spec,
            spec_revision: None,
            rests: false,
            writing: Writing::default(),
        }
    }

    /// Takes the rows of a bundle, some at a time: when they are read and checked, and those before are written, they are being
    /// written.
    ///
    /// # Errors
    /// The answer, when these rows can't be taken or earlier ones could not be written.
    pub(super) async fn take(
        &mut self,
        runtime: &Runtime,
        bundle: Bundle,
        passage: &Passage,
    ) -> Result<(), MigrationAnswer> {
        self.digest.add(bundle.digest);
        let body = match bundle.unpacked {
            None => bundle.body,
            Some(bytes) => packing::unpack(&bundle.body, bytes).await.map_err(refused)?.into(),
        };
        if body.len() > packing::UNPACKED_BYTES_MAX {
            return Err(refused(format!("a bundle has at most {} bytes", packing::UNPACKED_BYTES_MAX)));
        }
        self.bytes += body.len() as u64;
        let mut frames = wire::decode_list::<RowFrame>(&body).map_err(refused)?;
        loop {
            match frames.next_up_to(FRAMES_AT_ONCE).map_err(refused)? {
                some if some.is_empty() => return Ok(()),
                some => self.take_rows(runtime, some, passage).await?,
            }
        }
    }

    async fn take_rows(
        &mut self,
        runtime: &Runtime,
        frames: Vec<RowFrame>,
        passage: &Passage,
    ) -> Result<(), MigrationAnswer> {
        claims::check_rows(&frames, &passage.agent)?;
        self.look_at(&frames);
        let opened = runtime.opened(frames, passage);
        let frames = opened.map_err(|reason| MigrationAnswer::IdentityFailed { reason })?;
        self.writing.done().await?;
        let (written, under_way) = oneshot::channel();
        self.writing.under_way = Some(under_way);
        let (store, id, agent) = (runtime.inner().store.clone(), passage.migration, passage.agent.clone());
        runtime.inner().tasks.spawn(async move {
            let answer = match store.receive_rows(id, &agent, frames).await {
                Ok(()) => MigrationAnswer::Ok,
                Err(error) => unwritten(&error),
            };
            failpoint::hit("migration.target.after-transfer");
            // The migration may be over.
            drop(written.send(answer));
        });
        Ok(())
    }

    /// Whether the receipt of the snapshot's revision names another state.
    pub(super) fn is_named_otherwise(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|taken| self.named.name_another_than(taken, self.state))
    }

    pub(super) fn look_at(&mut self, frames: &[RowFrame]) {
        for frame in frames {
            match &frame.row {
                Row::Receipt(receipt) => self.named.note(receipt),
                Row::EntityKey(key) => self.public_key = Some(key.public()),
                Row::Spec { revision, spec } if self.spec_revision <= Some(*revision) => {
                    (self.spec_revision, self.spec) = (Some(*revision), Arc::new(spec.clone()));
                }
                Row::Agent(portable) => {
                    self.residency = portable.labels.get(RESIDENCY_LABEL).cloned();
                    self.rests = portable.lifecycle.rests();
                }
                _ => {}
            }
            let Row::Snapshot { snapshot, .. } = &frame.row else { continue };
            let at = |snapshot: &Snapshot| (snapshot.generation, snapshot.revision);
            if self.snapshot.as_ref().is_none_or(|newest| at(newest) < at(snapshot)) {
                self.snapshot = Some(snapshot.clone());
                self.state = snapshot.state_digest();
            }
        }
    }
}

/// The answer when the store did not take rows.
pub(super) fn unwritten(error: &StoreError) -> MigrationAnswer {
    match error {
        StoreError::Conflict { .. } => refused(error.to_string()),
        StoreError::Full => refused_for(Refusal::Capacity, "this host's store has no room for the agent"),
        error if error.retry() == Retry::Later => not_ready(error),
        error => MigrationAnswer::StateFailed { reason: error.to_string() },
    }
}
