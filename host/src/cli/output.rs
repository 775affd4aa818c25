//! Printing: tables for people, JSON and YAML for programs, names for loops in a shell.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::error::CliError;

/// Digits of a key or digest that a table shows.
const SHORT: usize = 12;

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// As the API answers.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// A column of a table.
pub(super) struct Column {
    title: &'static str,
    /// JSON pointer to the value.
    pointer: &'static str,
    show: Show,
}

#[derive(Clone, Copy)]
enum Show {
    Text,
    /// The first digits of something long.
    Short,
    /// Unix milliseconds as a date.
    Time,
    /// Bytes with a unit.
    Size,
}

impl Column {
    pub(super) const fn text(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, Show::Text)
    }

    pub(super) const fn short(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, Show::Short)
    }

    pub(super) const fn time(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, Show::Time)
    }

    pub(super) const fn size(title: &'static str, pointer: &'static str) -> Self {
        Self::new(title, pointer, Show::Size)
    }

    const fn new(title: &'static str, pointer: &'static str, show: Show) -> Self {
        Self { title, pointer, show }
    }

    /// The text of one cell.
    pub(super) fn cell(&self, item: &Value) -> String {
        let value = item.pointer(self.pointer).unwrap_or(&Value::Null);
        match (self.show, value) {
            (Show::Short, Value::String(text)) => text.chars().take(SHORT).collect(),
            (Show::Time, Value::Number(number)) => number.as_u64().map_or_else(|| plain(value), time),
            (Show::Size, Value::Number(number)) => number.as_u64().map_or_else(|| plain(value), size),
            _ => plain(value),
        }
    }
}

/// Prints results on stdout.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) format: Format,
    is_quiet: bool,
}

impl Output {
    pub(super) fn new(format: Format, is_quiet: bool) -> Self {
        Self { format, is_quiet }
    }

    /// Prints a list. `name` points to what `-o name` prints.
    pub(super) fn list(&self, items: Vec<Value>, columns: &[Column], name: &str) -> Result<(), CliError> {
        match self.format {
            Format::Json | Format::Yaml => self.value(&json!({"items": items, "next": null})),
            Format::Name => self.names(&items, name),
            Format::Table if items.is_empty() => self.note("none found"),
            Format::Table => {
                let mut table = borderless();
                table.set_header(columns.iter().map(|column| column.title));
                for item in &items {
                    table.add_row(columns.iter().map(|column| column.cell(item)));
                }
                write_table(&table)
            }
        }
    }

    /// Prints one thing, member by member.
    pub(super) fn one(&self, item: &Value, name: &str) -> Result<(), CliError> {
        match self.format {
            Format::Json | Format::Yaml => self.value(item),
            Format::Name => self.names(std::slice::from_ref(item), name),
            Format::Table => {
                let mut table = borderless();
                let mut rows = Vec::new();
                flatten("", item, &mut rows);
                for (member, value) in rows {
                    table.add_row([member, value]);
                }
                write_table(&table)
            }
        }
    }

    /// Prints what was done: a sentence for people, the answer for programs.
    pub(super) fn done(&self, item: &Value, name: &str, sentence: &str) -> Result<(), CliError> {
        match self.format {
            Format::Json | Format::Yaml => self.value(item),
            Format::Name => self.names(std::slice::from_ref(item), name),
            Format::Table if self.is_quiet => Ok(()),
            Format::Table => self.line(sentence),
        }
    }

    /// Says something on stderr that is no result.
    pub(super) fn note(&self, text: &str) -> Result<(), CliError> {
        if !self.is_quiet {
            eprintln!("{text}");
        }
        Ok(())
    }

    pub(super) fn line(&self, text: &str) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// Writes bytes as they are; a terminal gets a line's end after them.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        if out.is_terminal() && !bytes.is_empty() && !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Prints a value in the format for programs.
    pub(super) fn value(&self, value: &Value) -> Result<(), CliError> {
        let text = match self.format {
            Format::Yaml => serde_yaml_ng::to_string(value).map_err(anyhow::Error::from)?,
            _ => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
        };
        self.line(text.trim_end())
    }

    fn names(&self, items: &[Value], name: &str) -> Result<(), CliError> {
        for item in items {
            self.line(&plain(item.pointer(name).unwrap_or(&Value::Null)))?;
        }
        Ok(())
    }
}

/// A table without lines, three spaces between columns.
fn borderless() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn write_table(table: &Table) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim())?;
    }
    Ok(out.flush()?)
}

/// The members of an object, nested ones as `outer.inner`.
fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, rows);
            }
        }
        Value::Number(number) if prefix.ends_with("_at_ms") => {
            let shown = number.as_u64().map_or_else(|| plain(value), time);
            rows.push((prefix.trim_end_matches("_ms").to_owned(), shown));
        }
        other => rows.push((prefix.to_owned(), plain(other))),
    }
}

/// A value as a cell.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(members) if members.is_empty() => "-".to_owned(),
        Value::Object(members) => {
            let pairs = members.iter().map(|(name, value)| format!("{name}={}", plain(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Bytes with a unit, as people read them.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut amount = bytes as f64;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// Unix milliseconds as `2026-03-01T12:00:00.250Z`.
pub(super) fn time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years have 146,097 days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests;
