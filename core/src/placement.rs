//! Pure: which host takes which agent, when a host is emptied or hosts are evened out.
//!
//! An agent goes where everything is offered that its spec requires, to the host with the fewest agents; what was planned
//! before counts. Small agents go first: most are safe soon, and the large ones come when there is least to disturb.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, HostId};

/// What a host offers, as far as placement goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Names and values of what it can do, or is.
    pub capabilities: BTreeMap<String, String>,
    /// Whether it takes no more agents.
    pub is_cordoned: bool,
    /// Agents that it has.
    pub agents: u64,
}

/// An agent that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub agent: AgentId,
    /// What a host must offer.
    pub requires: BTreeMap<String, String>,
    /// What it keeps in rows, in bytes: an order, not a forecast.
    pub bytes: u64,
}

/// Where an agent goes, or why it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which agent.
    pub agent: AgentId,
    /// Where to.
    pub to: Result<HostId, Stays>,
}

/// Why an agent stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// There is no host that takes agents.
    #[error("no other host takes agents")]
    NoHost,
    /// No host that takes agents offers what it requires.
    #[error("no other host that takes agents offers {name}={value}")]
    NotOffered {
        /// What is missing at the first of them.
        name: String,
        /// With which value.
        value: String,
    },
}

/// The first of `requires` that is not among `capabilities`.
pub fn missing<'a>(
    requires: &'a BTreeMap<String, String>,
    capabilities: &BTreeMap<String, String>,
) -> Option<(&'a str, &'a str)> {
    let lacks = |(name, value): &(&String, &String)| capabilities.get(*name) != Some(*value);
    requires.iter().find(lacks).map(|(name, value)| (name.as_str(), value.as_str()))
}

/// Where all of these go, in the order in which they should. `others` are the hosts that can be reached.
pub fn empty(candidates: Vec<Candidate>, others: &BTreeMap<HostId, Offer>) -> Vec<Place> {
    let mut others = others.clone();
    let places = in_order(candidates).into_iter().map(|candidate| {
        let to = choose(&candidate, &others);
        if let Some(taken) = to.as_ref().ok().and_then(|host| others.get_mut(host)) {
            taken.agents += 1;
        }
        Place { agent: candidate.agent, to }
    });
    places.collect()
}

/// Which of these go, so that their host, with `own` agents, has no more than one above any host that can take them.
pub fn even_out(candidates: Vec<Candidate>, own: u64, others: &BTreeMap<HostId, Offer>) -> Vec<Place> {
    let (mut own, mut others) = (own, others.clone());
    let mut places = Vec::new();
    for candidate in in_order(candidates) {
        let Ok(host) = choose(&candidate, &others) else { continue };
        let Some(taken) = others.get_mut(&host).filter(|offer| offer.agents + 1 < own) else { continue };
        taken.agents += 1;
        own -= 1;
        places.push(Place { agent: candidate.agent, to: Ok(host) });
    }
    places
}

fn in_order(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by(|one, other| (one.bytes, &one.agent).cmp(&(other.bytes, &other.agent)));
    candidates
}

fn choose(candidate: &Candidate, others: &BTreeMap<HostId, Offer>) -> Result<HostId, Stays> {
    let lacks = |offer: &Offer| missing(&candidate.requires, &offer.capabilities).is_some();
    let open = || others.iter().filter(|(_, offer)| !offer.is_cordoned);
    let able = open().filter(|(_, offer)| !lacks(offer));
    if let Some((host, _)) = able.min_by_key(|(host, offer)| (offer.agents, **host)) {
        return Ok(*host);
    }
    let lacking = open().find_map(|(_, offer)| missing(&candidate.requires, &offer.capabilities));
    Err(lacking.map_or(Stays::NoHost, |(name, value)| Stays::NotOffered {
        name: name.to_owned(),
        value: value.to_owned(),
    }))
}

#[cfg(test)]
mod tests;
