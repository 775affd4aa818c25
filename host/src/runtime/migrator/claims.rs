//! What a peer claims about a migration, judged before anything is kept of it.
//!
//! The mesh has proven the peer's key and nothing else: it may be stale, broken or stolen. Whether the agent may come at all is
//! the target's policy (`target.rs`); here is what no honest host says.

use std::time::Duration;

use godwit_core::guest::LoadedPlugin;
use godwit_core::id::FencingToken;
use godwit_core::migration::Refusal;
use godwit_core::spec::{PluginInfo, SpecPatch};

use super::super::wire::{MigrationAnswer, Reservation};
use super::MIGRATION_MAX;

/// Migrations that one peer may have open here: twice what a drain moves at once.
pub(super) const ARRIVALS_OF_PEER_MAX: usize = 16;
/// Migrations that may be open here. Each holds a guest in the end, and up to two bundles of rows on their way in.
pub(super) const ARRIVALS_MAX: usize = 64;
/// How long an open migration is kept here: the source gives up in half of that.
pub(super) const ARRIVAL_KEPT: Duration = MIGRATION_MAX.saturating_mul(2);

/// # Errors
/// What is wrong with it.
pub(super) fn check_reservation(reservation: &Reservation) -> Result<(), MigrationAnswer> {
    let refused = |reason: String| Err(MigrationAnswer::Refused { why: Refusal::Protocol, reason });
    check_token(reservation.token)?;
    if reservation.spec.plugin != reservation.plugin.digest {
        return refused("the spec names another plugin than the reservation".into());
    }
    if !reservation.spec.limits.are_within_max() {
        return refused("the spec gives the guest more than any host gives".into());
    }
    match SpecPatch::from(reservation.spec.clone()).check() {
        Ok(()) => Ok(()),
        Err(error) => refused(format!("the spec is none that a host makes: {error}")),
    }
}

/// # Errors
/// When no store can have granted it.
pub(super) fn check_token(token: FencingToken) -> Result<(), MigrationAnswer> {
    if token.is_plausible() {
        return Ok(());
    }
    let reason = format!("no store grants the token {token}");
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

/// `GODWIT_BREAK=no-peer-check`: takes every peer for the source of every migration, so that the suite of false peers can be seen
/// to notice. The product has no such switch.
pub(super) fn believes_everybody() -> bool {
    let is_told = |broken: String| broken.split(',').any(|part| part.trim() == "no-peer-check");
    cfg!(feature = "test-util") && std::env::var("GODWIT_BREAK").is_ok_and(is_told)
}
