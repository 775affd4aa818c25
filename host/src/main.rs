//! The `godwit` binary: arguments in, exit code out.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// What one thread frees, it gives back to the thread that it came from: most of what a turn allocates ends elsewhere than it
/// began.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "test-util")]
    {
        failpoints::arm();
        failpoints::sabotage();
    }
    godwit::cli::run()
}

#[cfg(feature = "test-util")]
mod failpoints {
    //! Arms failpoints from `GODWIT_FAILPOINTS=NAME=abort|stop[:HIT],...`, and breaks what `GODWIT_BREAK` and `GODWIT_POISON`
    //! name (the store reads its own part); only in test builds.

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
