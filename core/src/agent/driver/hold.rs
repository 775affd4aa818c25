//! Holding the agent at a turn boundary: for a checkpoint, and for a migration.

use tokio::sync::oneshot;

use super::{Driver, Flow};
use crate::agent::loading::Loaded;
use crate::agent::{
    Answer, Checkpointed, Command, CommandError, End, Frozen, Handle, MAILBOX_MAX, NotAccepted,
};
use crate::failpoint;
use crate::guest::GuestError;
use crate::id::Revision;
use crate::snapshot::Snapshot;
use crate::store::{Step, Unit};
use crate::time::Clock;

impl Driver {
    /// Takes a snapshot of the current revision and stores it, unless it is stored already.
    pub(super) async fn checkpoint(&mut self) -> Result<Checkpointed, CommandError> {
        let failed = |reason: String| CommandError::Failed { reason };
        // Before `init` there is nothing to keep.
        let ready = |loaded: &Loaded| loaded.guest.is_some() && loaded.head.revision > Revision(0);
        let Some(mut loaded) = self.loaded.take_if(|loaded| ready(loaded)) else {
            return Err(CommandError::Loading);
        };
        let revision = loaded.head.revision;
        let checkpointed = Checkpointed { generation: loaded.author.owner.generation, revision };
        if loaded.tail.is_at(revision) {
            self.loaded = Some(loaded);
            return Ok(checkpointed);
        }
        let (plugin, clock) = (loaded.author.plugin, self.env.clock.clone());
        let job = move || {
            let snapshot = loaded.snapshot(clock.as_ref());
            (loaded, snapshot)
        };
        let run = self.env.pool.run(plugin, job).await;
        let (loaded, snapshot) = run.map_err(|error| failed(error.to_string()))?;
        let snapshot = snapshot.map_err(|error| failed(error.to_string()))?;
        let unit = Unit {
            owner: loaded.author.owner.clone(),
            base: revision,
            steps: vec![Step::Checkpoint(snapshot)],
        };
        failpoint::hit("checkpoint.before-commit");
        let outcome = self.env.store.commit_turns(unit).await;
        failpoint::hit("checkpoint.after-commit");
        match outcome.failure {
            None => {
                self.loaded = Some(loaded);
                Ok(checkpointed)
            }
            // What is stored now is read again with the next load.
            Some(failure) => Err(failed(format!("store refused: {failure:?}"))),
        }
    }

    /// Holds the agent here until it is thawed or stopped; callers queue up.
    pub(super) async fn freeze(&mut self, done: oneshot::Sender<Frozen>) -> Flow {
        let Some(mailbox) = self.own_mailbox.upgrade() else {
            return Err(End::Parked);
        };
        self.land().await?;
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
                Some(Command::Wake | Command::Remind) => self.is_inbox_stale = true,
                Some(Command::Reload) => self.forget_queue(),
                Some(Command::Join { input, seq, answer }) => self.join(input, seq, answer).await,
                // The callers may be gone.
                Some(Command::Checkpoint { done }) => drop(done.send(Err(held()))),
                Some(Command::Recycle { done }) => drop(done.send(Err(held()))),
                Some(Command::Respec(request)) => drop(request.done.send(Err(held()))),
                Some(Command::Freeze { done }) => drop(done),
                Some(Command::Started { done }) => self.starting.push(done),
                Some(Command::Stop { end, done }) => {
                    self.finish_stop(done);
                    return Err(end);
                }
            }
        }
    }
}

impl Loaded {
    /// Takes a snapshot of the head. Where a journal tail will build on it, the guest goes on in a new instance, which also
    /// proves it. Blocks. The guest is gone after any failure.
    pub(super) fn snapshot(&mut self, clock: &dyn Clock) -> Result<Snapshot, GuestError> {
        let author = &self.author;
        let Some(mut guest) = self.guest.take() else { return Err(GuestError::Interrupted) };
        let context = self.head.context(&author.owner);
        let state = guest.snapshot(&context)?;
        let mut restore = None;
        if self.tail.is_base(state.len()) {
            drop(guest);
            let started = clock.boot();
            guest = self.prover.rebase(&context, &state, &author.plugin_version)?;
            restore = Some(clock.boot().saturating_sub(started));
        }
        self.guest = Some(guest);
        let revision = self.head.revision;
        self.tail.begin(revision, state.len(), restore);
        Ok(Snapshot {
            generation: author.owner.generation,
            revision,
            token: self.head.token,
            time_ms: self.head.time_ms,
            plugin_version: author.plugin_version.clone(),
            state,
        })
    }
}

fn held() -> CommandError {
    CommandError::Failed { reason: "agent is held at a boundary".into() }
}
