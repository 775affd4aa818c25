//! What has arrived of one migration: rows, the newest snapshot, and a guest that is built from it.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::agent::rebuild::restore_context;
use godwit_core::agent::{Overlay, WarmGuest, state_reader};
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::guest::{Guest, GuestError, GuestRequest, Interrupt};
use godwit_core::id::{Revision, SpecRevision};
use godwit_core::identity::EntityPublicKey;
use godwit_core::lease::LeaseGuard;
use godwit_core::migration::{Phase, Refusal};
use godwit_core::placement::{RESIDENCY_LABEL, Wants};
use godwit_core::retry::{Retry, Retryable};
use godwit_core::snapshot::Snapshot;
use godwit_core::spec::Spec;
use godwit_core::store::rows::BundleDigest;
use godwit_core::store::{MigrationRecord, PrepareRequest, Row, RowFrame, StoreError};
use tokio::sync::oneshot;

use super::{not_ready, refused, refused_for};
use crate::runtime::Runtime;
use crate::runtime::migrator::claims::{self, NamedStates};
use crate::runtime::migrator::identity::{Passage, Purpose};
use crate::runtime::migrator::packing;
use crate::runtime::wire::{self, MigrationAnswer, PREPARE_FRAMES_MAX, Preparation, Reservation};

/// Row frames that are decoded at a time. The smallest take four bytes each, and a hundred times that in memory.
const FRAMES_AT_ONCE: usize = 32_768;

/// Rows that are being written, one part at a time, while the next one travels. Of each migration one part is written, one waits
/// for that, and one arrives.
#[derive(Default)]
struct Writing {
    under_way: Option<oneshot::Receiver<MigrationAnswer>>,
    /// What became of one that failed: no later message of the migration is answered otherwise.
    failed: Option<MigrationAnswer>,
}

impl Writing {
    /// Waits until all is written.
    ///
    /// # Errors
    /// The answer to whoever asks for something now, when a part could not be written.
    async fn done(&mut self) -> Result<(), MigrationAnswer> {
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

/// One migration at its target.
pub(super) struct Incoming {
    pub(super) record: MigrationRecord,
    reservation: Reservation,
    digest: BundleDigest,
    /// The newest snapshot and agent time that have arrived.
    snapshot: Option<Snapshot>,
    /// Digest of its state.
    state: Digest,
    named: NamedStates,
    /// What the rows say of what was reserved: whose they are, and where that agent must be kept.
    public_key: Option<EntityPublicKey>,
    residency: Option<String>,
    /// What it runs: as reserved, until the rows say otherwise.
    spec: Arc<Spec>,
    spec_revision: Option<SpecRevision>,
    writing: Writing,
    /// Whether it comes to rest here: no guest is built of it.
    rests: bool,
    pub(super) guard: LeaseGuard,
    pub(super) warm: Option<WarmGuest>,
    /// The copy was dropped: nothing may bind it any more.
    pub(super) is_closed: bool,
}

impl Incoming {
    /// Nothing yet.
    pub(super) fn new(record: MigrationRecord, reservation: Reservation, guard: LeaseGuard) -> Self {
        let spec = Arc::new(reservation.spec.clone());
        Self {
            record,
            reservation,
            digest: BundleDigest::default(),
            snapshot: None,
            state: Digest::ZERO,
            named: NamedStates::default(),
            public_key: None,
            residency: None,
            spec,
            spec_revision: None,
            writing: Writing::default(),
            rests: false,
            guard,
            warm: None,
            is_closed: false,
        }
    }

    /// Takes a bundle in its packed form, which is to have so many bytes.
    pub(super) async fn take_packed(
        &mut self,
        runtime: &Runtime,
        packed: &Bytes,
        bytes: u64,
    ) -> MigrationAnswer {
        match packing::unpack(packed, bytes).await {
            Ok(bundle) => self.take_bundle(runtime, &bundle, packed.len()).await,
            Err(reason) => refused(reason),
        }
    }

    /// Takes the rows of a bundle, of which so many bytes came, some at a time. Ok means that they have been read and checked, and
    /// are being written: the next message waits for that. One without rows waits until all are durable.
    pub(super) async fn take_bundle(
        &mut self,
        runtime: &Runtime,
        body: &[u8],
        bytes: usize,
    ) -> MigrationAnswer {
        if self.is_closed {
            // The copy would come back, and nobody would drop it.
            return refused("this migration has been dropped here");
        }
        if body.len() > packing::UNPACKED_BYTES_MAX {
            return refused(format!("a bundle has at most {} bytes", packing::UNPACKED_BYTES_MAX));
        }
        self.record.bytes += bytes as u64;
        self.record.rounds += 1;
        let mut frames = match wire::decode_list::<RowFrame>(body) {
            Ok(frames) => frames,
            Err(reason) => return refused(reason),
        };
        let mut is_empty = true;
        loop {
            let digest = &mut self.digest;
            match frames.next_up_to(FRAMES_AT_ONCE, |frame| digest.update_encoded(frame)) {
                Ok(some) if some.is_empty() => break,
                Ok(some) => {
                    is_empty = false;
                    if let Err(no) = self.take_rows(runtime, some).await {
                        return no;
                    }
                }
                Err(reason) => return refused(reason),
            }
        }
        if is_empty { self.sync(runtime).await } else { MigrationAnswer::Ok }
    }

    /// Waits until what has been received is on the disk.
    async fn sync(&mut self, runtime: &Runtime) -> MigrationAnswer {
        if let Err(no) = self.writing.done().await {
            return no;
        }
        match runtime.inner().store.probe().await {
            Ok(()) => MigrationAnswer::Ok,
            Err(error) => not_ready(error),
        }
    }

    /// # Errors
    /// The answer, when these rows can't be taken or earlier ones could not be written.
    async fn take_rows(&mut self, runtime: &Runtime, frames: Vec<RowFrame>) -> Result<(), MigrationAnswer> {
        claims::check_rows(&frames, &self.record.agent)?;
        self.look_at(&frames);
        let frames = runtime
            .opened(frames, &self.passage())
            .map_err(|reason| MigrationAnswer::IdentityFailed { reason })?;
        self.writing.done().await?;
        let (written, under_way) = oneshot::channel();
        self.writing.under_way = Some(under_way);
        let (store, id, agent) = (runtime.inner().store.clone(), self.record.id, self.record.agent.clone());
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

    /// Waits until nothing is being written any more; the copy is about to be dropped.
    pub(super) async fn close(&mut self) {
        // Why it failed does not matter any more.
        drop(self.writing.done().await);
        self.is_closed = true;
    }

    fn passage(&self) -> Passage {
        let MigrationRecord { id: migration, agent, .. } = &self.record;
        Passage {
            agent: agent.clone(),
            migration: *migration,
            token: self.reservation.token,
            purpose: Purpose::Migration,
        }
    }

    fn look_at(&mut self, frames: &[RowFrame]) {
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

    /// Builds a guest from the state at hand, unless the warm one is at it already.
    pub(super) async fn on_restore(&mut self, runtime: &Runtime, revision: Revision) -> MigrationAnswer {
        if let Err(no) = self.writing.done().await {
            return no;
        }
        if self.reservation.is_shared {
            match runtime.inner().store.image(&self.record.agent, None).await {
                Ok(Some(image)) => (self.snapshot, self.spec) = (image.snapshot, Arc::new(image.spec)),
                Ok(None) => return refused("the agent is not in this store"),
                Err(error) => {
                    return MigrationAnswer::StateFailed { reason: error.to_string() };
                }
            }
        }
        let is_built = |warm: &WarmGuest| warm.is_of(self.snapshot.as_ref(), &self.spec);
        if revision == Revision(0) || self.warm.as_ref().is_some_and(is_built) {
            return MigrationAnswer::Restored { revision };
        }
        let Some(snapshot) = self.snapshot.clone() else {
            return MigrationAnswer::StateFailed { reason: "no snapshot has arrived".into() };
        };
        match self.build_guest(runtime, snapshot).await {
            Ok(warm) => {
                self.warm = Some(warm);
                failpoint::hit("migration.target.after-restore");
                MigrationAnswer::Restored { revision }
            }
            Err(reason) => MigrationAnswer::StateFailed { reason },
        }
    }

    async fn build_guest(&mut self, runtime: &Runtime, snapshot: Snapshot) -> Result<WarmGuest, String> {
        let env = &runtime.inner().env;
        let plugin = self.spec.plugin;
        if !env.loader.is_loaded(plugin) {
            let component = env.store.component(plugin).await.map_err(|error| error.to_string())?;
            let component = component.ok_or("the plugin has not arrived")?;
            runtime.compile(component).await.map_err(|error| error.to_string())?;
        }
        let agent = self.record.agent.clone();
        let interrupt = Interrupt::default();
        let rows = Overlay::new(state_reader(env.store.clone(), agent.clone()));
        let request = GuestRequest {
            agent: agent.clone(),
            spec: self.spec.clone(),
            grants: runtime.grants_of(plugin).await.map_err(|error| error.to_string())?,
            guard: self.guard.clone(),
            state: rows.clone(),
            interrupt: interrupt.clone(),
        };
        let (built_from, state) = (snapshot.clone(), self.state);
        let context = restore_context(&agent, &snapshot);
        let loader = env.loader.clone();
        let job = move || -> Result<Box<dyn Guest>, GuestError> {
            let mut guest = loader.start(request)?;
            guest.restore(&context, &snapshot.state, &snapshot.plugin_version)?;
            Ok(guest)
        };
        let built = env.pool.run(plugin, job).await.map_err(|error| error.to_string())?;
        let guest = built.map_err(|error| error.to_string())?;
        Ok(WarmGuest { guest, built_from, state, spec: self.spec.clone(), interrupt, rows })
    }

    /// What was let in by what its source said of it is what has arrived.
    fn check_arrived(&self, runtime: &Runtime) -> Result<(), MigrationAnswer> {
        if self.public_key != self.reservation.public_key {
            return Err(refused("the key that has arrived is another than was reserved for"));
        }
        // It may have been upgraded, configured and labelled since.
        if self.spec.plugin != self.reservation.spec.plugin {
            let reason = "it was given another plugin while it was on its way: move it again";
            return Err(refused_for(Refusal::Plugin, reason));
        }
        claims::check_spec(&self.spec)?;
        let wants = Wants { residency: self.residency.clone(), ..Wants::of(&self.spec, &Default::default()) };
        let kept = runtime.inner().placement.may_keep(&wants);
        kept.map_err(|unfit| refused_for(unfit.refusal(), unfit.to_string()))
    }

    fn check_preparation(&self, preparation: &Preparation) -> Result<(), MigrationAnswer> {
        if self.is_closed {
            return Err(refused("this migration has been dropped here"));
        }
        claims::check_token(preparation.granted)?;
        if preparation.frames.len() > PREPARE_FRAMES_MAX {
            return Err(refused("more rows than go with a preparation"));
        }
        if preparation.granted <= self.reservation.token {
            return Err(refused("what is granted is not above what was reserved under"));
        }
        Ok(())
    }

    /// Step 2: the last rows, and the copy is bound, in one transaction; and a guest is built from what they say, since
    /// nobody lets go of an agent that can't be restored.
    pub(super) async fn on_prepare(
        &mut self,
        runtime: &Runtime,
        preparation: Preparation,
    ) -> MigrationAnswer {
        if let Err(no) = self.check_preparation(&preparation) {
            return no;
        }
        if let Err(no) = self.writing.done().await {
            return no;
        }
        for frame in &preparation.frames {
            self.digest.update(frame);
        }
        self.look_at(&preparation.frames);
        if let Err(no) = self.check_arrived(runtime) {
            return no;
        }
        // Nothing runs from one at rest: who wakes it compares it first.
        if !self.rests
            && self.snapshot.as_ref().is_some_and(|taken| self.named.name_another_than(taken, self.state))
        {
            return refused("the snapshot is not the state that the agent's receipt names");
        }
        if self.digest.finish() != preparation.bundle {
            // Nobody may take up what is not whole, also not on an operator's word.
            let reason = "other rows have arrived than were sent".into();
            return MigrationAnswer::StateFailed { reason };
        }
        let frames = match runtime.opened(preparation.frames, &self.passage()) {
            Ok(frames) => frames,
            Err(reason) => return MigrationAnswer::IdentityFailed { reason },
        };
        self.record.phase = Phase::Cutover;
        let request = PrepareRequest {
            migration: self.record.id,
            agent: self.record.agent.clone(),
            source: self.record.source,
            token: preparation.granted,
            generation: preparation.generation,
            revision: preparation.revision,
            frames,
        };
        let revision = request.revision;
        let store = runtime.inner().store.clone();
        let restoring = async {
            if self.rests {
                MigrationAnswer::Restored { revision }
            } else {
                self.on_restore(runtime, revision).await
            }
        };
        let (bound, restored) = tokio::join!(store.prepare(request), restoring);
        match (bound, restored) {
            (Ok(()), MigrationAnswer::Restored { .. }) => {
                failpoint::hit("migration.target.after-prepared");
                MigrationAnswer::Prepared { bundle: self.digest.finish() }
            }
            // The source takes it back, and says so.
            (Ok(()), failed) => failed,
            (Err(error), _) => unwritten(&error),
        }
    }
}

/// The answer when the store did not take rows.
fn unwritten(error: &StoreError) -> MigrationAnswer {
    match error {
        StoreError::Conflict { .. } => refused(error.to_string()),
        error if error.retry() == Retry::Later => not_ready(error),
        error => MigrationAnswer::StateFailed { reason: error.to_string() },
    }
}
