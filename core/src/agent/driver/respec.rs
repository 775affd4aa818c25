//! Another spec for a living agent: another configuration of the same plugin, or another plugin on the same state.
//!
//! ```text
//! configure: snapshot here --> commit {checkpoint, spec}          \
//! upgrade:   snapshot here --> restore in a fresh instance of the   --> the next instance is started under the new spec
//!            new plugin --> snapshot there --> commit {boundary, spec} /
//! ```
//! Whatever fails before the commit leaves the instance that runs as it is. Nothing of the history spans two specs.

use std::sync::Arc;

use bytes::Bytes;

use super::Driver;
use crate::agent::chain::{Author, Chain};
use crate::agent::loading::{Loaded, ensure_loaded, outside_context, state_reader};
use crate::agent::prover::Prover;
use crate::agent::{CommandError, Respecced};
use crate::event::{EventKind, NewEvent};
use crate::failpoint;
use crate::guest::{GuestRequest, Interrupt, TurnContext};
use crate::id::Revision;
use crate::snapshot::Snapshot;
use crate::spec::{PluginInfo, Spec, SpecChange};
use crate::store::{Step, StoreError, Unit, UnitFailure};

fn failed(reason: impl ToString) -> CommandError {
    CommandError::Failed { reason: reason.to_string() }
}

impl Driver {
    /// Takes another spec. `plugin` is what the spec names.
    pub(super) async fn respec(
        &mut self,
        spec: Spec,
        plugin: &PluginInfo,
    ) -> Result<Respecced, CommandError> {
        let Some(loaded) = self.loaded.as_ref() else { return Err(CommandError::Loading) };
        let (before, revision) = (loaded.author.plugin, loaded.head.revision);
        let change = SpecChange { revision: loaded.author.spec_revision.next(), spec };
        let is_upgrade = change.spec.plugin != before && revision > Revision(0);
        let prepared = match is_upgrade {
            true => self.upgrade(change.clone(), plugin).await,
            false => self.configure(change.clone()).await,
        };
        let unit = match prepared {
            Ok(unit) => unit,
            Err(error) => {
                // The instance may have been taken on from a snapshot that is not stored: it is built again from what is.
                self.loaded = None;
                return Err(error);
            }
        };
        failpoint::hit("respec.before-commit");
        let outcome = self.env.store.commit_turns(unit).await;
        failpoint::hit("respec.after-commit");
        // Whatever became of it: the next instance is started from what is stored.
        self.loaded = None;
        match outcome.failure {
            None => Ok(Respecced {
                plugin_before: before,
                spec_revision: change.revision,
                revision: if is_upgrade { revision.next() } else { revision },
            }),
            Some(UnitFailure::Store(StoreError::Unknown { reason })) => Err(CommandError::Unknown { reason }),
            Some(failure) => Err(failed(format!("store refused: {failure:?}"))),
        }
    }

    /// The unit of another configuration: the state before it is kept, so that what follows is rebuilt under it alone.
    async fn configure(&mut self, change: SpecChange) -> Result<Unit, CommandError> {
        let is_kept = self.loaded.as_ref().is_some_and(|loaded| loaded.tail.is_at(loaded.head.revision));
        let checkpoint = if is_kept { None } else { self.state_now().await?.map(Step::Checkpoint) };
        let Some(loaded) = self.loaded.as_ref() else { return Err(CommandError::Loading) };
        let steps = checkpoint.into_iter().chain([Step::Configure(change)]).collect();
        Ok(Unit { owner: loaded.author.owner.clone(), base: loaded.head.revision, steps })
    }

    /// The unit of an upgrade: the new plugin has taken the state over and given it back.
    async fn upgrade(&mut self, change: SpecChange, plugin: &PluginInfo) -> Result<Unit, CommandError> {
        let state = self.state_now().await?;
        let Some((state, loaded)) = state.zip(self.loaded.as_ref()) else {
            return Err(CommandError::Loading);
        };
        let (old, head, guard) = (loaded.author.clone(), loaded.head.clone(), loaded.guard.clone());
        let rows = loaded.rows.clone();
        ensure_loaded(&self.env, change.spec.plugin).await.map_err(failed)?;
        let Author { owner, host, plugin: before, clock, .. } = &*old;
        let author = Author {
            owner: owner.clone(),
            host: *host,
            plugin: change.spec.plugin,
            plugin_version: plugin.version.clone(),
            spec_revision: change.revision,
            clock: clock.clone(),
        };
        let now_ms = clock.wall_ms().max(head.time_ms);
        let context = head.context(owner);
        let after =
            outside_context(&owner.agent, owner.generation, owner.token, head.revision.next(), now_ms);
        let request = GuestRequest {
            state: state_reader(self.env.store.clone(), owner.agent.clone()),
            agent: owner.agent.clone(),
            spec: Arc::new(change.spec.clone()),
            grants: plugin.grants.iter().cloned().collect(),
            guard,
            interrupt: Interrupt::default(),
        };
        let taken = self.take_over(request, (context, after), state, plugin).await?;
        let event = NewEvent::of_agent(&owner.agent, EventKind::AgentUpgraded, now_ms)
            .with("from", before)
            .with("to", change.spec.plugin)
            .with("spec_revision", change.revision);
        let mut chain = Chain::new(Arc::new(author), &head, rows);
        chain.push_upgrade(change, *before, taken, now_ms, event);
        Ok(chain.unit())
    }

    /// Restores a state in a fresh instance, takes it back from there, and proves that another one takes it as well.
    async fn take_over(
        &mut self,
        request: GuestRequest,
        (context, after): (TurnContext, TurnContext),
        before: Snapshot,
        plugin: &PluginInfo,
    ) -> Result<Bytes, CommandError> {
        let loader = self.env.loader.clone();
        let mut prover = Prover::new(loader.clone(), request.clone(), self.env.spares.clone());
        let (clock, version) = (self.env.clock.clone(), plugin.version.clone());
        let job = move || {
            let mut guest = loader.start(request)?;
            guest.restore(&context, &before.state, &before.plugin_version)?;
            let taken = guest.snapshot(&after)?;
            prover.prove(clock.boot(), &after, &taken, &version)?;
            Ok::<_, crate::guest::GuestError>(taken)
        };
        let run = self.env.pool.run(plugin.digest, job).await.map_err(failed)?;
        run.map_err(|error| failed(format!("plugin {} can't take the state over: {error}", plugin.digest)))
    }

    /// The state at the head; `None` before the first boundary.
    async fn state_now(&mut self) -> Result<Option<Snapshot>, CommandError> {
        let is_ready = |loaded: &Loaded| loaded.guest.is_some();
        let Some(mut loaded) = self.loaded.take_if(|loaded| is_ready(loaded)) else {
            return Err(CommandError::Loading);
        };
        if loaded.head.revision == Revision(0) {
            self.loaded = Some(loaded);
            return Ok(None);
        }
        let (plugin, clock) = (loaded.author.plugin, self.env.clock.clone());
        let job = move || {
            let snapshot = loaded.snapshot(clock.as_ref());
            (loaded, snapshot)
        };
        let (loaded, snapshot) = self.env.pool.run(plugin, job).await.map_err(failed)?;
        let snapshot = snapshot.map_err(failed)?;
        self.loaded = Some(loaded);
        Ok(Some(snapshot))
    }
}
