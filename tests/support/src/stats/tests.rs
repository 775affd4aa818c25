//! Percentiles are values that were measured.

use super::*;

#[test]
fn a_percentile_is_not_exceeded_by_that_many() {
    let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis).collect());
    assert_eq!(latencies.percentile(50), Duration::from_millis(100));
    assert_eq!(latencies.percentile(99), Duration::from_millis(198));
    assert_eq!(latencies.percentile(100), Duration::from_millis(200));
    assert_eq!(Latencies::of(Vec::new()).percentile(99), Duration::ZERO);
}
