//! What counts as a right answer.

use super::*;

#[test]
fn numbers_must_count_up_per_agent() {
    let mut numbers = HashMap::new();
    let mut ask = |agent: &str, body: &[u8]| check(&Expected::NextNumber, &mut numbers, agent, 200, body);
    assert_eq!(ask("a", b"7"), Ok(()), "the first number may be any");
    assert_eq!(ask("a", b"8"), Ok(()));
    assert_eq!(ask("b", b"1"), Ok(()));
    assert!(ask("a", b"8").is_err(), "an ask was doubled or lost");
    assert!(ask("b", b"3").is_err());
    assert!(ask("b", b"three").is_err());
}

#[test]
fn only_a_reply_is_right() {
    let mut numbers = HashMap::new();
    let expected = Expected::Text("ok".into());
    assert_eq!(check(&expected, &mut numbers, "a", 200, b"ok"), Ok(()));
    assert!(check(&expected, &mut numbers, "a", 200, b"no").is_err());
    assert!(check(&expected, &mut numbers, "a", 503, b"ok").is_err());
}
