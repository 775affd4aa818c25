//! What a figure found: its floor and the product side by side, their ratio, and whether the target is met.

use std::fmt;
use std::time::{Duration, Instant};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::samples::Samples;

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// What the same work costs without the product, measured in turns with it.
    pub(crate) floor: Option<Measure>,
    /// What the product needs.
    pub(crate) product: Measure,
    /// What was promised; without one the row is there to explain another.
    pub(crate) target: Option<Target>,
}

/// A measured side of a row.
#[derive(Debug, Clone)]
pub(crate) enum Measure {
    /// Time of one operation.
    Time(Samples),
    /// As `Time`, judged by its p99.
    Tail(Samples),
    /// Operations per second, with the time of each, or of each group.
    Rate { per_second: f64, times: Samples },
    /// Bytes of each of many.
    Bytes(f64),
}

/// What was promised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// At most so many times the floor.
    RatioMax(f64),
    /// At least so many times the floor.
    RatioMin(f64),
    /// At most so much: nanoseconds of what the measure is judged by, or bytes.
    Max(f64),
    /// At least so many per second.
    RateMin(f64),
}

/// What one figure gives.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    /// What is worth knowing beside the numbers.
    pub(crate) notes: Vec<String>,
}

impl Findings {
    /// Adds a row.
    pub(crate) fn row(
        &mut self,
        name: impl Into<String>,
        floor: Option<Measure>,
        product: Measure,
        target: Option<Target>,
    ) {
        let name = name.into();
        self.rows.push(Row { name, floor, product, target });
    }

    /// Adds a note.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Measure {
    /// The number that ratios and targets are about.
    fn value(&self) -> f64 {
        match self {
            Self::Time(times) => times.p50(),
            Self::Tail(times) => times.p99(),
            Self::Rate { per_second, .. } => *per_second,
            Self::Bytes(bytes) => *bytes,
        }
    }
}

/// What one side got done, over all rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side {
    pub(crate) operations: usize,
    pub(crate) elapsed: Duration,
    /// Of each operation, or of each group.
    pub(crate) times: Samples,
}

impl Side {
    /// Adds what was done in a round, with its times in nanoseconds.
    pub(crate) fn add(&mut self, elapsed: Duration, nanos: Vec<u64>) {
        self.operations += nanos.len();
        self.elapsed += elapsed;
        self.times.extend(nanos);
    }

    /// Does groups of `size` operations, one after the other, for a round.
    ///
    /// # Errors
    /// Those of `group`.
    pub(crate) fn repeat<E>(
        &mut self,
        round: Duration,
        size: usize,
        mut group: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let started = Instant::now();
        while started.elapsed() < round {
            self.times.time(&mut group)?;
            self.operations += size;
        }
        self.elapsed += started.elapsed();
        Ok(())
    }

    /// Operations per second.
    pub(crate) fn rate(&self) -> Measure {
        let per_second = self.operations as f64 / self.elapsed.as_secs_f64();
        Measure::Rate { per_second, times: self.times.clone() }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(times) | Self::Tail(times) => write!(f, "{}", Quantiles(times)),
            Self::Rate { per_second, times } => write!(f, "{per_second:.0}/s\n{}", Quantiles(times)),
            Self::Bytes(bytes) => write!(f, "{bytes:.0} B"),
        }
    }
}

struct Quantiles<'a>(&'a Samples);

impl fmt::Display for Quantiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", nanos(self.0.p50()), nanos(self.0.p99()))
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let floor = self.floor.as_ref()?.value();
        (floor > 0.0).then(|| self.product.value() / floor)
    }

    /// Whether the target is met; `None` without one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio();
        self.target.map(|target| match target {
            Target::RatioMax(max) => ratio.is_some_and(|ratio| ratio <= max),
            Target::RatioMin(min) => ratio.is_some_and(|ratio| ratio >= min),
            Target::Max(max) => self.product.value() <= max,
            Target::RateMin(min) => self.product.value() >= min,
        })
    }

    fn target_text(&self) -> String {
        match (self.target, &self.product) {
            (None, _) => String::new(),
            (Some(Target::RatioMax(max)), _) => format!("<= {max} x"),
            (Some(Target::RatioMin(min)), _) => format!(">= {min} x"),
            (Some(Target::RateMin(min)), _) => format!(">= {min}/s"),
            (Some(Target::Max(max)), Measure::Bytes(_)) => format!("<= {max:.0} B"),
            (Some(Target::Max(max)), Measure::Tail(_)) => format!("p99 <= {}", nanos(max)),
            (Some(Target::Max(max)), _) => format!("p50 <= {}", nanos(max)),
        }
    }

    fn cells(&self) -> [String; 6] {
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        [
            self.name.clone(),
            self.floor.as_ref().map(Measure::to_string).unwrap_or_default(),
            self.product.to_string(),
            self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.target_text(),
            verdict.to_owned(),
        ]
    }
}

/// All rows as a table.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled).set_header([
        "figure",
        "floor p50 / p99",
        "product p50 / p99",
        "ratio",
        "target",
        "",
    ]);
    for row in rows {
        table.add_row(row.cells());
    }
    for column in table.column_iter_mut().skip(1).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A time with three digits that matter.
pub(crate) fn nanos(nanos: f64) -> String {
    let (value, unit) = match nanos {
        nanos if nanos < 1e3 => (nanos, "ns"),
        nanos if nanos < 1e6 => (nanos / 1e3, "us"),
        nanos if nanos < 1e9 => (nanos / 1e6, "ms"),
        nanos => (nanos / 1e9, "s"),
    };
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests;
