//! The agent's rows, as few as say something: its own row, a client's input, a delivery with the receiver's row, and one row of
//! state that is deleted. Each row carries the change that wrote it.

/// The input that a client sends under a key: its row is what knows the key.
pub const KEYED: usize = 0;
/// The input that another agent delivers: the receiver's row is what knows its number. Its turn deletes the state.
pub const DELIVERED: usize = 1;

/// A row as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Row {
    /// The agent's own: its revision.
    Agent(u8),
    /// An input, and whether it was applied.
    Input(usize, bool),
    /// A delivery was heard.
    Receiver,
    /// The state.
    State,
    /// The state was deleted.
    StateDeleted,
}

/// A row and the change that wrote it.
pub type Frame = (u8, Row);

/// All rows of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rows {
    /// The last change.
    pub change: u8,
    /// Revision, and the change that wrote it; none in a copy that it has not reached.
    pub agent: Option<(u8, u8)>,
    /// Whether each was applied.
    pub inputs: [Option<(bool, u8)>; 2],
    /// Whether the delivery was heard.
    pub receiver: Option<u8>,
    /// Whether the state is there.
    pub state: Option<u8>,
    /// Whether it was deleted.
    pub deleted: Option<u8>,
}

/// What rows mean, whatever changes they were written by.
pub type Meaning = (Option<u8>, [Option<bool>; 2], bool, bool);

impl Rows {
    /// Those of a new agent.
    pub fn new() -> Self {
        Self { change: 1, agent: Some((0, 1)), state: Some(1), ..Self::default() }
    }

    /// What they mean.
    pub fn meaning(&self) -> Meaning {
        let inputs = self.inputs.map(|input| input.map(|(is_applied, _)| is_applied));
        (self.agent.map(|(revision, _)| revision), inputs, self.receiver.is_some(), self.state.is_some())
    }

    /// The agent's revision.
    pub fn revision(&self) -> u8 {
        self.agent.map_or(0, |(revision, _)| revision)
    }

    /// Accepts an input, unless it was accepted before. Answers whether it is new.
    pub fn accept(&mut self, input: usize) -> bool {
        let is_known =
            if input == DELIVERED { self.receiver.is_some() } else { self.inputs[input].is_some() };
        if is_known {
            return false;
        }
        self.change += 1;
        self.inputs[input] = Some((false, self.change));
        if input == DELIVERED {
            self.receiver = Some(self.change);
        }
        true
    }

    /// The input whose turn is next.
    pub fn next(&self) -> Option<usize> {
        self.inputs.iter().position(|input| matches!(input, Some((false, _))))
    }

    /// Commits the turn of an input.
    pub fn apply(&mut self, input: usize) {
        self.change += 1;
        self.inputs[input] = Some((true, self.change));
        self.agent = Some((self.revision() + 1, self.change));
        if input == DELIVERED && self.state.take().is_some() {
            self.deleted = Some(self.change);
        }
    }

    /// Rows that were written after a change.
    pub fn after(&self, change: u8) -> Vec<Frame> {
        let mut frames: Vec<Frame> = Vec::new();
        frames.extend(self.agent.map(|(revision, change)| (change, Row::Agent(revision))));
        for (number, input) in self.inputs.iter().enumerate() {
            frames.extend(input.map(|(is_applied, change)| (change, Row::Input(number, is_applied))));
        }
        frames.extend(self.receiver.map(|change| (change, Row::Receiver)));
        frames.extend(self.state.map(|change| (change, Row::State)));
        frames.extend(self.deleted.map(|change| (change, Row::StateDeleted)));
        frames.retain(|(written, _)| *written > change);
        frames.sort_unstable();
        frames
    }

    /// Takes a row in, unless a newer one is here.
    pub fn receive(&mut self, (change, row): Frame) {
        let is_newer = |known: Option<u8>| known.is_none_or(|known| known < change);
        match row {
            Row::Agent(revision) if is_newer(self.agent.map(|(_, known)| known)) => {
                self.agent = Some((revision, change));
            }
            Row::Input(number, is_applied) if is_newer(self.inputs[number].map(|(_, known)| known)) => {
                self.inputs[number] = Some((is_applied, change));
            }
            Row::Receiver => self.receiver = Some(change),
            Row::State if is_newer(self.deleted) => self.state = Some(change),
            Row::StateDeleted => {
                self.state = None;
                self.deleted = Some(change);
            }
            _ => {}
        }
        self.change = self.change.max(change);
    }

    /// Forgets what was deleted: no migration asks for it any more.
    pub fn forget_deleted(&mut self) {
        self.deleted = None;
    }
}
