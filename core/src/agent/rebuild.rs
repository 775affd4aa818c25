//! Rebuilding a guest from what is stored: the snapshot restored, the journaled turns behind it run again.
//!
//! A turn that runs again sees the same time, random numbers, inputs and answers as when it ran first; what it does is
//! compared by digest with what its receipt names, and goes nowhere.

use std::sync::Arc;
use std::time::Duration;

use crate::agent::loading::outside_context;
use crate::agent::sabotage;
use crate::digest::Digest;
use crate::guest::{Answers, Guest, GuestError, GuestLoader, GuestRequest, TurnContext};
use crate::id::{AgentId, Revision};
use crate::input::FaultKind;
use crate::journal::JournaledTurn;
use crate::receipt::{BoundaryKind, Receipt};
use crate::snapshot::Snapshot;
use crate::store::AgentImage;
use crate::time::Clock;

/// A guest at a revision, and what it took to get it there.
pub struct Rebuilt {
    /// The guest.
    pub guest: Box<dyn Guest>,
    /// The revision.
    pub at: Revision,
    /// Time to start and restore it.
    pub restore: Duration,
    /// Turns that ran again: bytes of the entry with its payloads, and time in the guest.
    pub turns: Vec<(usize, Duration)>,
}

/// Why a guest could not be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// The snapshot can't be restored, or the guest can't be started.
    #[error("restore failed: {0}")]
    Restore(GuestError),
    /// A turn, run again, did something else.
    #[error("turn {revision}, run again, did something else: {message}")]
    Diverged {
        /// The revision that the turn made.
        revision: Revision,
        /// What did not fit.
        message: String,
    },
    /// The host stopped the replay: the lease is gone, or a thread of its own said so.
    #[error("replay was stopped: {0}")]
    Stopped(GuestError),
}

/// Where a guest to be rebuilt comes from.
pub enum Start {
    /// It is at the revision of the image's snapshot already, or at one behind it.
    Warm(Rebuilt),
    /// It is started and restored.
    Cold(GuestRequest),
}

/// Brings a guest to a revision: that of the image's snapshot, or one behind it. The image must have passed
/// `AgentImage::check_to` that revision. Blocks as long as the turns take.
///
/// # Errors
/// `RebuildError`; the guest is gone.
pub fn rebuild(
    (loader, clock): (&dyn GuestLoader, &dyn Clock),
    start: Start,
    image: &AgentImage,
    to: Revision,
) -> Result<Rebuilt, RebuildError> {
    let started = clock.boot();
    let mut rebuilt = match start {
        Start::Warm(rebuilt) => rebuilt,
        Start::Cold(request) => {
            let guest = restored(loader, request, image.snapshot.as_ref())?;
            let restore = clock.boot().saturating_sub(started);
            Rebuilt { guest, at: image.base(), restore, turns: Vec::new() }
        }
    };
    for receipt in &image.receipts {
        if receipt.revision <= rebuilt.at || receipt.revision > to {
            continue;
        }
        // A dead letter has no turn.
        if let Some(turn) = image.journal.get(&receipt.revision) {
            let again = run_again(rebuilt.guest.as_mut(), receipt, turn)?;
            if again.effects != receipt.effects {
                return Err(RebuildError::other_effects(receipt.revision));
            }
            rebuilt.turns.push((weight(turn), again.elapsed));
        }
        rebuilt.at = receipt.revision;
    }
    Ok(rebuilt)
}

/// Starts a guest and gives it the state of a snapshot, if there is one.
pub(crate) fn restored(
    loader: &dyn GuestLoader,
    request: GuestRequest,
    snapshot: Option<&Snapshot>,
) -> Result<Box<dyn Guest>, RebuildError> {
    let agent = request.agent.clone();
    sabotage::taste_start("instantiate", &agent);
    let mut guest = loader.start(request).map_err(RebuildError::Restore)?;
    if let Some(snapshot) = snapshot {
        let context = restore_context(&agent, snapshot);
        sabotage::taste_start("restore", &agent);
        let restored = guest.restore(&context, &snapshot.state, &snapshot.plugin_version);
        restored.map_err(RebuildError::Restore)?;
    }
    Ok(guest)
}

/// The circumstances under which a snapshot is restored: the same wherever and whenever that is.
pub fn restore_context(agent: &AgentId, snapshot: &Snapshot) -> TurnContext {
    let Snapshot { generation, revision, token, time_ms, .. } = snapshot;
    outside_context(agent, *generation, *token, *revision, *time_ms)
}

/// Bytes that a journaled turn takes in memory, about.
fn weight(turn: &JournaledTurn) -> usize {
    turn.entry.weight() + turn.inputs.iter().map(|input| input.payload.len()).sum::<usize>()
}

/// What a turn did when it ran again.
pub(crate) struct Again {
    pub(crate) effects: Digest,
    pub(crate) elapsed: Duration,
}

/// Runs a journaled turn again. Whether it did what its receipt names is for the caller to see.
pub(crate) fn run_again(
    guest: &mut dyn Guest,
    receipt: &Receipt,
    turn: &JournaledTurn,
) -> Result<Again, RebuildError> {
    let context = TurnContext {
        generation: receipt.generation,
        token: receipt.token,
        revision: Revision(receipt.revision.0.saturating_sub(1)),
        attempt: turn.entry.attempt,
        now_ms: receipt.committed_at_ms,
        seed: turn.entry.seed,
        answers: Answers::Replay(Arc::from(turn.entry.answers.as_slice())),
    };
    let revision = receipt.revision;
    sabotage::taste_start("replay", &receipt.agent);
    let ran = match receipt.kind {
        BoundaryKind::Init => guest.init(&context),
        _ => guest.handle(&context, &turn.inputs),
    };
    let diverged = |message: String| RebuildError::Diverged { revision, message };
    let effects = ran.map_err(|error| match error {
        GuestError::Fenced | GuestError::Interrupted => RebuildError::Stopped(error),
        GuestError::Diverged { message } => diverged(message),
        other => diverged(format!("it failed: {other}")),
    })?;
    Ok(Again { effects: effects.digest(), elapsed: effects.elapsed })
}

impl RebuildError {
    fn other_effects(revision: Revision) -> Self {
        Self::Diverged { revision, message: "its receipt names other effects".into() }
    }

    /// Whether the guest could not take a state: neither the host's doing nor a want of room.
    pub fn is_of_guest(&self) -> bool {
        let is_passing = |error: &GuestError| {
            matches!(error, GuestError::Fenced | GuestError::Interrupted | GuestError::StateRead(_))
        };
        matches!(self, Self::Restore(error) if !is_passing(error)) && !self.is_for_want_of_room()
    }

    /// Whether the host had no room for the guest: later it may.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::Restore(GuestError::Fault(fault)) if fault.kind == FaultKind::Start)
    }
}
