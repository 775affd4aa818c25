//! Warm copies: what is told of an agent in one piece, and the copies that stand by.

use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use super::tables::{Tables, conflict};
use crate::id::{AgentId, FencingToken, MigrationId, Seq};
use crate::lease::GrantCause;
use crate::limits::PAGE_MAX;
use crate::standby::{self, Standing, Step, Verdict};
use crate::store::agent::Home;
use crate::store::memory::rows::{self, AgentRows};
use crate::store::standby::{Delta, Round, StandbyCopy, promoted};
use crate::store::{AgentRow, Row, StoreError, StoreStandbys, StoredInput};

impl Tables {
    fn delta(&self, agent: &AgentId, after: u64, bytes_max: usize) -> Result<Option<Delta>, StoreError> {
        let rows = self.agents.get(agent).ok_or(StoreError::NoAgent)?;
        if rows.standing.home != Home::Here {
            return Err(StoreError::NotHome { home: rows.standing.home.clone() });
        }
        let (mut bytes, mut frames) = (0, Vec::new());
        for frame in rows.frames_after(after) {
            bytes += postcard::to_stdvec(&frame).expect("a row has no type that postcard can't write").len();
            if bytes > bytes_max {
                return Ok(None);
            }
            frames.push(frame);
        }
        let (generation, revision) = (rows.portable().generation, rows.portable().revision);
        let (change, token) = (rows.change(), rows.standing.token);
        Ok(Some(Delta { frames, change, token, generation, revision }))
    }

    fn stand_by(&mut self, round: Round) -> Result<Verdict, StoreError> {
        let Round { session, agent, source, builds_on, delta, at_ms } = round;
        let Delta { frames, change, token, generation, revision } = delta;
        let known = self.standbys.get(&agent).map(|copy| &copy.standing);
        let row = self.agents.get(&agent).map(|rows| (&rows.standing.home, rows.standing.token));
        let arrived = self.copies.get(&session).map_or(0, AgentRows::change);
        let step = Step { session, source, token, builds_on, change };
        let verdict = standby::judge(&step, row, known, arrived);
        if verdict != Verdict::Applies {
            return Ok(verdict);
        }
        let before = known.map(|copy| copy.session).filter(|before| *before != session);
        let mut copy = self.copy_with(session, &agent, Vec::new())?;
        for frame in &frames {
            if let Row::Input(input) = &frame.row {
                copy.make_room_for(input);
            }
        }
        for frame in frames {
            copy.receive(frame).map_err(conflict)?;
        }
        let is_at = (copy.portable().generation, copy.portable().revision, copy.change());
        if !copy.has_agent_row() || is_at != (generation, revision, change) {
            return Err(conflict(format!(
                "the round does not bring the copy of agent {agent} to change {change}"
            )));
        }
        self.copies.insert(session, copy);
        if let Some(before) = before {
            self.discard_standby_copy(&agent, before);
        }
        let standing = Standing { session, source, token, generation, revision, change };
        self.standbys.insert(agent.clone(), StandbyCopy { agent, standing, at_ms });
        Ok(Verdict::Applies)
    }

    /// A session's id is a peer's word: it may be that of another agent's copy.
    fn discard_standby_copy(&mut self, agent: &AgentId, session: MigrationId) {
        if self.copies.get(&session).is_some_and(|copy| copy.portable().agent == *agent) {
            self.copies.remove(&session);
        }
    }

    fn promote(
        &mut self,
        agent: &AgentId,
        session: MigrationId,
        now_ms: u64,
    ) -> Result<AgentRow, StoreError> {
        let known = self.agents.get(agent);
        if let Some(rows) = known.filter(|rows| rows.is_from(session)) {
            return Ok(self.agent_row(rows));
        }
        let copy = self.standbys.get(agent).filter(|copy| copy.standing.session == session).cloned();
        let copy = copy.ok_or_else(|| conflict(format!("no copy of agent {agent} stands by here")))?;
        let highest = match known.map(|rows| &rows.standing.home) {
            None => copy.standing.token,
            Some(Home::Moved(tombstone)) if tombstone.generation > copy.standing.generation => {
                return Err(conflict(format!("agent {agent} had a later generation here")));
            }
            Some(Home::Moved(tombstone)) => tombstone.token.max(copy.standing.token),
            Some(_) => return Err(conflict(format!("agent {agent} is here"))),
        };
        let raised = highest.raised(1);
        let raised = raised.ok_or_else(|| conflict(format!("the token {highest} has no room above")))?;
        let rows = self.copies.get(&session).ok_or_else(|| conflict("the copy is missing"))?;
        let plugin = rows.spec().map(|spec| spec.plugin).ok_or_else(|| conflict("the copy has no spec"))?;
        if !self.has_plugin(plugin) {
            return Err(StoreError::NoPlugin { plugin });
        }
        let mut rows = rows.clone();
        rows.wake_up(raised, session);
        self.copies.remove(&session);
        self.standbys.remove(agent);
        self.agents.insert(agent.clone(), rows);
        self.append([promoted(&copy, raised, now_ms)]);
        let rows = self.at_home(agent)?.clone();
        Ok(self.agent_row(&rows))
    }
}

impl AgentRows {
    /// Whether deletes leave a trace: somebody may have the row.
    pub(super) fn keeps_deletes(&self) -> bool {
        self.is_travelling || self.portable().labels.contains_key(standby::LABEL)
    }

    /// Forgets deletes that nobody asks for any more.
    pub(super) fn settle_deletes(&mut self) {
        if !self.keeps_deletes() {
            self.forget_deletes(u64::MAX);
        }
    }

    /// Whether it was made of this session's copy, and nobody has had it since.
    fn is_from(&self, session: MigrationId) -> bool {
        let is_its =
            matches!(self.standing.cause, GrantCause::Transferred { migration, .. } if migration == session);
        self.standing.home == Home::Here && is_its
    }

    /// Ids and keys of inputs that the source has pruned may be given again there.
    fn make_room_for(&mut self, input: &StoredInput) {
        let by_key = input.idempotency_key.as_ref().and_then(|key| self.input_by_key(key));
        let others = [by_key, self.input_by_id(input.input.id)].into_iter().flatten().map(|known| known.seq);
        let gone: Vec<Seq> = others.filter(|seq| *seq != input.seq).collect();
        gone.into_iter().for_each(|seq| self.forget_input(seq));
    }

    /// The rows of a copy become those of an agent at home here.
    fn wake_up(&mut self, token: FencingToken, session: MigrationId) {
        self.forget_deletes(u64::MAX);
        // What the source has removed without a trace is gone here as well, or counted.
        for signed in self.checkpoints().cloned().collect::<Vec<_>>() {
            self.forget_receipts(signed.checkpoint.generation, signed.checkpoint.revision);
        }
        let ended_before = self.portable().next_seq.0 - 1 - self.inputs_after(0).count() as u64;
        self.skip_numbers(1);
        self.update(|portable| {
            portable.inputs_pruned = ended_before;
            portable.next_event = portable.next_event.max(token.first_number());
        });
        let revision = self.portable().revision;
        let cause = GrantCause::Transferred { migration: session, revision };
        self.standing = rows::Standing { home: Home::Here, token, holder: None, cause };
    }
}

#[async_trait]
impl StoreStandbys for MemoryStore {
    async fn guarded(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
        let tables = self.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let guarded = tables.agents.range((from, Bound::Unbounded)).filter(|(_, rows)| {
            let is_here = !matches!(rows.standing.home, Home::Moved(_));
            is_here && rows.portable().labels.contains_key(standby::LABEL)
        });
        Ok(guarded.take(limit.min(PAGE_MAX)).map(|(_, rows)| tables.agent_row(rows)).collect())
    }

    async fn delta(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Option<Delta>, StoreError> {
        self.tables().delta(agent, after, bytes_max)
    }

    async fn forget_deletes(&self, agent: &AgentId, up_to: u64) -> Result<(), StoreError> {
        if let Some(rows) = self.tables().agents.get_mut(agent).filter(|rows| !rows.is_travelling) {
            rows.forget_deletes(up_to);
        }
        Ok(())
    }

    async fn stand_by(&self, round: Round) -> Result<Verdict, StoreError> {
        self.tables().stand_by(round)
    }

    async fn standby_copies(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<StandbyCopy>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.tables();
        let copies = tables.standbys.range((from, Bound::Unbounded)).take(limit.min(PAGE_MAX));
        Ok(copies.map(|(_, copy)| copy.clone()).collect())
    }

    async fn standby_copy(&self, agent: &AgentId) -> Result<Option<StandbyCopy>, StoreError> {
        Ok(self.tables().standbys.get(agent).cloned())
    }

    async fn discard_standby(&self, agent: &AgentId, session: MigrationId) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.standbys.get(agent).is_some_and(|copy| copy.standing.session == session) {
            tables.standbys.remove(agent);
        }
        tables.discard_standby_copy(agent, session);
        Ok(())
    }

    async fn promote(&self, agent: &AgentId, session: MigrationId) -> Result<AgentRow, StoreError> {
        self.tables().promote(agent, session, self.clock.wall_ms())
    }
}
