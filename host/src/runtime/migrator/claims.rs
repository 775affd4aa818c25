//! What a peer claims about a migration, judged before anything is kept of it.
//!
//! The mesh has proven the peer's key and nothing else: it may be stale, broken or stolen. Whether the agent may come at all is
//! the target's policy (`target.rs`); here is what no honest host says.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit_core::digest::Digest;
use godwit_core::guest::LoadedPlugin;
use godwit_core::id::{AgentId, FencingToken, Generation, Revision};
use godwit_core::input::InputState;
use godwit_core::migration::Refusal;
use godwit_core::receipt::Receipt;
use godwit_core::snapshot::Snapshot;
use godwit_core::spec::{PluginInfo, Spec, SpecPatch};
use godwit_core::store::{Row, RowFrame};

use super::super::wire::{MigrationAnswer, Reservation};

/// Migrations that one peer may have open here: twice what a drain moves at once.
pub(super) const ARRIVALS_OF_PEER_MAX: usize = 16;
/// Migrations that may be open here. Each holds a guest in the end, and up to three bundles of rows: one is written, one is read
/// (few at a time, of all migrations), one arrives.
pub(super) const ARRIVALS_MAX: usize = 64;
/// How long an open migration is kept here that is not bound: all of a source's phases together take less.
pub(super) const ARRIVAL_KEPT: Duration = Duration::from_secs(600);

/// # Errors
/// What is wrong with it.
pub(super) fn check_reservation(reservation: &Reservation) -> Result<(), MigrationAnswer> {
    let refused = |reason: String| Err(MigrationAnswer::Refused { why: Refusal::Protocol, reason });
    check_token(reservation.token)?;
    if reservation.spec.plugin != reservation.plugin.digest {
        return refused("the spec names another plugin than the reservation".into());
    }
    check_spec(&reservation.spec)
}

/// # Errors
/// When no host makes such a spec.
pub(super) fn check_spec(spec: &Spec) -> Result<(), MigrationAnswer> {
    let refused = |reason: String| Err(MigrationAnswer::Refused { why: Refusal::Protocol, reason });
    if !spec.limits.are_within_max() {
        return refused("the spec gives the guest more than any host gives".into());
    }
    match SpecPatch::from(spec.clone()).check() {
        Ok(()) => Ok(()),
        Err(error) => refused(format!("the spec is none that a host makes: {error}")),
    }
}

/// # Errors
/// When no store can have granted it.
pub(in crate::runtime) fn check_token(token: FencingToken) -> Result<(), MigrationAnswer> {
    if token.is_plausible() {
        return Ok(());
    }
    let reason = format!("no store grants the token {token}");
    Err(MigrationAnswer::Refused { why: Refusal::Protocol, reason })
}

/// # Errors
/// When one of the rows says that it is another agent's.
pub(super) fn check_rows(frames: &[RowFrame], agent: &AgentId) -> Result<(), MigrationAnswer> {
    let Some(owner) = frames.iter().filter_map(|frame| frame.row.owner()).find(|owner| *owner != agent)
    else {
        return Ok(());
    };
    let reason = format!("a row is of agent {owner}");
    Err(MigrationAnswer::Refused { why: Refusal::Protocol, reason })
}

/// Whether a component is what the peer said of it: its manifest decides what it may do, so nobody else may say.
///
/// # Errors
/// In what it differs.
pub(super) fn check_plugin(claimed: &PluginInfo, loaded: &LoadedPlugin) -> Result<(), MigrationAnswer> {
    let differs = if claimed.digest != loaded.digest {
        "bytes"
    } else if claimed.grants != loaded.grants {
        "grants"
    } else if claimed.imports != loaded.imports {
        "imports"
    } else {
        return Ok(());
    };
    let reason = format!("the component has other {differs} than were reserved");
    Err(MigrationAnswer::Refused { why: Refusal::Plugin, reason })
}

/// The states that the newest receipts name, for the snapshot that is to be one of them.
#[derive(Debug, Default)]
pub(super) struct NamedStates(BTreeMap<(Generation, Revision), Digest>);

impl NamedStates {
    /// How many are kept: an agent's two snapshots, and what its turns have stored since the transfer began.
    const KEPT: usize = 64;

    pub(super) fn note(&mut self, receipt: &Receipt) {
        let Some(state) = receipt.state else { return };
        self.0.insert((receipt.generation, receipt.revision), state);
        if self.0.len() > Self::KEPT {
            self.0.pop_first();
        }
    }

    /// Whether the receipt of the snapshot's revision names another state.
    pub(super) fn name_another_than(&self, snapshot: &Snapshot, state: Digest) -> bool {
        let named = self.0.get(&(snapshot.generation, snapshot.revision));
        named.is_some_and(|named| *named != state)
    }
}

/// `GODWIT_BREAK=no-peer-check`: takes every peer for the source of every migration and the sender of every delivery, so that the
/// suite of false peers can be seen to notice. The product has no such switch.
pub(in crate::runtime) fn believes_everybody() -> bool {
    is_broken("no-peer-check")
}

/// `GODWIT_BREAK`: what of an agent that moves stays behind, so that those who watch it can be seen to notice. With `left-behind` the
/// inputs that wait at the end, with `subscriptions-left-behind` who subscribes to its channels and what it subscribes to. The product
/// has no such switch.
pub(super) fn leave_behind(frames: &mut Vec<RowFrame>, is_frozen: bool) {
    let waits =
        |frame: &RowFrame| matches!(&frame.row, Row::Input(input) if input.state == InputState::Queued);
    let subscribes = |frame: &RowFrame| matches!(&frame.row, Row::Subscriber(_) | Row::Subscription(_));
    if is_frozen && is_broken("left-behind") {
        frames.retain(|frame| !waits(frame));
    }
    if is_broken("subscriptions-left-behind") {
        frames.retain(|frame| !subscribes(frame));
    }
}

fn is_broken(switch: &str) -> bool {
    let is_told = |broken: String| broken.split(',').any(|part| part.trim() == switch);
    cfg!(feature = "test-util") && std::env::var("GODWIT_BREAK").is_ok_and(is_told)
}
