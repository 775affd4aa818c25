//! Measurements of one thing, and what is said of them: percentiles, never a mean.

use std::time::{Duration, Instant};

/// Times of single operations, or of batches divided by their size, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    nanos: Vec<f64>,
}

impl Samples {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { nanos: Vec::new() }
    }

    /// Adds the time of one operation.
    pub(crate) fn push(&mut self, time: Duration) {
        self.push_each(time, 1);
    }

    /// Adds the time of a batch of `operations`, as one measurement of one of them.
    pub(crate) fn push_each(&mut self, time: Duration, operations: u32) {
        self.nanos.push(time.as_secs_f64() * 1e9 / f64::from(operations.max(1)));
    }

    /// Runs an operation and adds its time.
    pub(crate) fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let value = operation();
        self.push(started.elapsed());
        value
    }

    /// Adds times in nanoseconds.
    pub(crate) fn extend(&mut self, nanos: impl IntoIterator<Item = u64>) {
        self.nanos.extend(nanos.into_iter().map(|nanos| nanos as f64));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.nanos.len()
    }

    /// The time that half of them do not exceed, in nanoseconds.
    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    /// The time that 99 of 100 do not exceed, in nanoseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }

    /// The longest time, in nanoseconds.
    pub(crate) fn max(&self) -> f64 {
        self.percentile(100)
    }

    /// The value that `percent` of them do not exceed; 0 without measurements.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
