//! What test builds do wrong on purpose, so that harnesses can be seen to notice: replies released before their commit, and
//! an input that ends the process when a guest is about to handle it, or an agent when it is started. The product has none of
//! this: without the feature `test-util` there is nothing to switch on.

use super::chain::Pending;
use crate::id::AgentId;
use crate::input::Input;

/// Releases replies before their commit once the gate is open. Only those of direct asks: nobody else waits for a chain.
#[cfg(not(feature = "test-util"))]
#[inline]
pub(super) fn release_early(_pending: &mut [Pending]) {}

/// Ends the process, as a guest would that found a hole in the engine, when an input is the poison.
#[cfg(not(feature = "test-util"))]
#[inline]
pub(super) fn taste(_inputs: &[Input]) {}

/// Ends the process in a step of an agent's start (`instantiate`, `restore`, `replay`, `init`), when step and agent are the poison.
#[cfg(not(feature = "test-util"))]
#[inline]
pub(super) fn taste_start(_step: &str, _agent: &AgentId) {}

#[cfg(feature = "test-util")]
pub use armed::{open_gate, poison};
#[cfg(feature = "test-util")]
pub(super) use armed::{release_early, taste, taste_start};

#[cfg(feature = "test-util")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::{AgentId, Input, Pending};
    use crate::agent::Answer;
    use crate::agent::chain::Origin;

    /// Widens the gap between answer and commit, so that a process that dies in it has answered.
    const GAP: Duration = Duration::from_millis(20);

    static IS_GATE_OPEN: AtomicBool = AtomicBool::new(false);
    static POISON: OnceLock<Vec<u8>> = OnceLock::new();

    /// From now on replies are released before their commit.
    pub fn open_gate() {
        IS_GATE_OPEN.store(true, Ordering::Relaxed);
    }

    /// From now on the process ends when a guest is about to handle this payload; or, if it is `STEP AGENT`, in that step of
    /// the agent's start. The first call counts.
    pub fn poison(poison: Vec<u8>) {
        POISON.get_or_init(|| poison);
    }

    #[expect(clippy::disallowed_methods, reason = "the commit must come late, whatever thread it is on")]
    pub(in crate::agent) fn release_early(pending: &mut [Pending]) {
        if !IS_GATE_OPEN.load(Ordering::Relaxed) {
            return;
        }
        for pending in pending {
            let (Origin::Direct(request), Some(end)) = (&mut pending.origin, pending.ends.first()) else {
                continue;
            };
            let (nobody, _) = oneshot::channel();
            let caller = std::mem::replace(&mut request.answer, nobody);
            let (input, seq, outcome) = (request.input.input.id, end.seq, end.outcome.clone());
            // The caller may be gone.
            let _ = caller.send(Answer::Ended { input, seq, outcome, is_duplicate: false });
        }
        std::thread::sleep(GAP);
    }

    pub(in crate::agent) fn taste(inputs: &[Input]) {
        let is_poison = |poison: &Vec<u8>| inputs.iter().any(|input| input.payload == *poison);
        if POISON.get().is_some_and(is_poison) {
            std::process::abort();
        }
    }

    pub(in crate::agent) fn taste_start(step: &str, agent: &AgentId) {
        let is_poison = |poison: &Vec<u8>| {
            let rest = poison.strip_prefix(step.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
            rest == Some(agent.as_str().as_bytes())
        };
        if POISON.get().is_some_and(is_poison) {
            std::process::abort();
        }
    }
}
