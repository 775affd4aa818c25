//! The store as hosts meet it: the memory store, with the bug of the run where it is one of the store's. The judge sees what
//! goes in and what comes out here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use godwit_core::id::{
    AgentId, FencingToken, Generation, HostId, Incarnation, InputId, MigrationId, Revision, Seq,
};
use godwit_core::identity::EntityPublicKey;
use godwit_core::input::{DeliveryStamp, Input, NewInput, Outcome, Source};
use godwit_core::lease::Lease;
use godwit_core::lifecycle::LifecycleCommit;
use godwit_core::output::Output;
use godwit_core::store::{
    AcceptError, Accepted, Adoption, AgentImage, Handoff, Home, OutputEnd, OutputKey, Owner, Page,
    PrepareRequest, Row, RowFrame, RuntimeStore, Session, SessionRequest, Standing, Step, StoreError,
    StoredInput, Unit, UnitFailure, UnitOutcome,
};

use crate::bug::Bug;
use crate::world::{PROFILE, World, now};

/// How often a bug that strikes now and then strikes, in a thousand.
const NOW_AND_THEN: u64 = 150;
/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);
/// How much later what was checked is written, at most.
const ACT_LATER_MS: u64 = 1_500;

/// What the store and its planted bugs remember beside the rows.
#[derive(Default)]
pub struct Past {
    images: BTreeMap<AgentId, AgentImage>,
    tokens: BTreeMap<AgentId, FencingToken>,
    held: BTreeMap<Incarnation, Vec<AgentId>>,
    sent: BTreeMap<(AgentId, AgentId), u64>,
    /// The lowest number that an origin, in a generation, has said to be open still, by receiver.
    open_from: BTreeMap<(AgentId, AgentId, Generation), u64>,
}

impl World {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether a bug that does not always strike strikes now.
    pub fn strikes(&self, bug: Bug) -> bool {
        self.has(bug) && self.chance(NOW_AND_THEN)
    }

    /// `RuntimeStore::join`.
    pub fn join(&self, request: SessionRequest) -> Result<Session, StoreError> {
        // With `DeadlineIgnored` the host counts on more than the store grants.
        let request = SessionRequest { ttl: PROFILE.ttl, ..request };
        let session = now(self.memory.join(request.clone()))?;
        // Holding a store of one's own does not expire.
        let ttl = if self.is_apart() { FOR_EVER } else { PROFILE.ttl };
        self.judge().joined(self.elapsed(), &request, &session, ttl);
        Ok(session)
    }

    /// `RuntimeStore::heartbeat`.
    pub fn heartbeat(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        let answered = match now(self.memory.heartbeat(incarnation)) {
            Err(StoreError::SessionDead { .. }) if self.has(Bug::DeadRevived) => Ok(()),
            // The judge is told what the store did; the host hears something else.
            Err(StoreError::SessionDead { .. }) if self.has(Bug::DeathUnheard) => return Ok(()),
            answered => answered,
        };
        if answered.is_ok() {
            self.judge().renewed(self.elapsed(), incarnation);
        }
        answered
    }

    /// `RuntimeStore::bury_expired`.
    pub fn bury_expired(&self) -> Result<Vec<Incarnation>, StoreError> {
        if self.has(Bug::NobodyBuried) {
            return Ok(Vec::new());
        }
        if self.strikes(Bug::LivingBuried) {
            let sessions = now(self.memory.sessions())?;
            if let Some(first) = sessions.first() {
                now(self.memory.leave(first.incarnation))?;
                self.judge().buried(self.elapsed(), &[first.incarnation]);
                return Ok(vec![first.incarnation]);
            }
        }
        let buried = now(self.memory.bury_expired())?;
        self.judge().buried(self.elapsed(), &buried);
        Ok(buried)
    }

    /// `RuntimeStore::leave`.
    pub fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        now(self.memory.leave(incarnation))?;
        self.judge().left(incarnation);
        if self.has(Bug::LeaveOfAnother) {
            let once = self.past().held.remove(&incarnation).unwrap_or_default();
            for agent in once {
                if let Ok(Some(row)) = now(self.memory.agent(&agent))
                    && let Some(holder) = row.holder
                {
                    let owner = Owner {
                        agent,
                        generation: row.generation,
                        incarnation: holder.incarnation,
                        token: row.token,
                    };
                    now(self.memory.release(&owner))?;
                }
            }
        }
        Ok(())
    }

    /// `RuntimeStore::acquire`.
    pub fn acquire(
        &self,
        incarnation: Incarnation,
        agents: &[AgentId],
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        if self.has(Bug::HolderIgnored) {
            self.free(agents)?;
        }
        let mut answers = now(self.memory.acquire(incarnation, agents))?;
        for lease in answers.iter_mut().filter_map(|answer| answer.as_mut().ok()) {
            let before = self.past().tokens.insert(lease.agent.clone(), lease.token);
            if self.has(Bug::TokenKept) {
                lease.token = before.unwrap_or(lease.token);
            }
            if self.strikes(Bug::TokenGoesBack) && lease.token.0 > 1 {
                lease.token = FencingToken(lease.token.0 - 1);
            }
            self.past().held.entry(incarnation).or_default().push(lease.agent.clone());
            self.note(format_args!("  {} is {incarnation}'s under {}", lease.agent, lease.token));
            self.judge().acquired(incarnation, lease);
        }
        Ok(answers)
    }

    /// Takes agents away from whoever holds them.
    fn free(&self, agents: &[AgentId]) -> Result<(), StoreError> {
        for agent in agents {
            if let Some(row) = now(self.memory.agent(agent))?
                && let Some(holder) = row.holder
            {
                let (agent, generation, token) = (agent.clone(), row.generation, row.token);
                let owner = Owner { agent, generation, incarnation: holder.incarnation, token };
                now(self.memory.release(&owner))?;
            }
        }
        Ok(())
    }

    /// `RuntimeStore::accept`.
    pub fn accept(
        &self,
        mut input: NewInput,
        by: Incarnation,
        is_heard: bool,
    ) -> Result<Accepted, AcceptError> {
        let offered = input.clone();
        if self.has(Bug::KeysForgotten) {
            input.idempotency_key = None;
        }
        let is_lost =
            self.strikes(Bug::InputsLost) || input.delivery.is_some() && self.strikes(Bug::DeliveryLost);
        if is_lost {
            let row = now(self.memory.agent(&input.agent))?.ok_or(StoreError::NoAgent)?;
            return Ok(if input.delivery.is_some() {
                Accepted::AlreadyEnded
            } else {
                Accepted::New { seq: row.next_seq }
            });
        }
        let accepted = now(self.memory.accept(input.clone(), by));
        self.note_accept(&offered, &accepted);
        if let Ok(accepted) = &accepted {
            self.judge().accepted(&offered, accepted);
        }
        let is_again = input.delivery.is_some() && self.strikes(Bug::DeliveredTwice)
            || !is_heard && self.has(Bug::BlindRetry)
            || self.is_late_copy(&input) && self.has(Bug::LateCopyTaken);
        if is_again {
            let again = self.under_another_id(input);
            drop(now(self.memory.accept(again, by)));
        }
        accepted
    }

    /// Whether the sender of a delivery has said of it that it has ended.
    fn is_late_copy(&self, input: &NewInput) -> bool {
        let Some(stamp) = &input.delivery else { return false };
        let mut past = self.past();
        let key = (input.agent.clone(), stamp.origin.clone(), stamp.generation);
        let open_from = past.open_from.entry(key).or_default();
        *open_from = (*open_from).max(stamp.lowest_open);
        stamp.number < *open_from
    }

    fn note_accept(&self, input: &NewInput, accepted: &Result<Accepted, AcceptError>) {
        let NewInput { agent, input: Input { id, kind, payload, .. }, delivery, .. } = input;
        let from = delivery.as_ref().map(|stamp| format!("{} {}", stamp.origin, stamp.number));
        let came_to = match accepted {
            Ok(Accepted::New { seq }) => format!("new {seq}"),
            Ok(Accepted::Duplicate(stored)) => format!("duplicate of {} {}", stored.seq, stored.input.id),
            other => format!("{other:?}"),
        };
        self.note(format_args!("  {agent} is offered {id} {} {payload:?} {from:?}: {came_to}", kind.name()));
    }

    /// The same input, which nothing ties to the one it was.
    fn under_another_id(&self, mut input: NewInput) -> NewInput {
        let mut random = self.weather().random().fork();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.number().to_le_bytes());
        input.input.id = InputId(id);
        input.idempotency_key = None;
        input.delivery = None;
        input
    }

    /// `RuntimeStore::commit_turns`.
    pub fn commit_turns(self: &Arc<Self>, unit: Unit) -> UnitOutcome {
        match self.bug {
            Some(Bug::CheckThenAct) => return self.commit_later(unit),
            Some(Bug::AckBeforeCommit) if self.chance(NOW_AND_THEN) => {
                let steps = unit.steps.len();
                let (world, pause) = (self.clone(), self.weather().random().below(ACT_LATER_MS));
                self.outside.spawn(Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    world.commit_now(unit);
                }));
                return UnitOutcome { committed: steps, failure: None };
            }
            _ => {}
        }
        self.commit_now(unit)
    }

    fn commit_now(&self, mut unit: Unit) -> UnitOutcome {
        let claimed = unit.clone();
        if self.has(Bug::TokenUnchecked) {
            unit = sign(self.pass(&unit.owner), unit);
        }
        if self.has(Bug::RevisionUnchecked) {
            unit = self.rebase(unit);
        }
        if self.has(Bug::KeysForgotten) {
            for step in &mut unit.steps {
                if let Step::Accept { input, .. } = step {
                    input.idempotency_key = None;
                }
            }
        }
        let mut outcome = now(self.memory.commit_turns(unit));
        self.note_commit(&claimed, &outcome);
        let is_fenced = matches!(&outcome.failure, Some(UnitFailure::Store(StoreError::Fenced { .. })));
        if is_fenced {
            self.judge().count_fenced();
            if self.has(Bug::FencedAcknowledged) {
                outcome = UnitOutcome { committed: claimed.steps.len(), failure: None };
            }
        }
        self.judge().committed(&claimed, &outcome);
        if self.has(Bug::GateOpen) && outcome.failure.is_none() {
            let outputs =
                claimed.steps.iter().filter_map(Step::boundary).flat_map(|boundary| &boundary.outputs);
            for output in outputs {
                let way = (claimed.owner.agent.clone(), output.destination.clone());
                *self.past().sent.entry(way).or_default() += 1;
            }
        }
        outcome
    }

    fn note_commit(&self, unit: &Unit, outcome: &UnitOutcome) {
        let Unit { owner: Owner { agent, incarnation, token, .. }, base, steps } = unit;
        let boundaries = steps.iter().filter_map(Step::boundary);
        let made: Vec<_> =
            boundaries.map(|boundary| (boundary.receipt.revision.0, &boundary.receipt.inputs)).collect();
        let UnitOutcome { committed, failure } = outcome;
        self.note(format_args!(
            "  {agent} on {base} by {incarnation} under {token} {made:?}: {committed} {failure:?}"
        ));
    }

    /// Compares the owner now, and writes what it wants whoever owns the agent then.
    fn commit_later(self: &Arc<Self>, unit: Unit) -> UnitOutcome {
        let owner = self.pass(&unit.owner);
        if owner != unit.owner || !self.chance(NOW_AND_THEN) {
            return self.commit_now(unit);
        }
        let (world, pause) = (self.clone(), self.weather().random().below(ACT_LATER_MS));
        let steps = unit.steps.len();
        self.outside.spawn(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let (claimed, owner) = (unit.clone(), world.pass(&unit.owner));
            let outcome = now(world.memory.commit_turns(world.rebase(sign(owner, unit))));
            world.judge().committed(&claimed, &outcome);
        }));
        UnitOutcome { committed: steps, failure: None }
    }

    /// The owner as the store would have it.
    fn pass(&self, owner: &Owner) -> Owner {
        let mut owner = owner.clone();
        if let Ok(Some(row)) = now(self.memory.agent(&owner.agent)) {
            owner.token = row.token;
            owner.incarnation = row.holder.map_or(owner.incarnation, |holder| holder.incarnation);
        }
        owner
    }

    /// The unit as if it built on the head.
    fn rebase(&self, mut unit: Unit) -> Unit {
        let Ok(Some(row)) = now(self.memory.agent(&unit.owner.agent)) else { return unit };
        let (mut revision, mut head) = (row.revision, row.head);
        unit.base = revision;
        for step in &mut unit.steps {
            let Step::Boundary(boundary) = step else { continue };
            revision = revision.next();
            boundary.receipt.revision = revision;
            boundary.receipt.parent = head;
            head = boundary.receipt.digest();
            if let Some(snapshot) = &mut boundary.snapshot {
                snapshot.revision = revision;
            }
            for end in &mut boundary.ends {
                if let Outcome::Committed { revision: at, .. } | Outcome::DeadLettered { revision: at, .. } =
                    &mut end.outcome
                {
                    *at = revision;
                }
            }
        }
        unit
    }

    /// `RuntimeStore::commit_lifecycle`.
    pub fn commit_lifecycle(&self, owner: &Owner, commit: LifecycleCommit) -> Result<Standing, StoreError> {
        let standing = now(self.memory.commit_lifecycle(owner, commit))?;
        let holder = standing.lease.as_ref().map(|lease| lease.incarnation);
        self.judge().moved_on(owner, standing.token, holder);
        Ok(standing)
    }

    /// `RuntimeStore::transfer`.
    pub fn transfer(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Lease, StoreError> {
        let lease = now(self.memory.transfer(owner, base, migration, target))?;
        self.judge().moved_on(owner, lease.token, Some(lease.incarnation));
        self.judge().count_move();
        Ok(lease)
    }

    /// `RuntimeStore::begin_handoff`.
    pub fn begin_handoff(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Handoff, StoreError> {
        let begun = now(self.memory.begin_handoff(owner, base, migration, target))?;
        self.judge().moved_on(owner, begun.granted, None);
        Ok(begun)
    }

    /// What of some rows arrives.
    fn arriving(&self, mut frames: Vec<RowFrame>) -> Vec<RowFrame> {
        frames.retain(|frame| match &frame.row {
            Row::Input(input) => input.outcome.is_none() || !self.has(Bug::KeysLeftBehind),
            _ => true,
        });
        frames
    }

    /// `RuntimeStore::receive_rows`.
    pub fn receive_rows(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError> {
        now(self.memory.receive_rows(migration, agent, self.arriving(frames)))
    }

    /// `RuntimeStore::prepare`.
    pub fn prepare(&self, request: PrepareRequest) -> Result<(), StoreError> {
        let (agent, migration) = (request.agent.clone(), request.migration);
        let frames = self.arriving(request.frames);
        now(self.memory.prepare(PrepareRequest { frames, ..request }))?;
        if self.has(Bug::AdoptedEarly)
            && let Some(session) = now(self.memory.sessions())?.first()
        {
            self.adopt(&agent, migration, session.incarnation, Adoption::Granted)?;
        }
        Ok(())
    }

    /// `RuntimeStore::finish_handoff`.
    pub fn finish_handoff(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError> {
        let before = now(self.memory.agent(agent))?.map(|row| row.home);
        now(self.memory.finish_handoff(agent, migration))?;
        if matches!(before, Some(Home::HandingOff { .. })) {
            self.judge().let_go(agent);
        }
        Ok(())
    }

    /// `RuntimeStore::adopt`.
    pub fn adopt(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        how: Adoption,
    ) -> Result<Lease, StoreError> {
        let lease = now(self.memory.adopt(agent, migration, incarnation, how))?;
        self.judge().adopted(incarnation, &lease);
        Ok(lease)
    }

    /// `RuntimeStore::abort_handoff`.
    pub fn abort_handoff(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError> {
        let lease = now(self.memory.abort_handoff(agent, migration, incarnation))?;
        self.judge().acquired(incarnation, &lease);
        Ok(lease)
    }

    /// `RuntimeStore::end_outputs`.
    pub fn end_outputs(&self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Result<(), StoreError> {
        let ended = now(self.memory.end_outputs(owner, ends));
        match &ended {
            Ok(()) => self.judge().ended_outputs(owner, ends),
            Err(StoreError::Fenced { .. }) => self.judge().count_fenced(),
            Err(_) => {}
        }
        ended
    }

    /// `RuntimeStore::fire_timer`.
    pub fn fire_timer(
        &self,
        owner: &Owner,
        name: &str,
        revision: Revision,
    ) -> Result<Option<Seq>, AcceptError> {
        let fired = now(self.memory.fire_timer(owner, name, revision));
        self.note(format_args!("  {} fires {name} of {revision}: {fired:?}", owner.agent));
        match &fired {
            Ok(Some(seq)) => {
                let stored = self.input_at(&owner.agent, *seq);
                self.judge().fired(owner, stored.as_ref());
                if let Some(stored) = stored.filter(|_| self.has(Bug::TimerFiredTwice)) {
                    let again = self.under_another_id(NewInput::of_host(&owner.agent, stored.input));
                    drop(now(self.memory.accept(again, owner.incarnation)));
                }
            }
            Err(AcceptError::Store(StoreError::Fenced { .. })) => self.judge().count_fenced(),
            _ => {}
        }
        fired
    }

    fn input_at(&self, agent: &AgentId, seq: Seq) -> Option<StoredInput> {
        let page = Page { after: seq.0.saturating_sub(1), limit: 1 };
        now(self.memory.inputs(agent, None, page)).ok()?.pop()
    }

    /// `RuntimeStore::open_inputs`.
    pub fn open_inputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredInput>, StoreError> {
        let mut open = now(self.memory.open_inputs(agent, page))?;
        if open.len() > 1 && self.strikes(Bug::InputsReordered) {
            open.remove(0);
        }
        Ok(open)
    }

    /// `RuntimeStore::image`.
    pub fn image(&self, agent: &AgentId, at: Option<Revision>) -> Result<Option<AgentImage>, StoreError> {
        let image = now(self.memory.image(agent, at))?;
        match (&image, self.bug) {
            (Some(image), Some(Bug::StaleRead)) => {
                let before = self.past().images.get(agent).cloned();
                if before.is_none() || self.chance(NOW_AND_THEN) {
                    self.past().images.insert(agent.clone(), image.clone());
                }
                Ok(before.or_else(|| Some(image.clone())))
            }
            _ => Ok(image),
        }
    }

    /// With an open gate the outputs of a turn leave before it commits.
    pub fn leak(&self, unit: &Unit) {
        if !self.strikes(Bug::GateOpen) {
            return;
        }
        let outputs = unit.steps.iter().filter_map(Step::boundary).flat_map(|boundary| &boundary.outputs);
        let Some(output) = outputs.take(1).next() else { return };
        let Owner { agent: origin, generation, token, incarnation } = unit.owner.clone();
        let destination = output.destination.clone();
        let sent = self.past().sent.get(&(origin.clone(), destination.clone())).copied().unwrap_or(0);
        let number = sent + 1;
        let input =
            input_of(InputId::of_delivery(&origin, generation, &destination, number), &origin, output);
        let host = HostId([0; 32]);
        let row = now(self.memory.agent(&origin)).ok().flatten();
        let stamp = DeliveryStamp {
            origin,
            generation,
            number,
            lowest_open: 1,
            token,
            host,
            origin_hash: row.and_then(|row| row.public_key).map(EntityPublicKey::origin_hash),
            origin_generation: generation,
            is_vouched_for: true,
            channel: None,
        };
        let leaked = NewInput { delivery: Some(stamp), ..NewInput::of_host(&destination, input) };
        drop(self.accept(leaked, incarnation, true));
    }

    /// With `ReplayActs` what a turn that runs again would send arrives, if its receiver is here.
    pub fn act_again(&self, origin: &AgentId, outputs: &[Output]) {
        if !self.has(Bug::ReplayActs) {
            return;
        }
        let Ok(sessions) = now(self.memory.sessions()) else { return };
        let Some(session) = sessions.first() else { return };
        for output in outputs {
            let input = input_of(InputId([0; 16]), origin, output);
            let again = self.under_another_id(NewInput::of_host(&output.destination, input));
            drop(now(self.memory.accept(again, session.incarnation)));
        }
    }
}

/// What an output is where it arrives.
fn input_of(id: InputId, origin: &AgentId, output: &Output) -> Input {
    Input {
        id,
        kind: output.kind.clone(),
        source: Source::Peer { agent: origin.clone(), expects_reply: false },
        content_type: output.content_type.clone(),
        payload: output.payload.clone(),
        headers: output.headers.clone(),
        correlation: output.correlation.clone(),
        accepted_at_ms: 0,
    }
}

/// The unit as if `owner` had made it.
fn sign(owner: Owner, mut unit: Unit) -> Unit {
    unit.owner = owner;
    let mut head = None;
    for step in &mut unit.steps {
        let Step::Boundary(boundary) = step else { continue };
        boundary.receipt.token = unit.owner.token;
        boundary.receipt.incarnation = unit.owner.incarnation;
        boundary.receipt.parent = head.unwrap_or(boundary.receipt.parent);
        head = Some(boundary.receipt.digest());
        for end in &mut boundary.ends {
            if let Outcome::Committed { token, .. } = &mut end.outcome {
                *token = unit.owner.token;
            }
        }
    }
    unit
}
