//! Making the agents and edges of this host's store those that a roster names. What must be done is decided by
//! `core::reconcile`; here it is done, one reconcile at a time, and each thing tells its own outcome.
//!
//! ```text
//! roster (provider, or what was applied) -> customizer, plugins -> plan
//!   -> create, resume -> retire (only when all those came up) -> upgrade, update -> edges -> report
//! ```
//! A crash anywhere leaves some of it done; reconciling again does the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use godwit_core::digest::Digest;
use godwit_core::edge::{Edge, Pair};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, StoreId};
use godwit_core::reconcile::{Action, Current, Desired, EdgeAction, MANAGED_BY, Sides, plan, plan_edges};
use godwit_core::spec::{Spec, check_pairs};
use godwit_core::store::{AgentRow, Home, StoreError};
use godwit_core::time::within;
use serde::Serialize;
use tokio::sync::{Mutex, Notify};

use super::Runtime;
use super::agents::CreateAgent;
use super::boot::Materialized;
use super::call::{AgentCall, AgentReply, CallError};
use super::respec::SpecUpdate;
use super::routing::{Forward, store_error};
use super::verbs::VerbCall;
use crate::agent_doc::AgentDoc;
use crate::roster::{AgentCustomizer, Roster, RosterEntry, RosterError, RosterProvider, TopologyProvider};

mod follow;

/// Agents and edges that are changed at the same time.
const AT_ONCE: usize = 32;
/// Agents read at once.
const PAGE: usize = 1_000;
/// Digits of a host's key by which a roster may name it.
const KEY_PREFIX_MIN: usize = 8;
/// How long a provider is waited for.
const PROVIDER_MAX: Duration = Duration::from_secs(30);

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
    /// Of the roster that was reconciled last.
    last: std::sync::Mutex<Option<Digest>>,
    /// Set when something is left to do.
    unfinished: Notify,
}

/// Says, when it is dropped, that something is left to do: also when the future is dropped that was doing it.
struct Undone<'a>(&'a Notify);

impl Undone<'_> {
    fn settle(self) {
        std::mem::forget(self);
    }
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Reconciler {
    pub(crate) fn new(sources: RosterSources) -> Self {
        Self { sources, ..Self::default() }
    }

    fn last(&self) -> MutexGuard<'_, Option<Digest>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(roster: &Roster) -> Digest {
    Digest::of(roster.to_json().as_bytes())
}

/// Asks an embedder's code, which may hang or panic.
async fn asked<T>(who: &str, answer: impl Future<Output = Result<T, RosterError>>) -> Result<T, RosterError> {
    match within(PROVIDER_MAX, AssertUnwindSafe(answer).catch_unwind()).await {
        Some(Ok(answer)) => answer,
        Some(Err(_)) => Err(RosterError::Unavailable { reason: format!("{who} panicked") }),
        None => {
            let reason = format!("{who} has not answered within {} s", PROVIDER_MAX.as_secs());
            Err(RosterError::Unavailable { reason })
        }
    }
}

/// Whether doing it again, with nothing else changed, can't do more.
fn is_final(error: &CallError) -> bool {
    matches!(error, CallError::Illegal(_) | CallError::Invalid { .. } | CallError::Deleted)
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
    /// Whether doing it again later, with nothing else changed, may do.
    #[serde(skip)]
    is_retried: bool,
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

    fn is_retried(&self) -> bool {
        let waits = |item: &EdgeOutcome| item.error.is_some() || item.action == EdgeAction::Missing.name();
        self.agents.iter().any(|item| item.is_retried) || self.edges.iter().any(waits)
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
    /// The store whose roster it is.
    own: StoreId,
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
        if dry_run {
            return self.reconcile_with(roster, None, dry_run).await;
        }
        // Once it is stored it is done, whoever goes away meanwhile.
        let undone = Undone(&self.inner().reconciler.unfinished);
        let text = Bytes::from(roster.to_json());
        let revision = self.inner().store.put_roster(text).await.map_err(store_error)?;
        failpoint::hit("roster.after-put");
        let done = self.reconcile_with(roster, Some(revision), dry_run).await;
        // That has said itself what it has left.
        undone.settle();
        done
    }

    /// Makes agents and edges those of the roster as it is now.
    ///
    /// # Errors
    /// `NoSuch` when there is no roster, `Unavailable` when it can't be had; everything stays as it is then. What fails for
    /// one agent is in the report.
    pub async fn reconcile(&self, dry_run: bool) -> Result<ReconcileReport, CallError> {
        let _inside = self.admit()?;
        let _one_at_a_time = self.inner().reconciler.running.lock().await;
        let (roster, revision) = if dry_run { self.roster().await? } else { self.read_roster().await? };
        self.reconcile_with(&roster, revision, dry_run).await
    }

    /// The roster as it is now, with its revision when it was applied.
    ///
    /// # Errors
    /// As `reconcile`.
    pub async fn roster(&self) -> Result<(Roster, Option<u64>), CallError> {
        let read = self.read_roster().await?;
        let reconciler = &self.inner().reconciler;
        // A provider takes what it has given for known: a change that is only shown is done all the same.
        if *reconciler.last() != Some(digest_of(&read.0)) {
            reconciler.unfinished.notify_one();
        }
        Ok(read)
    }

    async fn read_roster(&self) -> Result<(Roster, Option<u64>), CallError> {
        if let Some(provider) = &self.inner().reconciler.sources.roster {
            return Ok((asked("the roster's provider", provider.roster()).await?, None));
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
        let reconciler = &self.inner().reconciler;
        let undone = (!dry_run).then(|| Undone(&reconciler.unfinished));
        if !dry_run {
            *reconciler.last() = Some(digest_of(roster));
        }
        let survey = self.survey(roster).await?;
        let mut agents = self.reconcile_agents(&survey, dry_run).await?;
        let edges = self.reconcile_edges(&survey, dry_run).await?;
        agents.sort_by(|one, other| one.agent.cmp(&other.agent));
        let elapsed = self.inner().clock.boot().saturating_sub(began);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let report = ReconcileReport { revision, dry_run, agents, edges, elapsed_ms };
        let is_complete = report.is_complete();
        if let Some(undone) = undone {
            self.inner().hooks.post_reconcile(&report);
            if !report.is_retried() {
                undone.settle();
            }
        }
        let (agents, edges) = (report.agents.len(), report.edges.len());
        tracing::info!(dry_run, agents, edges, is_complete, elapsed_ms, "reconciled");
        Ok(report)
    }

    // --- what is wanted, and what is there

    async fn survey(&self, roster: &Roster) -> Result<Survey, CallError> {
        let own = self.inner().store.mark().await.map_err(store_error)?.store;
        let mut plugins = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for (agent, entry) in &roster.agents {
            let of_agent = if self.is_placed_here(entry) {
                let desired = self.desired(entry, own, &mut plugins).await;
                desired.map_or_else(Wanted::Wrong, |desired| Wanted::Here(Box::new(desired)))
            } else {
                Wanted::Elsewhere
            };
            wanted.insert(agent.clone(), of_agent);
        }
        let mut edges = roster.edges.clone();
        if let Some(topology) = &self.inner().reconciler.sources.topology {
            let agents = roster.agents.keys().cloned().collect();
            edges.extend(asked("the topology's provider", topology.edges(&agents)).await?);
        }
        Ok(Survey { own, wanted, rows: self.rows_here().await?, edges })
    }

    /// Asks nobody: whom an entry names is another host's matter, and that host may not be there.
    fn is_placed_here(&self, entry: &RosterEntry) -> bool {
        let Some(host) = &entry.host else { return true };
        let is_key = host.len() >= KEY_PREFIX_MIN && self.inner().host.to_string().starts_with(host.as_str());
        *host == self.inner().name || is_key
    }

    async fn desired(
        &self,
        entry: &RosterEntry,
        own: StoreId,
        plugins: &mut BTreeMap<String, Result<Digest, String>>,
    ) -> Result<Desired, String> {
        let mut doc: AgentDoc = entry.doc.clone();
        if let Some(customizer) = &self.inner().reconciler.sources.customizer {
            let customized = AssertUnwindSafe(|| customizer.customize(&entry.id, &mut doc));
            std::panic::catch_unwind(customized).map_err(|_| "the customizer panicked".to_owned())??;
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
        labels.insert(MANAGED_BY.to_owned(), own.to_string());
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
        let planned = plan(&desired, &current, survey.own);
        let due = |phase: &[Action]| {
            let of_phase = planned.iter().flat_map(|(agent, actions)| {
                actions.iter().filter(|action| phase.contains(action)).map(|action| (agent.clone(), *action))
            });
            of_phase.collect::<Vec<_>>()
        };
        let mut up = self.act_on(due(&[Action::Create, Action::Resume]), &desired, dry_run).await;
        let is_new =
            |outcome: &&AgentOutcome| outcome.action == Action::Create.name() && outcome.error.is_none();
        let new: Vec<_> = up.iter().filter(is_new).map(|outcome| outcome.agent.clone()).collect();
        if !dry_run && !new.is_empty() {
            self.inner().hooks.post_spawn(new);
        }
        let retiring = due(&[Action::Retire]);
        if !dry_run && !retiring.is_empty() {
            up = self.bring_up_first(up).await;
        }
        let is_up = up.iter().chain(&outcomes).all(|outcome| outcome.error.is_none());
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

    /// Lets those run that are new, before others go. Answers with who can't: it has failed.
    async fn bring_up_first(&self, up: Vec<AgentOutcome>) -> Vec<AgentOutcome> {
        let starting = stream::iter(up).map(|mut item| {
            async move {
                if item.error.is_none() {
                    let started = self.call(&item.agent, AgentCall::Materialize, Forward::Yes).await;
                    item.error = match started.map(|called| called.reply) {
                        Ok(AgentReply::Materialized(Materialized::Broken { message, .. })) => Some(message),
                        Ok(AgentReply::Materialized(Materialized::Unfinished { reason })) => Some(reason),
                        Ok(_) => None,
                        Err(error) => Some(error.to_string()),
                    };
                    item.is_retried = item.error.is_some();
                }
                item
            }
            .boxed()
        });
        starting.buffer_unordered(AT_ONCE).collect().await
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
                let is_retried = done.as_ref().is_err_and(|error| !is_final(error));
                let error = done.err().map(|error| error.to_string());
                AgentOutcome { is_retried, ..outcome(&agent, action.name(), error) }
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
        let planned = plan_edges(&survey.edges, &sides, &present, survey.own);
        let acting = stream::iter(planned).map(|(pair, action)| {
            let unknown = pair.sides().into_iter().find_map(|(agent, _)| silent.get(agent)).cloned();
            // The other side of a half is whose the half is.
            let half = sides.get(&pair).and_then(|(first, second)| first.or(*second));
            let managed_by = half.unwrap_or(Some(survey.own));
            async move {
                let done = match (unknown, action) {
                    (Some(reason), _) => Err(reason),
                    (None, _) if dry_run => Ok(()),
                    (None, EdgeAction::Wire | EdgeAction::Heal) => {
                        self.wire(&pair, managed_by).await.map(drop).map_err(|error| error.to_string())
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
}

fn outcome(agent: &AgentId, action: &'static str, error: Option<String>) -> AgentOutcome {
    let is_retried = error.is_some();
    AgentOutcome { agent: agent.clone(), action, error, is_retried }
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
