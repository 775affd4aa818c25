//! Outputs: what a turn sends to other agents, committed with the turn and delivered afterwards.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::channel::token::Proof;
use crate::channel::{ChannelDelivery, ChannelMessage};
use crate::id::{AgentId, FencingToken, Generation, HostId, InputId, Revision};
use crate::identity::{EntityKey, OriginHash};
use crate::input::{DeliveryStamp, Input, Kind, NewInput, Source};

/// One output as the guest gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// For whom.
    pub destination: AgentId,
    /// What the receiver's input will be.
    pub kind: Kind,
    /// MIME type.
    pub content_type: String,
    /// At most `OUTPUT_BYTES_MAX` bytes.
    pub payload: Bytes,
    /// Header pairs.
    pub headers: Vec<(String, String)>,
    /// Ties an answer to its question.
    pub correlation: Option<String>,
    /// Whether it asks for a reply, or is one.
    pub reply: ReplyRole,
    /// What it has to do with a channel.
    pub channel: Option<Box<ChannelMessage>>,
}

/// What an output has to do with a request that is answered by the host. The variants' order is part of the stored encoding:
/// append only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyRole {
    /// Nothing.
    #[default]
    None,
    /// The receiver's reply comes back as an input; `correlation` is the output's id.
    Expected,
    /// It is that reply, made by the host when the input ended; `correlation` is the request's id.
    Given,
}

/// A committed output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    /// The sender.
    pub agent: AgentId,
    /// The sender's generation when it committed.
    pub generation: Generation,
    /// 1.., no gaps per (agent, generation, destination).
    pub number: u64,
    /// The boundary it committed with.
    pub revision: Revision,
    /// Position among all outputs of the agent: commit order.
    pub position: u64,
    /// Wall time of the commit in Unix milliseconds.
    pub committed_at_ms: u64,
    /// What is sent.
    pub output: Output,
    /// Whether it still waits, or how it ended.
    pub state: OutputState,
}

/// Who sends the outputs of an agent.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The agent's generation.
    pub generation: Generation,
    /// Its owner's token.
    pub token: FencingToken,
    /// On which host.
    pub host: HostId,
    /// Which agent of its name it is.
    pub origin_hash: Option<OriginHash>,
    /// The agent's entity key, to prove who asks, where that is known.
    pub key: Option<EntityKey>,
}

impl StoredOutput {
    /// The input that it becomes at its destination. `lowest_open` is the lowest number to there that has not ended.
    pub fn delivery(&self, sender: &Sender, lowest_open: u64, now_ms: u64) -> NewInput {
        let Self { agent, generation, number, output, .. } = self;
        let id = match (&output.reply, &output.correlation) {
            // The end of a request has an id of its own, whichever way it comes.
            (ReplyRole::Given, Some(request)) => InputId::of_reply(&output.destination, request),
            _ => InputId::of_delivery(agent, *generation, &output.destination, *number),
        };
        let expects_reply = output.reply == ReplyRole::Expected;
        let input = Input {
            id,
            kind: output.kind.clone(),
            source: Source::Peer { agent: agent.clone(), expects_reply },
            content_type: output.content_type.clone(),
            payload: output.payload.clone(),
            headers: output.headers.clone(),
            correlation: output.correlation.clone(),
            accepted_at_ms: now_ms,
        };
        // Which agents it reaches is said by the receiving host.
        let mut new = NewInput::of_host(&output.destination, input);
        let mut stamp = DeliveryStamp {
            origin: agent.clone(),
            generation: *generation,
            number: *number,
            lowest_open,
            token: sender.token,
            host: sender.host,
            origin_hash: sender.origin_hash,
            origin_generation: sender.generation,
            is_vouched_for: true,
            channel: None,
        };
        if let Some(message) = output.channel.as_deref() {
            let proof = match (message, &sender.key) {
                (ChannelMessage::Request(request), Some(key)) if request.token.is_some() => {
                    Some(Proof::new(key, &stamp, &new, request))
                }
                _ => None,
            };
            stamp.channel = Some(Box::new(ChannelDelivery { message: message.clone(), proof }));
        }
        new.delivery = Some(stamp);
        new
    }
}

/// Whether an output still waits, or how it ended. Acknowledged outputs are deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputState {
    /// To be delivered.
    Pending,
    /// It will never arrive.
    Undeliverable {
        /// Why.
        reason: UndeliverableReason,
    },
}

/// Why an output will never arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UndeliverableReason {
    /// No host knows the destination.
    NotFound,
    /// The destination was deleted.
    Deleted,
    /// The destination is retired.
    Retired,
    /// The destination does not take messages from this sender.
    Forbidden,
    /// No answer within `OUTPUT_LIFETIME`.
    Expired,
    /// The destination refuses this message for its size or form.
    Rejected,
    /// The destination has heard another agent of the sender's name.
    Namesake,
    /// The destination does not subscribe to what was published.
    NotSubscribed,
}

impl UndeliverableReason {
    /// Whether it holds for whatever the same sender has for the destination, and not for one message alone.
    pub fn is_of_destination(self) -> bool {
        matches!(self, Self::NotFound | Self::Deleted | Self::Retired | Self::Namesake)
    }

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Deleted => "deleted",
            Self::Retired => "retired",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Namesake => "namesake",
            Self::NotSubscribed => "not_subscribed",
        }
    }
}
