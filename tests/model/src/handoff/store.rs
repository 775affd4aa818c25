//! A store: the agent's seat and rows, copies that arrive, records of migrations, sessions; and what each request does in its one
//! transaction.

use std::collections::BTreeMap;

use godwit_core::id::{FencingToken, Generation, HostId, Incarnation, MigrationId, Revision};
use godwit_core::lease::fence::{Acquire, Claim};
use godwit_core::lease::{GrantCause, Holder};
use godwit_core::migration::handoff::{Binding, Discard, Seat};
use godwit_core::migration::{Phase, Role};
use godwit_core::store::{Adoption, Home};

use super::rows::{Frame, Rows};
use super::rules::{Bug, Rules};

/// How a migration stands, as one side remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// Which host it leaves.
    pub source: u8,
    /// To which host it goes.
    pub target: u8,
    /// How far it is; no phase before the end but `Reserve` is told apart.
    pub phase: Phase,
}

/// All that is durable at one place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Store {
    /// Where the agent is, if anything of it is here.
    pub seat: Option<Seat>,
    /// Its rows.
    pub rows: Rows,
    /// What arrives, by migration.
    pub copies: BTreeMap<MigrationId, Rows>,
    /// By migration and side.
    pub records: BTreeMap<(MigrationId, Role), Record>,
    /// Whose each incarnation is, and whether it lives; counted from 1.
    pub sessions: Vec<(u8, bool)>,
}

/// A host as the product names it.
pub fn host_id(host: u8) -> HostId {
    HostId([host; 32])
}

/// A migration as the product names it, in their order.
pub fn migration_id(number: u8) -> MigrationId {
    MigrationId([number; 16])
}

impl Store {
    /// The agent as it is at a host, held by nobody.
    pub fn with_agent() -> Self {
        let seat = Seat {
            home: Home::Here,
            token: FencingToken(1),
            generation: Generation(1),
            revision: Revision(0),
            holder: None,
            cause: GrantCause::Acquired,
        };
        Self { seat: Some(seat), rows: Rows::new(), ..Self::default() }
    }

    /// The seat as its fence sees it: who is dead holds nothing.
    pub fn seat(&self) -> Option<Seat> {
        let seat = self.seat.clone()?;
        let holder = seat.holder.filter(|holder| self.is_living(holder.incarnation));
        let revision = Revision(u64::from(self.rows.revision()));
        Some(Seat { holder, revision, ..seat })
    }

    fn is_living(&self, incarnation: Incarnation) -> bool {
        let place = usize::try_from(incarnation.0).unwrap_or(0).wrapping_sub(1);
        self.sessions.get(place).is_some_and(|(_, is_living)| *is_living)
    }

    /// A host's living session.
    pub fn session_of(&self, host: u8) -> Option<Holder> {
        let place = self.sessions.iter().rposition(|(of, is_living)| *of == host && *is_living)?;
        Some(Holder { host: host_id(host), incarnation: Incarnation(place as u64 + 1) })
    }

    /// A new session of a host, in place of the one before.
    pub fn join(&mut self, host: u8) {
        self.expire(host);
        self.sessions.push((host, true));
    }

    /// A host's session dies.
    pub fn expire(&mut self, host: u8) {
        for (of, is_living) in &mut self.sessions {
            *is_living &= *of != host;
        }
    }

    /// Whether the agent is at home here.
    pub fn is_home(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.home == Home::Here)
    }

    /// The claim with which a host can write now.
    pub fn claim_of(&self, host: u8) -> Option<Claim> {
        let seat = self.seat().filter(|seat| seat.home == Home::Here)?;
        let holder = seat.holder.filter(|holder| holder.host == host_id(host))?;
        Some(Claim { generation: seat.generation, incarnation: holder.incarnation, token: seat.token })
    }

    /// The agent is asked for.
    pub fn acquire(&mut self, host: u8) -> Option<Claim> {
        let (seat, holder) = (self.seat()?, self.session_of(host)?);
        if seat.home != Home::Here {
            return None;
        }
        match seat.fence().acquire(holder.incarnation) {
            Acquire::Held => {}
            Acquire::Fenced => return None,
            Acquire::Free(token) => {
                let cause = GrantCause::Acquired;
                self.sit(Seat { token, holder: Some(holder), cause, ..seat }, None);
            }
        }
        self.claim_of(host)
    }

    /// Takes over what a step has decided. A grant closes the migrations that it is not part of.
    pub fn sit(&mut self, seat: Seat, own: Option<MigrationId>) {
        let Some(before) = self.seat() else { return };
        let is_closing = seat.holder.is_some() || matches!(seat.home, Home::HandingOff { .. });
        for ((migration, _), record) in &mut self.records {
            if is_closing && Some(*migration) != own && !record.phase.is_terminal() {
                record.phase = before.closes(*migration).0;
            }
        }
        self.seat = Some(seat);
    }

    /// Opens a record, if none of its side is open.
    pub fn open(&mut self, migration: MigrationId, role: Role, (source, target): (u8, u8)) -> bool {
        let is_other_open = self.records.iter().any(|((other, side), record)| {
            *side == role && *other != migration && !record.phase.is_terminal()
        });
        if is_other_open || self.records.contains_key(&(migration, role)) {
            return false;
        }
        self.records.insert((migration, role), Record { source, target, phase: Phase::Reserve });
        true
    }

    /// Ends a record. What is over stays as it ended.
    pub fn end(&mut self, migration: MigrationId, role: Role, phase: Phase) {
        if let Some(record) = self.records.get_mut(&(migration, role)).filter(|it| !it.phase.is_terminal()) {
            record.phase = phase;
        }
    }

    /// Whether a record says that its migration is not over.
    pub fn is_open(&self, migration: MigrationId, role: Role) -> bool {
        self.records.get(&(migration, role)).is_some_and(|record| !record.phase.is_terminal())
    }

    /// Takes rows in, unless they come too late.
    pub fn receive(&mut self, migration: MigrationId, frames: &[Frame]) {
        if self.seat().is_some_and(|seat| seat.is_bound(migration)) {
            return;
        }
        let copy = self.copies.entry(migration).or_default();
        for frame in frames {
            copy.receive(*frame);
        }
    }

    /// Step 2: binds a copy. Answers whether it is bound.
    pub fn prepare(&mut self, binding: &Binding, frames: &[Frame]) -> bool {
        self.receive(binding.migration, frames);
        let copy = self.copies.get(&binding.migration).copied();
        let arrived = copy.and_then(|copy| copy.agent);
        let arrived = arrived.map(|(revision, _)| (Generation(1), Revision(u64::from(revision))));
        match (Seat::prepare(self.seat().as_ref(), binding, arrived), copy) {
            (Ok(None), _) => true,
            (Ok(Some(seat)), Some(copy)) => {
                self.copies.remove(&binding.migration);
                self.rows = copy;
                self.rows.forget_deleted();
                self.seat = Some(seat);
                true
            }
            _ => false,
        }
    }

    /// Step 3. Answers whether the agent has moved.
    pub fn finish(&mut self, migration: MigrationId, rules: Rules) -> bool {
        let Some(seat) = self.seat() else { return false };
        match rules.finish(&seat, migration) {
            Ok(Some(moved)) => {
                self.seat = Some(moved);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Step 4. Answers whether the host has the agent.
    pub fn adopt(&mut self, migration: MigrationId, host: u8, how: Adoption) -> bool {
        let (Some(seat), Some(holder)) = (self.seat(), self.session_of(host)) else { return false };
        match seat.adopt(migration, holder, how) {
            Ok(Some(seat)) => {
                self.sit(seat, Some(migration));
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Backs out at the source.
    pub fn abort(&mut self, migration: MigrationId, host: u8, rules: Rules) {
        let (Some(seat), Some(holder)) = (self.seat(), self.session_of(host)) else { return };
        if let Ok(Some(seat)) = rules.abort(&seat, migration, holder) {
            self.sit(seat, Some(migration));
        }
    }

    /// Drops a copy. With `AbortAfterCutover` nothing else has gone wrong than that this is asked for.
    pub fn discard(&mut self, migration: MigrationId) {
        self.copies.remove(&migration);
        match self.seat().map(|seat| (seat.discard(migration), seat)) {
            Some((Discard::Goes, _)) => (self.seat, self.rows) = (None, Rows::default()),
            Some((Discard::Replaced(tombstone), seat)) => {
                let cause = GrantCause::Acquired;
                let (home, token) = (Home::Moved(tombstone), tombstone.token);
                self.seat = Some(Seat { home, token, holder: None, cause, ..seat });
                self.rows = Rows::default();
            }
            Some((Discard::Stays, _)) | None => {}
        }
    }

    /// Forgets the rows that a moved agent has left.
    pub fn forget(&mut self, migration: MigrationId) {
        if let Some((seat, tombstone)) =
            self.seat().and_then(|seat| Some((seat.clone(), seat.forget(migration)?)))
        {
            self.rows = Rows::default();
            let cause = GrantCause::Acquired;
            self.seat = Some(Seat { home: Home::Moved(tombstone), holder: None, cause, ..seat });
        }
    }

    /// Whether an input is taken here; then it is durable. `None` when the agent is not at home.
    pub fn accept(&mut self, input: usize, rules: Rules) -> Option<bool> {
        let is_held = matches!(self.seat.as_ref()?.home, Home::HandingOff { .. });
        let is_taken = self.is_home() || is_held && rules.has(Bug::InputsLeftBehind);
        is_taken.then(|| self.rows.accept(input))
    }

    /// Commits the next turn of a claim on a base. Answers which input it applied.
    pub fn commit(&mut self, claim: &Claim, base: Revision) -> Option<usize> {
        let seat = self.seat().filter(|seat| seat.home == Home::Here)?;
        seat.fence().check_at(claim, base).ok()?;
        let input = self.rows.next()?;
        self.rows.apply(input);
        Some(input)
    }
}
