//! Inputs: what is delivered to an agent, the replies to it, and its life cycle.
//!
//! `Input` is what the guest sees. `NewInput` is an input at the door, with what only the host keeps (key, mode, delivery
//! stamp). `InputState` and its transition table are in `input/lifecycle.rs`, the policy table that says how an input waits
//! in `input/policy.rs`.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::channel::ChannelDelivery;
use crate::digest::Digest;
use crate::id::{AgentId, FencingToken, Generation, HostId, InputId, Revision};
use crate::identity::OriginHash;
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};
use crate::spec::Spec;

pub mod lifecycle;
pub mod policy;
pub mod trace;

pub use lifecycle::{InputEvent, InputState, TransitionError};
pub use policy::{Lane, Mode, Placing, Policy, Scope};
pub use trace::TraceParent;

/// What an input is about. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A request or note from outside.
    Message,
    /// A one-way message of another agent.
    PeerMessage,
    /// A request of another agent, with what it is about.
    PeerRequest {
        /// Free text of the sender, at most `TEXT_BYTES_MAX` bytes.
        intent: String,
    },
    /// An interim answer to a request this agent made.
    PeerResponseProgress,
    /// The final answer to a request this agent made.
    PeerResponseTerminal,
    /// A step of a flow.
    FlowStep,
    /// A published event of a subscribed channel.
    Event,
    /// Work the agent left for itself.
    Continuation,
    /// The end of an operation.
    Operation,
    /// A timer that fired.
    Timer,
}

impl Kind {
    /// The kind of this name; a peer request without intent.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Message,
            Self::PeerMessage,
            Self::PeerRequest { intent: String::new() },
            Self::PeerResponseProgress,
            Self::PeerResponseTerminal,
            Self::FlowStep,
            Self::Event,
            Self::Continuation,
            Self::Operation,
            Self::Timer,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind's name in the HTTP API and in events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::PeerMessage => "peer-message",
            Self::PeerRequest { .. } => "peer-request",
            Self::PeerResponseProgress => "peer-response-progress",
            Self::PeerResponseTerminal => "peer-response-terminal",
            Self::FlowStep => "flow-step",
            Self::Event => "event",
            Self::Continuation => "continuation",
            Self::Operation => "operation",
            Self::Timer => "timer",
        }
    }
}

/// Who sent an input. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A person or tool operating the host.
    Operator,
    /// Another agent.
    Peer {
        /// The sender.
        agent: AgentId,
        /// Whether the sender waits for a reply.
        expects_reply: bool,
    },
    /// A flow.
    Flow {
        /// Which flow.
        id: String,
        /// Which of its steps.
        step: String,
    },
    /// The host itself.
    System,
    /// A client of the API.
    External {
        /// The client's name, `http` when it gave none.
        name: String,
    },
}

/// One thing delivered to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Unique per agent for all time.
    pub id: InputId,
    /// What it is about.
    pub kind: Kind,
    /// Who sent it.
    pub source: Source,
    /// MIME type of the payload.
    pub content_type: String,
    /// At most `PAYLOAD_BYTES_MAX` bytes.
    pub payload: Bytes,
    /// The extension point: at most `HEADERS_MAX` pairs of name and value.
    pub headers: Vec<(String, String)>,
    /// Ties an answer to its question.
    pub correlation: Option<String>,
    /// Wall time of acceptance in Unix milliseconds.
    pub accepted_at_ms: u64,
}

impl Input {
    /// Bytes of payload and headers: what an open input counts for in its agent's inbox.
    pub fn bytes(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        (self.payload.len() + headers) as u64
    }
}

/// An agent's answer to one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether and what it answered.
    pub outcome: ReplyOutcome,
    /// MIME type of the bytes.
    pub content_type: String,
    /// Header pairs.
    pub headers: Vec<(String, String)>,
}

/// Whether and what an agent answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyOutcome {
    /// Nothing to say.
    None,
    /// An answer.
    Ok(Bytes),
    /// The agent said no. The turn is good and has committed.
    Refused {
        /// Short machine-readable reason.
        code: String,
        /// Details.
        body: Bytes,
    },
}

/// Why a turn could not count: what a guest did wrong. Data about the agent, never an error of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The closed set that callers branch on.
    pub kind: FaultKind,
    /// What happened, for people.
    pub message: String,
}

/// What a guest did wrong. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// It trapped: a panic, an unreachable instruction, an access out of bounds, a stack overflow.
    Trap,
    /// It ran past its deadline.
    Deadline,
    /// It asked for more memory than it may have, or moved more bytes across the boundary than it may.
    Memory,
    /// It called `exit`.
    Exited,
    /// It waited inside a turn; `timers` is the way to wait.
    Blocked,
    /// It answered with another number of replies than it got inputs.
    ReplyCount,
    /// Its snapshot is too large, can't be restored, or differs between two calls.
    Snapshot,
    /// Its outputs, state writes or reply are more than one turn may have.
    Effects,
    /// It could not be started: instantiation failed.
    Start,
}

impl FaultKind {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Exited => "exited",
            Self::Blocked => "blocked",
            Self::ReplyCount => "reply_count",
            Self::Snapshot => "snapshot",
            Self::Effects => "effects",
            Self::Start => "start",
        }
    }
}

/// Why an input ended without being applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadLetterReason {
    /// The agent said that this input can never be handled.
    Fatal {
        /// The agent's words.
        message: String,
    },
    /// The agent asked for a retry as often as it may.
    AttemptsExhausted {
        /// The agent's words at the last attempt.
        message: String,
        /// Attempts made.
        attempts: u32,
    },
    /// The guest faulted at every attempt.
    Fault {
        /// The last fault.
        fault: Fault,
        /// Attempts made.
        attempts: u32,
    },
    /// The host process died each time while this input ran.
    KilledHost {
        /// Attempts made.
        attempts: u32,
    },
}

/// The end of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Applied: its turn committed.
    Committed {
        /// The revision that its turn made.
        revision: Revision,
        /// Token under which it committed.
        token: FencingToken,
        /// The agent's answer.
        reply: Reply,
    },
    /// Given up, visibly; the reason stays listed.
    DeadLettered {
        /// The revision of the boundary that gave it up.
        revision: Revision,
        /// Why.
        reason: DeadLetterReason,
    },
    /// A newer input took its place.
    Replaced {
        /// Which.
        by: InputId,
    },
    /// Ended by a named verb.
    Abandoned {
        /// Which verb.
        reason: AbandonReason,
    },
}

/// The verbs that end open inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AbandonReason {
    /// The agent was retired.
    Retired,
    /// The agent was reset.
    Reset,
    /// The agent was stopped.
    Stopped,
    /// The agent was destroyed.
    Destroyed,
    /// The input was cancelled.
    Cancelled,
}

impl AbandonReason {
    /// The name in events and in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retired => "retired",
            Self::Reset => "reset",
            Self::Stopped => "stopped",
            Self::Destroyed => "destroyed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An input at the door, not yet accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewInput {
    /// Whom it is for.
    pub agent: AgentId,
    /// What the guest will see. `accepted_at_ms` is the sender's wall time until acceptance overwrites it.
    pub input: Input,
    /// The client's key: the same key never runs twice.
    pub idempotency_key: Option<String>,
    /// In which lane the sender wants it.
    pub mode: Mode,
    /// Accepted without waking the agent: it runs with the next turn.
    pub is_silent: bool,
    /// Queued inputs of the same kind that were accepted under this key end as replaced by this one.
    pub supersedes: Option<String>,
    /// The trace that it is part of.
    pub traceparent: Option<TraceParent>,
    /// Set when another agent's outbox delivers it.
    pub delivery: Option<DeliveryStamp>,
    /// Which agents it reaches.
    pub reach: Reach,
}

/// Which agents an input reaches, by the door that it came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reach {
    /// Any: the host's own, and what is dispatched.
    #[default]
    Any,
    /// Those that are addressable.
    Addressable,
    /// Those with an edge to the agent that the delivery comes from, and that agent itself.
    Neighbours,
}

impl NewInput {
    /// An input that the host makes by itself: a timer, the end of an operation.
    pub fn of_host(agent: &AgentId, input: Input) -> Self {
        Self {
            agent: agent.clone(),
            input,
            idempotency_key: None,
            mode: Mode::Default,
            is_silent: false,
            supersedes: None,
            traceparent: None,
            delivery: None,
            reach: Reach::Any,
        }
    }

    /// The first input of an agent's generation, when its spec has one.
    pub fn initial(agent: &AgentId, generation: Generation, spec: &Spec, now_ms: u64) -> Option<Self> {
        let text = &spec.initial_message;
        (!text.is_empty()).then(|| {
            let input = Input {
                id: InputId::of_initial(agent, generation),
                kind: Kind::Message,
                source: Source::System,
                content_type: "text/plain; charset=utf-8".to_owned(),
                payload: Bytes::copy_from_slice(text.as_bytes()),
                headers: Vec::new(),
                correlation: None,
                accepted_at_ms: now_ms,
            };
            Self::of_host(agent, input)
        })
    }

    /// Digest of what must be equal under one idempotency key: kind, content type, payload.
    pub fn body_digest(&self) -> Digest {
        let Input { kind, content_type, payload, .. } = &self.input;
        Digest::of_parts([kind.name().as_bytes(), content_type.as_bytes(), payload.as_ref()])
    }

    /// What admission makes of it. `silent_intents` are those of the agent's spec: requests about them wake nobody.
    pub fn placing(&self, silent_intents: &BTreeSet<String>) -> Placing {
        let Input { kind, source, correlation, .. } = &self.input;
        let policy = Policy::of(kind, self.mode);
        let is_context = matches!(kind, Kind::PeerRequest { intent } if silent_intents.contains(intent));
        Placing {
            lane: policy.lane,
            wakes: policy.wakes && !self.is_silent && !is_context,
            scope: Scope::of(policy, source, correlation.as_deref(), self.supersedes.as_deref()),
        }
    }

    /// Checks sizes.
    ///
    /// # Errors
    /// Names the part that is too large, with its limit.
    pub fn check_limits(&self) -> Result<(), InputTooLarge> {
        let Input { content_type, payload, headers, correlation, .. } = &self.input;
        let header_bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let text_bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let checks = [
            ("payload bytes", payload.len(), PAYLOAD_BYTES_MAX),
            ("headers", headers.len(), HEADERS_MAX),
            ("header bytes", header_bytes, HEADER_BYTES_MAX),
            ("content type bytes", content_type.len(), TEXT_BYTES_MAX),
            ("correlation bytes", text_bytes(correlation), TEXT_BYTES_MAX),
            ("idempotency key bytes", text_bytes(&self.idempotency_key), TEXT_BYTES_MAX),
            ("supersession key bytes", text_bytes(&self.supersedes), TEXT_BYTES_MAX),
        ];
        match checks.into_iter().find(|(_, size, max)| size > max) {
            Some((what, size, max)) => Err(InputTooLarge { what, size, max }),
            None => Ok(()),
        }
    }
}

/// A part of an input is larger than its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {size} is over the limit of {max}")]
pub struct InputTooLarge {
    /// Which part.
    pub what: &'static str,
    /// Its size.
    pub size: usize,
    /// The limit.
    pub max: usize,
}

/// Which output of which agent an input is, so that each is accepted once and only from the current owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStamp {
    /// The sending agent.
    pub origin: AgentId,
    /// The output's generation.
    pub generation: Generation,
    /// Number of the output: 1.., no gaps per (origin, generation, destination).
    pub number: u64,
    /// The lowest number to this destination that has not ended; the receiver may skip what lies below.
    pub lowest_open: u64,
    /// The sending owner's current token.
    pub token: FencingToken,
    /// The sending host.
    pub host: HostId,
    /// Which agent of this name it is; `None` when it has no key. What a peer says here is replaced by what its statement proves.
    pub origin_hash: Option<OriginHash>,
    /// The sender's generation now: that of its key. Above `generation` for what is left of an earlier one. A peer says it in its
    /// statement.
    #[serde(skip)]
    pub origin_generation: Generation,
    /// Whether another key than was heard may be the agent's, who was made anew or came from an archive. Said by the store's own
    /// host, never by a peer.
    #[serde(skip)]
    pub is_vouched_for: bool,
    /// What it has to do with a channel. A request becomes no input: the accepting store answers it.
    pub channel: Option<Box<ChannelDelivery>>,
}
