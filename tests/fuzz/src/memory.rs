//! Counts what one thread allocates: a length that nothing stands behind must not cost memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread has allocated since `measured` began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes held now.
    held: isize,
    /// Bytes held at the most.
    pub peak: isize,
    /// How many allocations there were.
    pub count: usize,
}

thread_local! {
    static USAGE: Cell<Usage> = const { Cell::new(Usage { held: 0, peak: 0, count: 0 }) };
}

/// The system's allocator, counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting;

fn note(bytes: isize) {
    // A thread that is ending has no counter any more, and nobody who would look at it.
    let _ = USAGE.try_with(|usage| {
        let mut now = usage.get();
        now.held += bytes;
        now.peak = now.peak.max(now.held);
        now.count += usize::from(bytes > 0);
        usage.set(now);
    });
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; all is handed on to the system's")]
// SAFETY: every call is handed on as it came, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-layout.size().cast_signed());
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Does something and says what it allocated, on this thread.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, Usage) {
    USAGE.with(|usage| usage.set(Usage::default()));
    let done = work();
    (done, USAGE.with(Cell::get))
}
