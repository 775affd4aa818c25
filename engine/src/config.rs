//! How the engine is set up: what a caller may choose, the settings of `wasmtime::Engine`, and the check that the
//! machine can hold as many guests as were asked for.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::limits::{
    BACKTRACE_FRAMES_MAX, CORE_INSTANCES_PER_COMPONENT_MAX, INSTANCE_BYTES_MAX, KEEP_RESIDENT_BYTES,
    MAP_COUNT_RESERVE, MAPS_PER_GUEST, MEMORIES_MAX, MEMORY_SLOT_BYTES, TABLE_ELEMENTS_MAX, TABLES_MAX,
    WASM_STACK_BYTES_MAX,
};

/// Core instances that the pool has per guest: a JavaScript or Python engine as a component is made of up to 15.
const CORE_INSTANCES_PER_GUEST: u32 = 15;
/// Tables that the pool has per guest.
const TABLES_PER_GUEST: u32 = 3;
/// Slots of dropped guests whose memory stays mapped for the next one.
const WARM_SLOTS_MAX: u32 = 100;
/// Where Linux says how many memory maps a process may have.
const MAP_COUNT_FILE: &str = "/proc/sys/vm/max_map_count";

/// What a caller chooses.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where compiled code is kept. Made if missing, readable by the owner only, used by one `Engine` at a time.
    pub cache_dir: PathBuf,
    /// Guests that can be resident at the same time.
    pub resident_max: u32,
}

impl EngineConfig {
    /// Guests that can be resident at the same time, unless the caller says otherwise.
    pub const RESIDENT_MAX_DEFAULT: u32 = 1_000;

    /// The default configuration with a cache directory.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self { cache_dir: cache_dir.into(), resident_max: Self::RESIDENT_MAX_DEFAULT }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The system allows fewer memory maps than the guests need.
    #[error(
        "{resident_max} resident guests need {needed} memory maps, but vm.max_map_count is {allowed}: \
         lower the number of resident guests, or run `sysctl -w vm.max_map_count={needed}`"
    )]
    MapCount {
        /// Guests asked for.
        resident_max: u32,
        /// Maps they need, with what the rest of the process needs.
        needed: u64,
        /// What the system allows.
        allowed: u64,
    },
    /// The cache directory can't be made, or is not ours.
    #[error("cannot use the cache directory {}", path.display())]
    Cache {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that keeps deadlines can't be started.
    #[error("cannot start the thread that keeps guests' deadlines")]
    Ticker(#[source] std::io::Error),
    /// wasmtime refuses the settings on this machine: most often the address space is limited.
    #[error("wasmtime can't start with room for {resident_max} guests: {reason}")]
    Wasmtime {
        /// Guests asked for.
        resident_max: u32,
        /// What wasmtime said.
        reason: String,
    },
}

/// Checks that the system allows as many memory maps as the guests need. Systems that don't say are believed.
pub(crate) fn check_map_count(resident_max: u32) -> Result<(), EngineError> {
    let allowed = std::fs::read_to_string(MAP_COUNT_FILE).ok().and_then(|text| text.trim().parse().ok());
    match allowed {
        Some(allowed) => check_map_count_of(resident_max, allowed),
        None => Ok(()),
    }
}

fn check_map_count_of(resident_max: u32, allowed: u64) -> Result<(), EngineError> {
    let needed = u64::from(resident_max) * MAPS_PER_GUEST + MAP_COUNT_RESERVE;
    if needed <= allowed {
        return Ok(());
    }
    Err(EngineError::MapCount { resident_max, needed, allowed })
}

/// The settings of the one `wasmtime::Engine`.
pub(crate) fn wasmtime_config(resident_max: u32) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // With concurrency support a call costs 2.7 times as much, and a good part of the advisories is in it.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES_MAX)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        .memory_reservation(MEMORY_SLOT_BYTES as u64)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(resident_max)));
    determinism(&mut config);
    surface(&mut config);
    config
}

/// The same bytes in give the same bytes out, on every machine.
fn determinism(config: &mut Config) {
    config
        .cranelift_nan_canonicalization(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true)
        .shared_memory(false);
}

/// What no guest toolchain of ours emits stays off: each of these is code that an attacker could reach.
fn surface(config: &mut Config) {
    let off = WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::LEGACY_EXCEPTIONS
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::MEMORY64
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::WIDE_ARITHMETIC;
    config.gc_support(false).wasm_features(off, false);
}

fn pool(resident_max: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(resident_max)
        .total_memories(resident_max)
        .total_tables(resident_max.saturating_mul(TABLES_PER_GUEST))
        .total_core_instances(resident_max.saturating_mul(CORE_INSTANCES_PER_GUEST))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memory_size(MEMORY_SLOT_BYTES)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        // Clears just the pages that a guest has written, where the kernel can tell: otherwise all beyond the first are given
        // back, which interrupts every other processor, and faulted in again by the next guest.
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests;
