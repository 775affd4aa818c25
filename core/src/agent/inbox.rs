//! The durable inputs that a driver knows of, in the order in which they run: steer lane before queue lane, by admission
//! within a lane. Pure: what comes next, and which neighbours share a guest call with it.
//!
//! Inputs are due up to the last one that wakes; those behind it wait in silence. Whatever comes back (a failed turn, a
//! refused commit) is put at its old place.

use std::collections::{BTreeSet, VecDeque};

use crate::agent::turn::{self, Start};
use crate::id::{Incarnation, Seq};
use crate::input::policy::Batch;
use crate::input::{InputState, Lane, Mode, Policy};
use crate::limits::{BATCH_BYTES_MAX, BATCH_MAX};
use crate::store::StoredInput;

/// Inputs for one guest call, and how it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Next {
    /// At least one, of one lane, in order.
    pub(crate) inputs: Vec<StoredInput>,
    /// The same for all of them.
    pub(crate) start: Start,
}

/// Open inputs by lane.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    steer: Line,
    queue: Line,
    /// Inputs of a batch that failed: each runs by itself.
    singly: BTreeSet<Seq>,
}

/// One lane: ascending by seq.
#[derive(Debug, Default)]
struct Line {
    inputs: VecDeque<StoredInput>,
    /// How many of them wake.
    waking: usize,
}

impl Line {
    fn place(&self, seq: Seq) -> Result<usize, usize> {
        self.inputs.binary_search_by_key(&seq, |input| input.seq)
    }

    fn insert(&mut self, input: StoredInput) {
        if let Err(place) = self.place(input.seq) {
            self.waking += usize::from(input.placing.wakes);
            self.inputs.insert(place, input);
        }
    }

    fn pop(&mut self) -> Option<StoredInput> {
        let input = self.inputs.pop_front()?;
        self.waking -= usize::from(input.placing.wakes);
        Some(input)
    }
}

impl Inbox {
    fn line(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Steer => &mut self.steer,
            Lane::Queue => &mut self.queue,
        }
    }

    /// Puts an open input at its place; one that is there already stays as it is.
    pub(crate) fn insert(&mut self, input: StoredInput) {
        self.line(input.placing.lane).insert(input);
    }

    /// Forgets the inputs: they are read again. Those of failed batches stay marked.
    pub(crate) fn clear(&mut self) {
        self.steer = Line::default();
        self.queue = Line::default();
    }

    /// Whether there is no input at all, due or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.steer.inputs.is_empty() && self.queue.inputs.is_empty()
    }

    /// An input that waits here.
    pub(crate) fn get(&self, seq: Seq) -> Option<&StoredInput> {
        let found = |line: &'_ Line| line.place(seq).ok();
        match (found(&self.steer), found(&self.queue)) {
            (Some(place), _) => self.steer.inputs.get(place),
            (None, Some(place)) => self.queue.inputs.get(place),
            (None, None) => None,
        }
    }

    /// Whether an input waits here.
    pub(crate) fn contains(&self, seq: Seq) -> bool {
        self.steer.place(seq).is_ok() || self.queue.place(seq).is_ok()
    }

    /// Somebody waits for this input: it wakes, while this driver lives.
    pub(crate) fn rouse(&mut self, seq: Seq) {
        for line in [&mut self.steer, &mut self.queue] {
            if let Ok(place) = line.place(seq)
                && let Some(input) = line.inputs.get_mut(place)
                && !input.placing.wakes
            {
                input.placing.wakes = true;
                line.waking += 1;
            }
        }
    }

    /// The lane whose first input is due.
    fn due(&self) -> Option<Lane> {
        let wakes = self.steer.waking + self.queue.waking > 0;
        if wakes && !self.steer.inputs.is_empty() {
            Some(Lane::Steer)
        } else {
            (self.queue.waking > 0).then_some(Lane::Queue)
        }
    }

    /// Whether something must run.
    pub(crate) fn is_due(&self) -> bool {
        self.due().is_some()
    }

    /// Takes the inputs of the next guest call, for a session that starts turns.
    pub(crate) fn next(&mut self, incarnation: Incarnation) -> Option<Next> {
        let lane = self.due()?;
        let first = self.line(lane).pop()?;
        let start = turn::start(&first, incarnation);
        let mut bytes = first.input.payload.len();
        let is_joined = self.joins(&first);
        let mut inputs = vec![first];
        while is_joined && inputs.len() < BATCH_MAX && self.due() == Some(lane) {
            let Some(next) = self.line(lane).inputs.front() else { break };
            bytes += next.input.payload.len();
            let starts_alike = turn::start(next, incarnation) == start;
            if bytes > BATCH_BYTES_MAX || !starts_alike || !self.front_joins(lane) {
                break;
            }
            inputs.extend(self.line(lane).pop());
        }
        Some(Next { inputs, start })
    }

    fn front_joins(&self, lane: Lane) -> bool {
        let line = match lane {
            Lane::Steer => &self.steer,
            Lane::Queue => &self.queue,
        };
        line.inputs.front().is_some_and(|input| self.joins(input))
    }

    /// Whether an input may share a guest call: its kind joins, and it has not failed before.
    fn joins(&self, input: &StoredInput) -> bool {
        let is_fresh = input.state == InputState::Queued && input.attempts == 0;
        let policy = Policy::of(&input.input.kind, Mode::Default);
        is_fresh && policy.batch == Batch::Joins && !self.singly.contains(&input.seq)
    }

    /// Gives inputs back that were taken and did not run.
    pub(crate) fn put_back(&mut self, inputs: Vec<StoredInput>) {
        for input in inputs {
            self.insert(input);
        }
    }

    /// The batch of these inputs failed: each of them runs by itself.
    pub(crate) fn split(&mut self, inputs: &[StoredInput]) {
        self.singly.extend(inputs.iter().map(|input| input.seq));
    }

    /// An input has ended.
    pub(crate) fn ended(&mut self, seq: Seq) {
        self.singly.remove(&seq);
    }
}

#[cfg(test)]
mod tests;
