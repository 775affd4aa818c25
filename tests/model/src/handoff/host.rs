//! A host: its guest, what arrives, and its tasks, which say to other hosts what the protocol says.

use std::collections::BTreeMap;

use godwit_core::id::{FencingToken, MigrationId, Revision};
use godwit_core::lease::fence::Claim;
use godwit_core::migration::handoff::Binding;
use godwit_core::migration::recovery::{Became, Have};
use godwit_core::migration::{Phase, Role};

use super::rows::{Frame, Rows};

/// What one host says to another about a migration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Will you take it, which I have under this token?
    Reserve(FencingToken),
    /// Rows.
    Rows(Vec<Frame>),
    /// Have a guest ready, from the shared store.
    Restore,
    /// The last rows, and the digest over all; bind the copy, if it is whole.
    Prepare(Binding, Vec<Frame>, u32),
    /// It is yours under this token.
    Activate(FencingToken),
    /// It does not come.
    Abort,
    /// What do you have?
    WhatHaveYou,
    /// What became of it?
    WhatBecame,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Done.
    Ok,
    /// No.
    Refused,
    /// Bound, with what was received, in order.
    Prepared(u32),
    /// It runs here, or ran.
    Activated,
    /// What a target has.
    Have(Have),
    /// What became of it at its source.
    Became(Became),
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ask the target.
    Reserve,
    /// Send rows while the agent works, or have the target restore them from the shared store.
    Transfer,
    /// Hold the agent at a boundary.
    Freeze,
    /// The lease is transferred, or the handoff begins.
    Cutover,
    /// Send the last rows, which are bound.
    Prepare,
    /// The commit point.
    Finish,
    /// Read the row, and see.
    Look,
    /// Ask what the target has.
    Ask,
    /// Tell the target that the agent does not come.
    CallOff,
    /// Tell the target that it is its own, under this token.
    Complete(FencingToken),
    /// At a target: ask the source what became of it.
    AskSource,
}

/// A migration that a process works at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    /// Which.
    pub migration: MigrationId,
    /// As which side.
    pub role: Role,
    /// The other host.
    pub peer: u8,
    /// How far it is.
    pub step: Step,
    /// Under which token it began.
    pub began: FencingToken,
    /// The last change that was sent.
    pub sent: u8,
    /// What was sent, in order.
    pub digest: u32,
    /// By which right the agent was held, and at which revision.
    pub frozen: Option<(Claim, Revision)>,
    /// What was said, and what was answered to it.
    pub call: Option<(Message, Option<Answer>)>,
}

impl Task {
    /// One that begins at a step.
    pub fn new(migration: MigrationId, role: Role, peer: u8, step: Step) -> Self {
        Self {
            migration,
            role,
            peer,
            step,
            began: FencingToken(0),
            sent: 0,
            digest: 0,
            frozen: None,
            call: None,
        }
    }

    /// Whether nothing of it is decided, so that it may be ended.
    pub fn may_be_aborted(&self) -> bool {
        matches!(self.step, Step::Reserve | Step::Transfer | Step::Freeze | Step::Cutover)
    }
}

/// A migration that comes, as the process at its target knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// Whose messages about it count.
    pub source: u8,
    /// What has come, in order.
    pub digest: u32,
    /// Which inputs the guest that is warm has applied, and its revision.
    pub warm: Option<([bool; 2], u8)>,
}

/// A running guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guest {
    /// By which right it runs.
    pub claim: Claim,
    /// The revision that it builds on.
    pub base: u8,
    /// Which inputs it has applied.
    pub applied: [bool; 2],
}

/// A host, or where one was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Host {
    /// Whether there is a process.
    pub is_up: bool,
    /// The agent's guest.
    pub guest: Option<Guest>,
    /// Whether a migration holds it at a boundary.
    pub is_frozen: bool,
    /// What this process works at.
    pub tasks: Vec<Task>,
    /// What comes.
    pub arrivals: BTreeMap<MigrationId, Arrival>,
}

impl Host {
    /// A running process.
    pub fn up() -> Self {
        Self { is_up: true, ..Self::default() }
    }

    /// A guest that is loaded from rows.
    pub fn load(&mut self, claim: Claim, rows: &Rows) {
        self.guest = Some(Guest { claim, base: rows.revision(), applied: applied(rows) });
        self.is_frozen = false;
    }

    /// The task that works at a migration.
    pub fn task(&self, migration: MigrationId, role: Role) -> Option<&Task> {
        self.tasks.iter().find(|task| (task.migration, task.role) == (migration, role))
    }
}

/// Which inputs were applied.
pub fn applied(rows: &Rows) -> [bool; 2] {
    rows.inputs.map(|input| matches!(input, Some((true, _))))
}

/// The digest over frames that follow on others.
pub fn digest(before: u32, frames: &[Frame]) -> u32 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    frames.iter().fold(before, |before, frame| {
        let mut hasher = DefaultHasher::new();
        (before, frame).hash(&mut hasher);
        // The lower half is enough to tell a few bundles apart.
        (hasher.finish() & 0xffff_ffff) as u32
    })
}

/// How a record ends that was not completed.
pub const NOT_MOVED: Phase = Phase::Aborted;
