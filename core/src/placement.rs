//! Pure: which host takes which agent, when a host is emptied or hosts are evened out.
//!
//! An agent goes where everything is offered that its spec requires, and where it may be kept (its label `RESIDENCY_LABEL`). Among
//! those hosts to the ones that meet what it prefers, and of these to the one with the fewest agents; what was planned before
//! counts. Small agents go first: most are safe soon, and the large ones come when there is least to disturb.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, HostId};
use crate::spec::Spec;

/// The label that says where an agent must be kept: only at hosts whose capability `RESIDENCY` has its value.
pub const RESIDENCY_LABEL: &str = "godwit.residency";
/// See above.
pub const RESIDENCY: &str = "residency";

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

/// What an agent wants of the host that it is at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// What it must offer.
    pub requires: BTreeMap<String, String>,
    /// What it should rather offer, the most wanted first.
    pub prefers: Vec<BTreeMap<String, String>>,
    /// What its `RESIDENCY` must be.
    pub residency: Option<String>,
}

/// Why a host may not have an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The agent must be kept elsewhere.
    #[error("the agent must be kept where {RESIDENCY}={value}")]
    Residency {
        /// What its label says.
        value: String,
    },
    /// It requires more.
    #[error("the agent requires {name}={value}")]
    Requirement {
        /// The first that is missing.
        name: String,
        /// With which value.
        value: String,
    },
}

impl Wants {
    /// What an agent of this spec and these labels wants.
    pub fn of(spec: &Spec, labels: &BTreeMap<String, String>) -> Self {
        let Spec { requires, prefers, .. } = spec.clone();
        Self { requires, prefers, residency: labels.get(RESIDENCY_LABEL).cloned() }
    }

    /// The first of what it must have that a host does not offer.
    pub fn unmet(&self, capabilities: &BTreeMap<String, String>) -> Option<Unmet> {
        if let Some(value) = &self.residency
            && capabilities.get(RESIDENCY) != Some(value)
        {
            return Some(Unmet::Residency { value: value.clone() });
        }
        let (name, value) = missing(&self.requires, capabilities)?;
        Some(Unmet::Requirement { name: name.to_owned(), value: value.to_owned() })
    }

    /// Which of its preferences a host meets, the most wanted first: the higher, the better.
    pub fn score(&self, capabilities: &BTreeMap<String, String>) -> Vec<bool> {
        self.prefers.iter().map(|preference| missing(preference, capabilities).is_none()).collect()
    }
}

/// An agent that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub agent: AgentId,
    /// What it wants of a host.
    pub wants: Wants,
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
    /// No host that takes agents may have it.
    #[error("no other host that takes agents may have it: {0}")]
    Unmet(Unmet),
}

/// The first of `requires` that is not among `capabilities`.
fn missing<'a>(
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
            taken.agents = taken.agents.saturating_add(1);
        }
        Place { agent: candidate.agent, to }
    });
    places.collect()
}

/// Which of these go, so that their host, with `own` agents, has no more than one above any host that can take them. What they
/// prefer decides among hosts that have fewer.
pub fn even_out(candidates: Vec<Candidate>, own: u64, others: &BTreeMap<HostId, Offer>) -> Vec<Place> {
    let (mut own, mut others) = (own, others.clone());
    let mut places = Vec::new();
    for candidate in in_order(candidates) {
        let has_fewer = |offer: &Offer| offer.agents.saturating_add(1) < own;
        let Some(host) = best(&candidate, others.iter().filter(|(_, offer)| has_fewer(offer))) else {
            continue;
        };
        let Some(taken) = others.get_mut(&host) else { continue };
        taken.agents = taken.agents.saturating_add(1);
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
    if let Some(host) = best(candidate, others.iter()) {
        return Ok(host);
    }
    let mut open = others.values().filter(|offer| !offer.is_cordoned);
    let unmet = open.find_map(|offer| candidate.wants.unmet(&offer.capabilities));
    Err(unmet.map_or(Stays::NoHost, Stays::Unmet))
}

/// Of the hosts that may have it the one that it prefers most, and of those the one with the fewest agents.
fn best<'a>(candidate: &Candidate, hosts: impl Iterator<Item = (&'a HostId, &'a Offer)>) -> Option<HostId> {
    let wants = &candidate.wants;
    let able = hosts.filter(|(_, offer)| !offer.is_cordoned && wants.unmet(&offer.capabilities).is_none());
    let order =
        |(host, offer): &(&HostId, &Offer)| (Reverse(wants.score(&offer.capabilities)), offer.agents, **host);
    able.min_by_key(order).map(|(host, _)| *host)
}

#[cfg(test)]
mod tests;
