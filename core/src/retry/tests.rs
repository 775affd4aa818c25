//! Tests of back-off.

use super::*;

#[test]
fn delays_double_up_to_the_cap_and_stay_within_the_spread() {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
    let bases = [100u64, 200, 350, 350];
    for (base, random) in bases.into_iter().zip([0u8, 255, 128, 7]) {
        let delay = backoff.delay(random).as_millis() as u64;
        assert!(delay >= base * 3 / 4, "{delay} < 75 % of {base}");
        assert!(delay <= base * 5 / 4, "{delay} > 125 % of {base}");
    }
}
