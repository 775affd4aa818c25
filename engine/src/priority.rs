//! Making way: a thread whose guest call takes long stands back behind the others, in two steps.
//!
//! A guest may compute until its deadline, on as many processors as the pool gives its plugin. What keeps its neighbours
//! quick is that their threads run first. Neither step can be taken back by an ordinary user, so the pool replaces a thread
//! whose nice value has grown.

use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::time::{ClockId, clock_gettime};

/// A call that has computed for this long gets a tenth of the processor beside an ordinary thread.
const LONG: Duration = Duration::from_millis(10);
const NICE_STEP: i32 = 10;
const NICE_MAX: i32 = 19;
/// One that has computed for this long gets what nobody else wants, and is interrupted at once when somebody does. Not
/// sooner: where every processor stays busy such a call makes no progress and meets its deadline.
const VERY_LONG: Duration = Duration::from_millis(100);

/// How far the thread of a call has stood back.
#[derive(Debug, Default)]
pub(crate) struct Priority {
    /// Processor time of the thread when the first tick found the call running. Time in which it did not run, because the
    /// machine is busy or the store slow, is not held against it.
    first_seen: Option<Duration>,
    step: Step,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Ordinary,
    Low,
    /// As far as it may or can go.
    Last,
}

impl Priority {
    /// Stands back as far as the call must; asked at each tick. With `may_idle` it may come to the last step. The nice value
    /// grows first: it is how the pool knows the thread. Where it can't grow, the thread stays as it is.
    pub(crate) fn lower(&mut self, may_idle: bool) {
        let now = processor_time();
        let computed = now.saturating_sub(*self.first_seen.get_or_insert(now));
        self.step = match self.step {
            Step::Ordinary if computed >= LONG && grow_nice() => Step::Low,
            Step::Ordinary if computed >= LONG => Step::Last,
            Step::Low if computed >= VERY_LONG && may_idle => {
                if !schedule_idle() {
                    tracing::debug!("a very long call keeps its scheduling policy");
                }
                Step::Last
            }
            unchanged => unchanged,
        };
    }
}

/// Processor time that this thread has used.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.max(0).unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// Answers whether the thread is nicer than before.
fn grow_nice() -> bool {
    let Ok(own) = getpriority_process(None) else { return false };
    let nice = (own + NICE_STEP).min(NICE_MAX);
    nice > own && setpriority_process(None, nice).is_ok()
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
