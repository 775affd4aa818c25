//! The tape of a turn: answers of import calls, kept when they can't be computed again, and given once more when the turn
//! runs again.
//!
//! Calls of the host's own interfaces are counted. An answer is kept under its call's number when it came from outside the
//! turn, or is an error (limits may be others when the turn runs again). All other answers follow from the turn's header
//! and the calls before.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::guest::Answers;
use godwit_core::journal::RecordedAnswer;
use godwit_core::limits::ANSWER_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::GuestContext;
use crate::fault::Stop;

/// Where an answer comes from.
pub(crate) enum Answered<T, E> {
    /// From the turn's header, its earlier calls, and this one's arguments.
    Computed(Result<T, E>),
    /// From elsewhere: another time it may be another.
    Fetched(Result<T, E>),
}

/// The tape of one call of the guest.
#[derive(Debug)]
pub(crate) struct Tape {
    calls: u32,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Off,
    /// What is kept so far, and its bytes; `None` when it was too much.
    Record(Option<Vec<RecordedAnswer>>, usize),
    /// What was kept, and how much of it has been given.
    Replay(Arc<[RecordedAnswer]>, usize),
}

impl Tape {
    pub(crate) fn new(answers: &Answers) -> Self {
        let mode = match answers {
            Answers::Forget => Mode::Off,
            Answers::Record => Mode::Record(Some(Vec::new()), 0),
            Answers::Replay(kept) => Mode::Replay(kept.clone(), 0),
        };
        Self { calls: 0, mode }
    }

    /// What was kept; `None` when nothing was to be, or it was too much.
    pub(crate) fn take(&mut self) -> Option<Vec<RecordedAnswer>> {
        match &mut self.mode {
            Mode::Record(kept, _) => kept.take(),
            Mode::Off | Mode::Replay(..) => None,
        }
    }

    /// Says what was kept and never asked for.
    pub(crate) fn left_over(&self) -> Option<String> {
        match &self.mode {
            Mode::Replay(kept, given) if *given < kept.len() => {
                Some(format!("it made {} import calls, and call {} was kept", self.calls, kept[*given].call))
            }
            _ => None,
        }
    }

    /// Whether answers from outside the turn must come from the tape.
    pub(crate) fn is_replay(&self) -> bool {
        matches!(self.mode, Mode::Replay(..))
    }

    /// The number of the next call, and its kept answer.
    fn next(&mut self) -> (u32, Option<Bytes>) {
        let call = self.calls;
        self.calls += 1;
        let Mode::Replay(kept, given) = &mut self.mode else { return (call, None) };
        let answer =
            kept.get(*given).filter(|answer| answer.call == call).map(|answer| answer.answer.clone());
        *given += usize::from(answer.is_some());
        (call, answer)
    }

    fn keep(&mut self, call: u32, answer: impl FnOnce() -> Vec<u8>) {
        let Mode::Record(place, bytes) = &mut self.mode else { return };
        let Some(kept) = place else { return };
        let answer = Bytes::from(answer());
        *bytes += answer.len();
        kept.push(RecordedAnswer { call, answer });
        if *bytes > ANSWER_BYTES_MAX {
            *place = None;
        }
    }
}

impl GuestContext {
    /// Answers a call of `import`: by `work`, or from the tape when the turn runs again. What `work` does to the turn it does
    /// only where it answers `Computed(Ok)`, so that an answer from the tape leaves nothing out.
    pub(crate) fn taped<T, E>(
        &mut self,
        import: &str,
        work: impl FnOnce(&mut Self) -> Result<Answered<T, E>, Stop>,
    ) -> wasmtime::Result<Result<T, E>>
    where
        T: Serialize + DeserializeOwned,
        E: Serialize + DeserializeOwned,
    {
        let (call, kept) = self.call.tape.next();
        if let Some(kept) = kept {
            return match postcard::take_from_bytes::<(String, Result<T, E>)>(&kept) {
                Ok(((kept_import, answer), [])) if kept_import == import => Ok(answer),
                _ => Err(diverged(format!("import call {call} was no {import} before")).into()),
            };
        }
        match work(self)? {
            Answered::Computed(Ok(answer)) => Ok(Ok(answer)),
            Answered::Computed(Err(_)) if self.call.tape.is_replay() => {
                Err(diverged(format!("import call {call} fails, and did not before")).into())
            }
            Answered::Computed(answer) | Answered::Fetched(answer) => {
                self.call.tape.keep(call, || encode(import, &answer));
                Ok(answer)
            }
        }
    }

    /// Asked before an answer is fetched from outside the turn.
    pub(crate) fn check_live(&self) -> Result<(), Stop> {
        if self.call.tape.is_replay() {
            return Err(diverged("it asks for what it did not ask for before".into()));
        }
        Ok(())
    }
}

fn diverged(what: String) -> Stop {
    Stop::Diverged { what }
}

fn encode<T: Serialize, E: Serialize>(import: &str, answer: &Result<T, E>) -> Vec<u8> {
    postcard::to_stdvec(&(import, answer)).expect("an answer has no type that postcard can't write")
}

#[cfg(test)]
mod tests;
