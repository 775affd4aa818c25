//! The store: sessions, the agent's fence and value, and what each request does in its one transaction.

use godwit_core::id::{FencingToken, Generation, Incarnation, Revision};
use godwit_core::lease::fence::{Acquire, Claim, Fence, Refusal, Release};

use crate::rules::{Rules, TTL};

/// One committed boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Which input it applied: 1...
    pub input: u8,
    /// Whose write it was.
    pub by: Incarnation,
}

/// What an agent's state is: the entries applied so far. Its length is its revision.
pub type Value = Vec<Entry>;

/// What a host asks for. Times are seconds of boot time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// A heartbeat.
    Beat {
        /// Of which session.
        incarnation: Incarnation,
        /// When it was sent.
        sent: u8,
    },
    /// A new session.
    Join {
        /// Of which host.
        host: u8,
        /// When it was sent.
        sent: u8,
    },
    /// The agent.
    Acquire {
        /// For which session.
        incarnation: Incarnation,
        /// The token that the asker has had last; only a broken store reads it.
        known: FencingToken,
    },
    /// One entry more.
    Commit {
        /// Who writes.
        claim: Claim,
        /// The revision it builds on.
        base: Revision,
        /// What is written.
        entry: Entry,
    },
    /// The agent is to be free.
    Release {
        /// Who frees it.
        claim: Claim,
    },
}

/// What the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The session lives on.
    Renewed,
    /// The session's number.
    Joined(Incarnation),
    /// The agent is the asker's.
    Granted(Claim),
    /// The entry is durable.
    Committed,
    /// The agent is free.
    Released,
    /// The session is dead.
    Dead,
    /// The agent is another's, or nobody's.
    Fenced,
    /// The head is at another revision.
    Stale,
}

/// A session; its incarnation is its place, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session {
    /// Which host's.
    pub host: u8,
    /// When it may be buried.
    pub expiry: u8,
    /// For ever.
    pub is_dead: bool,
}

/// All that is durable, and what a witness has noted beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    /// By incarnation.
    pub sessions: Vec<Session>,
    /// The token granted last.
    pub token: FencingToken,
    /// To whom, unless released since.
    pub holder: Option<Incarnation>,
    /// The committed value.
    pub value: Value,
    /// The witness: the highest token ever granted.
    pub highest: FencingToken,
    /// The witness: a grant did not raise the token.
    pub was_token_repeated: bool,
    /// The witness: a write was made by another than the current owner.
    pub was_fence_passed: bool,
}

impl Store {
    /// Whether a session is not dead.
    pub fn is_living(&self, incarnation: Incarnation) -> bool {
        self.sessions.get(place(incarnation)).is_some_and(|session| !session.is_dead)
    }

    /// What the product's fence decides by.
    pub fn fence(&self) -> Fence {
        Fence {
            token: self.token,
            generation: Generation(1),
            revision: Revision(self.value.len() as u64),
            holder: self.holder.filter(|holder| self.is_living(*holder)),
        }
    }

    /// Whose session it is.
    pub fn host_of(&self, incarnation: Incarnation) -> Option<u8> {
        self.sessions.get(place(incarnation)).map(|session| session.host)
    }

    /// Executes a request in one transaction. `None`: it was checked, and writes in a later step (which is a bug).
    pub fn execute(&mut self, request: Request, rules: Rules, now: u8) -> Option<Reply> {
        Some(match request {
            Request::Beat { incarnation, .. } => self.beat(incarnation, rules, now),
            Request::Join { host, .. } => self.join(host, now),
            Request::Acquire { incarnation, known } => self.acquire(incarnation, known, rules),
            Request::Release { claim } => self.release(&claim, rules),
            Request::Commit { claim, base, entry } => match rules.check_at(&self.fence(), &claim, base) {
                Ok(()) if rules.writes_later() => return None,
                Ok(()) => self.write(&claim, base, entry),
                Err(Refusal::Fenced) => Reply::Fenced,
                // A repeated unit is answered as the first time.
                Err(Refusal::Stale) if self.has(base, entry) => Reply::Committed,
                Err(Refusal::Stale) => Reply::Stale,
            },
        })
    }

    /// Whether an entry is the one on this base.
    pub fn has(&self, base: Revision, entry: Entry) -> bool {
        usize::try_from(base.0).is_ok_and(|base| self.value.get(base) == Some(&entry))
    }

    /// Puts an entry on its base, and notes whether it was the owner's to write.
    pub fn write(&mut self, claim: &Claim, base: Revision, entry: Entry) -> Reply {
        self.was_fence_passed |= self.fence().check(claim).is_err();
        self.value.truncate(usize::try_from(base.0).unwrap_or(usize::MAX));
        self.value.push(entry);
        Reply::Committed
    }

    /// Buries what may be buried.
    pub fn bury(&mut self, rules: Rules, now: u8) {
        for session in &mut self.sessions {
            session.is_dead |= rules.may_bury(session.expiry, now);
        }
    }

    fn beat(&mut self, incarnation: Incarnation, rules: Rules, now: u8) -> Reply {
        match self.sessions.get_mut(place(incarnation)) {
            Some(session) if !session.is_dead || rules.revives_dead() => {
                *session = Session { expiry: session.expiry.max(now + TTL), is_dead: false, ..*session };
                Reply::Renewed
            }
            _ => Reply::Dead,
        }
    }

    fn join(&mut self, host: u8, now: u8) -> Reply {
        for session in self.sessions.iter_mut().filter(|session| session.host == host) {
            session.is_dead = true;
        }
        self.sessions.push(Session { host, expiry: now + TTL, is_dead: false });
        Reply::Joined(Incarnation(self.sessions.len() as u64))
    }

    fn acquire(&mut self, incarnation: Incarnation, known: FencingToken, rules: Rules) -> Reply {
        if !self.is_living(incarnation) {
            return Reply::Dead;
        }
        match self.fence().acquire(incarnation) {
            Acquire::Fenced => return Reply::Fenced,
            Acquire::Held => {}
            Acquire::Free(next) => {
                self.token = rules.granted(self.token, next, known);
                self.holder = Some(incarnation);
                self.was_token_repeated |= self.token <= self.highest;
                self.highest = self.highest.max(self.token);
            }
        }
        Reply::Granted(Claim { generation: Generation(1), incarnation, token: self.token })
    }

    fn release(&mut self, claim: &Claim, rules: Rules) -> Reply {
        match rules.release(&self.fence(), claim) {
            Release::Fenced => Reply::Fenced,
            Release::Done => Reply::Released,
            Release::Freed => {
                self.holder = None;
                Reply::Released
            }
        }
    }
}

fn place(incarnation: Incarnation) -> usize {
    usize::try_from(incarnation.0).map_or(usize::MAX, |number| number.wrapping_sub(1))
}
