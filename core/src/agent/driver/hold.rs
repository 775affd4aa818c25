//! Holding the agent at a turn boundary: for a checkpoint, and for a migration.

use tokio::sync::oneshot;

use super::{Driver, Flow};
use crate::agent::{Answer, Command, CommandError, End, Frozen, Handle, MAILBOX_MAX, NotAccepted};
use crate::id::Revision;
use crate::snapshot::Snapshot;
use crate::store::{Step, Unit};

impl Driver {
    /// Takes a snapshot of the current revision and stores it.
    pub(super) async fn checkpoint(&mut self) -> Result<Revision, CommandError> {
        let failed = |reason: String| CommandError::Failed { reason };
        let Some(loaded) = self.loaded.as_mut() else {
            return Err(CommandError::Loading);
        };
        // Before `init` there is nothing to keep.
        if loaded.head.revision == Revision(0) {
            return Err(CommandError::Loading);
        }
        let Some(mut guest) = loaded.guest.take() else {
            return Err(CommandError::Loading);
        };
        let context = loaded.author.context_outside(loaded.head.revision, loaded.head.time_ms);
        let job = move || {
            let state = guest.snapshot(&context);
            (guest, state)
        };
        let run = self.env.pool.run(loaded.author.plugin, job).await;
        let (guest, state) = run.map_err(|error| failed(error.to_string()))?;
        let state = state.map_err(|error| failed(error.to_string()))?;
        loaded.guest = Some(guest);
        let snapshot = Snapshot {
            generation: loaded.author.owner.generation,
            revision: loaded.head.revision,
            plugin_version: loaded.author.plugin_version.clone(),
            state,
        };
        let unit = Unit {
            owner: loaded.author.owner.clone(),
            base: loaded.head.revision,
            steps: vec![Step::Checkpoint(snapshot)],
        };
        match self.env.store.commit_turns(unit).await.failure {
            None => Ok(loaded.head.revision),
            Some(failure) => {
                self.loaded = None;
                Err(failed(format!("store refused: {failure:?}")))
            }
        }
    }

    /// Holds the agent here until it is thawed or stopped; callers queue up.
    pub(super) async fn freeze(&mut self, done: oneshot::Sender<Frozen>) -> Flow {
        let Some(mailbox) = self.own_mailbox.upgrade() else {
            return Err(End::Parked);
        };
        if self.loaded.is_none() {
            self.load(None).await?;
        }
        let Some(loaded) = &self.loaded else { return Ok(()) };
        let handle = Handle::new(mailbox, self.thaw.clone(), self.control.clone());
        let frozen = Frozen::new(loaded.author.owner.clone(), loaded.head.revision, handle);
        if done.send(frozen).is_err() {
            // The dropped ticket has already asked for the thaw, which must not outlive this freeze.
            self.thaw.notified().await;
            return Ok(());
        }
        loop {
            // Cancel safe: `recv` and `notified` lose nothing when dropped.
            let command = tokio::select! {
                biased;
                () = self.thaw.notified() => {
                    self.is_inbox_stale = true;
                    return Ok(());
                }
                command = self.commands.recv() => command,
            };
            match command {
                None => return Err(End::Parked),
                Some(Command::Ask(request)) if self.direct.len() >= MAILBOX_MAX => {
                    self.answer(request.answer, Answer::NotAccepted(NotAccepted::Busy));
                }
                Some(Command::Ask(request)) => self.direct.push_back(request),
                Some(Command::Wake) => self.is_inbox_stale = true,
                Some(Command::Reload) => self.forget_queue(),
                Some(Command::Join { input, seq, answer }) => self.join(input, seq, answer).await,
                Some(Command::Checkpoint { done } | Command::Recycle { done }) => {
                    let busy = CommandError::Failed { reason: "agent is held at a boundary".into() };
                    // The caller may be gone.
                    let _ = done.send(Err(busy));
                }
                Some(Command::Freeze { done }) => drop(done),
                Some(Command::Stop { end, done }) => {
                    self.finish_stop(done);
                    return Err(end);
                }
            }
        }
    }
}
