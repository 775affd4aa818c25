//! Making way: a thread whose guest call takes long stands back behind the others, in two steps.
//!
//! A guest may compute until its deadline, on as many processors as the pool gives its plugin. What keeps its neighbours
//! quick is that their threads run first. Neither step can be taken back by an ordinary user, so the pool replaces a thread
//! whose nice value has grown.

use std::time::Duration;

/// After this long (found at the next tick) a call gets a tenth of the processor beside an ordinary thread.
const LONG: Duration = Duration::from_millis(10);
const LONG_NICE: i32 = 10;
/// After this long it gets what nobody else wants, and is interrupted at once when somebody does. Not sooner: where every
/// processor is busy such a call makes no progress and meets its deadline.
const VERY_LONG: Duration = Duration::from_millis(100);

/// How far the thread of a call has stood back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    Ordinary,
    Low,
    Idle,
}

impl Priority {
    /// Stands back as far as a call that has taken `elapsed` must. A system that refuses leaves the thread as it is.
    pub(crate) fn lower(&mut self, elapsed: Duration) {
        let wanted = if elapsed >= VERY_LONG {
            Self::Idle
        } else if elapsed >= LONG {
            Self::Low
        } else {
            Self::Ordinary
        };
        if wanted <= *self {
            return;
        }
        *self = wanted;
        if let Err(error) = rustix::process::setpriority_process(None, LONG_NICE) {
            tracing::debug!(%error, "a long call keeps its priority");
        }
        if wanted == Self::Idle && !schedule_idle() {
            tracing::debug!("a very long call keeps its scheduling policy");
        }
    }
}

/// Moves the calling thread into the scheduling class for work that can wait.
#[expect(
    unsafe_code,
    reason = "no safe crate in the graph sets a scheduling policy and leaves the nice value"
)]
fn schedule_idle() -> bool {
    let unused = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a whole, initialised value that outlives the call; 0 names the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const unused) };
    result == 0
}
