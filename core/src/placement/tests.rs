//! Plans for a few hosts and agents.

use super::*;

fn host(number: u8) -> HostId {
    HostId([number; 32])
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn offer(agents: u64, capabilities: &[(&str, &str)]) -> Offer {
    Offer { capabilities: pairs(capabilities), is_cordoned: false, agents }
}

fn candidate(agent: &str, bytes: u64, requires: &[(&str, &str)]) -> Candidate {
    Candidate { agent: agent.parse().expect("an id"), requires: pairs(requires), bytes }
}

fn planned(places: &[Place]) -> Vec<(&str, Result<u8, Stays>)> {
    places.iter().map(|place| (place.agent.as_str(), place.to.clone().map(|host| host.0[0]))).collect()
}

#[test]
fn the_least_loaded_host_takes_the_next_and_small_ones_go_first() {
    let others = BTreeMap::from([(host(1), offer(2, &[])), (host(2), offer(0, &[]))]);
    let agents = vec![
        candidate("large", 9, &[]),
        candidate("b", 1, &[]),
        candidate("a", 1, &[]),
        candidate("c", 1, &[]),
    ];
    let places = empty(agents, &others);
    assert_eq!(planned(&places), [("a", Ok(2)), ("b", Ok(2)), ("c", Ok(1)), ("large", Ok(2))]);
}

#[test]
fn what_is_required_decides_before_the_load() {
    let others = BTreeMap::from([
        (host(1), offer(0, &[("zone", "us")])),
        (host(2), offer(9, &[("zone", "eu"), ("gpu", "yes")])),
    ]);
    let agents = vec![candidate("eu", 0, &[("zone", "eu")]), candidate("asia", 0, &[("zone", "asia")])];
    let none = Stays::NotOffered { name: "zone".into(), value: "asia".into() };
    assert_eq!(planned(&empty(agents, &others)), [("asia", Err(none)), ("eu", Ok(2))]);
    let both = pairs(&[("zone", "eu"), ("gpu", "yes")]);
    assert_eq!(missing(&both, &others[&host(2)].capabilities), None);
    assert_eq!(missing(&both, &others[&host(1)].capabilities), Some(("gpu", "yes")));
}

#[test]
fn a_cordoned_host_takes_nobody() {
    let cordoned = Offer { is_cordoned: true, ..offer(0, &[]) };
    let others = BTreeMap::from([(host(1), cordoned)]);
    assert_eq!(planned(&empty(vec![candidate("a", 0, &[])], &others)), [("a", Err(Stays::NoHost))]);
    assert_eq!(even_out(vec![candidate("a", 0, &[])], 9, &others), []);
}

#[test]
fn hosts_are_evened_out_and_no_further() {
    let others = BTreeMap::from([(host(1), offer(0, &[])), (host(2), offer(3, &[("gpu", "yes")]))]);
    let agents = (0..6).map(|number| candidate(&format!("a{number}"), 0, &[])).collect::<Vec<_>>();
    let moved = even_out(agents.clone(), 6, &others);
    assert_eq!(planned(&moved), [("a0", Ok(1)), ("a1", Ok(1)), ("a2", Ok(1))], "3, 3 and 3");
    let bound = agents.into_iter().map(|agent| Candidate { requires: pairs(&[("gpu", "yes")]), ..agent });
    assert_eq!(planned(&even_out(bound.collect(), 6, &others)), [("a0", Ok(2))], "5 and 4");
}
