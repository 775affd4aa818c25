//! What the scripted agent does, written down a second time: a sum, and one answer to each input.

use godwit_core::input::Kind;

/// What an unanswered request adds.
const UNANSWERED: i64 = 1_000;

/// What an input must come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// The sum from here on, which is also the answer.
    Sum(i64),
    /// The answer is no; the sum stays.
    Refusal,
    /// It can only be given up; the sum stays.
    DeadLetter,
}

/// What an input of this kind and text must come to, with the sum before it.
pub fn expected(kind: &Kind, text: &str, sum: i64) -> Expected {
    if *kind == Kind::PeerResponseTerminal {
        return Expected::Sum(sum + text.parse::<i64>().unwrap_or(UNANSWERED));
    }
    match text.split_once(' ').unwrap_or((text, "")) {
        ("add", number) => {
            number.parse::<i64>().map_or(Expected::DeadLetter, |number| Expected::Sum(sum + number))
        }
        ("get" | "send" | "request" | "retry-until", _) => Expected::Sum(sum),
        ("refuse", _) => Expected::Refusal,
        _ => Expected::DeadLetter,
    }
}
