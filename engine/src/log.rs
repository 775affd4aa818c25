//! A guest's log: its lines go to `tracing` with target `guest`, cut, counted, and without control characters. They are
//! not stored.

use std::collections::VecDeque;

use godwit_core::id::AgentId;
use godwit_core::limits::{LOG_LINE_BYTES_MAX, LOG_TURN_BYTES_MAX};

/// What a line costs beside its bytes, so that empty lines are not free.
const LINE_OVERHEAD_BYTES: usize = 64;
/// Lines of standard error that are kept for the message of a fault: a panic of Rust prints three.
const LAST_WORDS_LINES: usize = 3;
/// Bytes of each of them.
const LAST_WORDS_BYTES_MAX: usize = 512;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// The two standard streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Error,
}

/// One guest's log.
#[derive(Debug)]
pub(crate) struct GuestLog {
    agent: AgentId,
    budget: Budget,
    output: Partial,
    error: Partial,
    /// The end of what this call wrote to standard error.
    last_words: VecDeque<String>,
}

impl GuestLog {
    pub(crate) fn new(agent: AgentId) -> Self {
        Self {
            agent,
            budget: Budget::default(),
            output: Partial::default(),
            error: Partial::default(),
            last_words: VecDeque::new(),
        }
    }

    /// Begins a call: the guest may log again.
    pub(crate) fn begin_call(&mut self) {
        self.budget = Budget::default();
        self.last_words.clear();
    }

    /// The last lines that the call wrote to standard error: what it said before it trapped.
    pub(crate) fn last_words(&self) -> String {
        self.last_words.iter().map(String::as_str).collect::<Vec<_>>().join(" / ")
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, level: Level, context: &str, message: &str) {
        match self.budget.admit(context.len().saturating_add(message.len())) {
            Admission::Line => self.emit(level, context, message),
            Admission::LastNote => self.emit(Level::Warn, "", "the turn's log is full; the rest is dropped"),
            Admission::Dropped => {}
        }
    }

    /// Writes bytes of a standard stream, whose lines may come in pieces.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.partial(stream).push(&rest[..end]);
            self.flush(stream);
            rest = &rest[end + 1..];
        }
        self.partial(stream).push(rest);
    }

    /// Ends a call: lines without an end are written as they are.
    pub(crate) fn end_call(&mut self) {
        for stream in [Stream::Output, Stream::Error] {
            if !self.partial(stream).bytes.is_empty() {
                self.flush(stream);
            }
        }
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        }
    }

    fn flush(&mut self, stream: Stream) {
        let bytes = std::mem::take(&mut self.partial(stream).bytes);
        let line = String::from_utf8_lossy(&bytes);
        let (level, context) = match stream {
            Stream::Output => (Level::Info, "stdout"),
            Stream::Error => (Level::Warn, "stderr"),
        };
        self.line(level, context, &line);
        if stream == Stream::Error && !line.trim().is_empty() {
            if self.last_words.len() == LAST_WORDS_LINES {
                self.last_words.pop_front();
            }
            self.last_words.push_back(escaped(line.trim(), LAST_WORDS_BYTES_MAX));
        }
    }

    fn emit(&self, level: Level, context: &str, line: &str) {
        let agent = &self.agent;
        let context = escaped(context, LOG_LINE_BYTES_MAX);
        let line = escaped(line, LOG_LINE_BYTES_MAX);
        match level {
            Level::Trace => tracing::trace!(target: "guest", %agent, context, line, "guest log"),
            Level::Debug => tracing::debug!(target: "guest", %agent, context, line, "guest log"),
            Level::Info => tracing::info!(target: "guest", %agent, context, line, "guest log"),
            Level::Warn => tracing::warn!(target: "guest", %agent, context, line, "guest log"),
            Level::Error => tracing::error!(target: "guest", %agent, context, line, "guest log"),
        }
    }
}

/// How much a guest may still log in this call.
#[derive(Debug, Default)]
struct Budget {
    spent: usize,
    is_full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Line,
    /// The first line that has no room: say so once.
    LastNote,
    Dropped,
}

impl Budget {
    fn admit(&mut self, bytes: usize) -> Admission {
        if self.is_full {
            return Admission::Dropped;
        }
        self.spent += bytes.min(LOG_LINE_BYTES_MAX) + LINE_OVERHEAD_BYTES;
        self.is_full = self.spent > LOG_TURN_BYTES_MAX;
        if self.is_full { Admission::LastNote } else { Admission::Line }
    }
}

/// The beginning of a line. What is longer than a line may be is not kept.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
}

impl Partial {
    fn push(&mut self, bytes: &[u8]) {
        // One byte more than a line may have, so that it is seen to be cut.
        let room = (LOG_LINE_BYTES_MAX + 1).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A text without control characters. Of a long one only the first `bytes_max` bytes are taken, with a mark behind them.
pub(crate) fn escaped(text: &str, bytes_max: usize) -> String {
    let mut escaped = String::with_capacity(text.len().min(bytes_max));
    for (at, char) in text.char_indices() {
        if at + char.len_utf8() > bytes_max {
            escaped.push_str(" [cut]");
            break;
        }
        if char.is_control() {
            escaped.extend(char.escape_default());
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
