//! What is new about how an input was taken.

use std::collections::HashSet;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hasher};

use crate::memory::Usage;

/// Of what was read only so much is looked at.
const SHAPE_BYTES_MAX: usize = 4_096;
/// Ways that are remembered; from there on nothing is new.
const KNOWN_MAX: usize = 200_000;

/// The shape of what was read: its names and brackets, without values.
#[derive(Debug, Default)]
pub struct Shape {
    hasher: DefaultHasher,
    seen: usize,
    is_digit: bool,
}

impl Shape {
    /// Takes a value in.
    pub fn look(&mut self, value: &dyn Debug) {
        // An error only says that enough was seen.
        let _ = write!(self, "{value:?}");
    }

    /// Takes a text in, such as a reason.
    pub fn say(&mut self, text: &str) {
        let _ = self.write_str(text);
    }

    /// Which shape it is.
    pub fn id(&self, usage: Usage) -> u64 {
        let mut hasher = self.hasher.clone();
        // How far reading came, roughly, even when it failed.
        hasher.write_u32(usage.count.ilog2_or_zero());
        hasher.write_u32(usage.peak.unsigned_abs().ilog2_or_zero());
        hasher.finish()
    }
}

trait Log {
    fn ilog2_or_zero(self) -> u32;
}

impl Log for usize {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().unwrap_or(0)
    }
}

impl Write for Shape {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let was_digit = std::mem::replace(&mut self.is_digit, byte.is_ascii_digit());
            // Numbers of any length are alike.
            if !(self.is_digit && was_digit) {
                self.hasher.write_u8(if self.is_digit { b'0' } else { byte });
                self.seen += 1;
            }
        }
        if self.seen < SHAPE_BYTES_MAX { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The ways that have been seen.
#[derive(Debug, Default)]
pub struct Known {
    shapes: HashSet<u64>,
    covered: Vec<u8>,
}

impl Known {
    /// Whether something about it is new. Counters of covered code are taken and set to 0.
    pub fn is_new(&mut self, shape: u64) -> bool {
        let is_new_shape = self.shapes.len() < KNOWN_MAX && self.shapes.insert(shape);
        coverage::take(&mut self.covered) || is_new_shape
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.shapes.len()
    }

    /// How many places of the code were run, if they are counted.
    pub fn covered(&self) -> usize {
        self.covered.iter().filter(|times| **times > 0).count()
    }
}

mod coverage {
    //! Counters that the compiler puts in when it is told to; without that there are none.

    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    static LENGTH: AtomicUsize = AtomicUsize::new(0);

    /// Called once by each instrumented part before `main`; the largest one is looked at.
    #[expect(unsafe_code, reason = "the compiler calls it by this name")]
    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
        let length = stop.addr().saturating_sub(start.addr());
        if length > LENGTH.load(Ordering::Relaxed) {
            START.store(start, Ordering::Relaxed);
            LENGTH.store(length, Ordering::Relaxed);
        }
    }

    /// Adds what has run since the last time. Answers whether there was something that never had.
    pub(super) fn take(covered: &mut Vec<u8>) -> bool {
        let (start, length) = (START.load(Ordering::Relaxed), LENGTH.load(Ordering::Relaxed));
        covered.resize(length, 0);
        let mut is_new = false;
        for (place, seen) in covered.iter_mut().enumerate() {
            let counter = start.wrapping_add(place);
            #[expect(unsafe_code, reason = "the counters are the compiler's")]
            // SAFETY: it lies in the range that the compiler gave, which lives as long as the program.
            let times = unsafe { counter.read_volatile() };
            if times > 0 {
                is_new |= *seen == 0;
                *seen = 1;
                #[expect(unsafe_code, reason = "the counters are the compiler's")]
                // SAFETY: as above; a count that another thread adds meanwhile may get lost.
                unsafe {
                    counter.write_volatile(0);
                };
            }
        }
        is_new
    }
}
