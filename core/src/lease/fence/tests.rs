//! Every claim against every holder.

use super::*;

const OWNER: Claim = Claim { generation: Generation(2), incarnation: Incarnation(7), token: FencingToken(5) };
const HEAD: Revision = Revision(9);

fn fence(holder: Option<u64>) -> Fence {
    let Claim { generation, token, .. } = OWNER;
    Fence { token, generation, revision: HEAD, holder: holder.map(Incarnation) }
}

/// The owner, then claims that differ from it in one thing, on both sides.
fn claims() -> [Claim; 7] {
    [
        OWNER,
        Claim { token: FencingToken(4), ..OWNER },
        Claim { token: FencingToken(6), ..OWNER },
        Claim { generation: Generation(1), ..OWNER },
        Claim { generation: Generation(3), ..OWNER },
        Claim { incarnation: Incarnation(6), ..OWNER },
        Claim { incarnation: Incarnation(8), ..OWNER },
    ]
}

#[test]
fn the_table_of_writes() {
    let (fenced, stale) = (Err(Refusal::Fenced), Err(Refusal::Stale));
    for (holder, passing) in
        [(Some(7), Some(0)), (Some(6), Some(5)), (Some(8), Some(6)), (Some(1), None), (None, None)]
    {
        for (number, claim) in claims().iter().enumerate() {
            let passes = passing == Some(number);
            let at_head = if passes { Ok(()) } else { fenced };
            let elsewhere = if passes { stale } else { fenced };
            assert_eq!(fence(holder).check(claim), at_head, "{holder:?} {claim:?}");
            assert_eq!(fence(holder).check_at(claim, HEAD), at_head, "{holder:?} {claim:?}");
            for base in [Revision(8), Revision(10)] {
                assert_eq!(fence(holder).check_at(claim, base), elsewhere, "{holder:?} {claim:?} {base:?}");
            }
        }
    }
}

#[test]
fn the_base_is_the_head_and_nothing_else() {
    for (base, expected) in [(8, Err(Refusal::Stale)), (9, Ok(())), (10, Err(Refusal::Stale))] {
        assert_eq!(fence(None).check_base(Revision(base)), expected, "{base}");
    }
}

#[test]
fn the_table_of_acquires() {
    let free = Acquire::Free(FencingToken(6));
    for (holder, asks, expected) in [
        (None, 7, free),
        (None, 8, free),
        (Some(7), 7, Acquire::Held),
        (Some(7), 6, Acquire::Fenced),
        (Some(7), 8, Acquire::Fenced),
    ] {
        assert_eq!(fence(holder).acquire(Incarnation(asks)), expected, "{holder:?} {asks}");
    }
}

#[test]
fn the_table_of_releases() {
    let (freed, done, fenced) = (Release::Freed, Release::Done, Release::Fenced);
    for (holder, expected) in [
        (Some(7), [freed, fenced, fenced, fenced, fenced, fenced, fenced]),
        (Some(6), [fenced, fenced, fenced, fenced, fenced, freed, fenced]),
        (Some(1), [fenced; 7]),
        // Free: the token tells which grant was released, and no two sessions have one.
        (None, [done, fenced, fenced, fenced, fenced, done, done]),
    ] {
        assert_eq!(claims().map(|claim| fence(holder).release(&claim)), expected, "{holder:?}");
    }
}
