//! Each rule over each home that an agent can have.

use super::*;
use crate::id::{Generation, HostId, Incarnation, Revision};
use crate::lease::{GrantCause, Holder};
use crate::store::agent::Tombstone;

const TOKEN: FencingToken = FencingToken(6);

fn migration(number: u8) -> MigrationId {
    MigrationId([number; 16])
}

fn seat(home: Home, token: u64, cause: Option<u8>) -> Seat {
    let cause = cause.map_or(GrantCause::Acquired, |number| GrantCause::Transferred {
        migration: migration(number),
        revision: Revision(9),
    });
    let holder = Some(Holder { host: HostId([1; 32]), incarnation: Incarnation(1) });
    let holder = holder.filter(|_| home == Home::Here);
    Seat { home, token: FencingToken(token), generation: Generation(1), revision: Revision(9), holder, cause }
}

fn handing_off(number: u8) -> Seat {
    let home =
        Home::HandingOff { migration: migration(number), target: HostId([2; 32]), granted: FencingToken(6) };
    seat(home, 6, None)
}

fn prepared(number: u8) -> Seat {
    let (migration, source) = (migration(number), HostId([1; 32]));
    seat(Home::Prepared { migration, source, token: TOKEN, before: None }, 6, None)
}

/// It left by the first migration, and the third brings it back.
fn coming_back() -> Seat {
    let Home::Moved(tombstone) = moved(1, 6).home else { panic!("it has moved") };
    let (migration, source, token) = (migration(3), HostId([2; 32]), FencingToken(9));
    seat(Home::Prepared { migration, source, token, before: Some(tombstone) }, 9, None)
}

fn moved(number: u8, token: u64) -> Seat {
    let tombstone = Tombstone {
        migration: migration(number),
        target: HostId([2; 32]),
        token: FencingToken(token),
        generation: Generation(1),
    };
    seat(Home::Moved(tombstone), token, None)
}

fn here(token: u64, cause: Option<u8>) -> Seat {
    seat(Home::Here, token, cause)
}

#[test]
fn a_source_goes_by_its_row() {
    let cases = [
        (None, SourceFinds::NotReached),
        (Some(here(5, None)), SourceFinds::NotReached),
        (Some(here(6, Some(1))), SourceFinds::Passed(TOKEN)),
        (Some(here(6, Some(2))), SourceFinds::NotReached),
        (Some(handing_off(1)), SourceFinds::HandedOff),
        (Some(handing_off(2)), SourceFinds::NotReached),
        (Some(moved(1, 6)), SourceFinds::Passed(TOKEN)),
        (Some(moved(2, 8)), SourceFinds::NotReached),
        (Some(prepared(1)), SourceFinds::NotReached),
        (Some(coming_back()), SourceFinds::Passed(TOKEN)),
    ];
    for (seat, found) in cases {
        assert_eq!(source_finds(seat.as_ref(), migration(1)), found, "{seat:?}");
    }
}

#[test]
fn a_bound_copy_waits_for_the_sources_word() {
    assert_eq!(target_hears(None), TargetDoes::Wait);
    assert_eq!(target_hears(Some(Became::Undecided)), TargetDoes::Wait);
    assert_eq!(target_hears(Some(Became::Moved)), TargetDoes::Adopt);
    assert_eq!(target_hears(Some(Became::NotMoved)), TargetDoes::Discard);
}

#[test]
fn a_source_that_is_at_it_never_says_that_the_agent_does_not_come() {
    for seat in [handing_off(1), here(5, None)] {
        assert_eq!(became(Some(&seat), migration(1), true), Became::Undecided);
    }
    assert_eq!(became(Some(&handing_off(1)), migration(1), false), Became::Undecided);
    assert_eq!(became(Some(&here(7, None)), migration(1), false), Became::NotMoved);
    assert_eq!(became(Some(&moved(2, 8)), migration(1), false), Became::NotMoved);
    assert_eq!(became(Some(&moved(1, 6)), migration(1), true), Became::Moved);
}

#[test]
fn a_source_takes_back_unless_its_target_has_the_agent() {
    for have in [None, Some(Have::Bound), Some(Have::Nothing)] {
        assert_eq!(source_hears(have), SourceDoes::TakeBack);
    }
    assert_eq!(source_hears(Some(Have::Agent)), SourceDoes::Hold);
}

#[test]
fn a_target_says_that_it_had_the_agent_though_that_has_moved_on() {
    assert_eq!(target_has(Some(&prepared(1)), migration(1), false), Have::Bound);
    assert_eq!(target_has(Some(&here(6, Some(1))), migration(1), false), Have::Agent);
    assert_eq!(target_has(Some(&moved(2, 8)), migration(1), true), Have::Agent);
    assert_eq!(target_has(Some(&moved(2, 8)), migration(1), false), Have::Nothing);
    assert_eq!(target_has(None, migration(1), false), Have::Nothing);
}

#[test]
fn only_a_copy_that_is_bound_so_is_activated() {
    let cases = [
        (None, Activation::Refused),
        (Some(prepared(1)), Activation::Adopt),
        (Some(prepared(2)), Activation::Refused),
        (Some(here(6, Some(1))), Activation::Run),
        (Some(here(8, None)), Activation::Passed),
        (Some(here(5, None)), Activation::Refused),
        (Some(moved(2, 8)), Activation::Passed),
        (Some(moved(2, 5)), Activation::Refused),
    ];
    for (seat, does) in cases {
        assert_eq!(activation(seat.as_ref(), migration(1), TOKEN), does, "{seat:?}");
    }
    let forged = FencingToken(1 << 63);
    assert_eq!(activation(Some(&prepared(1)), migration(1), forged), Activation::Refused);
}

#[test]
fn an_agent_comes_to_where_none_of_its_id_is_or_was_later() {
    assert_eq!(welcome(None, TOKEN, false), Ok(()));
    assert_eq!(welcome(Some(&here(5, None)), TOKEN, true), Ok(()));
    assert_eq!(welcome(Some(&here(5, None)), TOKEN, false), Err(Unwelcome::Living));
    assert_eq!(welcome(Some(&handing_off(1)), TOKEN, false), Err(Unwelcome::Living));
    assert_eq!(welcome(Some(&moved(1, 6)), TOKEN, false), Ok(()));
    assert_eq!(welcome(Some(&moved(1, 7)), TOKEN, false), Err(Unwelcome::Later));
    assert_eq!(welcome(Some(&prepared(1)), TOKEN, false), Err(Unwelcome::Unsettled));
}

#[test]
fn what_is_late_does_not_end_what_is_newer() {
    assert_eq!(supersedes(migration(2), migration(1)), Ok(()));
    assert_eq!(supersedes(migration(1), migration(2)), Err(Unwelcome::Unsettled));
}

#[test]
fn a_migration_does_not_outlive_the_grant_under_which_it_began() {
    assert!(may_cut_over(TOKEN, TOKEN));
    assert!(!may_cut_over(TOKEN, TOKEN.next()));
}
