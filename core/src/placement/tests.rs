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
    let wants = Wants { requires: pairs(requires), ..Wants::default() };
    Candidate { agent: agent.parse().expect("an id"), wants, bytes }
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
    let none = Stays::Unmet(Unmet::Requirement { name: "zone".into(), value: "asia".into() });
    assert_eq!(planned(&empty(agents, &others)), [("asia", Err(none)), ("eu", Ok(2))]);
    let both = Wants { requires: pairs(&[("zone", "eu"), ("gpu", "yes")]), ..Wants::default() };
    assert_eq!(both.unmet(&others[&host(2)].capabilities), None);
    let unmet = Unmet::Requirement { name: "gpu".into(), value: "yes".into() };
    assert_eq!(both.unmet(&others[&host(1)].capabilities), Some(unmet));
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
    let wants = Wants { requires: pairs(&[("gpu", "yes")]), ..Wants::default() };
    let bound = agents.into_iter().map(|agent| Candidate { wants: wants.clone(), ..agent });
    assert_eq!(planned(&even_out(bound.collect(), 6, &others)), [("a0", Ok(2))], "5 and 4");
}

fn preferring(agent: &str, prefers: &[&[(&str, &str)]]) -> Candidate {
    let prefers = prefers.iter().map(|preference| pairs(preference)).collect();
    Candidate { wants: Wants { prefers, ..Wants::default() }, ..candidate(agent, 0, &[]) }
}

#[test]
fn what_is_preferred_decides_before_the_load_and_keeps_nobody_away() {
    let others = BTreeMap::from([
        (host(1), offer(0, &[])),
        (host(2), offer(9, &[("zone", "eu")])),
        (host(3), offer(8, &[("gpu", "yes"), ("disk", "fast")])),
        (host(4), offer(9, &[("zone", "eu"), ("gpu", "yes")])),
    ]);
    let to = |prefers: &[&[(&str, &str)]]| empty(vec![preferring("a", prefers)], &others)[0].to.clone();
    assert_eq!(to(&[&[("zone", "eu")]]), Ok(host(2)), "of the two in the zone the lower key, as loaded");
    assert_eq!(to(&[&[("gpu", "yes")], &[("zone", "eu")]]), Ok(host(4)), "both, though more loaded");
    assert_eq!(
        to(&[&[("disk", "fast")], &[("zone", "eu"), ("gpu", "yes")]]),
        Ok(host(3)),
        "the first counts most"
    );
    assert_eq!(to(&[&[("zone", "moon")]]), Ok(host(1)), "nobody meets it: the least loaded");
    assert_eq!(to(&[&[("zone", "eu"), ("disk", "fast")]]), Ok(host(1)), "half of a preference is none");
}

#[test]
fn evening_out_prefers_among_those_with_fewer_only() {
    let others = BTreeMap::from([(host(1), offer(0, &[])), (host(2), offer(6, &[("zone", "eu")]))]);
    let agents: Vec<_> =
        (0..6).map(|number| preferring(&format!("a{number}"), &[&[("zone", "eu")]])).collect();
    let moved = even_out(agents, 6, &others);
    assert_eq!(planned(&moved), [("a0", Ok(1)), ("a1", Ok(1)), ("a2", Ok(1))]);
}

#[test]
fn residency_keeps_an_agent_where_it_must_be_kept() {
    let others = BTreeMap::from([(host(1), offer(0, &[])), (host(2), offer(9, &[(RESIDENCY, "eu")]))]);
    let kept = |value: &str| {
        let labels = pairs(&[(RESIDENCY_LABEL, value)]);
        let wants = Wants::of(&Spec::new(crate::digest::Digest::ZERO), &labels);
        Candidate { wants, ..candidate("a", 0, &[]) }
    };
    assert_eq!(planned(&empty(vec![kept("eu")], &others)), [("a", Ok(2))]);
    let stays = Stays::Unmet(Unmet::Residency { value: "us".into() });
    assert!(stays.to_string().ends_with("the agent must be kept where residency=us"), "{stays}");
    assert_eq!(planned(&empty(vec![kept("us")], &others)), [("a", Err(stays))]);
    assert_eq!(planned(&even_out(vec![kept("us")], 99, &others)), []);
}

#[test]
fn a_host_that_says_it_is_full_to_the_brim_is_believed() {
    let others = BTreeMap::from([(host(1), offer(u64::MAX, &[]))]);
    let agents = vec![candidate("a", 0, &[]), candidate("b", 0, &[])];
    assert_eq!(planned(&empty(agents.clone(), &others)), [("a", Ok(1)), ("b", Ok(1))], "there is no other");
    assert_eq!(even_out(agents, 2, &others), []);
}
