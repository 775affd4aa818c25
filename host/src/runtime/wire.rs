//! What hosts say to each other: one version byte, then postcard. Variants are appended, never reordered.
//!
//! The version is that on which the two hosts have agreed (`mesh::PROTOCOLS`), and an answer has its request's. What a version
//! does not know is said in its words (`PeerAnswer::in_version`). So a struct that is there already does not change: what is new
//! is a new variant, and everything that an older version has sent can still be read.
//!
//! The mesh has already proven who speaks (`from` is the connection's key) and that the bytes are whole.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::group::{GroupName, Member};
use godwit_core::id::{AgentId, FencingToken, Generation, HostId, MigrationId, Revision};
use godwit_core::identity::{EntityPublicKey, OriginHash, SignedStatement};
use godwit_core::input::NewInput;
use godwit_core::mesh::PROTOCOLS;
use godwit_core::migration::Refusal;
use godwit_core::migration::recovery::{Became, Have};
use godwit_core::output::UndeliverableReason;
use godwit_core::placement::Offer;
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::RowFrame;
use godwit_mesh::protocols;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::agents::CreateAgent;
use super::call::{AgentCall, AgentView, CallError};
use super::placement::{HostCall, HostReply};
use super::routing::Called;

/// How soon a host that said "not now" may be asked again.
pub(crate) const NOT_NOW_RETRY_MS: u64 = 200;

/// What is wrong with a message that ends too late.
const FOLLOWED: &str = "bytes follow the message";
/// Rows that go with `Prepare`: what is decoded of one message stays small, however small the rows are.
pub(crate) const PREPARE_FRAMES_MAX: usize = 16_384;

/// A request of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// Who are you?
    Hello,
    /// Where is this agent?
    WhoIsHome { agent: AgentId },
    /// Do this where the agent is at home; `hops` hosts have passed it on.
    Call { agent: AgentId, call: Box<AgentCall>, hops: u8 },
    /// Accept outputs of one agent, in order; its key states that the host that asks sends them, when it is there to sign.
    Deliver { inputs: Vec<NewInput>, statement: Option<Box<SignedStatement>> },
    /// Moving an agent.
    Migration { id: MigrationId, agent: AgentId, message: MigrationMessage },
    /// I am about to create this agent: is the id free?
    Claim { agent: AgentId },
    /// What do you offer to agents?
    Offer,
    /// Do this, as a host.
    Host { call: HostCall },
    /// Who of a group is at home at yours?
    Members { group: GroupName },
    /// Make this agent at yours.
    Create { request: Box<CreateAgent> },
    /// Keeping a warm copy of an agent.
    Standby { agent: AgentId, message: Box<StandbyMessage> },
}

/// What a source says to the host that keeps a copy of its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StandbyMessage {
    /// A whole copy comes.
    Begin(Box<StandbyStart>),
    /// I have it under this token: may I run it?
    May { token: FencingToken },
    /// I need no copy of it at yours, whatever is there of mine.
    End,
}

/// What a standby must know to say yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StandbyStart {
    pub(crate) session: MigrationId,
    pub(crate) token: FencingToken,
    pub(crate) plugin: PluginInfo,
    pub(crate) spec: Spec,
    /// Where the agent must be kept.
    pub(crate) residency: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StandbyAnswer {
    Ok,
    /// To `Begin`: once the component has arrived.
    NeedsPlugin,
    /// The round builds on something else than what is here.
    Behind,
    /// The agent lives on under this token.
    Superseded {
        token: FencingToken,
    },
    Refused {
        reason: String,
    },
    /// Not now: ask again.
    NotReady {
        reason: String,
    },
}

/// What of a session rows are, and what they bring a copy to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StandbyPlace {
    pub(crate) session: MigrationId,
    pub(crate) change: u64,
    pub(crate) token: FencingToken,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
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
    /// Target, where an operator has forced the copy: the agent runs here, under this token. Sent until it is acknowledged.
    Forced { token: FencingToken },
}

/// What the target must know to say yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) token: FencingToken,
    pub(crate) generation: Generation,
    pub(crate) revision: Revision,
    pub(crate) plugin: PluginInfo,
    pub(crate) spec: Spec,
    /// Which agent of its name it is.
    pub(crate) public_key: Option<EntityPublicKey>,
    /// Where it must be kept, by its label.
    pub(crate) residency: Option<String>,
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
    #[serde(deserialize_with = "few_frames")]
    pub(crate) frames: Vec<RowFrame>,
    /// Over the digests of all transfers of rows in the order in which they were sent, and of these rows: what is not whole is not bound.
    pub(crate) bundle: Digest,
}

/// Heads a bulk transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BulkHeader {
    /// The body is postcard of `Vec<RowFrame>`. One without rows is answered once all before it would survive a power failure.
    Rows { id: MigrationId, agent: AgentId },
    /// The body is a component.
    Plugin { id: MigrationId, plugin: PluginInfo },
    /// Since version 2: as `Rows`, packed with zstd; so many bytes before.
    PackedRows { id: MigrationId, agent: AgentId, bytes: u64 },
    /// The body is postcard of `Vec<RowFrame>`, part of a whole copy.
    StandbyRows { agent: AgentId, place: StandbyPlace },
    /// The same, all that has changed since a change number.
    StandbyRound { agent: AgentId, builds_on: u64, place: StandbyPlace },
    /// The body is a component that a copy needs.
    StandbyPlugin { agent: AgentId, session: MigrationId, plugin: PluginInfo },
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
    /// One for each output.
    Delivered(Vec<Delivered>),
    Migration(MigrationAnswer),
    /// The request can't be understood.
    Malformed {
        reason: String,
    },
    Claim(ClaimAnswer),
    Offer(Offer),
    Host(Box<Result<HostReply, CallError>>),
    /// Since version 2: the request is not looked at now.
    NotNow {
        reason: String,
        retry_after_ms: u64,
    },
    /// Since version 2: as `Hello`, with the release of the program.
    Introduction {
        name: String,
        api: SocketAddr,
        release: String,
    },
    /// At most `GROUP_MEMBERS_MAX`.
    Members(Vec<Member>),
    /// The agent, and whether it is new.
    Created(Box<Result<(AgentView, bool), CallError>>),
    Standby(StandbyAnswer),
}

impl PeerAnswer {
    /// The answer as a host of this version understands it.
    pub(crate) fn in_version(self, version: u8) -> Self {
        match self {
            Self::NotNow { reason, .. } if version < 2 => Self::Malformed { reason },
            Self::Introduction { name, api, .. } if version < 2 => Self::Hello { name, api },
            Self::Home(HomeAnswer::HereAs { token, .. }) if version < 2 => {
                Self::Home(HomeAnswer::Here { token })
            }
            same => same,
        }
    }
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
    /// Since version 2: here, and the agent of its name that has this key. Nothing more comes of one that is gone: deleted, or at work
    /// elsewhere.
    HereAs { token: FencingToken, origin_hash: OriginHash, is_gone: bool },
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
    /// Bound; the digest as of what has arrived.
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
    /// What the agent has done last it does otherwise here.
    Diverged {
        reason: String,
    },
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

/// A message that is judged by its version: what that does not know is not understood by a host that speaks no newer one.
pub(crate) trait Message: Serialize + DeserializeOwned {
    /// The version since which it is said.
    fn since(&self) -> u8;
}

impl Message for PeerRequest {
    fn since(&self) -> u8 {
        *PROTOCOLS.start()
    }
}

impl Message for PeerAnswer {
    fn since(&self) -> u8 {
        match self {
            Self::NotNow { .. } | Self::Introduction { .. } | Self::Home(HomeAnswer::HereAs { .. }) => 2,
            _ => *PROTOCOLS.start(),
        }
    }
}

impl Message for BulkHeader {
    fn since(&self) -> u8 {
        match self {
            Self::PackedRows { .. } => 2,
            _ => *PROTOCOLS.start(),
        }
    }
}

#[cfg(test)]
/// Writes a message in the newest version.
pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    encode_in(*PROTOCOLS.end(), message)
}

/// Writes a message in the version of whoever is to read it.
pub(crate) fn encode_in<T: Serialize>(version: u8, message: &T) -> Bytes {
    let start = vec![version];
    let bytes = postcard::to_extend(message, start).expect("messages have no type that postcard can't write");
    Bytes::from(bytes)
}

/// Reads a message; nothing may follow it.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn decode<T: Message>(bytes: &[u8]) -> Result<T, String> {
    let (version, body) = body(bytes)?;
    let message: T = match postcard::take_from_bytes(body) {
        Ok((message, [])) => message,
        Ok(_) => return Err(FOLLOWED.into()),
        Err(error) => return Err(unreadable(error)),
    };
    match message.since() {
        since if since <= version => Ok(message),
        since => Err(format!("the message is said since version {since}, and has version {version}")),
    }
}

fn body(bytes: &[u8]) -> Result<(u8, &[u8]), String> {
    let (version, body) = bytes.split_first().ok_or("the message is empty")?;
    let spoken = protocols();
    if spoken.contains(version) {
        return Ok((*version, body));
    }
    let (min, max) = spoken.into_inner();
    Err(format!("the message has version {version}, this host speaks {min} to {max}: upgrade the older host"))
}

/// The version in which a message is answered: its own, if this host speaks that.
pub(crate) fn version_of(message: &[u8]) -> u8 {
    let spoken = protocols();
    let version = message.first().copied().filter(|version| spoken.contains(version));
    version.unwrap_or(*spoken.start())
}

/// How many bytes a value takes within a message.
pub(crate) fn encoded_len<T: Serialize>(value: &T) -> usize {
    let size = postcard::serialize_with_flavor(value, postcard::ser_flavors::Size::default());
    size.expect("messages have no type that postcard can't write")
}

/// Writes a list as `encode_in` does, item by item.
pub(crate) fn encode_list<T: Serialize>(version: u8, items: &[T]) -> Vec<u8> {
    let writable = "messages have no type that postcard can't write";
    let mut bytes = Vec::with_capacity(16 + items.iter().map(encoded_len).sum::<usize>());
    bytes.push(version);
    bytes = postcard::to_extend(&(items.len() as u64), bytes).expect(writable);
    for item in items {
        bytes = postcard::to_extend(item, bytes).expect(writable);
    }
    bytes
}

/// A list that is read some items at a time: what is in memory is bounded, whatever the bytes say.
pub(crate) struct List<'a, T> {
    rest: &'a [u8],
    left: usize,
    items: PhantomData<T>,
}

/// Begins to read a message that is a list.
///
/// # Errors
/// As `decode`.
pub(crate) fn decode_list<T>(bytes: &[u8]) -> Result<List<'_, T>, String> {
    let (left, rest) = postcard::take_from_bytes(body(bytes)?.1).map_err(unreadable)?;
    Ok(List { rest, left, items: PhantomData })
}

impl<T: DeserializeOwned> List<'_, T> {
    /// Whether there is no more, and nothing follows.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }

    /// The next items, at most so many; none at the end.
    ///
    /// # Errors
    /// As `decode`.
    pub(crate) fn next_up_to(&mut self, max: usize) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        while items.len() < max && self.left > 0 {
            let (item, rest) = postcard::take_from_bytes(self.rest).map_err(unreadable)?;
            (self.rest, self.left) = (rest, self.left - 1);
            items.push(item);
        }
        if self.left == 0 && !self.rest.is_empty() {
            return Err(FOLLOWED.into());
        }
        Ok(items)
    }
}

fn unreadable(error: postcard::Error) -> String {
    format!("the message can't be read: {error}")
}

/// Reads the rows of a `Preparation`, of which there may not be many.
fn few_frames<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RowFrame>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<RowFrame>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {PREPARE_FRAMES_MAX} rows")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
            let mut frames = Vec::new();
            while let Some(frame) = rows.next_element()? {
                if frames.len() == PREPARE_FRAMES_MAX {
                    return Err(A::Error::invalid_length(frames.len() + 1, &self));
                }
                frames.push(frame);
            }
            Ok(frames)
        }
    }

    deserializer.deserialize_seq(Few)
}

#[cfg(test)]
mod tests;
