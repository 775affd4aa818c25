//! The product's decisions hold in every state, and every planted bug is found.

use std::collections::BTreeSet;
use std::time::Instant;

use godwit_model::properties::{
    APPLIED_ONCE, KEPT, LOADED_IS_STORED, NO_ACT, ONE_PASSES, OWNERS_WRITE, STAYS_LOST, TOKENS_RISE,
};
use godwit_model::rules::{Bug, Rules};
use godwit_model::system::{Bounds, Leases};
use stateright::{Checker, HasDiscoveries, Model};

/// Each bug with the seconds and the faults that it takes, and a property that it must violate.
const BUGS: [(Bug, u8, u8, &str); 14] = [
    (Bug::OwnerUnchecked, 0, 1, ONE_PASSES),
    (Bug::OwnerUnchecked, 0, 1, OWNERS_WRITE),
    (Bug::TokenIgnored, 0, 1, ONE_PASSES),
    (Bug::CheckThenAct, 3, 0, OWNERS_WRITE),
    (Bug::CheckThenAct, 3, 0, KEPT),
    (Bug::TokenNotRaised, 0, 0, TOKENS_RISE),
    (Bug::TokenOfClaimant, 0, 0, TOKENS_RISE),
    (Bug::AnyRelease, 0, 1, NO_ACT),
    (Bug::LivingBuried, 1, 0, NO_ACT),
    (Bug::DeadRevived, 3, 0, NO_ACT),
    (Bug::LostRevived, 4, 1, STAYS_LOST),
    (Bug::DeadlineOfAnswer, 4, 0, NO_ACT),
    (Bug::BlindRetry, 0, 1, APPLIED_ONCE),
    (Bug::StaleRead, 0, 0, LOADED_IS_STORED),
];

/// Seconds, faults, commits and new sessions of the runs that find nothing. Each goes far in another direction.
const RUNS: [(u8, u8, usize, usize); 4] = [(0, 2, 2, 2), (2, 1, 1, 1), (3, 1, 1, 0), (4, 0, 1, 1)];

fn number(name: &str, default: u8) -> u8 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a small number"))
}

fn bounds(seconds: u8, faults: u8, commits: usize, joins: usize) -> Bounds {
    let more = number("GODWIT_MODEL_DEPTH", 1).max(1) - 1;
    let hosts = number("GODWIT_MODEL_HOSTS", 2);
    Bounds {
        hosts,
        seconds: seconds + more,
        faults: faults + more,
        sessions: joins + usize::from(hosts + more),
        grants: 2 + u64::from(more),
        commits: commits + usize::from(more),
    }
}

#[test]
fn the_products_decisions_hold_in_every_state() {
    let mut unseen: Option<BTreeSet<&str>> = None;
    for (seconds, faults, commits, joins) in RUNS {
        let started = Instant::now();
        let model = Leases { bounds: bounds(seconds, faults, commits, joins), rules: Rules { bug: None } };
        let (properties, bounds) = (model.properties(), model.bounds);
        let checker = model.checker().threads(2).spawn_bfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{states} states, {depth} steps deep, in {:?}: {bounds:?}", started.elapsed());
        let (always, sometimes): (Vec<_>, Vec<_>) =
            properties.iter().partition(|property| property.expectation.discovery_is_failure());
        for property in always {
            checker.assert_no_discovery(property.name);
        }
        let missing = sometimes.iter().map(|property| property.name);
        let missing: BTreeSet<&str> = missing.filter(|name| checker.discovery(name).is_none()).collect();
        unseen = Some(unseen.map_or(missing.clone(), |before| &before & &missing));
    }
    assert_eq!(unseen, Some(BTreeSet::new()), "these never happened, so the model says little");
}

/// How long a way is on which a bug violates a property: among the shortest, for the search goes by breadth.
fn found(bug: Bug, seconds: u8, faults: u8, property: &'static str) -> Option<usize> {
    let started = Instant::now();
    let bounds = Bounds { grants: 3, ..bounds(seconds, faults, 2, 1) };
    let model = Leases { bounds, rules: Rules { bug: Some(bug) } };
    let wanted = HasDiscoveries::AllOf(BTreeSet::from([property]));
    // With several threads the search is less even, and one that ends early can leave the others waiting.
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property)?;
    let (states, steps) = (checker.unique_state_count(), path.into_actions().len());
    println!("{bug:?} violates \"{property}\" after {steps} steps; {states} states, {:?}", started.elapsed());
    Some(steps)
}

#[test]
fn every_planted_bug_is_found() {
    let is_missed = |&&(bug, seconds, faults, property): &&(Bug, u8, u8, &'static str)| {
        found(bug, seconds, faults, property).is_none()
    };
    let missed: Vec<_> = BUGS.iter().filter(is_missed).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// An unknown release that is executed after the same session has taken the agent again frees it under its guest. The
/// stores' writers keep the order; a store that does not must refuse such a release.
#[test]
fn a_release_that_is_overtaken_would_free_what_is_held() {
    assert!(found(Bug::Overtaking, 0, 1, NO_ACT).is_some());
}
