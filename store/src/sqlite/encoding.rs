//! Encoding what is written before it comes to the writer's thread: units sealed, snapshots packed.

use bytes::Bytes;
use godwit_core::id::{AgentId, MigrationId};
use godwit_core::store::{Boundary, RowFrame, Step, StoreError, Unit};

use super::boundary::Prepared;
use super::handoff::Arriving;
use super::writer::Tx;
use super::{SqliteStore, handoff};

/// Units with more bytes than this are encoded on a thread for blocking work.
pub(super) const ENCODE_INLINE_MAX: usize = 64 * 1024;

/// About how many bytes encoding a unit has to go through.
pub(super) fn weight(unit: &Unit) -> usize {
    let of_boundary = |boundary: &Boundary| {
        let snapshot = boundary.snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len());
        let state = boundary.state.iter().filter_map(|(_, value)| value.as_ref()).map(Bytes::len);
        let outputs = boundary.outputs.iter().map(|output| output.payload.len());
        snapshot + state.sum::<usize>() + outputs.sum::<usize>()
    };
    let of_step = |step: &Step| match step {
        Step::Accept { input, .. } => input.input.payload.len(),
        Step::Attempts(_) | Step::FailedStarts(_) | Step::Configure(_) => 0,
        Step::Checkpoint(snapshot) => snapshot.state.len(),
        Step::Boundary(boundary) => of_boundary(boundary),
        Step::Upgrade(upgrade) => of_boundary(&upgrade.boundary),
        Step::Repair(repair) => of_boundary(&repair.boundary),
    };
    unit.steps.iter().map(of_step).sum()
}

/// Does the work of encoding on a thread for blocking work.
async fn encode<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Closed { reason: error.to_string() }))
}

impl SqliteStore {
    pub(super) async fn prepared(&self, unit: Unit) -> Result<Prepared, StoreError> {
        if weight(&unit) <= ENCODE_INLINE_MAX {
            return Prepared::new(unit);
        }
        encode(move || Prepared::new(unit)).await
    }

    /// Packs the snapshots among rows that arrive, and puts the large ones: with the bodies that it put.
    pub(super) async fn arriving(
        &self,
        frames: Vec<RowFrame>,
    ) -> Result<(Vec<Arriving>, Vec<i64>), StoreError> {
        let pack = move || frames.into_iter().map(Arriving::new).collect::<Result<Vec<_>, _>>();
        let mut rows = encode(pack).await?;
        let bodies = self.put_bodies(rows.iter_mut().filter_map(|row| row.packed.as_mut())).await?;
        Ok((rows, bodies))
    }

    /// Takes rows into a copy.
    pub(super) async fn receive(
        &self,
        migration: MigrationId,
        agent: AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        let (rows, bodies) = self.arriving(frames).await?;
        let bytes = rows.iter().map(Arriving::bytes).sum();
        let receive = move |tx: &Tx<'_>| {
            tx.count_moved(bytes);
            handoff::receive(tx, migration, &agent, &rows)
        };
        let received = self.write_lazily(bytes, receive).await;
        // Of those that were received before, some may not be needed.
        self.drop_bodies(bodies).await;
        received
    }
}
