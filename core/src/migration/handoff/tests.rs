//! Each step from each home: what may be made, what was made before, what is refused.

use super::*;

const SOURCE: HostId = HostId([1; 32]);
const TARGET: HostId = HostId([2; 32]);
const OWN: Incarnation = Incarnation(7);
const OTHER: Incarnation = Incarnation(8);
const CLAIM: Claim = Claim { generation: Generation(1), incarnation: OWN, token: FencingToken(5) };

fn migration(number: u8) -> MigrationId {
    MigrationId([number; 16])
}

fn holder(incarnation: Incarnation) -> Holder {
    Holder { host: SOURCE, incarnation }
}

fn seat(home: Home, token: u64) -> Seat {
    Seat {
        home,
        token: FencingToken(token),
        generation: Generation(1),
        revision: Revision(9),
        holder: None,
        cause: GrantCause::Acquired,
    }
}

fn here() -> Seat {
    Seat { holder: Some(holder(OWN)), ..seat(Home::Here, 5) }
}

fn handing_off() -> Seat {
    here().begin(&CLAIM, Revision(9), migration(1), TARGET).unwrap().unwrap()
}

fn moved() -> Seat {
    handing_off().finish(migration(1)).unwrap().unwrap()
}

fn binding() -> Binding {
    Binding {
        migration: migration(1),
        source: SOURCE,
        token: FencingToken(6),
        generation: Generation(1),
        revision: Revision(9),
    }
}

const ARRIVED: Option<(Generation, Revision)> = Some((Generation(1), Revision(9)));

fn prepared() -> Seat {
    Seat::prepare(None, &binding(), ARRIVED).unwrap().unwrap()
}

fn adopted() -> Seat {
    prepared().adopt(migration(1), holder(OWN), Adoption::Granted).unwrap().unwrap()
}

#[test]
fn a_handoff_raises_the_token_once_and_leaves_nobody_holding() {
    let begun = handing_off();
    assert_eq!((begun.token, begun.holder), (FencingToken(6), None));
    assert_eq!(moved().token, FencingToken(6));
    let (prepared, adopted) = (prepared(), adopted());
    assert_eq!((prepared.token, prepared.holder), (FencingToken(6), None));
    assert_eq!((adopted.home.clone(), adopted.token), (Home::Here, FencingToken(6)));
    assert!(adopted.is_caused_by(migration(1)));
}

#[test]
fn a_step_that_was_made_is_not_made_again() {
    assert_eq!(handing_off().begin(&CLAIM, Revision(9), migration(1), TARGET), Ok(None));
    assert_eq!(moved().finish(migration(1)), Ok(None));
    assert_eq!(Seat::prepare(Some(&prepared()), &binding(), None), Ok(None));
    assert_eq!(Seat::prepare(Some(&adopted()), &binding(), None), Ok(None));
    assert_eq!(adopted().adopt(migration(1), holder(OWN), Adoption::Granted), Ok(None));
    let back = handing_off().abort(migration(1), holder(OWN)).unwrap().unwrap();
    assert_eq!(back.abort(migration(1), holder(OWN)), Ok(None));
    let there = Seat { holder: Some(Holder { host: TARGET, incarnation: OTHER }), ..here() };
    let cause = GrantCause::Transferred { migration: migration(1), revision: Revision(9) };
    let there = Seat { cause, token: FencingToken(6), ..there };
    assert_eq!(there.transfer(&CLAIM, Revision(9), migration(1), (TARGET, Some(OTHER))), Ok(None));
}

#[test]
fn a_repeated_begin_on_another_revision_is_stale() {
    let again = handing_off().begin(&CLAIM, Revision(8), migration(1), TARGET);
    assert_eq!(again, Err(Refusal::Stale));
}

#[test]
fn only_the_owner_begins_or_transfers() {
    for claim in [Claim { incarnation: OTHER, ..CLAIM }, Claim { token: FencingToken(4), ..CLAIM }] {
        let begun = here().begin(&claim, Revision(9), migration(1), TARGET);
        assert_eq!(begun, Err(Refusal::Fenced));
        let transferred = here().transfer(&claim, Revision(9), migration(1), (TARGET, Some(OTHER)));
        assert_eq!(transferred, Err(Refusal::Fenced));
    }
    let stale = here().transfer(&CLAIM, Revision(8), migration(1), (TARGET, Some(OTHER)));
    assert_eq!(stale, Err(Refusal::Stale));
    let nobody = here().transfer(&CLAIM, Revision(9), migration(1), (TARGET, None));
    assert_eq!(nobody, Err(Refusal::NoSession));
}

#[test]
fn backing_out_burns_the_granted_token() {
    let back = handing_off().abort(migration(1), holder(OTHER)).unwrap().unwrap();
    assert_eq!((back.home.clone(), back.token), (Home::Here, FencingToken(7)));
    assert_eq!(back.finish(migration(1)), Err(Refusal::Conflict(Obstacle::NotHandedOff)));
    assert_eq!(back.begin(&CLAIM, Revision(9), migration(1), TARGET), Err(Refusal::Fenced));
}

#[test]
fn nothing_backs_out_behind_the_commit_point() {
    assert_eq!(moved().abort(migration(1), holder(OWN)), Err(Refusal::NotHome));
    assert_eq!(adopted().discard(migration(1)), Discard::Stays);
}

#[test]
fn another_migration_is_not_meant() {
    assert_eq!(handing_off().finish(migration(2)), Err(Refusal::Conflict(Obstacle::NotHandedOff)));
    assert_eq!(handing_off().abort(migration(2), holder(OWN)), Err(Refusal::NotHome));
    assert_eq!(prepared().adopt(migration(2), holder(OWN), Adoption::Granted), Err(Refusal::NotHome));
    let brought = here().adopt(migration(1), holder(OWN), Adoption::Granted);
    assert_eq!(brought, Err(Refusal::Conflict(Obstacle::NotBrought)));
    assert_eq!(prepared().discard(migration(2)), Discard::Stays);
    assert_eq!(moved().forget(migration(2)), None);
}

#[test]
fn a_copy_takes_the_place_of_nothing_or_of_an_older_tombstone() {
    for living in [here(), handing_off(), prepared()] {
        let later = Binding { migration: migration(2), token: FencingToken(9), ..binding() };
        assert_eq!(Seat::prepare(Some(&living), &later, ARRIVED), Err(Obstacle::Taken), "{living:?}");
    }
    // The tombstone has token 6.
    assert_eq!(Seat::prepare(Some(&moved()), &binding(), ARRIVED), Err(Obstacle::Taken));
    let later = Binding { migration: migration(2), token: FencingToken(7), ..binding() };
    let bound = Seat::prepare(Some(&moved()), &later, ARRIVED).unwrap().unwrap();
    let Home::Moved(tombstone) = moved().home else { panic!("it has moved") };
    assert_eq!(bound.discard(migration(2)), Discard::Replaced(tombstone));
    let earlier = Binding { generation: Generation(0), ..later };
    let arrived = Some((Generation(0), Revision(9)));
    assert_eq!(Seat::prepare(Some(&moved()), &earlier, arrived), Err(Obstacle::Taken));
}

#[test]
fn a_copy_is_what_was_announced() {
    for arrived in [None, Some((Generation(1), Revision(8))), Some((Generation(2), Revision(9)))] {
        assert_eq!(Seat::prepare(None, &binding(), arrived), Err(Obstacle::NotAsAnnounced));
    }
}

#[test]
fn a_forced_adoption_is_above_all_that_the_source_gives() {
    let forced = prepared().adopt(migration(1), holder(OWN), Adoption::Forced).unwrap().unwrap();
    let back = handing_off().abort(migration(1), holder(OWN)).unwrap().unwrap();
    assert!(forced.token > back.token);
}

#[test]
fn what_had_passed_its_commit_point_is_complete_when_it_is_closed() {
    let back = Binding { migration: migration(2), token: FencingToken(7), ..binding() };
    let back = Seat::prepare(Some(&moved()), &back, ARRIVED).unwrap().unwrap();
    for passed in [adopted(), moved(), back] {
        assert_eq!(passed.closes(migration(1)), (Phase::Complete, None), "{passed:?}");
        assert_eq!(passed.passed(migration(1)), Some(FencingToken(6)));
        assert_eq!(passed.closes(migration(3)), (Phase::Aborted, Some(Failure::Fenced)));
    }
    for open in [here(), handing_off(), prepared()] {
        assert_eq!(open.closes(migration(1)), (Phase::Aborted, Some(Failure::Fenced)), "{open:?}");
    }
}
