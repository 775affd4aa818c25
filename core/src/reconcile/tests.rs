//! The tables, cell by cell.

use super::*;
use crate::digest::Digest;
use crate::lifecycle::SuspendReason;

fn id(text: &str) -> AgentId {
    text.parse().expect("an id")
}

fn spec(plugin: u8, context: &str) -> Spec {
    Spec { context: context.to_owned(), ..Spec::new(Digest([plugin; 32])) }
}

/// The store whose roster plans, and another.
const OWN: StoreId = StoreId([1; 16]);
const OTHER: StoreId = StoreId([2; 16]);

fn labels(managed_by: Option<StoreId>) -> BTreeMap<String, String> {
    managed_by.map(|store| (MANAGED_BY.to_owned(), store.to_string())).into_iter().collect()
}

fn desired(plugin: u8, context: &str) -> Desired {
    Desired { spec: spec(plugin, context), labels: labels(Some(OWN)) }
}

fn current(lifecycle: Lifecycle, plugin: u8, context: &str, managed_by: Option<StoreId>) -> Current {
    Current { lifecycle, spec: Some(spec(plugin, context)), labels: labels(managed_by) }
}

#[track_caller]
fn check(wanted: Option<Desired>, is: Option<Current>, expected: &[Action]) {
    let of = |agent: &str| id(agent);
    let desired = wanted.into_iter().map(|wanted| (of("a"), wanted)).collect();
    let current = is.into_iter().map(|is| (of("a"), is)).collect();
    let planned = plan(&desired, &current, OWN).remove(&of("a")).unwrap_or_default();
    assert_eq!(planned, expected);
}

#[test]
fn the_table_of_wanted_agents() {
    use Action::{Create, Deleted, Keep, Resume, Update, Upgrade};
    let wanted = || Some(desired(1, "x"));
    let is = |lifecycle, plugin, context, by| Some(current(lifecycle, plugin, context, by));
    let ours = Some(OWN);
    check(wanted(), None, &[Create]);
    let suspended = Lifecycle::Suspended(SuspendReason::Restored);
    for lifecycle in [Lifecycle::Active, Lifecycle::Paused, suspended] {
        check(wanted(), is(lifecycle.clone(), 1, "x", ours), &[Keep]);
        check(wanted(), is(lifecycle.clone(), 1, "y", ours), &[Update]);
        check(wanted(), is(lifecycle.clone(), 2, "x", ours), &[Upgrade]);
        check(wanted(), is(lifecycle.clone(), 2, "y", ours), &[Upgrade, Update]);
        check(wanted(), is(lifecycle.clone(), 1, "x", None), &[Update]);
        // Whose roster names it, and has it at home, manages it from then on.
        check(wanted(), is(lifecycle, 1, "x", Some(OTHER)), &[Update]);
    }
    for lifecycle in [Lifecycle::Retiring, Lifecycle::Retired] {
        check(wanted(), is(lifecycle.clone(), 1, "x", ours), &[Resume]);
        check(wanted(), is(lifecycle, 2, "y", ours), &[Resume, Upgrade, Update]);
    }
    check(wanted(), is(Lifecycle::Deleted, 1, "x", ours), &[Deleted]);
}

#[test]
fn the_table_of_agents_that_are_left() {
    let left = |lifecycle, by| Some(current(lifecycle, 1, "x", by));
    for lifecycle in [Lifecycle::Active, Lifecycle::Paused] {
        check(None, left(lifecycle.clone(), Some(OWN)), &[Action::Retire]);
        check(None, left(lifecycle.clone(), None), &[]);
        // It has moved here from a store whose roster has it.
        check(None, left(lifecycle, Some(OTHER)), &[]);
    }
    for lifecycle in [Lifecycle::Retiring, Lifecycle::Retired, Lifecycle::Deleted] {
        check(None, left(lifecycle, Some(OWN)), &[]);
    }
}

#[track_caller]
fn check_edge(is_desired: bool, sides: Sides, present: &[&str], expected: Option<EdgeAction>) {
    let pair = Pair::new(id("a"), id("b")).unwrap();
    let desired = is_desired.then(|| pair.clone()).into_iter().collect();
    let present = present.iter().map(|agent| id(agent)).collect();
    let planned = plan_edges(&desired, &BTreeMap::from([(pair.clone(), sides)]), &present, OWN);
    assert_eq!(planned.get(&pair).copied(), expected, "{is_desired} {sides:?} {present:?}");
}

#[test]
fn the_table_of_edges() {
    let (managed, free, other, none) = (Some(Some(OWN)), Some(None), Some(Some(OTHER)), None);
    for (sides, expected) in [
        ((none, none), EdgeAction::Wire),
        ((managed, none), EdgeAction::Heal),
        ((none, managed), EdgeAction::Heal),
        ((free, none), EdgeAction::Heal),
        ((none, other), EdgeAction::Heal),
        ((managed, managed), EdgeAction::Keep),
        ((free, free), EdgeAction::Unmanaged),
        ((other, other), EdgeAction::Unmanaged),
        ((managed, free), EdgeAction::Unmanaged),
        ((managed, other), EdgeAction::Unmanaged),
    ] {
        check_edge(true, sides, &["a", "b"], Some(expected));
        check_edge(true, sides, &["a"], Some(EdgeAction::Missing));
    }
    for sides in [(managed, managed), (managed, none), (none, managed)] {
        check_edge(false, sides, &[], Some(EdgeAction::Unwire));
    }
    let kept = [(free, free), (free, none), (managed, free), (other, other), (other, none), (managed, other)];
    for sides in [(none, none)].into_iter().chain(kept) {
        check_edge(false, sides, &["a", "b"], None);
    }
}

#[test]
fn sides_are_paired() {
    let (ours, free) = (Some(OWN), None);
    let side = |agent: &str, peer: &str, managed_by| (id(agent), Edge { peer: id(peer), managed_by });
    let listed = [side("b", "a", ours), side("a", "b", free), side("b", "c", ours)];
    let paired = sides(listed);
    let pair = |one: &str, other: &str| Pair::new(id(one), id(other)).unwrap();
    assert_eq!(
        paired,
        BTreeMap::from([(pair("a", "b"), (Some(free), Some(ours))), (pair("b", "c"), (Some(ours), None)),])
    );
}
