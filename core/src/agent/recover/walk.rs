//! Running an agent's history again from a kept snapshot, past the newer ones, and noting where it first does not fit.
//!
//! Nothing here acts. A walk begins where the live run began: at each kept snapshot on the way the guest goes on in a new
//! instance (see `tail`). A turn that does something else is noted and the walk goes on; one that fails ends it before
//! that turn.

use crate::agent::loading::outside_context;
use crate::agent::rebuild::{RebuildError, restored, run_again};
use crate::digest::Digest;
use crate::guest::{Guest, GuestError, GuestLoader, GuestRequest};
use crate::id::Revision;
use crate::receipt::Receipt;
use crate::snapshot::Snapshot;
use crate::store::{AgentImage, KeptSnapshot};

/// Walks that fail before the state of the snapshot itself is all that is left: a guest that fails at another turn each time
/// must not be run for ever.
const WALKS_MAX: u32 = 6;

/// Where a history first does not give what is recorded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// At which boundary.
    pub revision: Revision,
    /// The digest that the history names there: of a state, or of the effects of a turn.
    pub expected: Digest,
    /// What does not fit.
    pub what: String,
}

/// A history to be run again.
pub(super) struct Story {
    /// From the snapshot to begin with.
    pub(super) image: AgentImage,
    /// The kept snapshots behind that one, ascending.
    pub(super) newer: Vec<KeptSnapshot>,
    pub(super) plugin_version: String,
}

/// What a walk came to.
pub(super) struct Walk {
    /// Turns that ran again.
    pub(super) turns: u64,
    /// The kept snapshots on the way, made anew; each has the recorded digest, if nothing misfits.
    pub(super) passed: Vec<Snapshot>,
    /// The furthest state that a guest takes back; `None` before the first boundary.
    pub(super) end: Option<Snapshot>,
    /// The first thing that does not fit.
    pub(super) misfit: Option<Misfit>,
}

impl Story {
    /// Runs it. Blocks as long as the turns take.
    ///
    /// # Errors
    /// `RebuildError` when not even the snapshot can be restored, or the host stopped it.
    pub(super) fn walk(
        &self,
        loader: &dyn GuestLoader,
        request: &GuestRequest,
    ) -> Result<Walk, RebuildError> {
        let base = self.image.base();
        let mut known = self.image.state_named_otherwise().map(|expected| Misfit {
            revision: base,
            expected,
            what: format!("snapshot of revision {base} is not the state its receipt names"),
        });
        let mut limit = self.image.row.revision;
        if let Some((receipt, what)) = self.image.first_obstacle() {
            limit = Revision(receipt.revision.0 - 1);
            note(&mut known, Some(of_turn(receipt, what)));
        }
        let mut failed: Option<(Revision, Option<Misfit>)> = None;
        for _ in 0..WALKS_MAX {
            let mut found = None;
            match self.walk_to(limit, loader, request, &mut found) {
                Ok(mut walk) => {
                    note(&mut known, found);
                    walk.misfit = known;
                    return Ok(walk);
                }
                Err(RebuildError::Diverged { revision, message }) => {
                    let misfit = self.misfit_of(revision, message);
                    // A slow moment of the host must not cost a turn.
                    if failed.as_ref().is_some_and(|(before, _)| *before == revision) {
                        note(&mut found, misfit);
                        note(&mut known, found);
                        limit = Revision(revision.0.saturating_sub(1)).max(base);
                    } else {
                        failed = Some((revision, misfit));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        // The state that it began with is all that is left.
        note(&mut known, failed.and_then(|(_, misfit)| misfit));
        drop(restored(loader, request.clone(), self.image.snapshot.as_ref())?);
        Ok(Walk { turns: 0, passed: Vec::new(), end: self.image.snapshot.clone(), misfit: known })
    }

    fn walk_to(
        &self,
        limit: Revision,
        loader: &dyn GuestLoader,
        request: &GuestRequest,
        found: &mut Option<Misfit>,
    ) -> Result<Walk, RebuildError> {
        let mut end = self.image.snapshot.clone();
        let mut guest = restored(loader, request.clone(), end.as_ref())?;
        let mut at = self.image.base();
        let mut walk = Walk { turns: 0, passed: Vec::new(), end: None, misfit: None };
        let newer = self.newer.iter().filter(|kept| kept.revision <= limit);
        let last = Some((limit, None)).filter(|_| newer.clone().all(|kept| kept.revision < limit));
        for (stop, kept) in newer.map(|kept| (kept.revision, Some(kept))).chain(last) {
            if stop == at {
                continue;
            }
            walk.turns += self.run(guest.as_mut(), (at, stop), found)?;
            let state = self.state(guest.as_mut(), stop)?;
            at = stop;
            if let Some(kept) = kept {
                note(found, self.compare(kept, &state));
                walk.passed.push(state.clone());
            }
            match restored(loader, request.clone(), Some(&state)) {
                Ok(next) => guest = next,
                Err(error) if error.is_of_guest() && stop < limit => {
                    // The instance that has come this far goes on: what it makes later may be taken back.
                    note(found, self.misfit_of(stop, error.to_string()));
                }
                // Nor would the states shortly before it be: they have made it.
                Err(error) if error.is_of_guest() => {
                    let revision = self.image.base().next();
                    return Err(RebuildError::Diverged { revision, message: error.to_string() });
                }
                Err(error) => return Err(error),
            }
            end = Some(state);
        }
        walk.end = end;
        Ok(walk)
    }

    /// Runs the turns behind one revision up to another; answers how many.
    fn run(
        &self,
        guest: &mut dyn Guest,
        (after, to): (Revision, Revision),
        found: &mut Option<Misfit>,
    ) -> Result<u64, RebuildError> {
        let mut turns = 0;
        for (revision, turn) in self.image.journal.range(after.next()..=to) {
            let Some(receipt) = self.image.receipt(*revision) else { continue };
            let again = run_again(guest, receipt, turn)?;
            turns += 1;
            if again.effects != receipt.effects {
                let what = format!("turn {revision}, run again, did something else: it had other effects");
                note(found, Some(of_turn(receipt, what)));
            }
        }
        Ok(turns)
    }

    /// The state of a guest that stands at a boundary, with the header that it had when it was first taken.
    fn state(&self, guest: &mut dyn Guest, at: Revision) -> Result<Snapshot, RebuildError> {
        let row = &self.image.row;
        let receipt = self.image.receipt(at);
        let token = receipt.map_or(row.token, |receipt| receipt.token);
        let time_ms = receipt.map_or(row.time_ms, |receipt| receipt.committed_at_ms);
        let context = outside_context(&row.agent, row.generation, token, at, time_ms);
        let state = guest.snapshot(&context).map_err(|error| match error {
            GuestError::Fenced | GuestError::Interrupted => RebuildError::Stopped(error),
            other => RebuildError::Diverged { revision: at, message: format!("it gave no state: {other}") },
        })?;
        Ok(Snapshot {
            generation: row.generation,
            revision: at,
            token,
            time_ms,
            plugin_version: self.plugin_version.clone(),
            state,
        })
    }

    /// Compares a state with what is recorded of it: by its receipt, or by the snapshot's own digest.
    fn compare(&self, kept: &KeptSnapshot, state: &Snapshot) -> Option<Misfit> {
        let digest = state.state_digest();
        let named = self.image.receipt(kept.revision).and_then(|receipt| receipt.state);
        let (expected, got) = named.map_or((kept.digest, state.digest(digest)), |named| (named, digest));
        let what = format!("the turns behind revision {} make another state", self.image.base());
        (expected != got).then_some(Misfit { revision: kept.revision, expected, what })
    }

    fn misfit_of(&self, revision: Revision, what: String) -> Option<Misfit> {
        let receipt = self.image.receipt(revision)?;
        Some(Misfit { expected: receipt.state.unwrap_or(receipt.effects), ..of_turn(receipt, what) })
    }
}

fn of_turn(receipt: &Receipt, what: String) -> Misfit {
    Misfit { revision: receipt.revision, expected: receipt.effects, what }
}

/// Keeps the earlier of two.
fn note(known: &mut Option<Misfit>, found: Option<Misfit>) {
    if let Some(found) = found
        && known.as_ref().is_none_or(|known| found.revision < known.revision)
    {
        *known = Some(found);
    }
}
