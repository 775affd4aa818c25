//! A host: the product's keeper and deadline, what it owns, and its two ways to the store.

use godwit_core::id::{FencingToken, Incarnation, Revision};
use godwit_core::lease::LeaseState;
use godwit_core::lease::deadline::Deadline;
use godwit_core::lease::fence::Claim;
use godwit_core::lease::keeper::{Heard, Keeper};

use crate::rules::{PROFILE, Rules, seconds};
use crate::store::{Entry, Reply, Request, Store, Value};

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// On its way.
    Sent,
    /// It has passed the fence and will be written (which is a bug).
    Checked,
    /// The answer is on its way.
    Answered(Reply),
}

/// What a host has given up waiting for and what is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stray {
    /// The store may execute it yet.
    Request(Request),
    /// A successful heartbeat of this session, sent then, may be heard of yet.
    Renewed(Incarnation, u8),
}

/// A way to the store: one request at a time, and one that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lane {
    /// What is waited for.
    pub call: Option<(Request, Stage)>,
    /// What is not waited for any more.
    pub stray: Option<Stray>,
}

impl Lane {
    pub(crate) fn send(&mut self, request: Request) {
        self.call = Some((request, Stage::Sent));
    }

    /// Nobody waits for the call any more; what was sent may arrive.
    pub(crate) fn abandon(&mut self) -> Option<(Request, Stage)> {
        let (request, stage) = self.call.take()?;
        self.stray = match (stage, request) {
            (Stage::Sent, _) => Some(Stray::Request(request)),
            (Stage::Answered(Reply::Renewed), Request::Beat { incarnation, sent }) => {
                Some(Stray::Renewed(incarnation, sent))
            }
            _ => self.stray,
        };
        Some((request, stage))
    }
}

/// What a host has of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owned {
    /// By which right.
    pub claim: Claim,
    /// The revision and value that its guest has; `None` until it has been read.
    pub loaded: Option<(Revision, Value)>,
    /// A commit of which it is not known whether it was made.
    pub doubt: Option<(Revision, Entry)>,
}

/// A host process, or where one was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// `None` when the process is down or has not joined yet.
    pub keeper: Option<Keeper>,
    /// Whether there is a process.
    pub is_up: bool,
    /// The session it acts under.
    pub incarnation: Incarnation,
    /// That session's deadline.
    pub deadline: Deadline,
    /// The witness: the deadline was lost.
    pub was_lost: bool,
    /// The agent, if this host has it as far as it knows.
    pub owned: Option<Owned>,
    /// The keeper's way to the store.
    pub session: Lane,
    /// The agent's way to the store.
    pub agent: Lane,
    /// What a broken host remembers of its last grant.
    pub former: (FencingToken, Option<Value>),
}

impl Host {
    /// A host whose join was sent, written and heard of at once, at time 0.
    pub fn joined(incarnation: Incarnation) -> Self {
        Self {
            keeper: Some(Keeper::new(PROFILE, seconds(0))),
            is_up: true,
            incarnation,
            deadline: Deadline::started(seconds(0), &PROFILE),
            was_lost: false,
            owned: None,
            session: Lane::default(),
            agent: Lane::default(),
            former: (FencingToken(0), None),
        }
    }

    /// Whether its guest may act now.
    pub fn may_act(&self, now: u8) -> bool {
        self.is_up && self.owned.is_some() && self.deadline.state(seconds(now)) == LeaseState::Held
    }

    /// Drops the agent: its guest is gone.
    pub(crate) fn disown(&mut self, rules: Rules) -> Option<Claim> {
        let owned = self.owned.take()?;
        if rules.keeps_token() {
            self.former.0 = owned.claim.token;
        }
        if rules.keeps_value() {
            self.former.1 = owned.loaded.map(|(_, value)| value);
        }
        Some(owned.claim)
    }

    /// The process dies.
    pub(crate) fn crash(&mut self, rules: Rules) {
        self.disown(rules);
        self.agent.abandon();
        (self.keeper, self.is_up, self.session) = (None, false, Lane::default());
        self.deadline = Deadline::LOST;
    }

    /// Everything under a dead session stops.
    pub(crate) fn stop(&mut self, rules: Rules, now: u8) {
        self.deadline = Deadline::LOST;
        self.was_lost = true;
        self.disown(rules);
        self.agent.abandon();
        self.keep(|keeper| keeper.stopped(seconds(now)));
    }

    pub(crate) fn keep(&mut self, tell: impl FnOnce(&mut Keeper)) {
        if let Some(keeper) = &mut self.keeper {
            tell(keeper);
        }
    }

    /// Hears the answer on the keeper's way.
    pub(crate) fn hear(&mut self, request: Request, reply: Reply, rules: Rules, now: u8) {
        match (request, reply) {
            (Request::Beat { incarnation, sent }, Reply::Renewed) => {
                self.hear_late(incarnation, sent, rules, now);
                self.keep(|keeper| keeper.heard(seconds(sent), seconds(now), Heard::Renewed));
            }
            (Request::Beat { sent, .. }, _) => {
                self.keep(|keeper| keeper.heard(seconds(sent), seconds(now), Heard::Dead));
            }
            (Request::Join { sent, .. }, Reply::Joined(incarnation)) => {
                self.incarnation = incarnation;
                self.deadline = rules.started(sent, now);
                self.was_lost = false;
                self.keep(|keeper| keeper.joined(seconds(sent)));
                self.keeper.get_or_insert_with(|| Keeper::new(PROFILE, seconds(sent)));
            }
            _ => {}
        }
    }

    /// Hears of a successful heartbeat, however late.
    pub(crate) fn hear_late(&mut self, incarnation: Incarnation, sent: u8, rules: Rules, now: u8) {
        if incarnation == self.incarnation {
            self.deadline = rules.renewed(self.deadline, sent, now);
        }
    }

    /// Does not hear the answer on the keeper's way.
    pub(crate) fn miss(&mut self, now: u8) {
        match self.session.abandon() {
            Some((Request::Beat { sent, .. }, _)) => {
                self.keep(|keeper| keeper.heard(seconds(sent), seconds(now), Heard::Unclear));
            }
            Some(_) => self.keep(|keeper| keeper.not_joined(seconds(now))),
            None => {}
        }
    }

    /// Takes the answer on the agent's way. Answers which input is acknowledged by it.
    pub(crate) fn take(&mut self, request: Request, reply: Reply, rules: Rules) -> Option<u8> {
        match (request, reply) {
            (Request::Acquire { .. }, Reply::Granted(claim)) => {
                self.owned = Some(Owned { claim, loaded: None, doubt: None });
            }
            (Request::Commit { entry, .. }, Reply::Committed) => {
                let (revision, value) = self.owned.as_mut()?.loaded.as_mut()?;
                *revision = revision.next();
                value.push(entry);
                return Some(entry.input);
            }
            (Request::Commit { .. }, Reply::Fenced) => drop(self.disown(rules)),
            (Request::Commit { .. }, _) => self.owned.as_mut()?.loaded = None,
            _ => {}
        }
        None
    }

    /// Gives up the answer on the agent's way: what a commit did is not known from then on.
    pub(crate) fn doubt(&mut self, rules: Rules) {
        let Some((Request::Commit { base, entry, .. }, _)) = self.agent.abandon() else { return };
        let Some(owned) = &mut self.owned else { return };
        match &mut owned.loaded {
            Some((revision, _)) if rules.retries_blindly() => *revision = revision.next(),
            loaded => {
                *loaded = None;
                owned.doubt = Some((base, entry));
            }
        }
    }

    /// Reads the agent. Answers which input is acknowledged by what was found.
    pub(crate) fn load(&mut self, store: &Store) -> Option<u8> {
        let former = self.former.1.take();
        let owned = self.owned.as_mut()?;
        let value = former.unwrap_or_else(|| store.value.clone());
        owned.loaded = Some((store.fence().revision, value));
        let (base, entry) = owned.doubt.take()?;
        store.has(base, entry).then_some(entry.input)
    }

    /// The commit of the first input that its value does not have.
    pub(crate) fn next_commit(&self) -> Option<Request> {
        let Owned { claim, loaded, .. } = self.owned.as_ref()?;
        let (base, value) = loaded.as_ref()?;
        let is_open = |input: &u8| value.iter().all(|entry| entry.input != *input);
        let input = (1..=u8::MAX).find(is_open)?;
        let entry = Entry { input, by: claim.incarnation };
        Some(Request::Commit { claim: *claim, base: *base, entry })
    }
}
