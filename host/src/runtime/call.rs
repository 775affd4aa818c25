//! Calls about one agent, as values: the same for HTTP, embedders and other hosts.
//!
//! `Runtime::call` answers an `AgentCall` wherever the agent is at home: here, or forwarded once over the mesh. So every
//! route behaves the same on every host. The types are also what travels (postcard): variants are appended, never
//! reordered.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_core::agent::Checkpointed;
use godwit_core::agent::recover::Refused;
use godwit_core::channel::{ChannelName, ChannelView, Subscriber, Subscription};
use godwit_core::digest::Digest;
use godwit_core::edge::Edge;
use godwit_core::event::EventPlace;
use godwit_core::group::GroupName;
use godwit_core::id::{
    AgentId, FencingToken, Generation, HostId, InputId, MigrationId, Revision, Seq, SpecRevision,
};
use godwit_core::identity::EntityPublicKey;
use godwit_core::input::{Fault, InputState, Kind, Mode, Outcome, Reply, Source, TraceParent};
use godwit_core::lifecycle::{IllegalMove, SuspendReason};
use godwit_core::operation::StoredOperation;
use godwit_core::output::StoredOutput;
use godwit_core::receipt::Receipt;
use godwit_core::retry::{Retry, Retryable};
use godwit_core::store::{BrokenReason, Pin, StoredInput};
use godwit_core::timer::StoredTimer;
use serde::{Deserialize, Serialize};

use super::boot::Materialized;
use super::events::AgentEvents;
use super::inspect::Inspection;
use super::outputs::{Output, OutputPlace, WaitOutput};
use super::replay::ReplayReport;
use super::respec::{SpecUpdate, UpgradeReport};
use super::standby::{StandbyCall, StandbyView};
use super::verbs::{VerbCall, VerbReport};
use super::verify::VerifyReport;

/// Something to do with or learn about one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentCall {
    /// Submit and wait for the end, at most `timeout_ms`.
    Ask {
        /// What to submit.
        submission: Submission,
        /// The caller's bound.
        timeout_ms: u64,
    },
    /// Submit and wait for durable acceptance: `send`, and `enqueue` for a silent submission.
    Send {
        /// What to submit.
        submission: Submission,
    },
    /// The agent's row.
    Show,
    /// Inputs after a seq, of one state or all.
    Inputs {
        /// Only these.
        state: Option<InputState>,
        /// After this seq.
        after: u64,
        /// At most this many.
        limit: usize,
    },
    /// One input.
    Input {
        /// Which.
        input: InputId,
    },
    /// Give a dead letter another chance.
    Redrive {
        /// Which.
        input: InputId,
    },
    /// Receipts of the current generation after a revision.
    Receipts {
        /// After this revision.
        after: u64,
        /// At most this many.
        limit: usize,
    },
    /// Outputs that still have a row, after a position.
    Outputs {
        /// After this position.
        after: u64,
        /// At most this many.
        limit: usize,
    },
    /// Recompute the whole history.
    Verify,
    /// Store a snapshot now.
    Checkpoint,
    /// Move to another host.
    Migrate {
        /// A name, a key, or a unique prefix of a key.
        to: String,
    },
    /// A verb of the life cycle.
    Verb(VerbCall),
    /// End one input as cancelled: a queued one, or a dead letter that is dropped.
    Cancel {
        /// Which.
        input: InputId,
        /// The state that it must be in.
        from: InputState,
    },
    /// Another configuration or other labels.
    Update(SpecUpdate),
    /// Another plugin on the same state.
    Upgrade {
        /// `NAME`, `NAME@VERSION`, or a digest.
        plugin: String,
    },
    /// Run the kept history again, beside the agent.
    Replay {
        /// Up to this revision; the head unless said otherwise.
        to: Option<Revision>,
    },
    /// Ask about the committed state; nothing of it stays.
    Query {
        /// At most `PAYLOAD_BYTES_MAX` bytes.
        payload: Bytes,
    },
    /// The agent's timers that wait.
    Timers,
    /// The agent's operations that have not ended.
    Operations,
    /// The agent's channels.
    Channels,
    /// Who subscribes to one of them.
    Subscribers {
        /// Which.
        channel: ChannelName,
        /// Behind this agent.
        after: Option<AgentId>,
        /// At most this many.
        limit: usize,
    },
    /// What the agent subscribes to.
    Subscriptions,
    /// Bring the agent up, if it may run.
    Materialize,
    /// Write the agent's side of an edge.
    PutEdge {
        /// With whom.
        edge: Edge,
    },
    /// Remove the agent's side of an edge.
    RemoveEdge {
        /// With whom.
        peer: AgentId,
    },
    /// The agent's sides of edges.
    Edges,
    /// The events of the agent behind a place.
    Events {
        /// Behind this place.
        after: EventPlace,
        /// At most this many.
        limit: usize,
    },
    /// Wait for the agent's next output.
    WaitOutput(WaitOutput),
    /// Everything that an operator asks about the agent.
    Inspect {
        /// So many of the last events.
        events: usize,
    },
    /// Look at or change who keeps a warm copy of the agent.
    Standby(StandbyCall),
}

impl AgentCall {
    /// Whether it leaves everything as it was, so that nothing can have happened when no answer came.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Show
            | Self::Inputs { .. }
            | Self::Input { .. }
            | Self::Receipts { .. }
            | Self::Outputs { .. }
            | Self::Timers
            | Self::Operations
            | Self::Channels
            | Self::Subscribers { .. }
            | Self::Subscriptions
            | Self::Edges
            | Self::Events { .. }
            | Self::WaitOutput(_)
            | Self::Inspect { .. }
            | Self::Query { .. }
            | Self::Verify
            | Self::Standby(StandbyCall::Show)
            | Self::Replay { .. } => true,
            Self::Ask { .. }
            | Self::Send { .. }
            | Self::Redrive { .. }
            | Self::Cancel { .. }
            | Self::Checkpoint
            | Self::Migrate { .. }
            | Self::Verb(_)
            | Self::Update(_)
            | Self::Materialize
            | Self::PutEdge { .. }
            | Self::RemoveEdge { .. }
            | Self::Standby(StandbyCall::On { .. } | StandbyCall::Off { .. })
            | Self::Upgrade { .. } => false,
        }
    }

    /// Whether only the host that owns the agent can do it.
    pub(crate) fn needs_owner(&self) -> bool {
        matches!(
            self,
            Self::Verb(_)
                | Self::Checkpoint
                | Self::Migrate { .. }
                | Self::Update(_)
                | Self::Upgrade { .. }
                | Self::Materialize
                | Self::Query { .. }
                | Self::WaitOutput(_)
                | Self::Inspect { .. }
        )
    }
}

/// An input as a client gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Chosen by the first host that saw it, so that an unknown fate can be looked up.
    pub id: InputId,
    /// What it is about.
    pub kind: Kind,
    /// Who sends it.
    pub source: Source,
    /// MIME type.
    pub content_type: String,
    /// At most `PAYLOAD_BYTES_MAX` bytes.
    pub payload: Bytes,
    /// Header pairs.
    pub headers: Vec<(String, String)>,
    /// The client's key.
    pub idempotency_key: Option<String>,
    /// In which lane it is to wait.
    pub mode: Mode,
    /// Accept it without waking the agent.
    pub is_silent: bool,
    /// Queued inputs of this kind under this key end as replaced by it.
    pub supersedes: Option<String>,
    /// The trace that it is part of.
    pub traceparent: Option<TraceParent>,
    /// Ties it to what it belongs to.
    pub correlation: Option<String>,
    /// Whether it also reaches agents that are internal.
    pub is_dispatched: bool,
}

/// What a call gave, by variant of the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentReply {
    /// To `Ask`.
    Asked(Asked),
    /// To `Send`.
    Sent(Sent),
    /// To `Show` and `Update`.
    Agent(Box<AgentView>),
    /// To `Inputs`.
    Inputs(Rows<StoredInput>),
    /// To `Input`.
    Input(Option<Box<StoredInput>>),
    /// To `Receipts`: each with its digest.
    Receipts(Rows<(Receipt, Digest)>),
    /// To `Outputs`.
    Outputs(Rows<StoredOutput>),
    /// To `Verify`.
    Verified(VerifyReport),
    /// To `Checkpoint`.
    Checkpointed(Checkpointed),
    /// To `Migrate`.
    Migrating(MigrationId),
    /// To `Redrive` and `Cancel`.
    Done,
    /// To `Verb`.
    Verb(Box<VerbReport>),
    /// To `Upgrade`.
    Upgraded(UpgradeReport),
    /// To `Replay`.
    Replayed(ReplayReport),
    /// To `Query`.
    Queried(Queried),
    /// To `Timers`, by name.
    Timers(Vec<StoredTimer>),
    /// To `Operations`, in the order of their starts.
    Operations(Vec<StoredOperation>),
    /// To `Channels`, by name.
    Channels(Vec<ChannelView>),
    /// To `Subscribers`, by name.
    Subscribers(Rows<Subscriber>),
    /// To `Subscriptions`, by owner and channel.
    Subscriptions(Vec<Subscription>),
    /// To `Materialize`.
    Materialized(Materialized),
    /// To `PutEdge` and `RemoveEdge`: whether anything is another now.
    Changed(bool),
    /// To `Edges`, by peer.
    Edges(Vec<Edge>),
    /// To `Events`.
    Events(AgentEvents),
    /// To `WaitOutput`.
    Output(Box<Output>),
    /// To `Inspect`.
    Inspected(Box<Inspection>),
    /// To `Standby`.
    Standby(Box<StandbyView>),
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Whether the list goes on behind them.
    pub has_more: bool,
}

impl<T: Serialize> Rows<T> {
    /// Encoded bytes after which a page ends, so that it fits a mesh frame. One row is always there.
    const BYTES_MAX: usize = 512 * 1024;

    /// A page of at most `limit` rows, of which one more was read if there are more.
    pub(crate) fn page(mut read: Vec<T>, limit: usize) -> Self {
        let mut bytes = 0;
        let size = |row: &T| postcard::to_stdvec(row).map_or(Self::BYTES_MAX, |row| row.len());
        let fits = read.iter().take(limit).take_while(|row| {
            let is_first = bytes == 0;
            bytes += size(row);
            is_first || bytes <= Self::BYTES_MAX
        });
        let kept = fits.count();
        let has_more = read.len() > kept;
        read.truncate(kept);
        Self { items: read, has_more }
    }
}

/// The end of an asked input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which input: the earlier one for a repeated key.
    pub input: InputId,
    /// Its place.
    pub seq: Seq,
    /// Its end.
    pub outcome: Outcome,
    /// Whether the key or id was accepted before.
    pub is_duplicate: bool,
}

/// A durably accepted input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Which input: the earlier one for a repeated key.
    pub input: InputId,
    /// Its place.
    pub seq: Seq,
    /// Whether the key or id was accepted before.
    pub is_duplicate: bool,
    /// Its end, when it was accepted before and is over.
    pub outcome: Option<Outcome>,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queried {
    /// The agent's words.
    pub reply: Reply,
    /// The committed revision that it is about.
    pub revision: Revision,
    /// The token under which that was committed.
    pub token: FencingToken,
}

/// An agent as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its name.
    pub id: AgentId,
    /// `dormant | active | paused | retiring | retired | broken | suspended | deleted`, while it moves
    /// `handing_off | prepared`, and `held` while its standby has not said that it was not promoted.
    pub state: String,
    /// Who holds the lease, or who is home.
    pub host: Option<HostId>,
    /// `here` as seen by the answering host, which is the home.
    pub home: HostId,
    /// The current token.
    pub token: FencingToken,
    /// Milliseconds until the holder's session ends; `None` without expiry or holder.
    pub lease_ms: Option<u64>,
    /// Raised only by reset.
    pub generation: Generation,
    /// Boundaries in this generation.
    pub revision: Revision,
    /// The current spec.
    pub spec_revision: SpecRevision,
    /// Its plugin's digest.
    pub plugin: Digest,
    /// Its plugin's name, when it is stored.
    pub plugin_name: String,
    /// Its plugin's version.
    pub plugin_version: String,
    /// The public half of its entity key.
    pub public_key: Option<EntityPublicKey>,
    /// For people and selections.
    pub labels: BTreeMap<String, String>,
    /// Open inputs.
    pub queue_depth: u64,
    /// Digest of the last receipt.
    pub last_receipt: Digest,
    /// Why it can't run.
    pub broken: Option<BrokenReason>,
    /// Wall time of creation in Unix milliseconds.
    pub created_at_ms: u64,
    /// Why it makes no progress although it has work.
    pub stuck: Option<String>,
}

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CallError {
    /// No host that can be asked knows the agent.
    #[error("no agent {agent}")]
    NotFound {
        /// Which.
        agent: AgentId,
    },
    /// This host does not know the agent, and some peers did not answer.
    #[error("agent {agent} is not here and {silent} peers did not answer (a creation can be forced)")]
    PeersSilent {
        /// Which.
        agent: AgentId,
        /// How many peers did not answer.
        silent: u32,
    },
    /// Another host is home and the caller asked not to forward, or the hop limit is reached.
    #[error("agent {agent} is at home on host {host}")]
    Misdirected {
        /// Which.
        agent: AgentId,
        /// The host that should know.
        host: HostId,
    },
    /// No such input, dead letter or plugin.
    #[error("no such {what}")]
    NoSuch {
        /// What was looked for.
        what: String,
    },
    /// The agent can't run until somebody acts.
    #[error("agent is broken ({}): {}; {}", reason.name(), reason.message(), reason.way_out())]
    Broken {
        /// Why.
        reason: BrokenReason,
    },
    /// Clients may not submit inputs of this kind.
    #[error("inputs of kind {kind} can't be submitted: {reason}")]
    KindRefused {
        /// Which kind.
        kind: String,
        /// Who makes such inputs.
        reason: String,
    },
    /// The key was used for another body.
    #[error("idempotency key was used for another body")]
    KeyReused,
    /// The agent's inbox, or the line of callers, is full.
    #[error("agent is busy: {depth} wait")]
    Busy {
        /// How many wait.
        depth: u64,
    },
    /// The input is malformed or too large.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// Something stands in the way.
    #[error("{what}")]
    Conflict {
        /// What.
        what: String,
    },
    /// Definitely not done; later it may work.
    #[error("not accepted: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// It may or may not have been done; look the input up by its id or repeat it with its key.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What is known.
        reason: String,
    },
    /// Stored bytes are damaged, or the host is at fault.
    #[error("{reason}")]
    Internal {
        /// What is wrong.
        reason: String,
    },
    /// The agent was deleted; only creating it with `recreate` brings one of its name back.
    #[error("agent is deleted; to make a new one of this name, create it with recreate")]
    Deleted,
    /// The agent accepts nothing more.
    #[error("agent is {state} and accepts nothing; resume it to go on")]
    Retired {
        /// `retiring` or `retired`.
        state: String,
    },
    /// The agent accepts and runs nothing until an operator resumes it.
    #[error("agent is suspended ({}): resume it, if it does not live on elsewhere", reason.name())]
    Suspended {
        /// Why.
        reason: SuspendReason,
    },
    /// The agent's state does not allow the verb.
    #[error(transparent)]
    Illegal(IllegalMove),
    /// A verb ended the turn before it committed; the input was not accepted.
    #[error("not accepted: its turn was interrupted by an operator")]
    Interrupted,
    /// The spec is not the one that the caller has seen.
    #[error("the current spec revision is {current}")]
    SpecMismatch {
        /// The current one.
        current: SpecRevision,
    },
    /// A broken agent's history does not fit: it is as broken as before.
    #[error("agent is still broken: {0}")]
    NotRecovered(Box<Refused>),
    /// The plugin is needed.
    #[error("plugin is in use: {}", pin.of(agent))]
    PluginInUse {
        /// By whom.
        agent: AgentId,
        /// For what.
        pin: Pin,
    },
    /// The disk of the store is full, or its file at its bound: definitely not done.
    #[error("not accepted: the disk of the store is full, or its file at its bound (limits.store_bytes_max)")]
    Full,
    /// The agent's inbox is full: definitely not accepted.
    #[error("the agent's inbox is full: {depth} inputs of {bytes} bytes wait")]
    InboxFull {
        /// How many wait.
        depth: u64,
        /// Their payloads and headers.
        bytes: u64,
    },
    /// The agent's plugin answers no queries.
    #[error(
        "the agent's plugin answers no queries: it does not export `godwit:agent/query`; ask or send instead"
    )]
    NoQuery,
    /// The agent gave an error instead of an answer to a query. Nothing has changed.
    #[error("the agent did not answer the query: {message}")]
    QueryFailed {
        /// The agent's words.
        message: String,
        /// Whether the agent says that asking again may help.
        is_retryable: bool,
    },
    /// Another host is about to create an agent of this id: definitely not created; later it may be that host's, or free.
    #[error("host {host} is about to create agent {agent}: try again")]
    Claimed {
        /// Which.
        agent: AgentId,
        /// Who.
        host: HostId,
    },
    /// The agent takes no inputs from outside: definitely not accepted.
    #[error("the agent is internal: only other agents reach it, and what is dispatched (POST .../dispatch)")]
    NotAddressable,
    /// The guest misbehaved in a query. Nothing has changed.
    #[error("the guest broke in the query: {}: {}", .0.kind.name(), .0.message)]
    QueryFault(Fault),
    /// As many as may follow agents, or wait for what they say, do so already.
    #[error("{most} follow agents or wait for outputs already; end one of those")]
    TooManyWatch {
        /// How many may.
        most: u64,
    },
    /// The agent has not said what was waited for in time. Nothing has changed; wait again after the same revision.
    #[error("no output came in time after revision {} of generation {}", after.revision, after.generation)]
    NoOutput {
        /// Behind which boundary it was waited for.
        after: OutputPlace,
    },
    /// Another agent of this name than the one that is meant: nothing has changed.
    #[error("agent {agent} is not the one that is meant: that one is {expected}, this one is {found}")]
    AnotherAgent {
        /// The name.
        agent: AgentId,
        /// The key, or the short name of the key, of the one that is meant.
        expected: String,
        /// The key of this one.
        found: String,
    },
    /// The agent moves already, to another host: definitely not begun.
    #[error(
        "agent {agent} is already migrating to host {target} (migration {migration}): wait for it, or abort it"
    )]
    AlreadyMigrating {
        /// Which.
        agent: AgentId,
        /// By which migration.
        migration: MigrationId,
        /// To where.
        target: HostId,
    },
    /// No host that was asked has a member of the group.
    #[error("no agent is in group {group}{}; an agent is once it has the label `group={group}`", silent_peers(*.silent))]
    NoGroup {
        /// Which.
        group: GroupName,
        /// How many peers did not answer.
        silent: u32,
    },
    /// The group has members, and none of them takes inputs now: definitely not accepted.
    #[error("none of the {members} members of group {group} takes inputs now ({reason}){}", silent_peers(*.silent))]
    NoMember {
        /// Which.
        group: GroupName,
        /// How many it has, as far as hosts answered.
        members: u64,
        /// What the last one said that was tried.
        reason: String,
        /// How many peers did not answer.
        silent: u32,
    },
    /// Hosts that may have the agent do not answer: its copy was not promoted.
    #[error(
        "agent {agent} may live on {}, which do not answer; its copy here is as of revision {revision}, {} ms old. Once they are \
         stopped for good, `--force` makes it the agent: what was done since is lost", hosts(.silent), .age_ms
    )]
    PromotionInDoubt {
        /// Which.
        agent: AgentId,
        /// Who does not answer.
        silent: Vec<HostId>,
        /// What the copy is as of.
        revision: Revision,
        /// How long ago its last round was.
        age_ms: u64,
    },
}

fn hosts(hosts: &[HostId]) -> String {
    hosts.iter().map(HostId::to_string).collect::<Vec<_>>().join(", ")
}

fn silent_peers(silent: u32) -> String {
    if silent == 0 { String::new() } else { format!(", and {silent} peers did not answer") }
}

impl Retryable for CallError {
    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. }
            | Self::PeersSilent { .. }
            | Self::Busy { .. }
            | Self::InboxFull { .. }
            | Self::NoMember { .. }
            | Self::Full
            | Self::Interrupted
            | Self::QueryFailed { is_retryable: true, .. } => Retry::Later,
            Self::Unknown { .. } => Retry::ReadBack,
            _ => Retry::Never,
        }
    }
}
