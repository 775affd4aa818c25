//! Tests of the transition table.

use super::*;

#[test]
fn every_cell_of_the_table_is_as_drawn() {
    use InputEvent as E;
    use InputState as S;
    let events = [E::Stage, E::Requeue, E::Commit, E::DeadLetter, E::Redrive, E::Replace, E::Abandon];
    let none: [Option<S>; 7] = [None; 7];
    let table: [(S, [Option<S>; 7]); 6] = [
        (
            S::Queued,
            [
                Some(S::Staged),
                None,
                Some(S::Consumed),
                Some(S::DeadLettered),
                None,
                Some(S::Replaced),
                Some(S::Abandoned),
            ],
        ),
        (
            S::Staged,
            [None, Some(S::Queued), Some(S::Consumed), Some(S::DeadLettered), None, None, Some(S::Abandoned)],
        ),
        (S::Consumed, none),
        (S::DeadLettered, [None, None, None, None, Some(S::Queued), None, Some(S::Abandoned)]),
        (S::Replaced, none),
        (S::Abandoned, none),
    ];
    for (from, row) in table {
        for (event, expected) in events.into_iter().zip(row) {
            assert_eq!(from.on(event).ok(), expected, "{from:?} on {event:?}");
        }
    }
}
