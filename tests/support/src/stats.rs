//! Figures of many measurements.

use std::time::Duration;

/// Latencies, sorted.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Sorts measurements.
    pub fn of(mut measured: Vec<Duration>) -> Self {
        measured.sort();
        Self(measured)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of them do not exceed; zero when there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1_000.0;
        write!(f, "{} asks, p50 {:.2} ms, p99 {:.2} ms", self.count(), ms(50), ms(99))
    }
}

#[cfg(test)]
mod tests;
