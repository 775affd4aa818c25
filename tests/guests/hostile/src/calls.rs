//! Commands that call the host, a few times or far too often.

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use godwit_guest::{AgentError, Host, Level, PeerKind, Reply, SendOptions};

use crate::{number, pair};

/// Runs a command of this file; any other is refused.
pub(crate) fn run(command: &str, rest: &str, host: &mut impl Host) -> Result<Reply, AgentError> {
    let (first, second) = pair(rest);
    Ok(match command {
        "echo" => Reply::text(rest),
        "none" => Reply::none(),
        "refuse" => Reply::refused(rest),
        "fatal" => return Err(AgentError::fatal(rest)),
        "retry" => return retry(number(rest), host),
        "turn" => turn(host),
        "config" => found(host.config(rest)?.map(String::into_bytes)),
        "clock" => clock(),
        "random" => Reply::text(RandomState::new().hash_one(0).to_string()),
        "set" => answer(host.state_set(first, second.as_bytes()).map(|()| "ok")),
        "get" => found(host.state_get(rest)?),
        "delete" => answer(host.state_delete(rest).map(|()| "ok")),
        "keys" => Reply::text(host.state_keys(rest, None, 1_000)?.join("\n")),
        "send" => answer(host.send_message(first, second.as_bytes())),
        "request" => {
            let (within_ms, text) = pair(second);
            let options = SendOptions {
                kind: PeerKind::Request { intent: "test".into() },
                expects_reply_ms: Some(number(within_ms)),
                ..SendOptions::default()
            };
            answer(host.send(first, text.as_bytes(), options))
        }
        "log" => {
            host.log(Level::Warn, rest);
            Reply::text("ok")
        }
        "print" => {
            println!("{rest}");
            eprintln!("{rest}");
            Reply::text("ok")
        }
        "spin-import" => spin(number(rest), || {
            std::hint::black_box(host.turn());
        }),
        "spin-state" => spin(number(rest), || {
            std::hint::black_box(host.state_get("spin").is_ok());
        }),
        "flood-log" => spin_lines(first, second, |line| host.info(line)),
        "flood-print" => spin_lines(first, second, |line| println!("{line}")),
        "flood-outputs" => {
            let payload = vec![b'x'; number(second) as usize];
            flood(number(first), |_| host.send_message("sink", &payload).map(drop))
        }
        "flood-state" => {
            let (bytes, from) = second.split_once(' ').unwrap_or((second, "0"));
            let (value, from) = (vec![b'x'; number(bytes) as usize], number(from));
            flood(number(first), |index| host.state_set(&format!("flood-{}", from + index), &value))
        }
        "noise-state" => {
            let (bytes, from) = second.split_once(' ').unwrap_or((second, "0"));
            let (bytes, from) = (number(bytes), number(from));
            flood(number(first), |index| {
                host.state_set(&format!("flood-{}", from + index), &noise(bytes, from + index))
            })
        }
        _ => Reply::refused("malformed"),
    })
}

/// Bytes that no packing makes smaller, the same for the same seed.
fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes.div_ceil(8) as usize).flatten().collect()
}

fn retry(attempts: u64, host: &mut impl Host) -> Result<Reply, AgentError> {
    let attempt = host.turn().attempt;
    if u64::from(attempt) <= attempts {
        return Err(AgentError::retryable(format!("attempt {attempt} of {attempts}")));
    }
    Ok(Reply::text(attempt.to_string()))
}

fn turn(host: &mut impl Host) -> Reply {
    let turn = host.turn();
    Reply::text(format!(
        "agent={} generation={} token={} revision={} attempt={} now_ms={}",
        turn.agent, turn.generation, turn.token, turn.revision, turn.attempt, turn.now_ms
    ))
}

#[expect(clippy::disallowed_methods, reason = "the clock that std sees in a guest is what is tested")]
fn clock() -> Reply {
    let start = Instant::now();
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Reply::text(format!("{wall_ms} {}", start.elapsed().as_nanos()))
}

fn found(value: Option<Vec<u8>>) -> Reply {
    value.map_or_else(Reply::none, Reply::bytes)
}

fn answer<E: Display>(result: Result<impl Into<String>, E>) -> Reply {
    match result {
        Ok(text) => Reply::text(text),
        Err(error) => Reply::refused(error.to_string()),
    }
}

fn spin(rounds: u64, mut round: impl FnMut()) -> Reply {
    let mut done = 0;
    while rounds == 0 || done < rounds {
        round();
        done += 1;
    }
    Reply::text("spun")
}

fn spin_lines(count: &str, bytes: &str, mut write: impl FnMut(&str)) -> Reply {
    let line = "x".repeat(number(bytes) as usize);
    (0..number(count)).for_each(|_| write(&line));
    Reply::text("flooded")
}

fn flood<E: Display>(count: u64, mut put: impl FnMut(u64) -> Result<(), E>) -> Reply {
    for index in 0..count {
        if let Err(error) = put(index) {
            return Reply::text(format!("{index} {error}"));
        }
    }
    Reply::text(format!("ok {count}"))
}
