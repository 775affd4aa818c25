//! What one turn may do at most. The host enforces these; the test harness repeats them.

/// A key of the agent's rows, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 1024;
/// A value of the agent's rows, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 256 * 1024;
/// Writes to the agent's rows in one turn.
pub const STATE_WRITES_MAX: usize = 1_000;
/// Keys that one listing gives.
pub const STATE_KEYS_MAX: u32 = 1_000;
/// Outputs of one turn.
pub const OUTPUTS_MAX: usize = 256;
/// The payload of an output, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Writes and outputs of one turn together, in bytes.
pub const TURN_EFFECT_BYTES_MAX: usize = 4 << 20;
/// A snapshot, in bytes, unless configured otherwise.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 20;
