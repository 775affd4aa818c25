//! Every bound of the system, with its unit and reason. Relations between bounds are checked at compile time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::AGENT_ID_BYTES_MAX;

/// Payload of one input, output or reply in bytes: what fits a mesh frame beside its envelope.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// Payload of one output of a guest in bytes.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Headers on an input or reply.
pub const HEADERS_MAX: usize = 64;
/// All header names and values of one input or reply, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Content type, correlation, idempotency key, external source name: each in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Configuration of an agent: all keys and values in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Labels of an agent.
pub const LABELS_MAX: usize = 64;
/// A component upload in bytes; a JavaScript engine as a component is about 12 MiB.
pub const PLUGIN_BYTES_MAX: usize = 64 << 20;
/// A guest snapshot in bytes; bulk state belongs into `state` rows.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 20;
/// A key of the guest's `state` in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 1024;
/// A value of the guest's `state` in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 256 * 1024;
/// State writes of one turn.
pub const STATE_WRITES_MAX: usize = 1_000;
/// Bytes of state writes, outputs and replies of one turn together.
pub const TURN_EFFECT_BYTES_MAX: usize = 4 << 20;
/// Answers of imports that the journal entry of one turn keeps, in bytes; a turn that got more is committed with a snapshot.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Turns behind the newest snapshot: bounds what loading an agent runs again.
pub const TAIL_TURNS_MAX: u32 = 4_096;
/// Journal entries and payloads behind the newest snapshot, in bytes: loading holds them in memory.
pub const TAIL_BYTES_MAX: u64 = 8 << 20;
/// Snapshots up to this size in bytes are committed with each turn under the policy `auto`.
pub const AUTO_SNAPSHOT_BYTES_MAX: usize = 16 * 1024;
/// Outputs of one turn.
pub const OUTPUTS_MAX: usize = 256;
/// A channel's name in bytes: as an agent's.
pub const CHANNEL_NAME_BYTES_MAX: usize = AGENT_ID_BYTES_MAX;
/// Channels of one agent.
pub const CHANNELS_MAX: usize = 32;
/// Subscribers of one channel: a publication becomes so many rows in one transaction.
pub const SUBSCRIBERS_MAX: usize = 1_000;
/// Subscribers of all channels of one agent: when it is deleted, all are told in one transaction.
pub const SUBSCRIBERS_PER_AGENT_MAX: usize = 4_000;
/// What one agent subscribes to.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Outputs that wait for one subscriber before publishing is refused, or the subscription ends: a few seconds of a busy channel.
pub const SUBSCRIBER_BACKLOG_MAX: u64 = 1_000;
/// Outputs that wait for one receiver, above which its requests to a channel wait with it, and its subscriptions end whatever
/// the channel says. What was under way when the bound above was reached fits in between.
pub const RECEIVER_BACKLOG_MAX: u64 = 2 * SUBSCRIBER_BACKLOG_MAX;
/// Copies of publications of one turn, or of what is asked for in one request of a peer: as many rows as one transaction takes
/// without holding up others for long.
pub const FAN_OUT_MAX: usize = 10_000;
/// Links of a permission token: the owner's, and how often it was passed on. Each costs a verification.
pub const TOKEN_LINKS_MAX: usize = 4;
/// A permission token in bytes: that many links with the longest names.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// A timer's name in bytes.
pub const TIMER_NAME_BYTES_MAX: usize = TEXT_BYTES_MAX;
/// A timer's payload in bytes: all timers of an agent fit the effects of one turn.
pub const TIMER_PAYLOAD_BYTES_MAX: usize = 32 * 1024;
/// The latest time that a timer can be set to: the end of the year 9999, Unix milliseconds.
pub const TIMER_AT_MS_MAX: u64 = 253_402_300_799_999;
/// Timers of one agent that wait.
pub const TIMERS_MAX: usize = 64;
/// Operations of one agent that have not ended.
pub const OPERATIONS_MAX: usize = 16;
/// Operations that one host works on at the same time; more wait for their turn.
pub const OPERATIONS_RUNNING_MAX: usize = 256;
/// Body of an operation's request in bytes.
pub const OPERATION_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Body of the answer to an operation in bytes: it becomes an input's payload.
pub const OPERATION_ANSWER_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// Headers of an operation's request.
pub const OPERATION_HEADERS_MAX: usize = 32;
/// How often the headers of one request may name secrets: each becomes up to `SECRET_BYTES_MAX`.
pub const OPERATION_SECRETS_MAX: usize = 8;
/// The name of a secret in bytes.
pub const SECRET_NAME_BYTES_MAX: usize = 64;
/// The value of a secret in bytes: tokens that carry claims have a few KiB.
pub const SECRET_BYTES_MAX: usize = 8 * 1024;
/// Time of an operation in milliseconds, from its beginning to the last byte of the answer.
pub const OPERATION_TIMEOUT_MS_MAX: u32 = 600_000;
/// A url in bytes.
pub const URL_BYTES_MAX: usize = 2 * 1024;
/// A message that an agent signs, in bytes: it is hashed twice, while the guest waits and nothing can interrupt it.
pub const SIGN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// One line of a guest's log in bytes; longer lines are cut.
pub const LOG_LINE_BYTES_MAX: usize = 8 * 1024;
/// A guest's log in one turn in bytes; the rest is dropped with a note.
pub const LOG_TURN_BYTES_MAX: usize = 1 << 20;
/// Queries that run at the same time on one host, each on a thread and in an instance of its own; half of them of one plugin.
pub const QUERIES_RUNNING_MAX: usize = 4;
/// Queries of one host that run or wait; more are refused as `Busy`. Each is a client that waits.
pub const QUERIES_MAX: usize = 256;
/// Queries of one agent that run or wait: a slow one leaves room for those of others.
pub const QUERIES_PER_AGENT_MAX: usize = 32;
/// Times that a query is run because turns have committed while it read the agent's rows; then it ends as `Busy`.
pub const QUERY_TRIES_MAX: u32 = 8;
/// Times that a replay is begun because the agent has replaced a snapshot meanwhile; then it ends as unavailable.
pub const REPLAY_TRIES_MAX: u32 = 8;
/// Inputs that one guest call takes.
pub const BATCH_MAX: usize = 64;
/// Payload bytes after which no further input joins a guest call: several copies of them are in the guest's memory.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Preferences of an agent for hosts: a score of that many digits orders more hosts than there are.
pub const PREFERENCES_MAX: usize = 16;
/// Members of a group that one host tells of: beyond them a group is no longer seen whole, and a frame holds no more.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Silent intents of an agent.
pub const SILENT_INTENTS_MAX: usize = 64;
/// How long a host may take to create an agent whose id it has claimed: it has to ask all peers in that time.
pub const CLAIM_MAX: Duration = Duration::from_secs(30);
/// A roster in bytes: some ten thousand agents with a few words about each.
pub const ROSTER_BYTES_MAX: usize = 8 << 20;
/// Instructions of an agent.
pub const INSTRUCTIONS_MAX: usize = 64;
/// Edges of one agent: a graph in which more meet in one agent is better drawn otherwise.
pub const EDGES_MAX: usize = 1_000;
/// Open inputs of one agent, unless configured otherwise; more are refused as `Busy`.
pub const INBOX_INPUTS_MAX: u64 = 10_000;
/// Payloads and headers of one agent's open inputs in bytes, unless configured otherwise: an owner that loads them all
/// holds them in memory.
pub const INBOX_BYTES_MAX: u64 = 64 << 20;
/// `state` rows of one agent, unless configured otherwise: a reset deletes them in one transaction.
pub const STATE_KEYS_MAX: u64 = 1_000_000;
/// Keys and values of one agent's `state` rows in bytes, unless configured otherwise: what a move carries in about a minute.
pub const STATE_BYTES_MAX: u64 = 1 << 30;
/// Times an input's turn may start and not commit before the input is dead-lettered.
pub const ATTEMPTS_MAX: u32 = 3;
/// Times that the process may die with an input staged before the input runs once more, alone.
pub const DEATHS_MAX: u32 = 2;
/// Longest wait of an agent for the reply to a request, in milliseconds: 30 days.
pub const REPLY_TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Rows that one list call returns at most.
pub const PAGE_MAX: usize = 1_000;
/// Events that one store keeps unless it is told otherwise; the oldest go first, and a reader behind them gets a gap event.
/// About 300 MiB: a host that takes up 100,000 agents after a crash does not push out what led to it.
pub const EVENTS_KEPT: u64 = 1_000_000;
/// How long an ended input keeps its key, outcome and reply: a client that comes back within a week learns the truth.
pub const INPUTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Dead letters of one agent that stay until somebody drops them; of more, the oldest go as other ended inputs do.
pub const DEAD_LETTERS_KEPT_MAX: usize = 1_000;
/// Records of an agent's migrations that are over, of each side; of more, the oldest go.
pub const MIGRATIONS_KEPT_MAX: usize = 32;
/// Records of migrations to this host that are over and did not bring an agent, of all agents together; of more, the oldest go. A
/// peer makes one with every agent that it offers and takes back, under any name.
pub const FRUITLESS_KEPT_MAX: usize = 256;
/// Rows that one call of `prune` looks at, so that it holds up no other write for long.
pub const PRUNE_ROWS_MAX: usize = 256;
/// The payload of auth flows in bytes: 64 sign-ins under way of at most 7 KiB, as many that ended, and forty secrets' tokens of
/// the longest.
pub const AUTH_FLOW_BYTES_MAX: usize = 1 << 20;
/// A mesh frame in bytes, checked before reading it.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// One chunk of bulk transfer in bytes.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// What may be left to send of an agent beside its newest snapshot when it is held for its move, in bytes, unless configured otherwise: it stands still
/// until that has been sent, read and written.
pub const DELTA_BYTES_MAX: usize = 1 << 20;
/// Hosts a request may pass through.
pub const FORWARD_HOPS_MAX: u8 = 2;
/// Tombstones that a request follows.
pub const TOMBSTONE_CHAIN_MAX: usize = 8;
/// Default bound of an `ask`.
pub const ASK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest bound of an `ask`.
pub const ASK_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// How long a committed output is tried before it ends as undeliverable.
pub const OUTPUT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

const _: () = assert!(PAYLOAD_BYTES_MAX + HEADER_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_MAX <= PAYLOAD_BYTES_MAX);
const _: () = assert!(SUBSCRIBERS_MAX <= FAN_OUT_MAX);
const _: () = assert!(SUBSCRIBERS_MAX <= SUBSCRIBERS_PER_AGENT_MAX);
const _: () = assert!(CHUNK_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(TIMERS_MAX * TIMER_PAYLOAD_BYTES_MAX < TURN_EFFECT_BYTES_MAX);
const _: () = assert!(STATE_VALUE_BYTES_MAX <= TURN_EFFECT_BYTES_MAX);

/// What the agents of a store may fill of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Open inputs of one agent; from there on more are refused.
    pub inbox_inputs_max: u64,
    /// Payloads and headers of one agent's open inputs in bytes; from there on more are refused.
    pub inbox_bytes_max: u64,
    /// `state` rows of one agent; a turn that would leave more fails.
    pub state_keys_max: u64,
    /// Keys and values of one agent's `state` rows in bytes; a turn that would leave more fails.
    pub state_bytes_max: u64,
    /// The store's file in bytes; above 15/16 of it no input is accepted. The disk alone bounds it when nothing is said.
    pub store_bytes_max: Option<u64>,
    /// Events that the store keeps at least, and not many more.
    pub events_kept: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            inbox_inputs_max: INBOX_INPUTS_MAX,
            inbox_bytes_max: INBOX_BYTES_MAX,
            state_keys_max: STATE_KEYS_MAX,
            state_bytes_max: STATE_BYTES_MAX,
            store_bytes_max: None,
            events_kept: EVENTS_KEPT,
        }
    }
}

impl Quotas {
    /// Whether an agent with so many open inputs of so many bytes takes another one.
    pub fn has_inbox_room(&self, inputs: u64, bytes: u64) -> bool {
        inputs < self.inbox_inputs_max && bytes < self.inbox_bytes_max
    }

    /// Says which limit an agent's `state` rows are above after a turn, if they have grown in that respect: one that is above
    /// a limit that was lowered can still shrink. Keys and bytes each.
    pub fn state_problem(&self, before: (u64, u64), after: (u64, u64)) -> Option<String> {
        if after.0 > self.state_keys_max && after.0 > before.0 {
            return Some(format!(
                "its state would be {} rows, and may be {} (limits.state_keys_max)",
                after.0, self.state_keys_max
            ));
        }
        if after.1 > self.state_bytes_max && after.1 > before.1 {
            return Some(format!(
                "its state would be {} bytes, and may be {} (limits.state_bytes_max)",
                after.1, self.state_bytes_max
            ));
        }
        None
    }
}

/// What one guest may take. Part of an agent's spec; the host caps each at its own maximum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Wall time of one guest call in milliseconds.
    pub turn_ms_max: u64,
    /// Linear memory of the instance in bytes.
    pub memory_bytes_max: u64,
    /// Snapshot in bytes.
    pub snapshot_bytes_max: u64,
}

impl GuestLimits {
    /// The most that a host takes for an agent that comes from elsewhere: what its operator could not have given it either.
    pub const MAX: Self = Self {
        turn_ms_max: 300_000,
        memory_bytes_max: 512 << 20,
        snapshot_bytes_max: SNAPSHOT_BYTES_MAX as u64,
    };

    /// Whether none of them is over `MAX`.
    pub fn are_within_max(&self) -> bool {
        self.turn_ms_max <= Self::MAX.turn_ms_max
            && self.memory_bytes_max <= Self::MAX.memory_bytes_max
            && self.snapshot_bytes_max <= Self::MAX.snapshot_bytes_max
    }
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self { turn_ms_max: 2_000, memory_bytes_max: 64 << 20, snapshot_bytes_max: SNAPSHOT_BYTES_MAX as u64 }
    }
}
