//! Failpoints: one name per gap between two durable steps. The list of names is the list of crash tests: the suite `crash`
//! takes it from the program and fails when it knows no way to one of them.
//!
//! Compiled to nothing without the feature `test-util`; the product carries none.

/// Every failpoint, in the order of the paths they stand on.
pub const NAMES: &[&str] = if cfg!(feature = "test-util") {
    &[
        "key.before-link",
        "store.open.before-log-replaced",
        "store.open.after-log-replaced",
        "store.open.before-schema",
        "store.open.after-schema",
        "session.after-join",
        "session.after-bury",
        "session.before-lost",
        "bootstrap.after-key",
        "bootstrap.after-store",
        "bootstrap.after-noted",
        "bootstrap.before-ready",
        "shutdown.after-admission",
        "shutdown.after-turns",
        "shutdown.after-checkpoints",
        "shutdown.after-outbox",
        "session.before-leave",
        "session.after-leave",
        "shutdown.after-flush",
        "lease.after-acquire",
        "peers.before-rename",
        "plugin.before-put",
        "plugin.after-put",
        "plugin.after-remove",
        "agent.after-claim",
        "agent.after-create",
        "edge.after-side",
        "roster.after-put",
        "reconcile.after-agent",
        "boot.after-reconcile",
        "agent.after-broken",
        "load.after-noted",
        "load.after-counted",
        "load.after-forgiven",
        "init.after-counted",
        "input.after-accept",
        "input.after-accept-behind",
        "input.after-stage",
        "input.after-attempt",
        "input.after-redrive",
        "turn.after-guest-call",
        "turn.after-run-ahead",
        "turn.before-commit-queued",
        "turn.after-commit",
        "checkpoint.before-commit",
        "checkpoint.after-commit",
        "store.before-commit",
        "store.after-commit",
        "store.after-piece",
        "store.before-checkpoint",
        "store.after-checkpoint",
        "outbox.before-send",
        "outbox.after-accept",
        "outbox.after-send",
        "outbox.before-end",
        "outbox.after-end",
        "timer.before-fire",
        "timer.after-fire",
        "lifecycle.before-commit",
        "lifecycle.after-commit",
        "lifecycle.respawn.after-raise",
        "respec.before-commit",
        "respec.after-commit",
        "recover.before-commit",
        "recover.after-mended",
        "recover.after-commit",
        "lifecycle.before-drained",
        "lifecycle.before-interrupted",
        "operation.before-begin",
        "operation.after-begin",
        "operation.before-end",
        "operation.after-end",
        "auth.before-consume",
        "auth.after-consume",
        "auth.before-settle",
        "auth.after-settle",
        "auth.before-refreshed",
        "auth.after-refreshed",
        "head.before-rename",
        "head.after-rename",
        "backup.before-rename",
        "import.before-bound",
        "standby.after-part",
        "standby.after-round",
        "standby.source.after-round",
        "standby.after-promote",
        "standby.source.after-broken",
        "standby.source.after-given-up",
        "migration.source.after-reserve",
        "migration.source.after-transfer",
        "migration.source.after-restore",
        "migration.source.after-replay",
        "migration.source.after-handing-off",
        "migration.source.after-prepared",
        "migration.source.after-moved",
        "migration.source.after-transferred",
        "migration.source.before-forgotten",
        "migration.target.after-reserve",
        "migration.target.after-transfer",
        "migration.target.after-restore",
        "migration.target.after-prepared",
        "migration.target.after-adopted",
        "migration.target.before-activated",
    ]
} else {
    &[]
};

#[cfg(feature = "test-util")]
pub use armed::{Action, arm, hit};

/// Does nothing: the product has no failpoints.
#[cfg(not(feature = "test-util"))]
#[inline]
pub fn hit(_name: &str) {}

#[cfg(feature = "test-util")]
mod armed {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// What happens at an armed failpoint.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Action {
        /// The process dies at once, as by kill -9.
        Abort,
        /// The process stops itself (SIGSTOP), once, and goes on when somebody continues it.
        Stop,
    }

    static ARMED: Mutex<BTreeMap<String, (Action, u32)>> = Mutex::new(BTreeMap::new());

    /// Arms a failpoint for its `count`-th hit from now (1 is the next).
    pub fn arm(name: &str, action: Action, count: u32) {
        let mut armed = ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        armed.insert(name.to_owned(), (action, count.max(1)));
    }

    /// Acts when the failpoint is armed and this is the hit it waits for.
    pub fn hit(name: &str) {
        debug_assert!(super::NAMES.contains(&name), "failpoint {name} is not in the list");
        let due = {
            let mut armed = ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match armed.get_mut(name) {
                None => None,
                Some((action, 1)) => {
                    let action = *action;
                    armed.remove(name);
                    Some(action)
                }
                Some((_, count)) => {
                    *count -= 1;
                    None
                }
            }
        };
        match due {
            None => {}
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Stop) => {
                let own = rustix::process::getpid();
                let stopped = rustix::process::kill_process(own, rustix::process::Signal::STOP);
                debug_assert!(stopped.is_ok(), "a process may always stop itself");
                linger();
            }
        }
    }

    /// The signal may be taken by another thread: this one must not run on before the whole process has stopped.
    #[expect(clippy::disallowed_methods, reason = "this thread must stand still, whatever runs it")]
    fn linger() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
