//! The `godwit` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    limit_arenas();
    #[cfg(feature = "test-util")]
    {
        failpoints::arm();
        failpoints::sabotage();
    }
    godwit::cli::run()
}

/// Has the allocator keep one arena per processor. By itself it makes eight, and what an agent has left behind in one of them
/// is of no use to the threads of the others: a host that parks agents would grow by several times what they keep.
#[cfg(target_env = "gnu")]
fn limit_arenas() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = i32::try_from(cpus.max(2)).unwrap_or(i32::MAX);
    // SAFETY: no other thread runs yet, and it only sets a number. Refused, all stays as it was.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
}

#[cfg(feature = "test-util")]
mod failpoints {
    //! Arms failpoints from `GODWIT_FAILPOINTS=NAME=abort|stop[:HIT],...`, and breaks what `GODWIT_BREAK` and `GODWIT_POISON`
    //! name (store and migrator read their own parts); only in test builds.

    use godwit_core::agent::sabotage::{open_gate, poison};
    use godwit_core::failpoint::{Action, NAMES, arm as arm_one};

    pub(crate) fn sabotage() {
        let broken = std::env::var("GODWIT_BREAK").unwrap_or_default();
        if broken.split(',').any(|part| part.trim() == "no-output-gate") {
            open_gate();
        }
        if let Ok(payload) = std::env::var("GODWIT_POISON") {
            poison(payload.into_bytes());
        }
    }

    pub(crate) fn arm() {
        let Ok(text) = std::env::var("GODWIT_FAILPOINTS") else {
            return;
        };
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, rest) = item.split_once('=').unwrap_or((item, "abort"));
            let (action, count) = rest.split_once(':').unwrap_or((rest, "1"));
            let action = match action {
                "abort" => Action::Abort,
                "stop" => Action::Stop,
                other => panic!("failpoint action {other:?} is not abort or stop"),
            };
            assert!(NAMES.contains(&name), "failpoint {name:?} is not in the list");
            arm_one(name, action, count.parse().expect("a failpoint's hit is a number"));
        }
    }
}
