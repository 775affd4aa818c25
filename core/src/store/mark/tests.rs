//! Tests of the comparison.

use super::*;

fn mark(store: u8, epoch: u64, incarnation: u64, event: u64) -> StoreMark {
    StoreMark {
        store: StoreId([store; 16]),
        epoch: StoreEpoch(epoch),
        incarnation: Incarnation(incarnation),
        event,
    }
}

#[test]
fn only_a_store_that_has_all_the_mark_knows_is_current() {
    let noted = mark(1, 2, 10, 100);
    let cases = [
        (mark(1, 2, 10, 100), Relation::Current),
        (mark(1, 2, 11, 100), Relation::Current),
        (mark(1, 2, 10, 101), Relation::Current),
        (mark(1, 2, 9, 200), Relation::Behind),
        (mark(1, 2, 10, 99), Relation::Behind),
        (mark(1, 1, 11, 101), Relation::Behind),
        // A higher epoch was raised above this very mark.
        (mark(1, 3, 1, 1), Relation::Current),
        (mark(2, 2, 10, 100), Relation::Foreign),
    ];
    for (store, expected) in cases {
        assert_eq!(store.relation_to(&noted), expected, "{store:?}");
    }
}
