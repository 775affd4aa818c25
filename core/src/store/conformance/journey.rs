//! Moving an agent between two stores, step by step, for cases that stop in the middle.

use crate::id::{AgentId, FencingToken, Incarnation, MigrationId};
use crate::lease::Lease;
use crate::migration::{Phase, Role};
use crate::store::conformance::START_MS;
use crate::store::conformance::fixture::{Desk, Site, World, put_plugin};
use crate::store::{Adoption, Handoff, MigrationRecord, PrepareRequest, Row, RowFrame};

/// An agent on its way from its owner to another store.
pub(super) struct Journey {
    pub(super) migration: MigrationId,
    pub(super) from: Desk,
    pub(super) to: Site,
}

impl Journey {
    /// A furnished agent in store `a`, about to go to store `b`.
    pub(super) async fn furnished(world: &World) -> Self {
        let journey = Self::bare(world).await;
        journey.from.furnish().await;
        journey
    }

    /// As `furnished`, with an agent that has no boundary yet.
    pub(super) async fn bare(world: &World) -> Self {
        let from = world.site("a").await.own("agent").await;
        let to = world.site("b").await;
        put_plugin(&to.store, "plain").await;
        Self { migration: super::fixture::migration(1), from, to }
    }

    pub(super) fn agent(&self) -> &AgentId {
        self.from.agent()
    }

    /// The record of one side.
    pub(super) fn record(&self, role: Role, phase: Phase) -> MigrationRecord {
        MigrationRecord {
            id: self.migration,
            agent: self.agent().clone(),
            role,
            source: self.from.site.host,
            target: self.to.host,
            phase,
            failure: None,
            rounds: 0,
            bytes: 0,
            pause_us: None,
            started_at_ms: START_MS,
            deadline_ms: START_MS + 60_000,
        }
    }

    /// Step 0: records the migration at the source, so that deletes travel.
    pub(super) async fn record_at_source(&self, phase: Phase) {
        let record = self.record(Role::Source, phase);
        assert_eq!(self.from.store().put_migration(record).await, Ok(()));
    }

    /// Rows of the source after a change number.
    pub(super) async fn export(&self, after: u64) -> Vec<RowFrame> {
        let frames = self.from.store().export_rows(self.agent(), after, usize::MAX).await;
        frames.unwrap()
    }

    /// Gives rows to the target's copy.
    pub(super) async fn receive(&self, frames: Vec<RowFrame>) {
        let received = self.to.store.receive_rows(self.migration, self.agent(), frames).await;
        assert_eq!(received, Ok(()));
    }

    /// Step 1.
    pub(super) async fn begin(&self) -> Handoff {
        let (store, base) = (self.from.store(), self.from.row().await.revision);
        let begun = store.begin_handoff(&self.from.owner, base, self.migration, self.to.host).await;
        begun.unwrap()
    }

    /// What step 2 asks for, with rows after a change number.
    pub(super) async fn request(&self, granted: FencingToken, after: u64) -> PrepareRequest {
        let row = self.from.row().await;
        PrepareRequest {
            migration: self.migration,
            agent: self.agent().clone(),
            source: self.from.site.host,
            token: granted,
            generation: row.generation,
            revision: row.revision,
            frames: self.export(after).await,
        }
    }

    /// Step 2, with all rows.
    pub(super) async fn prepare(&self, granted: FencingToken) {
        let request = self.request(granted, 0).await;
        assert_eq!(self.to.store.prepare(request).await, Ok(()));
    }

    /// Step 3.
    pub(super) async fn finish(&self) {
        let finished = self.from.store().finish_handoff(self.agent(), self.migration).await;
        assert_eq!(finished, Ok(()));
    }

    /// Step 4.
    pub(super) async fn adopt(&self) -> Lease {
        let adopted =
            self.to.store.adopt(self.agent(), self.migration, self.to.incarnation, Adoption::Granted).await;
        adopted.unwrap()
    }

    /// All steps. Answers the owner at the target.
    pub(super) async fn complete(&self) -> Desk {
        let granted = self.begin().await.granted;
        self.prepare(granted).await;
        self.finish().await;
        let lease = self.adopt().await;
        self.to.desk(lease)
    }
}

/// Rows as they must be at both ends of a move. The move itself is counted in the agent's row (`HomeMoved` and the rest), which
/// so changes once more.
pub(super) fn moved(mut frames: Vec<RowFrame>) -> Vec<RowFrame> {
    for frame in &mut frames {
        match &mut frame.row {
            Row::Input(input) => input.accepted_by = Incarnation(0),
            Row::Agent(portable) => (portable.next_event, frame.change) = (0, 0),
            _ => {}
        }
    }
    frames.sort_by_key(|frame| frame.change);
    frames
}
