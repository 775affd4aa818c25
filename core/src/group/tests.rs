//! Which members a call goes to, and in which order.

use super::*;
use crate::lifecycle::BrokenReason;

fn member(agent: &str, load: u64) -> Member {
    let agent = AgentId::parse(agent).unwrap();
    Member { agent, host: HostId([1; 32]), token: FencingToken(1), lifecycle: Lifecycle::Active, load }
}

fn members(loads: &[u64]) -> BTreeMap<AgentId, Member> {
    merge(loads.iter().enumerate().map(|(number, load)| member(&format!("m-{number}"), *load)))
}

fn picked(members: &BTreeMap<AgentId, Member>, key: Option<&str>, salt: u64) -> Option<String> {
    pick(members, key, &BTreeSet::new(), salt).map(|member| member.agent.to_string())
}

#[test]
fn a_label_makes_a_member() {
    let labelled = |name: &str| of(&BTreeMap::from([(LABEL.to_owned(), name.to_owned())]));
    assert_eq!(labelled("workers").unwrap().unwrap().as_str(), "workers");
    assert_eq!(of(&BTreeMap::new()), Ok(None));
    for wrong in ["", "Big", "-a", "a b", &"a".repeat(129)] {
        assert_eq!(labelled(wrong).unwrap_err().text, wrong);
    }
}

#[test]
fn who_has_least_to_do_is_picked() {
    let members = members(&[3, 1, 2]);
    for salt in 0..20 {
        assert_eq!(picked(&members, None, salt).as_deref(), Some("m-1"));
    }
}

#[test]
fn equal_members_are_picked_alike_often() {
    let members = members(&[5, 0, 0, 0]);
    let mut counts = BTreeMap::new();
    for salt in 0..3_000 {
        *counts.entry(picked(&members, None, salt).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| (800..1_200).contains(count)), "{counts:?}");
}

#[test]
fn a_key_picks_the_same_member_whatever_the_load_and_state() {
    let even = members(&[0; 7]);
    let mut busy = members(&[9, 0, 3, 5, 0, 1, 2]);
    for (number, member) in busy.values_mut().enumerate() {
        let broken = Lifecycle::Broken(BrokenReason::Forked);
        member.lifecycle = [Lifecycle::Active, Lifecycle::Paused, broken][number % 3].clone();
    }
    let keys: Vec<_> = (0..200).map(|number| format!("key {number}")).collect();
    for key in &keys {
        assert_eq!(picked(&even, Some(key), 1), picked(&busy, Some(key), 2));
    }
}

#[test]
fn only_the_keys_of_a_member_that_goes_pick_another() {
    let all = members(&[0; 5]);
    let mut fewer = all.clone();
    let gone = fewer.pop_last().unwrap().0.to_string();
    let mut moved = 0;
    for number in 0..1_000 {
        let key = format!("key {number}");
        let before = picked(&all, Some(&key), 0).unwrap();
        let after = picked(&fewer, Some(&key), 0).unwrap();
        assert!(before == after || before == gone, "{key}: {before}, then {after}");
        moved += u32::from(before != after);
    }
    assert!((130..270).contains(&moved), "about a fifth: {moved}");
}

#[test]
fn who_does_not_take_it_is_not_picked() {
    let mut members = members(&[0, 1, 2, 3]);
    for (agent, state) in [("m-0", Lifecycle::Paused), ("m-1", Lifecycle::Retiring)] {
        members.get_mut(&AgentId::parse(agent).unwrap()).unwrap().lifecycle = state;
    }
    assert_eq!(picked(&members, None, 0).as_deref(), Some("m-2"));
    let refused = BTreeSet::from(["m-2", "m-3"].map(|agent| AgentId::parse(agent).unwrap()));
    assert_eq!(pick(&members, None, &refused, 0), None);
    for member in members.values_mut() {
        member.lifecycle = Lifecycle::Retired;
    }
    assert_eq!(picked(&members, Some("key"), 0), None, "what has ended takes nothing for ever");
}

#[test]
fn of_two_hosts_that_tell_of_a_member_the_one_of_the_higher_token_is_believed() {
    let old = Member { token: FencingToken(3), load: 9, ..member("m", 0) };
    let new = Member { token: FencingToken(4), host: HostId([2; 32]), ..member("m", 1) };
    for told in [[old.clone(), new.clone()], [new.clone(), old]] {
        assert_eq!(merge(told).into_values().collect::<Vec<_>>(), std::slice::from_ref(&new));
    }
}
