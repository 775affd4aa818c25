//! Making the agents and edges of this host's store those that a roster names. What must be done is decided by
//! `core::reconcile`; here it is done, one reconcile at a time, and each thing tells its own outcome.
//!
//! ```text
//! roster (provider, or what was applied) -> customizer, plugins -> plan
//!   -> create, resume -> retire (only when all those came up) -> upgrade, update -> edges -> report
//! ```
//! A crash anywhere leaves some of it done; reconciling again does the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use godwit_core::digest::Digest;
use godwit_core::edge::{Edge, Pair};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, HostId};
use godwit_core::reconcile::{Action, Current, Desired, EdgeAction, MANAGED, Sides, plan, plan_edges};
use godwit_core::spec::{Spec, check_pairs};
use godwit_core::store::{AgentRow, Home, StoreError};
use godwit_core::time::sleep;
use serde::Serialize;
use tokio::sync::{Mutex, Notify};

use super::Runtime;
use super::agents::CreateAgent;
use super::boot::BootMode;
use super::call::{AgentCall, AgentReply, CallError};
use super::respec::SpecUpdate;
use super::routing::{Forward, store_error};
use super::verbs::VerbCall;
use crate::agent_doc::AgentDoc;
use crate::roster::{AgentCustomizer, Roster, RosterEntry, RosterError, RosterProvider, TopologyProvider};

/// Agents and edges that are changed at the same time.
const AT_ONCE: usize = 32;
/// Agents read at once.
const PAGE: usize = 1_000;
/// Shortest and longest pause before what a reconcile has left undone is tried again: a peer that was silent, a roster that
/// could not be had, an agent that another host is about to create.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where a host's roster comes from, and who has a say in it.
#[derive(Clone, Default)]
pub struct RosterSources {
    /// Says which agents there should be. Without one it is what was applied (`Runtime::apply`).
    pub roster: Option<Arc<dyn RosterProvider>>,
    /// Says which edges there should be, beside those of the roster.
    pub topology: Option<Arc<dyn TopologyProvider>>,
    /// Has the last word on each agent.
    pub customizer: Option<Arc<dyn AgentCustomizer>>,
}

/// The sources, and the lock that lets one reconcile run at a time.
#[derive(Default)]
pub(crate) struct Reconciler {
    sources: RosterSources,
    running: Mutex<()>,
    /// Set when a reconcile has left something undone.
    unfinished: Notify,
}

impl Reconciler {
    pub(crate) fn new(sources: RosterSources) -> Self {
        Self { sources, ..Self::default() }
    }
}

/// What became of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentOutcome {
    /// Which.
    pub agent: AgentId,
    /// What was to be done: `create | resume | retire | upgrade | update | keep | deleted | elsewhere`.
    pub action: &'static str,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeOutcome {
    /// Between whom.
    pub between: [AgentId; 2],
    /// What was to be done: `wire | heal | unwire | keep | unmanaged | missing`.
    pub action: &'static str,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a reconcile did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReconcileReport {
    /// Of which roster, when it was applied: its revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Whether it was only planned.
    pub dry_run: bool,
    /// By agent; several lines for one that needed several things.
    pub agents: Vec<AgentOutcome>,
    /// By pair.
    pub edges: Vec<EdgeOutcome>,
    /// How long it took in milliseconds.
    pub elapsed_ms: u64,
}

impl ReconcileReport {
    /// Whether everything is as the roster says now.
    pub fn is_complete(&self) -> bool {
        let skipped = |action: &str| action == Action::Deleted.name() || action == EdgeAction::Missing.name();
        self.agents.iter().all(|item| item.error.is_none() && !skipped(item.action))
            && self.edges.iter().all(|item| item.error.is_none() && !skipped(item.action))
    }
}

/// What an entry of the roster asks for.
enum Wanted {
    Here(Box<Desired>),
    /// Another host places it.
    Elsewhere,
    Wrong(String),
}

/// Everything that a reconcile knows before it begins.
struct Survey {
    wanted: BTreeMap<AgentId, Wanted>,
    rows: BTreeMap<AgentId, AgentRow>,
    edges: BTreeSet<Pair>,
}

impl From<RosterError> for CallError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::Unavailable { reason } => Self::Unavailable { reason },
            other => Self::Invalid { reason: other.to_string() },
        }
    }
}

impl Runtime {
    /// Stores a roster and reconciles; with `dry_run` neither: the report says what would be done.
    ///
    /// # Errors
    /// `Invalid` for a roster that can't be stored; `Conflict` when the host's roster comes from elsewhere. The roster is
    /// stored when a later error comes: reconcile again.
    pub async fn apply(&self, roster: &Roster, dry_run: bool) -> Result<ReconcileReport, CallError> {
        if self.inner().reconciler.sources.roster.is_some() {
            let what = String::from(
                "this host has its roster from a file or its embedder: change it there, then POST /v1/reconcile",
            );
            return Err(CallError::Conflict { what });
        }
        let _inside = self.admit()?;
        let _one_at_a_time = self.inner().reconciler.running.lock().await;
        let mut revision = None;
        if !dry_run {
            let text = Bytes::from(roster.to_json());
            revision = Some(self.inner().store.put_roster(text).await.map_err(store_error)?);
            failpoint::hit("roster.after-put");
        }
        self.reconcile_with(roster, revision, dry_run).await
    }

    /// Makes agents and edges those of the roster as it is now.
    ///
    /// # Errors
    /// `NoSuch` when there is no roster, `Unavailable` when it can't be had; everything stays as it is then. What fails for
    /// one agent is in the report.
    pub async fn reconcile(&self, dry_run: bool) -> Result<ReconcileReport, CallError> {
        let _inside = self.admit()?;
        let _one_at_a_time = self.inner().reconciler.running.lock().await;
        let (roster, revision) = self.roster().await?;
        self.reconcile_with(&roster, revision, dry_run).await
    }

    /// The roster as it is now, with its revision when it was applied.
    ///
    /// # Errors
    /// As `reconcile`.
    pub async fn roster(&self) -> Result<(Roster, Option<u64>), CallError> {
        if let Some(provider) = &self.inner().reconciler.sources.roster {
            return Ok((provider.roster().await?, None));
        }
        let stored = self.inner().store.roster().await.map_err(store_error)?;
        let Some((revision, text)) = stored else {
            let what = String::from(
                "roster: apply one (`godwit apply -f roster.toml`), or name a file in roster.file",
            );
            return Err(CallError::NoSuch { what });
        };
        Ok((Roster::from_json(&text)?, Some(revision)))
    }

    async fn reconcile_with(
        &self,
        roster: &Roster,
        revision: Option<u64>,
        dry_run: bool,
    ) -> Result<ReconcileReport, CallError> {
        let began = self.inner().clock.boot();
        let survey = self.survey(roster).await?;
        let mut agents = self.reconcile_agents(&survey, dry_run).await?;
        let edges = self.reconcile_edges(&survey, dry_run).await?;
        agents.sort_by(|one, other| one.agent.cmp(&other.agent));
        let elapsed = self.inner().clock.boot().saturating_sub(began);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let report = ReconcileReport { revision, dry_run, agents, edges, elapsed_ms };
        let is_complete = report.is_complete();
        if !dry_run {
            self.inner().hooks.post_reconcile(&report);
            if !is_complete {
                self.inner().reconciler.unfinished.notify_one();
            }
        }
        let (agents, edges) = (report.agents.len(), report.edges.len());
        tracing::info!(dry_run, agents, edges, is_complete, elapsed_ms, "reconciled");
        Ok(report)
    }

    // --- what is wanted, and what is there

    async fn survey(&self, roster: &Roster) -> Result<Survey, CallError> {
        let mut plugins = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for (agent, entry) in &roster.agents {
            let of_agent = match self.is_placed_here(entry).await {
                Ok(false) => Wanted::Elsewhere,
                Ok(true) => match self.desired(entry, &mut plugins).await {
                    Ok(desired) => Wanted::Here(Box::new(desired)),
                    Err(reason) => Wanted::Wrong(reason),
                },
                Err(error) => Wanted::Wrong(error.to_string()),
            };
            wanted.insert(agent.clone(), of_agent);
        }
        let mut edges = roster.edges.clone();
        if let Some(topology) = &self.inner().reconciler.sources.topology {
            edges.extend(topology.edges(&roster.agents.keys().cloned().collect()).await?);
        }
        Ok(Survey { wanted, rows: self.rows_here().await?, edges })
    }

    async fn is_placed_here(&self, entry: &RosterEntry) -> Result<bool, CallError> {
        let Some(host) = &entry.host else { return Ok(true) };
        let own: HostId = self.inner().host;
        if *host == self.inner().name || *host == own.to_string() {
            return Ok(true);
        }
        Ok(self.find_host(host).await? == own)
    }

    async fn desired(
        &self,
        entry: &RosterEntry,
        plugins: &mut BTreeMap<String, Result<Digest, String>>,
    ) -> Result<Desired, String> {
        let mut doc: AgentDoc = entry.doc.clone();
        if let Some(customizer) = &self.inner().reconciler.sources.customizer {
            customizer.customize(&entry.id, &mut doc)?;
        }
        if !plugins.contains_key(&doc.plugin) {
            let found = self.plugin(&doc.plugin).await;
            let found = found.map(|plugin| plugin.digest).map_err(|error| error.to_string());
            plugins.insert(doc.plugin.clone(), found);
        }
        let plugin = plugins[&doc.plugin].clone()?;
        let patch = doc.patch().map_err(|error| error.to_string())?;
        let mut labels = doc.labels.unwrap_or_default();
        super::agents::check_labels(&labels).map_err(|error| error.to_string())?;
        // The host's own label counts as well.
        labels.insert(MANAGED.0.to_owned(), MANAGED.1.to_owned());
        patch.check().and_then(|()| check_pairs("label", &labels)).map_err(|error| error.to_string())?;
        Ok(Desired { spec: patch.apply(&Spec::new(plugin)), labels })
    }

    /// The agents at home here, and those that left.
    async fn rows_here(&self) -> Result<BTreeMap<AgentId, AgentRow>, CallError> {
        let mut rows = BTreeMap::new();
        let mut after: Option<AgentId> = None;
        loop {
            let page = self.inner().store.agents(after.as_ref(), PAGE).await.map_err(store_error)?;
            let Some(last) = page.last() else { return Ok(rows) };
            after = Some(last.agent.clone());
            rows.extend(page.into_iter().map(|row| (row.agent.clone(), row)));
        }
    }

    // --- agents

    async fn reconcile_agents(&self, survey: &Survey, dry_run: bool) -> Result<Vec<AgentOutcome>, CallError> {
        let mut outcomes = Vec::new();
        let (mut desired, mut current) = (BTreeMap::new(), BTreeMap::new());
        for (agent, wanted) in &survey.wanted {
            let has_left = survey.rows.get(agent).is_some_and(|row| row.home != Home::Here);
            match wanted {
                Wanted::Here(_) if has_left => outcomes.push(outcome(agent, "elsewhere", None)),
                Wanted::Here(wanted) => {
                    desired.insert(agent.clone(), (**wanted).clone());
                }
                Wanted::Elsewhere => outcomes.push(outcome(agent, "elsewhere", None)),
                Wanted::Wrong(reason) => outcomes.push(outcome(agent, "create", Some(reason.clone()))),
            }
        }
        // What the roster names, and can't be had or is placed elsewhere, is nothing that it has dropped.
        let is_known = |agent: &AgentId| desired.contains_key(agent) || !survey.wanted.contains_key(agent);
        let here = survey.rows.iter().filter(|(agent, row)| row.home == Home::Here && is_known(agent));
        let here: Vec<_> = here.map(|(_, row)| (row.clone(), desired.contains_key(&row.agent))).collect();
        let reading = stream::iter(here).map(|(row, is_desired)| {
            async move {
                let spec = if is_desired { self.inner().store.spec(&row.agent).await? } else { None };
                let AgentRow { agent, lifecycle, labels, .. } = row;
                Ok::<_, StoreError>((agent, Current { lifecycle, spec, labels }))
            }
            .boxed()
        });
        for read in reading.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            let (agent, is) = read.map_err(store_error)?;
            current.insert(agent, is);
        }
        let planned = plan(&desired, &current);
        let due = |phase: &[Action]| {
            let of_phase = planned.iter().flat_map(|(agent, actions)| {
                actions.iter().filter(|action| phase.contains(action)).map(|action| (agent.clone(), *action))
            });
            of_phase.collect::<Vec<_>>()
        };
        let up = self.act_on(due(&[Action::Create, Action::Resume]), &desired, dry_run).await;
        let is_new =
            |outcome: &&AgentOutcome| outcome.action == Action::Create.name() && outcome.error.is_none();
        let new: Vec<_> = up.iter().filter(is_new).map(|outcome| outcome.agent.clone()).collect();
        if !dry_run && !new.is_empty() {
            self.inner().hooks.post_spawn(new);
        }
        let is_up = up.iter().chain(&outcomes).all(|outcome| outcome.error.is_none());
        let retiring = due(&[Action::Retire]);
        outcomes.extend(up);
        if is_up {
            outcomes.extend(self.act_on(retiring, &desired, dry_run).await);
        } else {
            // The new ones are up before the old ones go.
            let why = "not retired: agents that the roster names could not be brought up";
            outcomes.extend(
                retiring.iter().map(|(agent, action)| outcome(agent, action.name(), Some(why.to_owned()))),
            );
        }
        for phase in [&[Action::Upgrade][..], &[Action::Update], &[Action::Keep, Action::Deleted]] {
            outcomes.extend(self.act_on(due(phase), &desired, dry_run).await);
        }
        Ok(outcomes)
    }

    async fn act_on(
        &self,
        due: Vec<(AgentId, Action)>,
        desired: &BTreeMap<AgentId, Desired>,
        dry_run: bool,
    ) -> Vec<AgentOutcome> {
        let acting = stream::iter(due).map(|(agent, action)| {
            async move {
                let done = match desired.get(&agent) {
                    _ if dry_run => Ok(()),
                    wanted => self.act(&agent, action, wanted).await,
                };
                outcome(&agent, action.name(), done.err().map(|error| error.to_string()))
            }
            .boxed()
        });
        acting.buffer_unordered(AT_ONCE).collect().await
    }

    async fn act(&self, agent: &AgentId, action: Action, desired: Option<&Desired>) -> Result<(), CallError> {
        let call = match (action, desired) {
            (Action::Keep | Action::Deleted, _) => return Ok(()),
            (Action::Retire, _) => AgentCall::Verb(VerbCall::Retire),
            (Action::Resume, _) => AgentCall::Verb(VerbCall::Resume),
            (Action::Create, Some(desired)) => {
                self.create_as(CreateAgent::new(agent.clone(), ""), desired.clone()).await?;
                failpoint::hit("reconcile.after-agent");
                return Ok(());
            }
            (Action::Upgrade, Some(desired)) => {
                AgentCall::Upgrade { plugin: desired.spec.plugin.to_string() }
            }
            (Action::Update, Some(desired)) => self.update_call(agent, desired).await?,
            (Action::Create | Action::Upgrade | Action::Update, None) => return Ok(()),
        };
        self.call(agent, call, Forward::Yes).await?;
        failpoint::hit("reconcile.after-agent");
        Ok(())
    }

    async fn update_call(&self, agent: &AgentId, desired: &Desired) -> Result<AgentCall, CallError> {
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        let base = row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?.spec_revision;
        Ok(AgentCall::Update(SpecUpdate {
            base,
            plugin: desired.spec.plugin.to_string(),
            labels: Some(desired.labels.clone()),
            patch: desired.spec.clone().into(),
        }))
    }

    // --- edges

    async fn reconcile_edges(&self, survey: &Survey, dry_run: bool) -> Result<Vec<EdgeOutcome>, CallError> {
        let mut sides = self.sides_here().await?;
        let mut present: BTreeSet<AgentId> = BTreeSet::new();
        let ends = survey.edges.iter().chain(sides.keys()).flat_map(Pair::sides).map(|(agent, _)| agent);
        let ends: BTreeSet<AgentId> = ends.cloned().collect();
        let looked = stream::iter(ends).map(|agent| {
            async move {
                let known = self.edges_of(&agent).await;
                (agent, known)
            }
            .boxed()
        });
        let mut silent = BTreeMap::new();
        for (agent, known) in looked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            match known {
                Ok(None) => {}
                Ok(Some(edges)) => {
                    add_sides(&mut sides, &agent, edges);
                    present.insert(agent);
                }
                Err(error) => {
                    silent.insert(agent, error.to_string());
                }
            }
        }
        if dry_run {
            // Those that would be created would be there.
            let wanted = survey.wanted.iter().filter(|(_, wanted)| matches!(wanted, Wanted::Here(_)));
            let new = wanted.filter(|(agent, _)| !survey.rows.contains_key(*agent));
            present.extend(new.map(|(agent, _)| agent.clone()));
        }
        let planned = plan_edges(&survey.edges, &sides, &present);
        let acting = stream::iter(planned).map(|(pair, action)| {
            let unknown = pair.sides().into_iter().find_map(|(agent, _)| silent.get(agent)).cloned();
            async move {
                let done = match (unknown, action) {
                    (Some(reason), _) => Err(reason),
                    (None, _) if dry_run => Ok(()),
                    (None, EdgeAction::Wire | EdgeAction::Heal) => {
                        self.wire(&pair, true).await.map(drop).map_err(|error| error.to_string())
                    }
                    (None, EdgeAction::Unwire) => {
                        self.unwire(&pair).await.map(drop).map_err(|error| error.to_string())
                    }
                    (None, EdgeAction::Keep | EdgeAction::Unmanaged | EdgeAction::Missing) => Ok(()),
                };
                let between = [pair.first().clone(), pair.second().clone()];
                EdgeOutcome { between, action: action.name(), error: done.err() }
            }
            .boxed()
        });
        let mut outcomes: Vec<EdgeOutcome> = acting.buffer_unordered(AT_ONCE).collect().await;
        outcomes.sort_by(|one, other| one.between.cmp(&other.between));
        Ok(outcomes)
    }

    /// An agent's sides, wherever it is at home; `None` when it is nowhere, or accepts nothing any more.
    async fn edges_of(&self, agent: &AgentId) -> Result<Option<Vec<Edge>>, CallError> {
        let shown = match self.call(agent, AgentCall::Show, Forward::Yes).await {
            Ok(called) => called.reply,
            Err(CallError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let AgentReply::Agent(view) = shown else { return Ok(None) };
        if ["retiring", "retired", "deleted"].contains(&view.state.as_str()) {
            return Ok(None);
        }
        match self.call(agent, AgentCall::Edges, Forward::Yes).await?.reply {
            AgentReply::Edges(edges) => Ok(Some(edges)),
            _ => Ok(None),
        }
    }

    // --- the host's own roster

    /// Follows the roster: reconciles whenever the provider says that it may have changed, and again, with growing pauses,
    /// while something is left undone. Ends at shutdown.
    pub(crate) async fn follow_roster(self) {
        let (shutdown, reconciler) = (self.inner().tasks.shutdown(), &self.inner().reconciler);
        let provider = reconciler.sources.roster.clone();
        let changed = || async {
            match &provider {
                Some(provider) => provider.changed().await,
                // What is applied is reconciled by whoever applies it.
                None => std::future::pending().await,
            }
        };
        let mut pause = RETRY_PAUSE;
        loop {
            let retry = async {
                reconciler.unfinished.notified().await;
                sleep(pause).await;
            };
            // Cancel safe: a change that is not seen now is seen when it is asked again; what is dropped with a retry is
            // tried at once, for the change's sake.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = changed() => pause = RETRY_PAUSE,
                () = retry => pause = (pause * 2).min(RETRY_PAUSE_MAX),
            }
            match self.reconcile(false).await {
                Ok(report) if report.is_complete() => pause = RETRY_PAUSE,
                Ok(_) | Err(CallError::NoSuch { .. }) => {}
                Err(error) => self.not_followed(&error),
            }
        }
    }

    fn not_followed(&self, error: &CallError) {
        tracing::error!(%error, "the roster is not followed for now; agents and edges stay as they are");
        self.inner().reconciler.unfinished.notify_one();
    }

    /// What a host does once it runs: makes its agents those of the roster, if it has one, and brings them up. A roster that
    /// can't be had is an error in the log, and the agents that are here come up all the same.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn bring_up_all(
        &self,
        mode: BootMode,
        concurrency: usize,
    ) -> Result<(Option<ReconcileReport>, super::boot::BootReport), CallError> {
        let reconciled = match self.reconcile(false).await {
            Ok(report) => Some(report),
            Err(CallError::NoSuch { .. }) => None,
            Err(error) => {
                self.not_followed(&error);
                None
            }
        };
        failpoint::hit("boot.after-reconcile");
        self.inner().tasks.spawn(self.clone().follow_roster());
        if mode == BootMode::Warm {
            let warming = self.clone();
            self.inner().tasks.spawn(async move {
                if let Err(error) = warming.boot(BootMode::Warm, concurrency).await {
                    tracing::warn!(%error, "agents are not warmed up: each starts when it is needed");
                }
            });
            return Ok((reconciled, self.boot(BootMode::Lazy, concurrency).await?));
        }
        Ok((reconciled, self.boot(mode, concurrency).await?))
    }
}

fn outcome(agent: &AgentId, action: &'static str, error: Option<String>) -> AgentOutcome {
    AgentOutcome { agent: agent.clone(), action, error }
}

/// Adds what an agent says of its edges, which may be at home elsewhere.
fn add_sides(sides: &mut BTreeMap<Pair, Sides>, agent: &AgentId, edges: Vec<Edge>) {
    let listed = edges.into_iter().map(|edge| (agent.clone(), edge));
    for (pair, (first, second)) in godwit_core::reconcile::sides(listed) {
        let known = sides.entry(pair).or_default();
        known.0 = known.0.or(first);
        known.1 = known.1.or(second);
    }
}
