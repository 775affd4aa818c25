//! Pure: what must be done so that the agents and edges of a store are those that a roster names.
//!
//! ```text
//! what the roster says    what is there                    what is done
//! an agent                nothing                          create
//!                         retiring, retired                resume
//!                         another plugin                   upgrade
//!                         another spec, other labels       update
//!                         deleted                          nothing: only an operator makes it anew
//! no agent                one that the roster manages      retire
//!                         another                          nothing
//! an edge                 an agent of it is missing        nothing
//!                         no side, or one                  wire
//!                         both sides                       nothing
//! no edge                 one that the roster manages      unwire
//! ```
//! What is not managed is never touched. Doing what is planned and planning again gives nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::edge::{Edge, Pair};
use crate::id::{AgentId, StoreId};
use crate::lifecycle::Lifecycle;
use crate::spec::Spec;

/// The label that marks what a roster manages. Its value is the id of the store whose roster that is: an agent may have moved
/// to a store with another roster, which has no say in it unless it names it.
pub const MANAGED_BY: &str = "godwit.managed-by";
/// Begins the names of labels that the host itself sets.
pub const RESERVED_LABEL: &str = "godwit.";

/// An agent, as a roster says or as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// What it is made of.
    pub spec: Spec,
    /// All its labels, the reserved ones too.
    pub labels: BTreeMap<String, String>,
}

/// An agent that is at home here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Whether it may run.
    pub lifecycle: Lifecycle,
    /// What it is made of; `None` where nobody has asked.
    pub spec: Option<Spec>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What is to be done with one agent, in the order in which it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Make it.
    Create,
    /// Let it accept and run again.
    Resume,
    /// Let it run what it has, and rest.
    Retire,
    /// Give it another plugin on its state.
    Upgrade,
    /// Give it another configuration or other labels.
    Update,
    /// Nothing: it is as it should be.
    Keep,
    /// Nothing: it was deleted, and a roster brings nobody back.
    Deleted,
}

impl Action {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Resume => "resume",
            Self::Retire => "retire",
            Self::Upgrade => "upgrade",
            Self::Update => "update",
            Self::Keep => "keep",
            Self::Deleted => "deleted",
        }
    }
}

/// What is to be done with each agent by the roster of store `own`. An agent may need several: it is resumed before it is
/// upgraded, and upgraded before it is updated.
pub fn plan(
    desired: &BTreeMap<AgentId, Desired>,
    current: &BTreeMap<AgentId, Current>,
    own: StoreId,
) -> BTreeMap<AgentId, Vec<Action>> {
    let wanted = desired.iter().map(|(agent, desired)| (agent.clone(), wanted(desired, current.get(agent))));
    let own = own.to_string();
    let is_ours = |current: &Current| current.labels.get(MANAGED_BY) == Some(&own);
    let left = current.iter().filter(|(agent, current)| !desired.contains_key(*agent) && is_ours(current));
    let leaving = left.filter(|(_, current)| {
        !matches!(current.lifecycle, Lifecycle::Retiring | Lifecycle::Retired | Lifecycle::Deleted)
    });
    wanted.chain(leaving.map(|(agent, _)| (agent.clone(), vec![Action::Retire]))).collect()
}

fn wanted(desired: &Desired, current: Option<&Current>) -> Vec<Action> {
    let Some(current) = current else { return vec![Action::Create] };
    if current.lifecycle == Lifecycle::Deleted {
        return vec![Action::Deleted];
    }
    let rests = matches!(current.lifecycle, Lifecycle::Retiring | Lifecycle::Retired);
    let has_plugin = current.spec.as_ref().is_some_and(|spec| spec.plugin == desired.spec.plugin);
    let is_same = current.labels == desired.labels
        && current.spec.as_ref().is_some_and(|spec| {
            let plugin = desired.spec.plugin;
            Spec { plugin, ..spec.clone() } == desired.spec
        });
    let steps = [(rests, Action::Resume), (!has_plugin, Action::Upgrade), (!is_same, Action::Update)];
    let actions: Vec<_> = steps.into_iter().filter_map(|(is_due, action)| is_due.then_some(action)).collect();
    if actions.is_empty() { vec![Action::Keep] } else { actions }
}

/// What is known of an edge: the side of each agent, in the order of the pair, as `Edge::managed_by`.
pub type Sides = (Option<Option<StoreId>>, Option<Option<StoreId>>);

/// What is to be done with one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EdgeAction {
    /// Write both sides.
    Wire,
    /// Write the side that is missing: somebody, or a crash, has left a half.
    Heal,
    /// Remove both sides.
    Unwire,
    /// Nothing: the roster has made it before.
    Keep,
    /// Nothing: somebody else has made it, an operator or another store's roster, and keeps it.
    Unmanaged,
    /// Nothing, for now: one of the agents is not there.
    Missing,
}

impl EdgeAction {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Heal => "heal",
            Self::Unwire => "unwire",
            Self::Keep => "keep",
            Self::Unmanaged => "unmanaged",
            Self::Missing => "missing",
        }
    }
}

/// What is to be done with each edge that is desired or managed. `present` are the agents that accept; what retires is not
/// among them.
pub fn plan_edges(
    desired: &BTreeSet<Pair>,
    current: &BTreeMap<Pair, Sides>,
    present: &BTreeSet<AgentId>,
    own: StoreId,
) -> BTreeMap<Pair, EdgeAction> {
    let ours = Some(own);
    let of_desired = desired.iter().map(|pair| {
        let is_there = pair.sides().into_iter().all(|(agent, _)| present.contains(agent));
        let action = match current.get(pair).copied().unwrap_or((None, None)) {
            _ if !is_there => EdgeAction::Missing,
            (Some(one), Some(other)) if one == ours && other == ours => EdgeAction::Keep,
            (Some(_), Some(_)) => EdgeAction::Unmanaged,
            (None, None) => EdgeAction::Wire,
            (Some(_), None) | (None, Some(_)) => EdgeAction::Heal,
        };
        (pair.clone(), action)
    });
    let left = current.iter().filter(|(pair, sides)| !desired.contains(pair) && *sides != &(None, None));
    let is_ours = |side: &Option<Option<StoreId>>| side.is_none_or(|by| by == ours);
    let unwired = left.filter(|(_, (first, second))| is_ours(first) && is_ours(second));
    of_desired.chain(unwired.map(|(pair, _)| (pair.clone(), EdgeAction::Unwire))).collect()
}

/// The sides of edges, as a store lists them, by pair.
pub fn sides(listed: impl IntoIterator<Item = (AgentId, Edge)>) -> BTreeMap<Pair, Sides> {
    let mut pairs: BTreeMap<Pair, Sides> = BTreeMap::new();
    for (agent, edge) in listed {
        let Ok(pair) = Pair::new(agent.clone(), edge.peer) else { continue };
        let is_first = *pair.first() == agent;
        let sides = pairs.entry(pair).or_default();
        let side = if is_first { &mut sides.0 } else { &mut sides.1 };
        *side = Some(edge.managed_by);
    }
    pairs
}

#[cfg(test)]
mod tests;
