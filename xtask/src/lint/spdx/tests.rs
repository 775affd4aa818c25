//! Expressions as crates write them.

use super::*;

#[test]
fn expressions_are_judged() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let cases = [
        ("MIT", Some(true)),
        ("GPL-3.0-only", Some(false)),
        ("GPL-3.0-only OR MIT", Some(true)),
        ("MIT/GPL-3.0", Some(true)),
        ("GPL-2.0 / GPL-3.0", Some(false)),
        ("MIT AND ISC", Some(true)),
        ("MIT AND GPL-3.0-only", Some(false)),
        ("MIT OR ISC AND GPL-3.0-only", Some(true)),
        ("(MIT OR ISC) AND GPL-3.0-only", Some(false)),
        ("(GPL-3.0-only OR ISC) AND (MIT)", Some(true)),
        ("Apache-2.0 WITH LLVM-exception", Some(true)),
        ("Apache-2.0", Some(false)),
        ("MIT WITH LLVM-exception", Some(false)),
        ("", None),
        ("MIT OR", None),
        ("MIT ISC", None),
        ("(MIT", None),
        ("AND MIT", None),
    ];
    for (expression, expected) in cases {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
