//! Tests of the rules of warm copies.

use super::*;
use crate::store::agent::Tombstone;

const SOURCE: HostId = HostId([1; 32]);
const OTHER: HostId = HostId([2; 32]);

fn session(number: u8) -> MigrationId {
    MigrationId([number; 16])
}

fn standing(change: u64) -> Standing {
    let (token, generation, revision) = (FencingToken(5), Generation(1), Revision(9));
    Standing { session: session(1), source: SOURCE, token, generation, revision, change }
}

fn step(number: u8, builds_on: u64, change: u64) -> Step {
    Step { session: session(number), source: SOURCE, token: FencingToken(5), builds_on, change }
}

fn moved(token: u64) -> Home {
    let (migration, generation) = (session(9), Generation(1));
    Home::Moved(Tombstone { migration, target: OTHER, token: FencingToken(token), generation })
}

#[test]
fn a_round_applies_only_to_what_it_builds_on() {
    let copy = standing(10);
    let verdict = |step, arrived| judge(&step, None, Some(&copy), arrived);
    assert_eq!(verdict(step(1, 10, 14), 10), Verdict::Applies);
    assert_eq!(verdict(step(1, 8, 10), 10), Verdict::Known, "its answer got lost");
    assert_eq!(verdict(step(1, 12, 14), 10), Verdict::Behind);
    assert_eq!(verdict(step(2, 7, 12), 7), Verdict::Applies, "the last round of a new whole copy");
    assert_eq!(verdict(step(2, 7, 12), 3), Verdict::Behind, "some of it has not arrived");
    assert_eq!(judge(&step(1, 0, 3), None, None, 0), Verdict::Applies, "all of it in one round");
}

#[test]
fn a_source_hears_of_every_token_above_its_own() {
    let said = |row: Option<(&Home, FencingToken)>| superseded(FencingToken(5), row);
    assert_eq!(said(None), None);
    assert_eq!(said(Some((&Home::Here, FencingToken(6)))), Some(FencingToken(6)), "promoted");
    assert_eq!(said(Some((&moved(7), FencingToken(7)))), Some(FencingToken(7)), "promoted, and gone on");
    assert_eq!(said(Some((&moved(5), FencingToken(5)))), None, "it came from here");
    let prepared =
        Home::Prepared { migration: session(3), source: SOURCE, token: FencingToken(6), before: None };
    assert_eq!(said(Some((&prepared, FencingToken(6)))), None, "the source decides");
    let late = judge(&step(1, 1, 2), Some((&Home::Here, FencingToken(6))), Some(&standing(1)), 1);
    assert_eq!(late, Verdict::Superseded(FencingToken(6)));
}

#[test]
fn only_a_later_home_takes_a_copy_over() {
    for (token, verdict) in
        [(4, Verdict::Applies), (5, Verdict::Another(OTHER)), (6, Verdict::Another(OTHER))]
    {
        let copy = Standing { source: OTHER, session: session(9), token: FencingToken(token), ..standing(8) };
        assert_eq!(judge(&step(1, 0, 3), None, Some(&copy), 0), verdict, "{token}");
        assert_eq!(another(OTHER, FencingToken(token), Some(&copy)), None, "its own");
    }
}

#[test]
fn a_copy_is_stale_once_the_agent_was_here_later() {
    let copy = standing(1);
    assert!(!is_stale(&copy, None));
    assert!(is_stale(&copy, Some((&Home::Here, FencingToken(6)))));
    assert!(!is_stale(&copy, Some((&moved(5), FencingToken(5)))), "it came from here, and is copied back");
    assert!(is_stale(&copy, Some((&moved(6), FencingToken(6)))));
}

#[test]
fn nobody_takes_up_a_copy_of_an_agent_that_lives() {
    let copy = standing(1);
    let here = |host, token| Said::Here(host, FencingToken(token));
    for is_forced in [false, true] {
        let living = promotion(&copy, &[Said::Nothing, here(SOURCE, 5)], is_forced);
        assert_eq!(living, Promotion::Move(SOURCE));
        let later = promotion(&copy, &[here(SOURCE, 5), here(OTHER, 8)], is_forced);
        assert_eq!(later, Promotion::Move(OTHER), "the higher token has it");
        assert_eq!(promotion(&copy, &[Said::Nothing], is_forced), Promotion::TakeUp, "nobody has it");
        assert_eq!(promotion(&copy, &[here(OTHER, 4)], is_forced), Promotion::TakeUp, "an older one, forked");
    }
    let silent = [Said::Silent(OTHER), Said::Silent(SOURCE), Said::Nothing];
    assert_eq!(promotion(&copy, &silent, false), Promotion::InDoubt(vec![SOURCE, OTHER]));
    assert_eq!(promotion(&copy, &silent, true), Promotion::TakeUp);
}

#[test]
fn nobody_takes_up_a_copy_of_an_agent_on_its_way() {
    let copy = standing(1);
    let moved = |host, token| Said::Moved(host, FencingToken(token));
    let bound = [moved(OTHER, 6), moved(SOURCE, 6)];
    assert_eq!(promotion(&copy, &bound, false), Promotion::InDoubt(vec![SOURCE, OTHER]));
    assert_eq!(promotion(&copy, &[moved(OTHER, 6), Said::Nothing], false), Promotion::InDoubt(vec![OTHER]));
    assert_eq!(promotion(&copy, &bound, true), Promotion::TakeUp);
    let arrived = [moved(OTHER, 6), Said::Here(OTHER, FencingToken(6))];
    assert_eq!(promotion(&copy, &arrived, false), Promotion::Move(OTHER));
    let gone_on = [moved(OTHER, 6), Said::Here(SOURCE, FencingToken(7))];
    assert_eq!(promotion(&copy, &gone_on, false), Promotion::Move(SOURCE));
    assert_eq!(promotion(&copy, &[moved(SOURCE, 5)], false), Promotion::TakeUp, "before the copy was made");
}

#[test]
fn a_label_names_the_host() {
    let labelled = |key: &str| of(&BTreeMap::from([(LABEL.to_owned(), key.to_owned())]));
    assert_eq!(labelled(&SOURCE.to_string()), Ok(Some(SOURCE)));
    assert_eq!(of(&BTreeMap::new()), Ok(None));
    assert!(labelled("somewhere").is_err());
}
