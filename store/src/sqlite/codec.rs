//! How values become columns: sealed values, 64-bit counters, enums as codes, packed snapshots.
//!
//! A sealed value is `[format u8][check 8 bytes][payload]`: the check is the first bytes of the payload's BLAKE3, the
//! payload postcard (or raw bytes, for `state` rows). Nothing is decoded before its check has passed, and nothing may
//! follow what was decoded.

use bytes::Bytes;
use godwit_core::channel::ChannelName;
use godwit_core::digest::Digest;
use godwit_core::event::EventKind;
use godwit_core::id::{AgentId, MigrationId};
use godwit_core::input::{InputState, Lane};
use godwit_core::limits::SNAPSHOT_BYTES_MAX;
use godwit_core::migration::{Phase, Role};
use godwit_core::output::UndeliverableReason;
use godwit_core::snapshot::Snapshot;
use godwit_core::store::StoreError;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Fallible, corrupt};

const FORMAT: u8 = 1;
const CHECK_BYTES: usize = 8;
/// What sealing adds to a value.
pub(super) const SEAL_BYTES: usize = 1 + CHECK_BYTES;
/// States below this size are not worth packing.
const PACK_BYTES_MIN: usize = 4096;
const PACK_LEVEL: i32 = 1;

/// Writes a sealed value.
pub(super) fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    seal_bytes(&postcard::to_stdvec(value).expect("stored values have no type that postcard can't write"))
}

/// Writes raw bytes as a sealed value.
pub(super) fn seal_bytes(payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL_BYTES + payload.len());
    sealed.push(FORMAT);
    sealed.extend_from_slice(&Digest::of(payload).0[..CHECK_BYTES]);
    sealed.extend_from_slice(payload);
    sealed
}

/// Reads a sealed value; `what` names it when it is damaged.
pub(super) fn unseal<T: DeserializeOwned>(sealed: &[u8], what: impl Fn() -> String) -> Fallible<T> {
    match postcard::take_from_bytes(unseal_bytes(sealed, &what)?) {
        Ok((value, [])) => Ok(value),
        _ => Err(corrupt(format!("{}: it holds something else", what()))),
    }
}

/// Reads the raw bytes of a sealed value.
pub(super) fn unseal_bytes(sealed: &[u8], what: impl Fn() -> String) -> Fallible<&[u8]> {
    let parts = sealed
        .split_first()
        .filter(|(format, _)| **format == FORMAT)
        .and_then(|(_, rest)| rest.split_first_chunk::<CHECK_BYTES>());
    match parts {
        Some((check, payload)) if Digest::of(payload).0[..CHECK_BYTES] == check[..] => Ok(payload),
        _ => Err(corrupt(format!("{}: its checksum does not match", what()))),
    }
}

/// A 64-bit counter as a column: refused above 2^63 - 1 instead of wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Int(pub(super) u64);

impl ToSql for Int {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        i64::try_from(self.0)
            .map(ToSqlOutput::from)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }
}

impl FromSql for Int {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let value = value.as_i64()?;
        u64::try_from(value).map(Self).map_err(|_| FromSqlError::OutOfRange(value))
    }
}

/// Reads an agent id column.
pub(super) fn agent_id(text: &str) -> Fallible<AgentId> {
    AgentId::parse(text).map_err(|error| corrupt(format!("stored {error}")))
}

/// Reads a column with a channel's name.
pub(super) fn channel_name(text: &str) -> Fallible<ChannelName> {
    text.parse().map_err(|error| corrupt(format!("stored {error}")))
}

/// Reads an optional migration id column.
pub(super) fn migration_id(bytes: Option<[u8; 16]>) -> Option<MigrationId> {
    bytes.map(MigrationId)
}

/// The code of an input's state. The schema's comments and partial indexes rest on these numbers.
pub(super) fn input_state_code(state: InputState) -> i64 {
    match state {
        InputState::Queued => 0,
        InputState::Staged => 1,
        InputState::Consumed => 2,
        InputState::DeadLettered => 3,
        InputState::Replaced => 4,
        InputState::Abandoned => 5,
    }
}

/// Reads an input's state.
pub(super) fn input_state(code: i64) -> Fallible<InputState> {
    InputState::ALL
        .into_iter()
        .find(|state| input_state_code(*state) == code)
        .ok_or_else(|| corrupt(format!("input state {code}")))
}

/// The code of a lane.
pub(super) fn lane_code(lane: Lane) -> i64 {
    match lane {
        Lane::Steer => 0,
        Lane::Queue => 1,
    }
}

/// Reads a lane.
pub(super) fn lane(code: i64) -> Fallible<Lane> {
    Lane::ALL.into_iter().find(|lane| lane_code(*lane) == code).ok_or_else(|| corrupt(format!("lane {code}")))
}

/// The code of a migration's side.
pub(super) fn role_code(role: Role) -> i64 {
    match role {
        Role::Source => 0,
        Role::Target => 1,
    }
}

/// The code of a migration's phase, for operators.
pub(super) fn phase_code(phase: Phase) -> i64 {
    phase as i64
}

/// The code of an event's kind: the variant's place in the append-only list.
pub(super) fn event_code(kind: EventKind) -> i64 {
    kind as i64
}

/// Reads an event's kind.
pub(super) fn event_kind(code: i64) -> Fallible<EventKind> {
    EventKind::ALL
        .into_iter()
        .find(|kind| event_code(*kind) == code)
        .ok_or_else(|| corrupt(format!("event kind {code}")))
}

/// The code of a reason.
pub(super) fn reason_code(reason: UndeliverableReason) -> i64 {
    reason as i64
}

/// Reads a reason.
pub(super) fn reason(code: i64) -> Fallible<UndeliverableReason> {
    const REASONS: [UndeliverableReason; 8] = [
        UndeliverableReason::NotFound,
        UndeliverableReason::Deleted,
        UndeliverableReason::Retired,
        UndeliverableReason::Forbidden,
        UndeliverableReason::Expired,
        UndeliverableReason::Rejected,
        UndeliverableReason::Namesake,
        UndeliverableReason::NotSubscribed,
    ];
    REASONS
        .into_iter()
        .find(|reason| reason_code(*reason) == code)
        .ok_or_else(|| corrupt(format!("undeliverable reason {code}")))
}

/// A snapshot as its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackedSnapshot {
    pub(super) generation: u64,
    pub(super) revision: u64,
    pub(super) token: u64,
    pub(super) time_ms: u64,
    pub(super) plugin_version: String,
    /// Covers the fields above and the digest of the state.
    pub(super) digest: Digest,
    /// Size of the state before packing.
    pub(super) bytes: u64,
    /// Whether `state` is zstd.
    pub(super) is_packed: bool,
    pub(super) state: Bytes,
    /// Where the state lies when it is too large for the row.
    pub(super) body: Option<i64>,
}

impl PackedSnapshot {
    /// Packs a snapshot whose state digest is known: with zstd where it saves 5 % or more.
    ///
    /// # Errors
    /// `Unsupported` above `SNAPSHOT_BYTES_MAX`.
    pub(super) fn new(snapshot: &Snapshot, state_digest: Digest) -> Result<Self, StoreError> {
        let state = &snapshot.state;
        if state.len() > SNAPSHOT_BYTES_MAX {
            return Err(StoreError::Unsupported { what: "snapshots above SNAPSHOT_BYTES_MAX" });
        }
        let packed = (state.len() >= PACK_BYTES_MIN)
            .then(|| zstd::bulk::compress(state, PACK_LEVEL).ok())
            .flatten()
            .filter(|packed| packed.len() <= state.len() - state.len() / 20);
        Ok(Self {
            generation: snapshot.generation.0,
            revision: snapshot.revision.0,
            token: snapshot.token.0,
            time_ms: snapshot.time_ms,
            plugin_version: snapshot.plugin_version.clone(),
            digest: snapshot.digest(state_digest),
            bytes: state.len() as u64,
            is_packed: packed.is_some(),
            state: packed.map_or_else(|| state.clone(), Bytes::from),
            body: None,
        })
    }

    /// Unpacks and checks it.
    pub(super) fn unpack(self, agent: &AgentId) -> Fallible<Snapshot> {
        let what = format!("snapshot of agent {agent} at revision {}", self.revision);
        let size = usize::try_from(self.bytes)
            .ok()
            .filter(|size| *size <= SNAPSHOT_BYTES_MAX)
            .ok_or_else(|| corrupt(format!("{what}: it claims {} bytes", self.bytes)))?;
        let state = if self.is_packed {
            let state = zstd::bulk::decompress(&self.state, size);
            Bytes::from(state.map_err(|error| corrupt(format!("{what}: {error}")))?)
        } else {
            self.state
        };
        let snapshot = Snapshot {
            generation: godwit_core::id::Generation(self.generation),
            revision: godwit_core::id::Revision(self.revision),
            token: godwit_core::id::FencingToken(self.token),
            time_ms: self.time_ms,
            plugin_version: self.plugin_version,
            state,
        };
        let is_whole =
            snapshot.state.len() == size && snapshot.digest(snapshot.state_digest()) == self.digest;
        if is_whole { Ok(snapshot) } else { Err(corrupt(format!("{what}: its digest does not match"))) }
    }
}

#[cfg(test)]
mod tests;
