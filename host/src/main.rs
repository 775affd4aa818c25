//! The `godwit` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "test-util")]
    failpoints::arm();
    godwit::cli::run()
}

#[cfg(feature = "test-util")]
mod failpoints {
    //! Arms failpoints from `GODWIT_FAILPOINTS=NAME=abort|stop[:HIT],...`; only in test builds.

    use godwit_core::failpoint::{Action, NAMES, arm as arm_one};

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
