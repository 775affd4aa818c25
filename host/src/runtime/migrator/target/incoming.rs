//! What has arrived of one migration: rows, the newest snapshot, and a guest that is built from it.

use std::sync::Arc;

use godwit_core::agent::rebuild::{Rebuilt, restore_context};
use godwit_core::agent::{CatchUpError, Overlay, WarmGuest, catch_up, state_reader};
use godwit_core::failpoint;
use godwit_core::guest::{GuestError, GuestRequest, Interrupt};
use godwit_core::id::Revision;
use godwit_core::lease::LeaseGuard;
use godwit_core::migration::{Phase, Refusal};
use godwit_core::placement::Wants;
use godwit_core::snapshot::Snapshot;
use godwit_core::store::{MigrationRecord, PrepareRequest, RowFrame};
use tokio::sync::oneshot;

use super::arrived::{Arrived, Bundle, unwritten};
use super::{not_ready, refused, refused_for};
use crate::runtime::Runtime;
use crate::runtime::migrator::identity::{Passage, Purpose};
use crate::runtime::migrator::{QUIET_FOR, claims, packing};
use crate::runtime::wire::{self, MigrationAnswer, PREPARE_FRAMES_MAX, Preparation, Reservation};

/// One migration at its target.
///
/// While a bundle of rows travels, the one before is read and checked, and the one before that is written.
pub(super) struct Incoming {
    pub(super) record: MigrationRecord,
    reservation: Reservation,
    /// As of the last bundle that has been read; see `settle`.
    arrived: Arrived,
    /// Comes back with what has arrived, and perhaps with a no, when the bundle is read that is being read.
    reading: Option<oneshot::Receiver<(Arrived, Result<(), MigrationAnswer>)>>,
    /// What was wrong with a bundle: no later message of the migration is answered otherwise.
    failed: Option<MigrationAnswer>,
    pub(super) guard: LeaseGuard,
    pub(super) warm: Option<WarmGuest>,
    /// The copy was dropped: nothing may bind it any more.
    pub(super) is_closed: bool,
}

impl Incoming {
    /// Nothing yet.
    pub(super) fn new(record: MigrationRecord, reservation: Reservation, guard: LeaseGuard) -> Self {
        Self {
            record,
            arrived: Arrived::of(Arc::new(reservation.spec.clone())),
            reservation,
            reading: None,
            failed: None,
            guard,
            warm: None,
            is_closed: false,
        }
    }

    /// Takes the rows of a bundle. Ok means that it is here, and that the one before has been read and checked: what is wrong
    /// with this one is the answer to the next message. One without rows, and not packed, waits until all are durable.
    pub(super) async fn take_bundle(&mut self, runtime: &Runtime, bundle: Bundle) -> MigrationAnswer {
        if self.is_closed {
            // The copy would come back, and nobody would drop it.
            return refused("this migration has been dropped here");
        }
        self.record.bytes += bundle.body.len() as u64;
        self.record.rounds += 1;
        if let Err(no) = self.settle().await {
            return no;
        }
        if bundle.unpacked.is_none() {
            match wire::decode_list::<RowFrame>(&bundle.body) {
                Ok(frames) if frames.is_empty() => return self.sync(runtime).await,
                Ok(_) => {}
                Err(reason) => return refused(reason),
            }
        }
        let nothing = Arrived::of(self.arrived.spec.clone());
        let mut arrived = std::mem::replace(&mut self.arrived, nothing);
        let (runtime, passage) = (runtime.clone(), self.passage());
        let (read, reading) = oneshot::channel();
        self.reading = Some(reading);
        runtime.inner().tasks.clone().spawn(async move {
            // It is never closed.
            let _permit = runtime.inner().migrator.reading.0.acquire().await;
            let taken = arrived.take(&runtime, bundle, &passage).await;
            // The migration may be over.
            drop(read.send((arrived, taken)));
        });
        MigrationAnswer::Ok
    }

    /// Waits until everything that is here has been read and checked.
    ///
    /// # Errors
    /// The answer to whoever asks for something now, when something of it can't be taken.
    async fn settle(&mut self) -> Result<(), MigrationAnswer> {
        if let Some(reading) = &mut self.reading {
            // Whoever waits may be cut off: then the next one waits for the same.
            let read = reading.await;
            self.reading = None;
            match read {
                Ok((arrived, taken)) => {
                    self.arrived = arrived;
                    self.failed = taken.err();
                }
                Err(_) => self.failed = Some(not_ready("the rows were not read: the host stops")),
            }
        }
        let failed = self.failed.as_ref().or(self.arrived.writing.failure());
        failed.map_or(Ok(()), |failed| Err(failed.clone()))
    }

    /// Waits until everything that is here is written.
    async fn written(&mut self) -> Result<(), MigrationAnswer> {
        self.settle().await?;
        self.arrived.writing.done().await
    }

    /// Waits until what has been received is on the disk.
    async fn sync(&mut self, runtime: &Runtime) -> MigrationAnswer {
        if let Err(no) = self.written().await {
            return no;
        }
        let store = &runtime.inner().store;
        if self.arrived.bytes >= packing::BUNDLE_BYTES as u64 {
            store.keep_quiet(QUIET_FOR).await;
        }
        match store.probe().await {
            Ok(()) => MigrationAnswer::Ok,
            Err(error) => not_ready(error),
        }
    }

    /// Waits until nothing is being written any more; the copy is about to be dropped.
    pub(super) async fn close(&mut self) {
        // Why something failed does not matter any more.
        drop(self.settle().await);
        drop(self.arrived.writing.done().await);
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

    /// Builds a guest from the state at hand, unless the warm one is at it already.
    pub(super) async fn on_restore(&mut self, runtime: &Runtime, revision: Revision) -> MigrationAnswer {
        if let Err(no) = self.written().await {
            return no;
        }
        if self.reservation.is_shared {
            match runtime.inner().store.image(&self.record.agent, None).await {
                Ok(Some(image)) => {
                    (self.arrived.snapshot, self.arrived.spec) = (image.snapshot, Arc::new(image.spec))
                }
                Ok(None) => return refused("the agent is not in this store"),
                Err(error) => {
                    return MigrationAnswer::StateFailed { reason: error.to_string() };
                }
            }
        }
        if revision == Revision(0) {
            return MigrationAnswer::Restored { revision };
        }
        let restored = self.restored(runtime).await;
        let is_shared = self.reservation.is_shared;
        let caught_up = if restored.is_ok() && is_shared { self.catch_up(runtime).await } else { restored };
        caught_up.err().unwrap_or(MigrationAnswer::Restored { revision })
    }

    /// Builds a guest of the newest snapshot, unless there is one.
    async fn restored(&mut self, runtime: &Runtime) -> Result<(), MigrationAnswer> {
        let is_built = |warm: &WarmGuest| warm.is_of(self.arrived.snapshot.as_ref(), &self.arrived.spec);
        if self.warm.as_ref().is_some_and(is_built) {
            return Ok(());
        }
        let Some(snapshot) = self.arrived.snapshot.clone() else {
            return Err(MigrationAnswer::StateFailed { reason: "no snapshot has arrived".into() });
        };
        match self.build_guest(runtime, snapshot).await {
            Ok(warm) => {
                self.warm = Some(warm);
                failpoint::hit("migration.target.after-restore");
                Ok(())
            }
            Err(reason) => Err(MigrationAnswer::StateFailed { reason }),
        }
    }

    /// Brings the guest to where the agent is: what does something else here than it did there is not let go there.
    async fn catch_up(&mut self, runtime: &Runtime) -> Result<(), MigrationAnswer> {
        let Some(warm) = self.warm.take() else { return Ok(()) };
        match catch_up(&runtime.inner().env, &self.record.agent, warm).await {
            Ok(warm) => {
                self.warm = Some(warm);
                Ok(())
            }
            Err(CatchUpError::Diverged(reason)) => Err(MigrationAnswer::Diverged { reason }),
            Err(error) => Err(MigrationAnswer::StateFailed { reason: error.to_string() }),
        }
    }

    async fn build_guest(&mut self, runtime: &Runtime, snapshot: Snapshot) -> Result<WarmGuest, String> {
        let env = &runtime.inner().env;
        let plugin = self.arrived.spec.plugin;
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
            spec: self.arrived.spec.clone(),
            grants: runtime.grants_of(plugin).await.map_err(|error| error.to_string())?,
            guard: self.guard.clone(),
            state: rows.clone(),
            interrupt: interrupt.clone(),
        };
        let (built_from, state) = (snapshot.clone(), self.arrived.state);
        let context = restore_context(&agent, &snapshot);
        let loader = env.loader.clone();
        let clock = env.clock.clone();
        let job = move || -> Result<Rebuilt, GuestError> {
            let started = clock.boot();
            let mut guest = loader.start(request)?;
            guest.restore(&context, &snapshot.state, &snapshot.plugin_version)?;
            let restore = clock.boot().saturating_sub(started);
            Ok(Rebuilt { guest, at: snapshot.revision, restore, turns: Vec::new() })
        };
        let built = env.pool.run(plugin, job).await.map_err(|error| error.to_string())?;
        let rebuilt = built.map_err(|error| error.to_string())?;
        Ok(WarmGuest { rebuilt, built_from, state, spec: self.arrived.spec.clone(), interrupt, rows })
    }

    /// What was let in by what its source said of it is what has arrived.
    fn check_arrived(&self, runtime: &Runtime) -> Result<(), MigrationAnswer> {
        if self.arrived.public_key != self.reservation.public_key {
            return Err(refused("the key that has arrived is another than was reserved for"));
        }
        // It may have been upgraded, configured and labelled since.
        if self.arrived.spec.plugin != self.reservation.spec.plugin {
            let reason = "it was given another plugin while it was on its way: move it again";
            return Err(refused_for(Refusal::Plugin, reason));
        }
        claims::check_spec(&self.arrived.spec)?;
        let wants = Wants {
            residency: self.arrived.residency.clone(),
            ..Wants::of(&self.arrived.spec, &Default::default())
        };
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
        if let Err(no) = self.written().await {
            return no;
        }
        for frame in &preparation.frames {
            self.arrived.digest.add(frame.digest());
        }
        self.arrived.look_at(&preparation.frames);
        if let Err(no) = self.check_arrived(runtime) {
            return no;
        }
        // Nothing runs from one at rest: who wakes it compares it first.
        if !self.arrived.rests && self.arrived.is_named_otherwise() {
            return refused("the snapshot is not the state that the agent's receipt names");
        }
        if self.arrived.digest.finish() != preparation.bundle {
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
            if self.arrived.rests {
                MigrationAnswer::Restored { revision }
            } else {
                self.on_restore(runtime, revision).await
            }
        };
        let (bound, restored) = tokio::join!(store.prepare(request), restoring);
        match (bound, restored) {
            (Ok(()), MigrationAnswer::Restored { .. }) => {
                if let Err(no) = self.catch_up(runtime).await {
                    // As below.
                    return no;
                }
                failpoint::hit("migration.target.after-prepared");
                MigrationAnswer::Prepared { bundle: self.arrived.digest.finish() }
            }
            // The source takes it back, and says so.
            (Ok(()), failed) => failed,
            (Err(error), _) => unwritten(&error),
        }
    }
}
