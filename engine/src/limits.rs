//! What a guest may take of the host, beyond what `godwit_core::limits` says of the product: each with its reason.
//! `Limiter` holds one guest's memory and tables to their limits.

use std::time::Duration;

use godwit_core::limits::{GuestLimits, SNAPSHOT_BYTES_MAX, TURN_EFFECT_BYTES_MAX};
use wasmtime::ResourceLimiter;

/// Linear memory that one slot of the pool has room for, and so the most that any guest may have.
pub(crate) const MEMORY_SLOT_BYTES: usize = 64 << 20;
/// Of a slot's memory and tables, what stays resident when its guest goes: measured as the fastest to start on.
pub(crate) const KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Linear memories of one guest.
pub(crate) const MEMORIES_MAX: u32 = 4;
/// Tables of one guest.
pub(crate) const TABLES_MAX: u32 = 16;
/// Core instances of one guest.
pub(crate) const INSTANCES_MAX: usize = 32;
/// Core instances that one component may be made of, checked when it is compiled.
pub(crate) const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 32;
/// Elements of each table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 30_000;
/// The engine's own bookkeeping of one instance.
pub(crate) const INSTANCE_BYTES_MAX: usize = 1 << 20;
/// Native stack of a guest call; Rust's own stack in linear memory usually ends first.
pub(crate) const WASM_STACK_BYTES_MAX: usize = 512 << 10;
/// Frames of a trap's backtrace.
pub(crate) const BACKTRACE_FRAMES_MAX: usize = 20;
/// Live component-model handles of one guest.
pub(crate) const HANDLES_MAX: usize = 4_096;
/// Bytes that one import call, or the replies of a turn, may move to the host: what a turn's effects may be, twice,
/// since a log line may be long, too, before it is cut.
pub(crate) const HOSTCALL_BYTES_MAX: usize = 2 * TURN_EFFECT_BYTES_MAX;
/// Random bytes that one call may ask for.
pub(crate) const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Bytes that a standard stream takes in one call.
pub(crate) const STREAM_WRITE_BYTES_MAX: u64 = 64 << 10;
/// The payload of an output: half of what an input may have, so that an answer can quote it.
pub(crate) const OUTPUT_PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// Keys that one listing of the state gives.
pub(crate) const STATE_KEYS_PAGE_MAX: usize = 1_000;
/// What a guest says of an error, and what the engine says of a fault.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Steps of the epoch, at each of which a running guest looks whether it must end.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Memory maps that one resident guest needs, measured.
pub(crate) const MAPS_PER_GUEST: u64 = 4;
/// Memory maps left to the rest of the process.
pub(crate) const MAP_COUNT_RESERVE: u64 = 4_096;
/// Compiled code of one component, which is up to three times its size, measured.
pub(crate) const ARTIFACT_BYTES_MAX: u64 = 512 << 20;
/// A manifest, in bytes.
pub(crate) const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// The longest that any guest call may take.
const TURN_MS_MAX: u64 = 300_000;

const _: () = assert!(OUTPUT_PAYLOAD_BYTES_MAX <= TURN_EFFECT_BYTES_MAX);
const _: () = assert!(SNAPSHOT_BYTES_MAX < MEMORY_SLOT_BYTES);

/// The host's own maxima of what a spec may ask for.
pub(crate) const HOST_MAX: GuestLimits = GuestLimits {
    turn_ms_max: TURN_MS_MAX,
    memory_bytes_max: MEMORY_SLOT_BYTES as u64,
    snapshot_bytes_max: MEMORY_SLOT_BYTES as u64,
};

/// What a guest gets: what its spec asks for, up to what the host gives.
pub(crate) fn effective(asked: &GuestLimits) -> GuestLimits {
    let GuestLimits { turn_ms_max, memory_bytes_max, snapshot_bytes_max } = asked;
    GuestLimits {
        turn_ms_max: HOST_MAX.turn_ms_max.min(*turn_ms_max),
        memory_bytes_max: HOST_MAX.memory_bytes_max.min(*memory_bytes_max),
        snapshot_bytes_max: HOST_MAX.snapshot_bytes_max.min(*snapshot_bytes_max),
    }
}

/// Holds a guest to its memory, all its linear memories together, and remembers that it wanted more.
///
/// A refused growth is an answer that a guest can live with; one that can't traps soon after, and `denied` then says
/// why it did.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes_max: usize,
    memory_bytes: usize,
    denied: Option<String>,
}

impl Limiter {
    /// A limiter for a guest that has nothing yet.
    pub(crate) fn new(memory_bytes_max: u64) -> Self {
        Self {
            memory_bytes_max: usize::try_from(memory_bytes_max).unwrap_or(MEMORY_SLOT_BYTES),
            memory_bytes: 0,
            denied: None,
        }
    }

    /// Forgets refusals of earlier calls.
    pub(crate) fn begin_call(&mut self) {
        self.denied = None;
    }

    /// What was refused in this call, in words.
    pub(crate) fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = (self.memory_bytes - current).saturating_add(desired);
        if total > self.memory_bytes_max {
            self.denied = Some(format!(
                "it asked for {total} bytes of memory, of which it may have {}",
                self.memory_bytes_max
            ));
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.denied = Some(format!("the host could not give it more memory: {error:#}"));
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.denied = Some(format!(
                "it asked for a table of {desired} elements, of which one may have {TABLE_ELEMENTS_MAX}"
            ));
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests;
