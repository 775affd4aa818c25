//! The model: what must be true of an agent after each step, and what a store may answer.

use std::collections::BTreeMap;

use crate::id::InputId;
use crate::input::{InputState, Lane};
use crate::lifecycle::Lifecycle;
use crate::store::StoreError;
use crate::store::conformance::fixture::{is_conflict, is_fenced, is_stale};

/// SplitMix64: small, seeded, good enough to choose steps.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % end as u64).unwrap()
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Waiting,
    Applied,
    GivenUp,
    Replaced,
    Abandoned,
}

#[derive(Debug)]
pub(super) struct ModelInput {
    pub(super) id: InputId,
    pub(super) key: Option<String>,
    pub(super) body: String,
    pub(super) lane: Lane,
    pub(super) wakes: bool,
    pub(super) supersedes: Option<String>,
    pub(super) is_staged: bool,
    pub(super) fate: Fate,
    /// Abandoned by a verb of the agent, and not by itself.
    pub(super) is_ended_by_verb: bool,
    /// When it ended.
    pub(super) ended_at_ms: Option<u64>,
    /// Whether retention has removed it.
    pub(super) is_gone: bool,
}

/// One agent as it must be.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) life: Life,
    pub(super) generation: u64,
    pub(super) token: u64,
    /// Number of the holding host.
    pub(super) holder: Option<usize>,
    pub(super) revision: u64,
    pub(super) inputs: Vec<ModelInput>,
    pub(super) state: BTreeMap<String, String>,
    pub(super) sent: BTreeMap<&'static str, u64>,
    /// By name: the revision that set it.
    pub(super) timers: BTreeMap<&'static str, u64>,
    /// Destination, generation, number.
    pub(super) pending: Vec<(&'static str, u64, u64)>,
    /// Revisions of the kept snapshots, by slot; 0 is none.
    pub(super) kept: [u64; 2],
    /// The inputs that each journaled turn ended.
    pub(super) journal: BTreeMap<u64, Vec<usize>>,
}

impl Model {
    /// A boundary has written a snapshot, a journal entry, or both.
    pub(super) fn write(&mut self, (has_snapshot, is_journaled): (bool, bool), ended: &[usize]) {
        if is_journaled {
            self.journal.insert(self.revision, ended.to_vec());
        }
        if has_snapshot && is_journaled {
            let is_first = self.kept == [0, 0];
            let newest = usize::from(self.kept[0] < self.kept[1]);
            let oldest = if is_first { self.revision } else { self.kept[newest] };
            self.kept[if is_first { 0 } else { 1 - newest }] = self.revision;
            self.journal.retain(|revision, _| *revision > oldest);
        } else if has_snapshot {
            self.kept[0] = self.revision;
        }
    }

    pub(super) fn begin_generation(&mut self) {
        self.generation += 1;
        self.revision = 0;
        self.sent.clear();
    }
}

/// The states that the model walks through.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    #[default]
    Active,
    Paused,
    Retiring,
    Retired,
    Deleted,
}

impl Life {
    pub(super) fn stored(self) -> Lifecycle {
        match self {
            Self::Active => Lifecycle::Active,
            Self::Paused => Lifecycle::Paused,
            Self::Retiring => Lifecycle::Retiring,
            Self::Retired => Lifecycle::Retired,
            Self::Deleted => Lifecycle::Deleted,
        }
    }

    pub(super) fn accepts(self) -> bool {
        matches!(self, Self::Active | Self::Paused)
    }

    pub(super) fn runs(self) -> bool {
        matches!(self, Self::Active | Self::Retiring)
    }
}

impl Model {
    /// A newer input takes the place of the queued ones of its scope.
    pub(super) fn replace(&mut self, supersedes: Option<&String>, now_ms: u64) {
        for older in &mut self.inputs {
            let is_queued = older.fate == Fate::Waiting && !older.is_staged;
            if is_queued && supersedes.is_some() && older.supersedes.as_ref() == supersedes {
                older.fate = Fate::Replaced;
                older.ended_at_ms = Some(now_ms);
            }
        }
    }
}

/// What a store answered, as far as the model knows answers.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Done,
    Fenced,
    Stale,
    Conflict,
    Lifecycle,
}

pub(super) fn answer<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Answer {
    match result {
        Ok(_) => Answer::Done,
        Err(error) if is_fenced(&error) => Answer::Fenced,
        Err(error) if is_stale(&error) => Answer::Stale,
        Err(error) if is_conflict(&error) => Answer::Conflict,
        Err(StoreError::Lifecycle { .. }) => Answer::Lifecycle,
        Err(error) => panic!("not in the model: {error:?}"),
    }
}

pub(super) fn fate(state: InputState) -> Fate {
    match state {
        InputState::Queued | InputState::Staged => Fate::Waiting,
        InputState::Consumed => Fate::Applied,
        InputState::DeadLettered => Fate::GivenUp,
        InputState::Replaced => Fate::Replaced,
        InputState::Abandoned => Fate::Abandoned,
    }
}
