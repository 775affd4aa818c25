//! The way past the mailbox: ending a turn that runs now. The driver does not look at its commands while a guest computes,
//! so the handle sets the guest's interrupt itself; what became of the turn is told when the driver knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::guest::Interrupt;
use crate::id::InputId;

/// What became of an interrupted turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupted {
    /// No turn ran.
    Idle,
    /// It was faster: it ended by itself.
    Finished,
    /// It ended, and its inputs are given up, durably.
    Abandoned(Vec<InputId>),
    /// It ended. Its input was never accepted, and its caller knows.
    NotAccepted(InputId),
    /// It ended, uncounted, and is done again: an `init`, or a turn of an agent that was stopped.
    PutBack,
}

/// Why a running turn is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its inputs are given up, and the agent goes on.
    Interrupt,
    /// The agent rests; the turn is done again when it runs again.
    Stop,
}

/// Shared by the handle, the driver and the guest thread of one agent.
#[derive(Clone, Default)]
pub(crate) struct Control {
    state: Arc<Mutex<State>>,
    callers: Arc<AtomicU64>,
}

/// Somebody who waits for the end of what they asked; counted while this lives.
pub(crate) struct Caller(Arc<AtomicU64>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    /// Set while a guest call of a turn runs.
    running: Option<Interrupt>,
    asked: Option<Ending>,
    /// Set for good: the driver ends, and no turn may hold it up.
    is_stopping: bool,
    /// Set for good: the driver ends, and runs no turn any more.
    is_resting: bool,
    waiting: Vec<oneshot::Sender<Interrupted>>,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a caller.
    pub(crate) fn caller(&self) -> Caller {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Caller(self.callers.clone())
    }

    pub(crate) fn callers(&self) -> u64 {
        self.callers.load(Ordering::Relaxed)
    }

    /// A turn's guest calls begin; they end at once when the driver is to stop.
    pub(crate) fn begin(&self, interrupt: &Interrupt) {
        let mut state = self.lock();
        if state.is_stopping {
            interrupt.interrupt();
        }
        state.running = Some(interrupt.clone());
    }

    /// They have ended: by themselves, or because of the interrupt.
    pub(crate) fn end(&self, was_interrupted: bool) {
        let mut state = self.lock();
        if let Some(interrupt) = state.running.take() {
            interrupt.clear();
        }
        if !was_interrupted {
            state.tell(&Interrupted::Finished);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().running.is_some()
    }

    /// The last turn of this driver has committed, or never will.
    pub(crate) fn rest(&self) {
        self.lock().is_resting = true;
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.lock().is_resting
    }

    /// Asks the running turn to end. The answer comes when the driver has dealt with it; `None` when no turn runs.
    pub(crate) fn ask(&self, ending: Ending) -> Option<oneshot::Receiver<Interrupted>> {
        let mut state = self.lock();
        state.is_stopping |= ending == Ending::Stop;
        state.running.as_ref()?.interrupt();
        // A stop outweighs an interrupt: what is to be done again must not be given up.
        if state.asked != Some(Ending::Stop) {
            state.asked = Some(ending);
        }
        let (told, answer) = oneshot::channel();
        state.waiting.push(told);
        Some(answer)
    }

    /// Why the turn that was interrupted had to end; `None` when nobody here asked for it.
    pub(crate) fn asked(&self) -> Option<Ending> {
        self.lock().asked
    }

    /// Leaves whoever asked without an answer: nobody has one.
    pub(crate) fn tell_nothing(&self) {
        let mut state = self.lock();
        state.asked = None;
        state.waiting.clear();
    }

    /// Tells whoever asked.
    pub(crate) fn tell(&self, what: &Interrupted) {
        self.lock().tell(what);
    }
}

impl State {
    fn tell(&mut self, what: &Interrupted) {
        self.asked = None;
        for waiting in self.waiting.drain(..) {
            // Whoever asked may be gone.
            let _ = waiting.send(what.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_begins_after_a_stop_ends_at_once() {
        let (control, interrupt) = (Control::default(), Interrupt::default());
        assert!(control.ask(Ending::Interrupt).is_none(), "nothing runs");
        control.begin(&interrupt);
        assert!(!interrupt.is_set(), "an interrupt is of the turn that runs, and none did");
        control.end(false);
        assert!(control.ask(Ending::Stop).is_none(), "between two turns of a burst");
        control.begin(&interrupt);
        assert!(interrupt.is_set());
    }
}
