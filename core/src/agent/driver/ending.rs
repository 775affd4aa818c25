//! Turns that an operator has ended, and instances that are rebuilt because somebody asked.

use tokio::sync::oneshot;

use super::{Driver, Flow};
use crate::agent::chain::Origin;
use crate::agent::{Answer, CommandError, Interrupted, NotAccepted};
use crate::failpoint;
use crate::id::{InputId, Revision, Seq};
use crate::input::{AbandonReason, Outcome};
use crate::lifecycle::Verb;
use crate::store::{StoreError, StoredInput};

impl Driver {
    /// The guest is dead because somebody interrupted its turn: its inputs are given up, and the agent goes on.
    pub(super) async fn on_interrupted(&mut self, origin: Origin) -> Flow {
        self.loaded = None;
        let stored: Vec<StoredInput> = match origin {
            Origin::Init => {
                self.control.tell(&Interrupted::PutBack);
                self.pause_longer();
                return Ok(());
            }
            Origin::Direct(request) => {
                let input = request.input.input.id;
                self.answer(request.answer, Answer::NotAccepted(NotAccepted::Interrupted));
                self.control.tell(&Interrupted::NotAccepted(input));
                return Ok(());
            }
            Origin::Queued(stored) => vec![*stored],
            Origin::Batch(stored) => stored,
        };
        let seqs: Vec<Seq> = stored.iter().map(|input| input.seq).collect();
        let ids: Vec<InputId> = stored.iter().map(|input| input.input.id).collect();
        failpoint::hit("lifecycle.before-interrupted");
        match self.change(&Verb::Interrupt { inputs: seqs.clone() }).await {
            Ok(_) => {
                tracing::info!(agent = %self.agent, inputs = ids.len(), "turn interrupted, its inputs are given up");
                let outcome = Outcome::Abandoned { reason: AbandonReason::Cancelled };
                for seq in seqs {
                    self.answer_waiters(seq, &outcome);
                }
                self.control.tell(&Interrupted::Abandoned(ids));
                Ok(())
            }
            Err(error) => {
                match error {
                    // Nobody knows: whoever asked is told nothing.
                    StoreError::Unknown { .. } => self.control.tell_nothing(),
                    _ => self.control.tell(&Interrupted::PutBack),
                }
                self.forget_queue();
                self.on_store_error("interrupt", error).await
            }
        }
    }

    /// Drops the instance and loads the agent again; what waits goes on waiting.
    pub(super) async fn recycle(&mut self, done: oneshot::Sender<Result<Revision, CommandError>>) -> Flow {
        self.land().await?;
        let flow = self.load(None).await;
        let revision = self.loaded.as_ref().map(|loaded| loaded.head.revision);
        // The caller may be gone; the instance is new all the same.
        let _ = done.send(revision.ok_or(CommandError::Loading));
        flow
    }
}
