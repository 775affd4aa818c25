//! What hosts say to each other: one version byte, then postcard. Variants are appended, never reordered.
//!
//! The mesh has already proven who speaks (`from` is the connection's key) and that the bytes are whole.

use std::net::SocketAddr;

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, MigrationId, Revision};
use godwit_core::input::NewInput;
use godwit_core::migration::Refusal;
use godwit_core::migration::recovery::{Became, Have};
use godwit_core::output::UndeliverableReason;
use godwit_core::placement::Offer;
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::RowFrame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::call::{AgentCall, CallError};
use super::placement::{HostCall, HostReply};
use super::routing::Called;

/// The version of these messages. Another version is refused with a clear answer, never guessed at.
const VERSION: u8 = 1;

/// A request of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// Who are you?
    Hello,
    /// Where is this agent?
    WhoIsHome { agent: AgentId },
    /// Do this where the agent is at home; `hops` hosts have passed it on.
    Call { agent: AgentId, call: Box<AgentCall>, hops: u8 },
    /// Accept an output of another agent.
    Deliver { input: Box<NewInput> },
    /// Moving an agent.
    Migration { id: MigrationId, agent: AgentId, message: MigrationMessage },
    /// I am about to create this agent: is the id free?
    Claim { agent: AgentId },
    /// What do you offer to agents?
    Offer,
    /// Do this, as a host.
    Host { call: HostCall },
}

/// The source's questions to the target of a migration, and one the other way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MigrationMessage {
    /// Will you take it?
    Reserve(Box<Reservation>),
    /// Build a guest from the state that you have; answered with the revision it is at.
    Restore { revision: Revision },
    /// The last rows; bind the copy under the granted token.
    Prepare(Box<Preparation>),
    /// It is yours: run it. Sent until it is acknowledged.
    Activate { token: FencingToken },
    /// It does not come: forget it.
    Abort,
    /// Source, about to take back what it was handing off: what do you have?
    WhatHaveYou,
    /// Target, whose source has fallen silent: what became of it?
    WhatBecame,
}

/// What the target must know to say yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) token: FencingToken,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) plugin: PluginInfo,
    pub(crate) spec: Spec,
    /// Both hosts work on one store: no rows travel.
    pub(crate) is_shared: bool,
    pub(crate) deadline_ms: u64,
}

/// Step 2 of the handoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preparation {
    pub(crate) granted: FencingToken,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) frames: Vec<RowFrame>,
    /// Over all row frames in the order in which they were sent, these with them: what is not whole is not bound.
    pub(crate) bundle: Digest,
}

/// Heads a bulk transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BulkHeader {
    /// The body is postcard of `Vec<RowFrame>`.
    Rows { id: MigrationId, agent: AgentId },
    /// The body is a component.
    Plugin { id: MigrationId, plugin: PluginInfo },
}

/// An answer to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerAnswer {
    Hello {
        name: String,
        api: SocketAddr,
    },
    Home(HomeAnswer),
    Called(Box<Result<Called, CallError>>),
    Delivered(Delivered),
    Migration(MigrationAnswer),
    /// The request can't be understood.
    Malformed {
        reason: String,
    },
    Claim(ClaimAnswer),
    Offer(Offer),
    Host(Box<Result<HostReply, CallError>>),
}

/// Whether an id is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClaimAnswer {
    /// As far as this host knows; its own claim of it, if there was one, has yielded.
    Free,
    /// There is an agent of that id, or its tombstone.
    Taken { host: HostId },
    /// A lower host has claimed it.
    Claimed { host: HostId },
}

/// Where a host believes an agent is: a hint, ordered by token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HomeAnswer {
    /// Here.
    Here { token: FencingToken },
    /// It went there.
    Moved { target: HostId, token: FencingToken },
    /// It never was here.
    Unknown,
    /// The store does not say now.
    Silent,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Delivered {
    /// It is durable, or was before.
    Acknowledged,
    /// It will never be taken.
    Never(UndeliverableReason),
    /// The sender is not the owner any more.
    StalePublisher { highest: FencingToken },
    /// Not now.
    Later { reason: String },
    /// Not here: ask again where it is.
    NotHere,
}

/// The answer to a migration's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MigrationAnswer {
    /// Ready for rows, or done.
    Ok,
    /// Ready once the component has arrived.
    NeedsPlugin,
    /// The guest holds this revision.
    Restored {
        revision: Revision,
    },
    /// Bound; digest over all row frames in order of arrival.
    Prepared {
        bundle: Digest,
    },
    /// It runs here.
    Activated,
    /// No.
    Refused {
        why: Refusal,
        reason: String,
    },
    /// Not now: ask again.
    NotReady {
        reason: String,
    },
    /// The agent's key can't be taken over.
    IdentityFailed {
        reason: String,
    },
    /// The guest can't be built.
    StateFailed {
        reason: String,
    },
    /// To `WhatHaveYou` and `WhatBecame`.
    Adopted,
    Pending,
    Nothing,
}

impl From<Have> for MigrationAnswer {
    fn from(have: Have) -> Self {
        match have {
            Have::Agent => Self::Adopted,
            Have::Bound => Self::Pending,
            Have::Nothing => Self::Nothing,
        }
    }
}

impl From<Became> for MigrationAnswer {
    fn from(became: Became) -> Self {
        match became {
            Became::Moved => Self::Adopted,
            Became::Undecided => Self::Pending,
            Became::NotMoved => Self::Nothing,
        }
    }
}

impl MigrationAnswer {
    /// What it says as an answer to `WhatHaveYou`.
    pub(crate) fn have(&self) -> Option<Have> {
        match self {
            Self::Adopted => Some(Have::Agent),
            Self::Pending => Some(Have::Bound),
            Self::Nothing => Some(Have::Nothing),
            _ => None,
        }
    }

    /// What it says as an answer to `WhatBecame`.
    pub(crate) fn became(&self) -> Option<Became> {
        match self {
            Self::Adopted => Some(Became::Moved),
            Self::Pending => Some(Became::Undecided),
            Self::Nothing => Some(Became::NotMoved),
            _ => None,
        }
    }
}

/// Writes a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    let start = vec![VERSION];
    let bytes = postcard::to_extend(message, start).expect("messages have no type that postcard can't write");
    Bytes::from(bytes)
}

/// Reads a message; nothing may follow it.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (version, body) = bytes.split_first().ok_or("the message is empty")?;
    if *version != VERSION {
        return Err(format!(
            "the message has version {version}, this host speaks {VERSION}: upgrade the older host"
        ));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err("bytes follow the message".into()),
        Err(error) => Err(format!("the message can't be read: {error}")),
    }
}

#[cfg(test)]
mod tests;
