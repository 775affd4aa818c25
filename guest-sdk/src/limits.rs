//! What one turn may do at most. The host enforces these; the test harness repeats them.

/// A key of the agent's rows, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 1024;
/// A value of the agent's rows, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 256 * 1024;
/// Writes to the agent's rows and timers in one turn.
pub const STATE_WRITES_MAX: usize = 1_000;
/// Keys that one listing gives.
pub const STATE_KEYS_MAX: u32 = 1_000;
/// Outputs of one turn.
pub const OUTPUTS_MAX: usize = 256;
/// The payload of an output, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Timers that wait.
pub const TIMERS_MAX: usize = 64;
/// A timer's name, in bytes.
pub const TIMER_NAME_BYTES_MAX: usize = 256;
/// A timer's payload, in bytes.
pub const TIMER_BYTES_MAX: usize = 32 * 1024;
/// The latest time of a timer: the end of the year 9999, in Unix milliseconds.
pub const TIMER_AT_MS_MAX: u64 = 253_402_300_799_999;
/// Operations that have not ended.
pub const OPERATIONS_MAX: usize = 16;
/// The body of an operation's request, in bytes.
pub const OPERATION_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// A message that the agent signs, in bytes.
pub const SIGN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Channels of the agent.
pub const CHANNELS_MAX: usize = 32;
/// What the agent subscribes to.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Outputs that wait for a subscriber before publishing is refused.
pub const SUBSCRIBER_BACKLOG_MAX: u64 = 1_000;
/// Copies of publications of one turn.
pub const FAN_OUT_MAX: usize = 10_000;
/// A permission token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Links of a permission token: the owner's, and how often it was passed on.
pub const TOKEN_LINKS_MAX: usize = 4;
/// Writes and outputs of one turn together, in bytes.
pub const TURN_EFFECT_BYTES_MAX: usize = 4 << 20;
/// A snapshot, in bytes, unless configured otherwise.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 20;
