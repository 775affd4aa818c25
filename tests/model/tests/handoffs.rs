//! The product's rules of migration hold in every state, with both commit points, and every planted bug is found.

use std::collections::BTreeSet;
use std::time::Instant;

use godwit_model::handoff::properties::{
    ENDS, KEPT, LET_GO, LOADED, NO_ABORT, OF_OPERATORS, OF_SHARED, ONCE, ONE_RUNS, OWNERS_MOVE, TOKENS_RISE,
};
use godwit_model::handoff::rules::{Bug, Rules};
use godwit_model::handoff::system::{Bounds, Handoffs};
use stateright::{Checker, HasDiscoveries, Model};

const APART: Bounds =
    Bounds { hosts: 2, is_shared: false, migrations: 1, faults: 1, inputs: 1, repeats: 1, may_force: false };
const SHARED: Bounds = Bounds { is_shared: true, ..APART };
const THREE: Bounds = Bounds { hosts: 3, migrations: 2, faults: 0, inputs: 0, repeats: 0, ..APART };

/// Each bug with what may happen, and a property that it must violate.
const BUGS: [(Bug, Bounds, &str); 17] = [
    (Bug::StaleCutover, Bounds { repeats: 0, ..SHARED }, OWNERS_MOVE),
    (Bug::SourceResumes, APART, ONE_RUNS),
    (Bug::ActivatedWithoutCommit, APART, LET_GO),
    (Bug::AbortAfterCutover, APART, NO_ABORT),
    (Bug::AbortAfterCutover, APART, KEPT),
    (Bug::InputsLeftBehind, Bounds { faults: 0, ..APART }, KEPT),
    (Bug::DeleteNotCarried, Bounds { faults: 0, ..APART }, LOADED),
    (Bug::PresumedAbort, APART, ENDS),
    (Bug::DigestSkipped, APART, KEPT),
    (Bug::DuplicateMigration, THREE, ONE_RUNS),
    (Bug::WrongToken, APART, LET_GO),
    (Bug::ReceiverNotMoved, Bounds { faults: 0, ..APART }, ONCE),
    (Bug::KeysNotMoved, Bounds { faults: 0, inputs: 2, ..APART }, ONCE),
    (Bug::ForkIgnored, Bounds { faults: 2, may_force: true, ..APART }, ONE_RUNS),
    (Bug::StaleGuest, Bounds { faults: 0, ..SHARED }, LOADED),
    (Bug::GrantedTwice, APART, TOKENS_RISE),
    (Bug::OldMigration, Bounds { migrations: 2, inputs: 0, repeats: 0, ..SHARED }, NO_ABORT),
];

/// The runs that find nothing. Each goes far in another direction.
const RUNS: [Bounds; 7] = [
    Bounds { faults: 2, ..APART },
    Bounds { inputs: 2, ..APART },
    Bounds { migrations: 2, inputs: 1, ..APART },
    Bounds { faults: 3, inputs: 0, repeats: 0, may_force: true, ..APART },
    Bounds { faults: 2, ..SHARED },
    Bounds { migrations: 2, inputs: 2, ..SHARED },
    Bounds { faults: 1, ..THREE },
];

fn more() -> u8 {
    let depth = std::env::var("GODWIT_MODEL_DEPTH").map_or(1, |text| text.parse().expect("a small number"));
    depth.max(1) - 1
}

#[test]
fn the_products_rules_hold_in_every_state() {
    let mut unseen: Option<BTreeSet<&str>> = None;
    for bounds in RUNS {
        let started = Instant::now();
        let bounds = Bounds { faults: bounds.faults + more(), ..bounds };
        let model = Handoffs { bounds, rules: Rules { bug: None } };
        let properties = model.properties();
        let checker = model.checker().threads(2).spawn_bfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{states} states, {depth} steps deep, in {:?}: {bounds:?}", started.elapsed());
        let (always, sometimes): (Vec<_>, Vec<_>) =
            properties.iter().partition(|property| property.expectation.discovery_is_failure());
        for property in always {
            if let Some(path) = checker.discovery(property.name) {
                let actions = path.into_actions();
                panic!("\"{}\" is violated under {bounds:?} by {actions:#?}", property.name);
            }
        }
        let missing = sometimes.iter().map(|property| property.name);
        let missing: BTreeSet<&str> = missing.filter(|name| checker.discovery(name).is_none()).collect();
        unseen = Some(unseen.map_or(missing.clone(), |before| &before & &missing));
    }
    assert_eq!(unseen, Some(BTreeSet::new()), "these never happened, so the model says little");
    assert_ne!(OF_OPERATORS, OF_SHARED);
}

/// How long a way is on which a bug violates a property: among the shortest, for the search goes by breadth.
fn found(bug: Bug, bounds: Bounds, property: &'static str) -> Option<usize> {
    let started = Instant::now();
    let model = Handoffs { bounds, rules: Rules { bug: Some(bug) } };
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
    let is_missed =
        |&&(bug, bounds, property): &&(Bug, Bounds, &'static str)| found(bug, bounds, property).is_none();
    let missed: Vec<_> = BUGS.iter().filter(is_missed).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
