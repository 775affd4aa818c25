//! Commands that take time, memory, or the instance itself.

use std::hint::black_box;
use std::io::Read;
use std::time::Duration;

use godwit_guest::Reply;

use crate::number;

/// The clock's pollables, as std imports them but never shows them.
mod raw {
    wit_bindgen::generate!({
        inline: r#"
            package godwit:hostile;
            world raw {
                import wasi:io/poll@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
            }
            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable {
                        ready: func() -> bool;
                        block: func();
                    }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
            }
            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type instant = u64;
                    type duration = u64;
                    now: func() -> instant;
                    resolution: func() -> duration;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
        "#,
        generate_all,
    });
}

/// Runs a command of this file, if it is one.
pub(crate) fn run(command: &str, rest: &str) -> Option<Reply> {
    Some(match command {
        "loop" => endless(),
        "spin" => spin(number(rest)),
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number(rest)));
            Reply::text("slept")
        }
        "poll" => poll(number(rest)),
        "stdin" => stdin(),
        "trap" => trap(),
        "panic" => panic!("asked to"),
        "recurse" => Reply::text(recurse(1).to_string()),
        "exit" => std::process::exit(number(rest) as i32),
        "allocate" => allocate(number(rest)),
        "reply-bytes" => Reply::bytes(vec![b'x'; number(rest) as usize]),
        _ => return None,
    })
}

/// Computes until something from outside ends it.
pub(crate) fn endless() -> ! {
    let mut round = 0_u64;
    loop {
        round = black_box(round.wrapping_add(1));
    }
}

/// Ends the instance.
pub(crate) fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

fn spin(rounds: u64) -> Reply {
    for round in 0..rounds {
        black_box(round);
    }
    Reply::text("spun")
}

fn poll(timeout_ms: u64) -> Reply {
    let pollable = raw::wasi::clocks::monotonic_clock::subscribe_duration(timeout_ms * 1_000_000);
    let ready = raw::wasi::io::poll::poll(&[&pollable]);
    Reply::text(format!("{ready:?}"))
}

fn stdin() -> Reply {
    let mut bytes = Vec::new();
    match std::io::stdin().read_to_end(&mut bytes) {
        Ok(length) => Reply::text(length.to_string()),
        Err(error) => Reply::refused(error.to_string()),
    }
}

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(depth: u64) -> u64 {
    black_box([depth; 16]);
    black_box(recurse(black_box(depth + 1))) + 1
}

fn allocate(mebibytes: u64) -> Reply {
    let mut held = Vec::new();
    while mebibytes == 0 || (held.len() as u64) < mebibytes {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
    Reply::text("allocated")
}
