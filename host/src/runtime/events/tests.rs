//! Tests of gaps: wherever a number is missing there is one, and nowhere else.

use godwit_core::id::Generation;

use super::*;

fn place(number: u64) -> EventPlace {
    EventPlace { generation: Generation(1), number }
}

fn event(number: u64) -> Event {
    let event =
        godwit_core::event::NewEvent { agent: None, kind: EventKind::Fenced, at_ms: 0, data: Vec::new() };
    Event {
        store: StoreId([1; 16]),
        seq: number,
        place: Some(place(number)),
        labels: Default::default(),
        event,
    }
}

/// Numbers of events, and of gaps as `after-to`.
fn told(after: u64, numbers: &[u64], end: Option<u64>) -> String {
    let told = in_order(place(after), numbers.iter().copied().map(event).collect(), end.map(place));
    let words = told.iter().map(|told| match told {
        Told::Event(event) => event.place.unwrap().number.to_string(),
        Told::Gap(Gap { after, to, .. }) => format!("{}-{}", after.number, to.number),
        Told::Moved { .. } => "moved".to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_missing_number_is_a_gap_and_nothing_else_is() {
    assert_eq!(told(0, &[1, 2, 3], Some(3)), "1 2 3");
    assert_eq!(told(2, &[3], None), "3");
    assert_eq!(told(2, &[], Some(2)), "");
    assert_eq!(told(2, &[], None), "");
    // Removed at the start, in the middle (in another store), at the end.
    assert_eq!(told(0, &[4, 5], Some(5)), "0-3 4 5");
    assert_eq!(told(0, &[1, 2, 7], Some(7)), "1 2 2-6 7");
    assert_eq!(told(1, &[2], Some(9)), "2 2-9");
    assert_eq!(told(0, &[], Some(9)), "0-9");
    // Appended after the row was read.
    assert_eq!(told(0, &[1, 2, 3], Some(1)), "1 2 3");
    // Whatever is taken away shows: the negative control of every test that expects none.
    for taken in 1..=9 {
        let rest: Vec<u64> = (1..=9).filter(|number| *number != taken).collect();
        assert!(told(0, &rest, Some(9)).contains('-'), "without {taken}");
    }
}
