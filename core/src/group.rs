//! Pure: groups of agents behind one name, and which member takes a call.
//!
//! Who is a member says a label of the agent's own (`LABEL`), so membership is durable, moves with the agent, and nobody owns
//! the group. Members are agents like others, with keys, states and histories of their own.
//!
//! A call without a key goes to whoever has least to do. One with an idempotency key goes to the member that the key picks by
//! rendezvous hashing (Thaler & Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): the same one for a
//! repetition, which finds what the first try has left there. When a member comes or goes, only the keys that pick it change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AGENT_ID_BYTES_MAX, AgentId, FencingToken, HostId};
use crate::lifecycle::Lifecycle;

/// The label that makes its agent a member; its value is the group's name.
pub const LABEL: &str = "group";

/// The name of a group: as that of an agent, 1..=128 bytes of `[a-z0-9._:-]`, starting with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(Arc<str>);

/// A text is no name of a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "group name {text:?} is not 1..={AGENT_ID_BYTES_MAX} bytes of [a-z0-9._:-] starting with a letter or digit"
)]
pub struct GroupNameError {
    /// The refused text, shortened to 160 characters.
    pub text: String,
}

impl GroupName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        match AgentId::parse(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(GroupNameError { text: text.chars().take(160).collect() }),
        }
    }
}

impl TryFrom<String> for GroupName {
    type Error = GroupNameError;

    fn try_from(text: String) -> Result<Self, GroupNameError> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// The group that an agent with these labels is a member of.
///
/// # Errors
/// When the label names no group.
pub fn of(labels: &BTreeMap<String, String>) -> Result<Option<GroupName>, GroupNameError> {
    labels.get(LABEL).map(|name| name.parse()).transpose()
}

/// A member, as a host has told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which agent.
    pub agent: AgentId,
    /// Who runs it; who told of it, when nobody does.
    pub host: HostId,
    /// Its token: of two hosts that tell of it, who knows the higher one knows more.
    pub token: FencingToken,
    /// Whether it runs, and why not.
    pub lifecycle: Lifecycle,
    /// Inputs that wait at it, and callers.
    pub load: u64,
}

/// What several hosts have told, each member once.
pub fn merge(told: impl IntoIterator<Item = Member>) -> BTreeMap<AgentId, Member> {
    let mut members: BTreeMap<AgentId, Member> = BTreeMap::new();
    for member in told {
        let rank = |member: &Member| (member.token, member.load);
        let is_known = members.get(&member.agent).is_some_and(|known| rank(known) >= rank(&member));
        if !is_known {
            members.insert(member.agent.clone(), member);
        }
    }
    members
}

/// The member that takes a call, of those that have not refused it. `salt` decides between members of equal load.
///
/// Only active members take calls without a key. A key picks among all that have not ended for good, whatever their state: a
/// pause must not send a repetition to somebody else.
pub fn pick<'a>(
    members: &'a BTreeMap<AgentId, Member>,
    key: Option<&str>,
    refused: &BTreeSet<AgentId>,
    salt: u64,
) -> Option<&'a Member> {
    let left = members.values().filter(|member| !refused.contains(&member.agent));
    match key {
        Some(key) => left
            .filter(|member| !matches!(member.lifecycle, Lifecycle::Retired | Lifecycle::Deleted))
            .max_by_key(|member| weight(key.as_bytes(), &member.agent)),
        None => left
            .filter(|member| member.lifecycle == Lifecycle::Active)
            .min_by_key(|member| (member.load, weight(&salt.to_le_bytes(), &member.agent))),
    }
}

fn weight(key: &[u8], agent: &AgentId) -> Digest {
    Digest::of(&[agent.as_str().as_bytes(), &[0], key].concat())
}

#[cfg(test)]
mod tests;
