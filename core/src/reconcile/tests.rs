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

fn labels(is_managed: bool) -> BTreeMap<String, String> {
    is_managed.then(|| (MANAGED.0.to_owned(), MANAGED.1.to_owned())).into_iter().collect()
}

fn desired(plugin: u8, context: &str) -> Desired {
    Desired { spec: spec(plugin, context), labels: labels(true) }
}

fn current(lifecycle: Lifecycle, plugin: u8, context: &str, is_managed: bool) -> Current {
    Current { lifecycle, spec: Some(spec(plugin, context)), labels: labels(is_managed) }
}

#[track_caller]
fn check(wanted: Option<Desired>, is: Option<Current>, expected: &[Action]) {
    let of = |agent: &str| id(agent);
    let desired = wanted.into_iter().map(|wanted| (of("a"), wanted)).collect();
    let current = is.into_iter().map(|is| (of("a"), is)).collect();
    let planned = plan(&desired, &current).remove(&of("a")).unwrap_or_default();
    assert_eq!(planned, expected);
}

#[test]
fn the_table_of_wanted_agents() {
    use Action::{Create, Deleted, Keep, Resume, Update, Upgrade};
    let wanted = || Some(desired(1, "x"));
    let is = |lifecycle, plugin, context, managed| Some(current(lifecycle, plugin, context, managed));
    check(wanted(), None, &[Create]);
    let suspended = Lifecycle::Suspended(SuspendReason::Restored);
    for lifecycle in [Lifecycle::Active, Lifecycle::Paused, suspended] {
        check(wanted(), is(lifecycle.clone(), 1, "x", true), &[Keep]);
        check(wanted(), is(lifecycle.clone(), 1, "y", true), &[Update]);
        check(wanted(), is(lifecycle.clone(), 2, "x", true), &[Upgrade]);
        check(wanted(), is(lifecycle.clone(), 2, "y", true), &[Upgrade, Update]);
        check(wanted(), is(lifecycle, 1, "x", false), &[Update]);
    }
    for lifecycle in [Lifecycle::Retiring, Lifecycle::Retired] {
        check(wanted(), is(lifecycle.clone(), 1, "x", true), &[Resume]);
        check(wanted(), is(lifecycle, 2, "y", true), &[Resume, Upgrade, Update]);
    }
    check(wanted(), is(Lifecycle::Deleted, 1, "x", true), &[Deleted]);
}

#[test]
fn the_table_of_agents_that_are_left() {
    let left = |lifecycle, managed| Some(current(lifecycle, 1, "x", managed));
    for lifecycle in [Lifecycle::Active, Lifecycle::Paused] {
        check(None, left(lifecycle.clone(), true), &[Action::Retire]);
        check(None, left(lifecycle, false), &[]);
    }
    for lifecycle in [Lifecycle::Retiring, Lifecycle::Retired, Lifecycle::Deleted] {
        check(None, left(lifecycle, true), &[]);
    }
}

#[track_caller]
fn check_edge(is_desired: bool, sides: Sides, present: &[&str], expected: Option<EdgeAction>) {
    let pair = Pair::new(id("a"), id("b")).unwrap();
    let desired = is_desired.then(|| pair.clone()).into_iter().collect();
    let present = present.iter().map(|agent| id(agent)).collect();
    let planned = plan_edges(&desired, &BTreeMap::from([(pair.clone(), sides)]), &present);
    assert_eq!(planned.get(&pair).copied(), expected, "{is_desired} {sides:?} {present:?}");
}

#[test]
fn the_table_of_edges() {
    let (managed, other, none) = (Some(true), Some(false), None);
    for (sides, expected) in [
        ((none, none), EdgeAction::Wire),
        ((managed, none), EdgeAction::Heal),
        ((none, managed), EdgeAction::Heal),
        ((other, none), EdgeAction::Heal),
        ((managed, managed), EdgeAction::Keep),
        ((other, other), EdgeAction::Unmanaged),
        ((managed, other), EdgeAction::Unmanaged),
    ] {
        check_edge(true, sides, &["a", "b"], Some(expected));
        check_edge(true, sides, &["a"], Some(EdgeAction::Missing));
    }
    for sides in [(managed, managed), (managed, none), (none, managed)] {
        check_edge(false, sides, &[], Some(EdgeAction::Unwire));
    }
    for sides in [(none, none), (other, other), (other, none), (managed, other)] {
        check_edge(false, sides, &["a", "b"], None);
    }
}

#[test]
fn sides_are_paired() {
    let side = |agent: &str, peer: &str, is_managed| (id(agent), Edge { peer: id(peer), is_managed });
    let listed = [side("b", "a", true), side("a", "b", false), side("b", "c", true)];
    let paired = sides(listed);
    let pair = |one: &str, other: &str| Pair::new(id(one), id(other)).unwrap();
    assert_eq!(
        paired,
        BTreeMap::from([(pair("a", "b"), (Some(false), Some(true))), (pair("b", "c"), (Some(true), None)),])
    );
}
