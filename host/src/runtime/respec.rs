//! Another spec for an agent that exists: another configuration, other labels, another plugin.

use std::collections::BTreeMap;

use godwit_core::agent::{CommandError, Respecced};
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, Revision, SpecRevision};
use godwit_core::lifecycle::Verb;
use godwit_core::placement::{RESIDENCY_LABEL, Wants};
use godwit_core::spec::{PluginInfo, Spec, SpecChange, SpecPatch};
use godwit_core::store::{AgentRow, Lifecycle, Step, StoreError, Unit, UnitFailure};
use godwit_core::time::sleep;
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::agents::{check_sizes, is_reserved};
use super::call::{AgentReply, CallError};
use super::routing::{Try, store_error};
use super::verbs::LOADING_PAUSE;

/// A spec update as a client gives it. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecUpdate {
    /// The spec revision that the client has seen.
    pub base: SpecRevision,
    /// `NAME`, `NAME@VERSION`, or a digest: what the agent runs already.
    pub plugin: String,
    /// For people and selections.
    pub labels: Option<BTreeMap<String, String>>,
    /// What else is to change.
    pub patch: SpecPatch,
}

/// What an upgrade did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// The plugin before.
    pub plugin_before: Digest,
    /// The plugin from here.
    pub plugin: Digest,
    /// The spec revision from here.
    pub spec_revision: SpecRevision,
    /// The revision from here: the upgrade is a boundary, unless the agent had none.
    pub revision: Revision,
}

impl Runtime {
    /// Gives an agent that is at home here another configuration or other labels.
    pub(crate) async fn update_here(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        update: &SpecUpdate,
    ) -> Result<Try, CallError> {
        let SpecUpdate { labels, patch, .. } = update;
        check_sizes(patch, labels.as_ref().unwrap_or(&BTreeMap::new()))?;
        row.lifecycle.after(&Verb::Configure).map_err(CallError::Illegal)?;
        if row.spec_revision != update.base {
            return Err(CallError::SpecMismatch { current: row.spec_revision });
        }
        let plugin = self.plugin(&update.plugin).await?;
        if plugin.digest != row.plugin {
            let what = format!(
                "agent {agent} runs plugin {}: another one is an upgrade, POST /v1/agents/{agent}/upgrade",
                row.plugin
            );
            return Err(CallError::Conflict { what });
        }
        let Some(image) = self.inner().store.image(agent, None).await.map_err(store_error)? else {
            return Ok(Try::Again { may_be_durable: false });
        };
        let spec = patch.clone().apply(&image.spec);
        if let Some(labels) = labels {
            let residency = labels.get(RESIDENCY_LABEL).cloned();
            let kept = self.inner().placement.may_keep(&Wants { residency, ..Wants::default() });
            kept.map_err(|why| CallError::Conflict {
                what: format!("agent {agent} is here: {why}; move it first"),
            })?;
        }
        if spec != image.spec
            && let Err(refused) = self.respec(agent, row, spec, plugin).await?
        {
            return again_or(refused).await;
        }
        if let Some(labels) = labels {
            // What the host has set stays, whoever does not name it.
            let reserved = row.labels.iter().filter(|(name, _)| is_reserved(name));
            let mut all: BTreeMap<_, _> =
                reserved.map(|(name, value)| (name.clone(), value.clone())).collect();
            all.extend(labels.clone());
            self.inner().store.set_labels(agent, all).await.map_err(store_error)?;
        }
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        let row = row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?;
        Ok(Try::Done(AgentReply::Agent(Box::new(self.view(&row).await?))))
    }

    /// Gives an agent that is at home here another plugin.
    pub(crate) async fn upgrade_here(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        selector: &str,
    ) -> Result<Try, CallError> {
        row.lifecycle.after(&Verb::Upgrade).map_err(CallError::Illegal)?;
        let plugin = self.plugin(selector).await?;
        let Some(image) = self.inner().store.image(agent, None).await.map_err(store_error)? else {
            return Ok(Try::Again { may_be_durable: false });
        };
        if plugin.digest == row.plugin {
            // A repetition: it runs that already.
            return Ok(Try::Done(AgentReply::Upgraded(UpgradeReport {
                plugin_before: row.plugin,
                plugin: row.plugin,
                spec_revision: row.spec_revision,
                revision: row.revision,
            })));
        }
        let spec = Spec { plugin: plugin.digest, ..image.spec };
        let digest = plugin.digest;
        match self.respec(agent, row, spec, plugin).await? {
            Err(refused) => again_or(refused).await,
            Ok(done) => Ok(Try::Done(AgentReply::Upgraded(UpgradeReport {
                plugin_before: done.plugin_before,
                plugin: digest,
                spec_revision: done.spec_revision,
                revision: done.revision,
            }))),
        }
    }

    /// Has the driver take another spec; without one when the agent has no state to care for.
    async fn respec(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        spec: Spec,
        plugin: PluginInfo,
    ) -> Result<Result<Respecced, CommandError>, CallError> {
        if !row.lifecycle.runs() && row.revision == Revision(0) {
            return self.respec_stateless(agent, row, spec).await.map(Ok);
        }
        if matches!(row.lifecycle, Lifecycle::Broken(_)) {
            let what =
                String::from("a broken agent has no instance to take the state from: recover it first");
            return Err(CallError::Conflict { what });
        }
        match self.resident(agent).await {
            Ok(handle) => Ok(handle.respec(spec, plugin).await),
            Err(StoreError::NotHome { .. } | StoreError::NoAgent | StoreError::Fenced { .. }) => {
                Ok(Err(CommandError::Gone))
            }
            Err(error) => Err(store_error(error)),
        }
    }

    /// An agent that does not run and has never run: nothing but its spec changes.
    async fn respec_stateless(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        spec: Spec,
    ) -> Result<Respecced, CallError> {
        let owned = self.own(agent).await.map_err(store_error)?;
        let change = SpecChange { revision: row.spec_revision.next(), spec };
        let spec_revision = change.revision;
        let steps = vec![Step::Configure(change)];
        let unit = Unit { owner: owned.owner(), base: row.revision, steps };
        match self.inner().store.commit_turns(unit).await.failure {
            None => Ok(Respecced { plugin_before: row.plugin, spec_revision, revision: row.revision }),
            Some(UnitFailure::Store(error)) => Err(store_error(error)),
            Some(failure) => Err(CallError::Internal { reason: format!("store refused: {failure:?}") }),
        }
    }
}

/// What a caller learns when the driver did not do it.
async fn again_or(refused: CommandError) -> Result<Try, CallError> {
    match refused {
        CommandError::Gone => Ok(Try::Again { may_be_durable: false }),
        CommandError::Loading => {
            sleep(LOADING_PAUSE).await;
            Ok(Try::Again { may_be_durable: false })
        }
        CommandError::Unknown { reason } => Err(CallError::Unknown { reason }),
        CommandError::Failed { reason } => Err(CallError::Conflict { what: reason }),
    }
}
