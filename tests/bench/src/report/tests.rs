//! Targets, and how numbers are shown.

use super::*;

fn times(nanos: u64) -> Measure {
    let mut samples = Samples::new();
    samples.extend([nanos]);
    Measure::Time(samples)
}

fn row(floor: u64, product: u64, target: Target) -> Row {
    Row { name: "row".into(), floor: Some(times(floor)), product: times(product), target: Some(target) }
}

#[test]
fn a_target_is_met_up_to_its_bound() {
    let cases = [
        (100, 250, Target::RatioMax(2.5), true),
        (100, 251, Target::RatioMax(2.5), false),
        (100, 40, Target::RatioMin(0.4), true),
        (100, 39, Target::RatioMin(0.4), false),
        (100, 50, Target::Max(50.0), true),
        (100, 51, Target::Max(50.0), false),
    ];
    for (floor, product, target, is_met) in cases {
        assert_eq!(row(floor, product, target).is_met(), Some(is_met), "{target:?} {product}");
    }
}

#[test]
fn without_a_floor_no_ratio_is_met() {
    let mut row = row(1, 1, Target::RatioMax(2.0));
    row.floor = None;
    assert_eq!(row.is_met(), Some(false));
    row.target = None;
    assert_eq!(row.is_met(), None);
}

#[test]
fn times_show_the_digits_that_matter() {
    let cases = [
        (27.44, "27.4 ns"),
        (5.0, "5.00 ns"),
        (131_400.0, "131 us"),
        (2_140_000.0, "2.14 ms"),
        (3.2e9, "3.20 s"),
    ];
    for (value, shown) in cases {
        assert_eq!(nanos(value), shown);
    }
}
