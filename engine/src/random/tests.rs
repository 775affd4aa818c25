//! Which streams are the same and which differ.

use super::*;
use crate::testing::turn;

#[test]
fn a_stream_depends_on_what_names_it_and_nothing_else() {
    let agent = AgentId::parse("a").expect("an agent id");
    let other = AgentId::parse("b").expect("an agent id");
    let reseeded = TurnContext { seed: [1; 32], ..turn(3) };
    let retried = TurnContext { attempt: 2, now_ms: 5, ..turn(3) };
    let streams = [
        Random::of_turn(&turn(3)),
        Random::of_turn(&reseeded),
        Random::outside(&agent, &turn(3), "snapshot"),
        Random::outside(&agent, &turn(3), "restore"),
        Random::outside(&agent, &turn(4), "snapshot"),
        Random::outside(&other, &turn(3), "snapshot"),
    ];
    let mut numbers: Vec<_> = streams.into_iter().map(|mut stream| stream.next_u64()).collect();
    assert_eq!(Random::of_turn(&retried).next_u64(), numbers[0]);
    assert_eq!(Random::outside(&agent, &reseeded, "snapshot").next_u64(), numbers[2]);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 6, "six streams, six numbers");
}

#[test]
fn a_stream_goes_on_where_it_was() {
    let mut whole = [0; 48];
    Random::of_turn(&turn(1)).fill(&mut whole);
    let mut parts = [0; 48];
    let mut stream = Random::of_turn(&turn(1));
    let (first, rest) = parts.split_at_mut(5);
    stream.fill(first);
    stream.fill(rest);
    assert_eq!(whole, parts);
}
