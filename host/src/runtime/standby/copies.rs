//! Copies that stand by here: what their sources send is judged and kept, and goes when it is of no use any more.

use std::time::Duration;

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken, HostId, MigrationId};
use godwit_core::limits::PAGE_MAX;
use godwit_core::placement::{RESIDENCY_LABEL, Wants};
use godwit_core::spec::{PluginInfo, SpecPatch};
use godwit_core::standby::{Standing, Verdict, another, is_stale, superseded};
use godwit_core::store::standby::{Delta, Round, StandbyCopy};
use godwit_core::store::{Row, RowFrame, StoreError};

use super::lock;
use super::source::FED_MAX;
use crate::runtime::Runtime;
use crate::runtime::call::CallError;
use crate::runtime::migrator::{Passage, check_token};
use crate::runtime::routing::store_error;
use crate::runtime::wire::{
    self, BulkHeader, HomeAnswer, MigrationAnswer, PeerAnswer, PeerRequest, StandbyAnswer, StandbyMessage,
    StandbyPlace, StandbyStart,
};

/// Copies that stand by here: each is as large as its agent.
const COPIES_MAX: usize = 1_000;
/// Those of one source: twice what it feeds, since those that it has given up for others may be here still.
const COPIES_OF_PEER_MAX: usize = 2 * FED_MAX;
/// Whole copies that arrive at the same time, and those of one source: twice what it sends.
const ARRIVING_MAX: usize = 16;
const ARRIVING_OF_PEER_MAX: usize = 4;
/// What has arrived of a whole copy is dropped after so long a silence: longer than any transfer takes.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a host may take to say whether it has the agent, and how many are asked on the way from a copy's source to its next one.
const ASK_MAX: Duration = Duration::from_secs(3);
const WAY_MAX: usize = 8;

/// Rows that come at once: the smallest take four bytes each, and a hundred times that in memory.
pub(super) const ROWS_MAX: usize = 32_768;

/// A whole copy that arrives.
pub(super) struct Arriving {
    agent: AgentId,
    source: HostId,
    plugin: PluginInfo,
    /// Boot time of the last message.
    heard_at: Duration,
}

fn refused(reason: impl ToString) -> StandbyAnswer {
    StandbyAnswer::Refused { reason: reason.to_string() }
}

fn anothers(source: HostId) -> String {
    format!("host {source} feeds a copy here that is no older")
}

fn not_ready(reason: impl ToString) -> StandbyAnswer {
    StandbyAnswer::NotReady { reason: reason.to_string() }
}

/// The plugin of the agent's spec, where a round brings a new one.
fn current_plugin(frames: &[RowFrame]) -> Option<Digest> {
    let revision = frames.iter().rev().find_map(|frame| match &frame.row {
        Row::Agent(portable) => Some(portable.spec_revision),
        _ => None,
    })?;
    frames.iter().find_map(|frame| match &frame.row {
        Row::Spec { revision: known, spec } if *known == revision => Some(spec.plugin),
        _ => None,
    })
}

/// Whether a copy may be added, or one of before be replaced.
fn check_room(copies: &[StandbyCopy], from: HostId, agent: &AgentId) -> Result<(), String> {
    let others = || copies.iter().filter(|copy| copy.agent != *agent);
    if others().count() >= COPIES_MAX {
        return Err(format!("{COPIES_MAX} copies stand by here already"));
    }
    if others().filter(|copy| copy.standing.source == from).count() >= COPIES_OF_PEER_MAX {
        return Err(format!("{COPIES_OF_PEER_MAX} copies from host {from} stand by here already"));
    }
    Ok(())
}

/// Where the agent must be kept, where a round says so.
fn residency(frames: &[RowFrame]) -> Option<String> {
    let labels = frames.iter().rev().find_map(|frame| match &frame.row {
        Row::Agent(portable) => Some(&portable.labels),
        _ => None,
    });
    labels?.get(RESIDENCY_LABEL).cloned()
}

impl Runtime {
    /// Answers a message about a copy. `from` has proven its key.
    pub(crate) async fn on_standby(
        &self,
        from: HostId,
        agent: AgentId,
        message: StandbyMessage,
    ) -> StandbyAnswer {
        match message {
            StandbyMessage::Begin(start) => {
                self.begin_copy(from, &agent, *start).await.unwrap_or_else(|no| no)
            }
            StandbyMessage::May { token } => match self.check_first(from, &agent, token).await {
                Ok(()) => StandbyAnswer::Ok,
                Err(no) => no,
            },
            StandbyMessage::End => match self.end_copy(from, &agent).await {
                Ok(()) => StandbyAnswer::Ok,
                Err(error) => not_ready(error),
            },
        }
    }

    /// Whether a host may have an agent under a token, as far as can be seen here.
    ///
    /// # Errors
    /// What it is told instead.
    async fn check_first(
        &self,
        from: HostId,
        agent: &AgentId,
        token: FencingToken,
    ) -> Result<(), StandbyAnswer> {
        let store = &self.inner().store;
        let row = store.agent(agent).await.map_err(not_ready)?;
        let copy = store.standby_copy(agent).await.map_err(not_ready)?;
        if let Some(token) = superseded(token, row.as_ref().map(|row| (&row.home, row.token))) {
            return Err(StandbyAnswer::Superseded { token });
        }
        match another(from, token, copy.as_ref().map(|copy| &copy.standing)) {
            None => Ok(()),
            Some(other) => Err(refused(anothers(other))),
        }
    }

    /// Whether a host may feed the copy that another one has fed until now: once that one says that the agent went to it, or each on
    /// the way there does. A token alone is a peer's word.
    ///
    /// # Errors
    /// What it is told instead.
    async fn check_succession(&self, from: HostId, agent: &AgentId) -> Result<(), StandbyAnswer> {
        let copy = self.inner().store.standby_copy(agent).await.map_err(not_ready)?;
        let Some(Standing { source, token, .. }) = copy.map(|copy| copy.standing) else { return Ok(()) };
        let listed: Vec<_> = self.inner().mesh.peers().into_iter().map(|peer| peer.host).collect();
        let request = PeerRequest::WhoIsHome { agent: agent.clone() };
        let mut asked = source;
        for _ in 0..WAY_MAX {
            if asked == from || !listed.contains(&asked) {
                return Ok(());
            }
            asked = match self.ask_peer(asked, &request, ASK_MAX).await {
                Ok(PeerAnswer::Home(
                    HomeAnswer::Here { token: held } | HomeAnswer::HereAs { token: held, .. },
                )) if held >= token => {
                    return Err(refused(anothers(asked)));
                }
                Ok(PeerAnswer::Home(
                    HomeAnswer::Here { .. } | HomeAnswer::HereAs { .. } | HomeAnswer::Unknown,
                )) => return Ok(()),
                Ok(PeerAnswer::Home(HomeAnswer::Moved { target, .. })) => target,
                _ => {
                    return Err(not_ready(format!(
                        "host {asked}, which has or had the agent, does not say where it is: if it is gone for good, remove it \
                         from the peers"
                    )));
                }
            };
        }
        Err(not_ready("the agent moves faster than it can be followed"))
    }

    /// # Errors
    /// What the source is told instead.
    async fn begin_copy(
        &self,
        from: HostId,
        agent: &AgentId,
        StandbyStart { session, token, plugin, spec, residency }: StandbyStart,
    ) -> Result<StandbyAnswer, StandbyAnswer> {
        self.check_admission().map_err(not_ready)?;
        // Before anything that may be refused: who does not hear that the agent lives on here goes on running it.
        self.check_first(from, agent, token).await?;
        if self.session().profile.is_some() {
            return Err(refused("this host shares its store with others: it keeps no copies"));
        }
        if !token.is_plausible() || spec.plugin != plugin.digest || !spec.limits.are_within_max() {
            return Err(refused("no host has such an agent"));
        }
        SpecPatch::from(spec.clone()).check().map_err(refused)?;
        let store = &self.inner().store;
        let has_plugin = store.component(plugin.digest).await.map_err(not_ready)?.is_some();
        self.check_residency(from, agent, residency.clone()).await?;
        let wants = Wants { residency, ..Wants::of(&spec, &Default::default()) };
        let may_come = self.may_come((from, agent), (&plugin, has_plugin), &wants);
        may_come.map_err(|(_, reason)| refused(reason))?;
        self.check_succession(from, agent).await?;
        let copies = store.standby_copies(None, COPIES_MAX).await.map_err(not_ready)?;
        check_room(&copies, from, agent).map_err(refused)?;
        let heard_at = self.inner().clock.boot();
        let new = Arriving { agent: agent.clone(), source: from, plugin, heard_at };
        for given_up in self.enter_copy(session, new)? {
            store.discard_standby(agent, given_up).await.map_err(not_ready)?;
        }
        Ok(if has_plugin { StandbyAnswer::Ok } else { StandbyAnswer::NeedsPlugin })
    }

    /// Enters a whole copy that begins. Answers the sessions of those of the agent that its source has given up for it.
    ///
    /// # Errors
    /// `NotReady` when there are too many.
    fn enter_copy(&self, session: MigrationId, new: Arriving) -> Result<Vec<MigrationId>, StandbyAnswer> {
        let mut arriving = lock(&self.inner().standbys.arriving);
        let is_given_up = |known: &Arriving| known.source == new.source && known.agent == new.agent;
        let others = || arriving.values().filter(|known| !is_given_up(known));
        let of_peer = others().filter(|known| known.source == new.source).count();
        if of_peer >= ARRIVING_OF_PEER_MAX || others().count() >= ARRIVING_MAX {
            return Err(not_ready("too many copies arrive at the moment"));
        }
        let given_up: Vec<_> = arriving.extract_if(.., |_, known| is_given_up(known)).collect();
        arriving.insert(session, new);
        Ok(given_up.into_iter().map(|(session, _)| session).collect())
    }

    /// Lets go of all that a source has sent of an agent.
    async fn end_copy(&self, from: HostId, agent: &AgentId) -> Result<(), StoreError> {
        let store = &self.inner().store;
        let given_up: Vec<_> = {
            let mut arriving = lock(&self.inner().standbys.arriving);
            let is_theirs = |known: &Arriving| known.source == from && known.agent == *agent;
            arriving.extract_if(.., |_, known| is_theirs(known)).map(|(session, _)| session).collect()
        };
        let complete = store.standby_copy(agent).await?.map(|copy| copy.standing);
        let complete = complete.filter(|copy| copy.source == from).map(|copy| copy.session);
        for session in given_up.into_iter().chain(complete) {
            tracing::info!(%agent, source = %from, "its copy is not needed any more");
            store.discard_standby(agent, session).await?;
        }
        Ok(())
    }

    /// The plugin of a whole copy that arrives from this source.
    fn arriving(&self, from: HostId, agent: &AgentId, session: MigrationId) -> Option<PluginInfo> {
        let mut arriving = lock(&self.inner().standbys.arriving);
        let known = arriving.get_mut(&session)?;
        if known.source != from || known.agent != *agent {
            return None;
        }
        known.heard_at = self.inner().clock.boot();
        Some(known.plugin.clone())
    }

    /// Takes what a source sends in bulk.
    pub(crate) async fn take_standby_bulk(
        &self,
        from: HostId,
        header: BulkHeader,
        body: Bytes,
    ) -> StandbyAnswer {
        let unknown = || refused("no such copy arrives here: begin it anew");
        match header {
            BulkHeader::StandbyPlugin { agent, session, plugin } => {
                match self.arriving(from, &agent, session) {
                    Some(known) if known == plugin => match self.take_plugin(plugin, body).await {
                        MigrationAnswer::Ok => StandbyAnswer::Ok,
                        MigrationAnswer::Refused { reason, .. } => refused(reason),
                        other => not_ready(format!("{other:?}")),
                    },
                    _ => unknown(),
                }
            }
            BulkHeader::StandbyRows { agent, place } => match self.arriving(from, &agent, place.session) {
                None => unknown(),
                Some(_) => match self.opened_rows(&agent, &place, &body) {
                    Err(reason) => refused(reason),
                    Ok(frames) => self.take_part(&agent, place.session, frames).await,
                },
            },
            BulkHeader::StandbyRound { agent, builds_on, place } => {
                match self.opened_rows(&agent, &place, &body) {
                    Err(reason) => refused(reason),
                    Ok(frames) => self.take_round(from, agent, (builds_on, place), frames).await,
                }
            }
            BulkHeader::Rows { .. } | BulkHeader::PackedRows { .. } | BulkHeader::Plugin { .. } => {
                refused("this is about a migration")
            }
        }
    }

    fn opened_rows(
        &self,
        agent: &AgentId,
        place: &StandbyPlace,
        body: &Bytes,
    ) -> Result<Vec<RowFrame>, String> {
        match check_token(place.token) {
            Ok(()) => {}
            Err(no) => return Err(format!("{no:?}")),
        }
        let mut frames = wire::decode_list::<RowFrame>(body)?;
        let rows = frames.next_up_to(ROWS_MAX)?;
        if !frames.next_up_to(1)?.is_empty() {
            return Err(format!("more than {ROWS_MAX} rows at once"));
        }
        self.opened(rows, &Passage::to_standby(agent, place.session, place.token))
    }

    async fn take_part(&self, agent: &AgentId, session: MigrationId, frames: Vec<RowFrame>) -> StandbyAnswer {
        match self.inner().store.receive_rows(session, agent, frames).await {
            Ok(()) => {
                failpoint::hit("standby.after-part");
                StandbyAnswer::Ok
            }
            Err(error @ StoreError::Conflict { .. }) => refused(error),
            Err(error) => not_ready(error),
        }
    }

    async fn take_round(
        &self,
        from: HostId,
        agent: AgentId,
        (builds_on, place): (u64, StandbyPlace),
        frames: Vec<RowFrame>,
    ) -> StandbyAnswer {
        if let Err(error) = self.check_admission() {
            return not_ready(error);
        }
        let StandbyPlace { session, change, token, generation, revision } = place;
        // As in `begin_copy`: of a copy that was promoted nothing is left here to build on.
        if let Err(no) = self.check_first(from, &agent, token).await {
            return no;
        }
        if let Err(no) = self.check_residency(from, &agent, residency(&frames)).await {
            return no;
        }
        let is_fed = match self.inner().store.standby_copy(&agent).await {
            Ok(known) => {
                known.is_some_and(|copy| copy.standing.session == session && copy.standing.source == from)
            }
            Err(error) => return not_ready(error),
        };
        let arriving = self.arriving(from, &agent, session);
        if !is_fed && arriving.is_none() {
            return StandbyAnswer::Behind;
        }
        match self.may_run(arriving.as_ref(), &frames).await {
            Ok(true) => {}
            Ok(false) => return StandbyAnswer::Behind,
            Err(error) => return not_ready(error),
        }
        let delta = Delta { frames, change, token, generation, revision };
        let at_ms = self.now_ms();
        let round = Round { session, agent, source: from, builds_on, delta, at_ms };
        let applied = self.inner().store.stand_by(round).await;
        failpoint::hit("standby.after-round");
        match applied {
            Ok(Verdict::Applies | Verdict::Known) => {
                lock(&self.inner().standbys.arriving).remove(&session);
                StandbyAnswer::Ok
            }
            Ok(Verdict::Behind) => StandbyAnswer::Behind,
            Ok(Verdict::Superseded(token)) => StandbyAnswer::Superseded { token },
            Ok(Verdict::Another(other)) => refused(anothers(other)),
            Err(error @ StoreError::Conflict { .. }) => refused(error),
            Err(error) => not_ready(error),
        }
    }

    /// Whether the agent as of a round could run here: an upgrade needs a component, which only the begin of a whole copy brings.
    async fn may_run(&self, arriving: Option<&PluginInfo>, frames: &[RowFrame]) -> Result<bool, StoreError> {
        let Some(plugin) = current_plugin(frames) else { return Ok(true) };
        match arriving {
            Some(known) => Ok(known.digest == plugin),
            None => Ok(self.inner().store.component(plugin).await?.is_some()),
        }
    }

    /// Refuses what may not be kept here. A copy of before goes, too: it could be promoted.
    ///
    /// # Errors
    /// What the source is told instead.
    async fn check_residency(
        &self,
        from: HostId,
        agent: &AgentId,
        residency: Option<String>,
    ) -> Result<(), StandbyAnswer> {
        let wants = Wants { residency, ..Wants::default() };
        let Err(unfit) = self.inner().placement.may_keep(&wants) else { return Ok(()) };
        self.end_copy(from, agent).await.map_err(not_ready)?;
        Err(refused(unfit))
    }

    /// Lets go of copies that have stopped arriving, and of those whose agents are here, or were later.
    pub(super) async fn forget_stale_copies(&self) {
        if let Err(error) = self.sweep_copies().await {
            tracing::warn!(%error, "copies of no use stay for now");
        }
    }

    async fn sweep_copies(&self) -> Result<(), StoreError> {
        let (store, now) = (&self.inner().store, self.inner().clock.boot());
        let silent: Vec<_> = {
            let mut arriving = lock(&self.inner().standbys.arriving);
            let silent = arriving.extract_if(.., |_, known| now.saturating_sub(known.heard_at) > SILENCE_MAX);
            silent.collect()
        };
        for (session, Arriving { agent, .. }) in silent {
            store.discard_standby(&agent, session).await?;
        }
        for copy in store.standby_copies(None, PAGE_MAX.min(COPIES_MAX)).await? {
            let row = store.agent(&copy.agent).await?;
            if is_stale(&copy.standing, row.as_ref().map(|row| (&row.home, row.token))) {
                tracing::info!(agent = %copy.agent, "its copy is of no use any more");
                store.discard_standby(&copy.agent, copy.standing.session).await?;
            }
        }
        Ok(())
    }

    /// The copies that stand by here, behind an agent.
    ///
    /// # Errors
    /// As the store's.
    pub async fn standby_copies(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<StandbyCopy>, CallError> {
        self.inner().store.standby_copies(after, limit).await.map_err(store_error)
    }
}

#[cfg(test)]
mod tests {
    use godwit_core::id::{Generation, Revision};

    use super::*;

    #[test]
    fn no_host_alone_takes_all_places_for_copies() {
        let (peer, other) = (HostId([1; 32]), HostId([2; 32]));
        let name = |number: usize| AgentId::parse(&format!("a{number}")).unwrap();
        let copy = |(number, source)| StandbyCopy {
            agent: name(number),
            standing: Standing {
                session: MigrationId([0; 16]),
                source,
                token: FencingToken(1),
                generation: Generation(1),
                revision: Revision(0),
                change: 1,
            },
            at_ms: 0,
        };
        let mut copies: Vec<_> = (0..COPIES_OF_PEER_MAX).map(|number| (number, peer)).map(copy).collect();
        check_room(&copies, peer, &name(0)).unwrap();
        check_room(&copies, peer, &name(9_999)).unwrap_err();
        check_room(&copies, other, &name(9_999)).unwrap();
        copies.extend((COPIES_OF_PEER_MAX..COPIES_MAX).map(|number| (number, other)).map(copy));
        check_room(&copies, other, &name(9_999)).unwrap_err();
        check_room(&copies, peer, &name(0)).unwrap();
    }
}
