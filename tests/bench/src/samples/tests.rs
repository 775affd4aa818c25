//! Percentiles by nearest rank.

use super::*;

#[test]
fn percentiles_are_measured_values() {
    let mut samples = Samples::new();
    samples.extend((1..=200).rev());
    assert_eq!(samples.p50(), 100.0);
    assert_eq!(samples.p99(), 198.0);
    assert_eq!(samples.count(), 200);
}

#[test]
fn a_batch_is_one_measurement_of_one_operation() {
    let mut samples = Samples::new();
    samples.push_each(Duration::from_micros(3), 1_000);
    assert_eq!((samples.count(), samples.p50().round()), (1, 3.0));
}

#[test]
fn nothing_measured_is_zero() {
    assert_eq!(Samples::new().p99(), 0.0);
}
