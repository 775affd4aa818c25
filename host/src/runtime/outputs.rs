//! Waiting for what an agent says next.
//!
//! An output is what a committed turn answered: the reply to one of its inputs, whoever sent that, timers included; a refusal
//! is one, an empty answer is not. It is read from the receipts and the inputs that they name, so a wait sees what a restart
//! of the host or a move of the agent leaves, and never a turn that did not commit. Whoever waits is woken by a hint, and
//! looks twice a second by itself.

use std::time::Duration;

use bytes::Bytes;
use godwit_core::id::{AgentId, FencingToken, Generation, InputId, Revision, Seq};
use godwit_core::input::{Outcome, Reply, ReplyOutcome};
use godwit_core::receipt::Receipt;
use godwit_core::store::{AgentRow, Home, Lifecycle};
use godwit_core::time::within;
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::{AgentCall, AgentReply, CallError};
use super::events::LOOK_AGAIN;
use super::routing::{Forward, Try, store_error};

/// Receipts that are looked through at once.
const READ_AT_ONCE: usize = 64;

/// Behind which boundary an output is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutputPlace {
    /// The generation that the revision counts in; in a later one everything is behind it.
    pub generation: Generation,
    /// A boundary.
    pub revision: Revision,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitOutput {
    /// Behind this boundary.
    pub after: OutputPlace,
    /// Only an output that contains these bytes.
    pub containing: Option<Bytes>,
    /// How long.
    pub timeout_ms: u64,
}

/// What an agent said in a committed turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its boundary: wait behind it for the next one. Of several outputs of one boundary the first that fits is answered.
    pub place: OutputPlace,
    /// The token under which it committed.
    pub token: FencingToken,
    /// To which input.
    pub input: InputId,
    /// That input's place.
    pub seq: Seq,
    /// The agent's words.
    pub reply: Reply,
}

impl Runtime {
    /// The first output that an agent commits after this call, or behind a boundary; waits for it.
    ///
    /// # Errors
    /// `NoOutput` when none came in time: it names the boundary behind which to go on. `Conflict` when what followed a given
    /// boundary is not kept any more, or there has been no such boundary. `Broken`, `Deleted`, `Retired`, `Suspended` when
    /// the agent can't say anything until somebody acts. `TooManyWatch`; and as for every call on an agent.
    pub async fn wait_for_output(
        &self,
        agent: &AgentId,
        after: Option<OutputPlace>,
        timeout: Duration,
        forward: Forward,
    ) -> Result<Output, CallError> {
        self.await_output(agent, None, after, timeout, forward).await
    }

    /// As `wait_for_output`, passing over outputs that do not contain `needle`.
    ///
    /// # Errors
    /// As `wait_for_output`.
    pub async fn wait_for_output_containing(
        &self,
        agent: &AgentId,
        needle: Bytes,
        after: Option<OutputPlace>,
        timeout: Duration,
        forward: Forward,
    ) -> Result<Output, CallError> {
        self.await_output(agent, Some(needle), after, timeout, forward).await
    }

    async fn await_output(
        &self,
        agent: &AgentId,
        containing: Option<Bytes>,
        after: Option<OutputPlace>,
        timeout: Duration,
        forward: Forward,
    ) -> Result<Output, CallError> {
        let until = self.inner().clock.boot().saturating_add(timeout);
        let after = match after {
            Some(after) => after,
            None => match self.call(agent, AgentCall::Show, forward).await?.reply {
                AgentReply::Agent(view) => {
                    OutputPlace { generation: view.generation, revision: view.revision }
                }
                other => return Err(CallError::Internal { reason: format!("{other:?} is no agent") }),
            },
        };
        let left = until.saturating_sub(self.inner().clock.boot());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let call = AgentCall::WaitOutput(WaitOutput { after, containing, timeout_ms });
        match self.call(agent, call, forward).await {
            Ok(called) => match called.reply {
                AgentReply::Output(output) => Ok(*output),
                other => Err(CallError::Internal { reason: format!("{other:?} is no output") }),
            },
            // It was on the move, or its host did not answer, until the time was over.
            Err(CallError::Unavailable { .. }) if self.inner().clock.boot() >= until => {
                Err(CallError::NoOutput { after })
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for an output of an agent that is at home here.
    pub(crate) async fn wait_output_here(
        &self,
        agent: &AgentId,
        wait: &WaitOutput,
    ) -> Result<Try, CallError> {
        let _room = self.watcher()?;
        let mut committed = self.inner().env.watched.watch(agent);
        let clock = &self.inner().clock;
        let until = clock.boot().saturating_add(Duration::from_millis(wait.timeout_ms));
        let mut at = wait.after;
        loop {
            // Before the store is read: what commits after that wakes it.
            committed.rest();
            let row = self.inner().store.agent(agent).await.map_err(store_error)?;
            let Some(row) = row.filter(|row| row.home == Home::Here) else {
                return Ok(Try::Again { may_be_durable: false });
            };
            at = within_reach(&row, at)?;
            while let Some(found) = self.look_for_output(&row, &mut at, wait.containing.as_deref()).await? {
                match found {
                    Looked::Found(output) => return Ok(Try::Done(AgentReply::Output(output))),
                    Looked::More => {}
                }
            }
            can_speak(&row.lifecycle)?;
            let left = until.saturating_sub(clock.boot());
            if left.is_zero() || self.inner().tasks.shutdown().is_cancelled() {
                return Err(CallError::NoOutput { after: at });
            }
            // Woken or not, the store is read again.
            let _is_woken = within(LOOK_AGAIN.min(left), committed.committed()).await;
        }
    }

    /// Looks through the next receipts behind `at`, and moves it. `None` when there is no more.
    async fn look_for_output(
        &self,
        row: &AgentRow,
        at: &mut OutputPlace,
        containing: Option<&[u8]>,
    ) -> Result<Option<Looked>, CallError> {
        let store = &self.inner().store;
        let receipts = store.receipts(&row.agent, at.generation, at.revision, READ_AT_ONCE).await;
        let receipts = receipts.map_err(store_error)?;
        if receipts.is_empty() {
            return Ok(None);
        }
        for receipt in &receipts {
            if receipt.revision != at.revision.next() {
                return Err(not_kept(format!("what followed revision {} is not kept any more", at.revision)));
            }
            if let Some(output) = self.output_of(receipt, containing).await? {
                return Ok(Some(Looked::Found(Box::new(output))));
            }
            at.revision = receipt.revision;
        }
        Ok(Some(Looked::More))
    }

    /// The first output of a boundary that fits.
    async fn output_of(
        &self,
        receipt: &Receipt,
        containing: Option<&[u8]>,
    ) -> Result<Option<Output>, CallError> {
        for id in &receipt.inputs {
            let stored = self.inner().store.input(&receipt.agent, *id).await.map_err(store_error)?;
            let Some(stored) = stored else {
                let what =
                    format!("what revision {} said to input {id} is not kept any more", receipt.revision);
                return Err(not_kept(what));
            };
            // A dead letter that got another chance has ended in a later boundary.
            if let Some(Outcome::Committed { revision, token, reply }) = stored.outcome
                && revision == receipt.revision
                && fits(&reply, containing)
            {
                let place = OutputPlace { generation: receipt.generation, revision };
                return Ok(Some(Output { place, token, input: *id, seq: stored.seq, reply }));
            }
        }
        Ok(None)
    }
}

/// What a look through receipts gave.
enum Looked {
    Found(Box<Output>),
    More,
}

fn not_kept(what: String) -> CallError {
    CallError::Conflict { what }
}

/// The place to look from: after a reset the new generation's start.
fn within_reach(row: &AgentRow, at: OutputPlace) -> Result<OutputPlace, CallError> {
    let here = OutputPlace { generation: row.generation, revision: row.revision };
    if at > here {
        let OutputPlace { generation, revision } = at;
        return Err(CallError::Conflict {
            what: format!(
                "the agent has not come to revision {revision} of generation {generation}: it is at {} of {}",
                here.revision, here.generation
            ),
        });
    }
    let is_older = at.generation < here.generation;
    Ok(if is_older { OutputPlace { revision: Revision(0), ..here } } else { at })
}

/// Nothing is waited for that can't come.
fn can_speak(lifecycle: &Lifecycle) -> Result<(), CallError> {
    match lifecycle {
        Lifecycle::Active | Lifecycle::Paused | Lifecycle::Retiring => Ok(()),
        Lifecycle::Broken(reason) => Err(CallError::Broken { reason: reason.clone() }),
        Lifecycle::Suspended(reason) => Err(CallError::Suspended { reason: *reason }),
        Lifecycle::Retired => Err(CallError::Retired { state: lifecycle.name().to_owned() }),
        Lifecycle::Deleted => Err(CallError::Deleted),
    }
}

fn fits(reply: &Reply, containing: Option<&[u8]>) -> bool {
    let said = match &reply.outcome {
        ReplyOutcome::None => return false,
        ReplyOutcome::Ok(bytes) => bytes,
        ReplyOutcome::Refused { body, .. } => body,
    };
    containing
        .is_none_or(|needle| needle.is_empty() || said.windows(needle.len()).any(|window| window == needle))
}
