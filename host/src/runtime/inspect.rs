//! Everything that an operator asks about an agent, in one answer: what it is made of, how it stands, who holds it, what
//! waits, what it did last, and what is wrong. Without payloads, in which secrets may stand, and short: lists have their own
//! calls.

use bytes::Bytes;
use godwit_core::event::{Event, EventKind};
use godwit_core::id::{AgentId, Revision};
use godwit_core::lease::Holder;
use godwit_core::operation::{Request, StoredOperation};
use godwit_core::output::StoredOutput;
use godwit_core::receipt::Receipt;
use godwit_core::spec::Spec;
use godwit_core::store::{AgentRow, KeptSnapshot, Page, StoreError, StoredInput};
use godwit_core::timer::StoredTimer;
use serde::{Deserialize, Serialize};

use super::Runtime;
use super::call::{AgentCall, AgentReply, AgentView, CallError, Rows};
use super::routing::{Forward, store_error};

/// Rows of each kind that are shown.
const SHOWN: usize = 10;
/// The last events of an agent, among which its last error is looked for.
pub const EVENTS_MAX: usize = 100;
/// Events that say that something went wrong.
const ERRORS: [EventKind; 6] = [
    EventKind::AgentBroken,
    EventKind::AgentStuck,
    EventKind::InputDeadLettered,
    EventKind::OutputUndeliverable,
    EventKind::Fenced,
    EventKind::LeaseLost,
];

/// An agent as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// As it is listed: state, host, lease, token, generation, revision, plugin, labels, why it is broken or stuck.
    pub view: AgentView,
    /// What it runs: configuration, limits, silent intents, durability; `None` when the agent can't be read.
    pub spec: Option<Spec>,
    /// Which stored bytes of it are damaged, as far as reading it has shown.
    pub damage: Option<String>,
    /// Who holds its lease.
    pub holder: Option<Holder>,
    /// Whether its guest is in memory on the host that answered.
    pub is_resident: bool,
    /// What its row counts.
    pub counters: Counters,
    /// Kept snapshots, oldest first.
    pub snapshots: Vec<KeptSnapshot>,
    /// The last receipts, oldest first.
    pub receipts: Vec<Receipt>,
    /// The first open inputs.
    pub inputs: Rows<StoredInput>,
    /// Timers that wait, by name.
    pub timers: Rows<StoredTimer>,
    /// The first pending outputs.
    pub outputs: Rows<StoredOutput>,
    /// Operations that have not ended.
    pub operations: Rows<StoredOperation>,
    /// The last events, oldest first: as far as they happened in this store and are kept.
    pub events: Vec<Event>,
    /// The last of its events that says that something went wrong.
    pub last_error: Option<Event>,
}

/// Counters of an agent's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Open inputs.
    pub open_inputs: u64,
    /// Those of them that wake.
    pub waking_inputs: u64,
    /// Payloads and headers of the open ones in bytes.
    pub open_bytes: u64,
    /// Rows of the guest's state.
    pub state_keys: u64,
    /// Their keys and values in bytes.
    pub state_bytes: u64,
    /// Ended inputs that retention has removed.
    pub inputs_pruned: u64,
    /// Starts that have failed in a row.
    pub failed_starts: u32,
    /// The seq that the next input gets.
    pub next_seq: u64,
    /// The number that the next event gets.
    pub next_event: u64,
    /// Agent time in Unix milliseconds.
    pub time_ms: u64,
}

impl Runtime {
    /// Everything about an agent, wherever it is at home; so many of its last events, at most `EVENTS_MAX`.
    ///
    /// # Errors
    /// As for every call on an agent.
    pub async fn inspect(
        &self,
        agent: &AgentId,
        events: usize,
        forward: Forward,
    ) -> Result<Inspection, CallError> {
        match self.call(agent, AgentCall::Inspect { events }, forward).await?.reply {
            AgentReply::Inspected(inspection) => Ok(*inspection),
            other => Err(CallError::Internal { reason: format!("{other:?} is no inspection") }),
        }
    }

    /// Looks at an agent that is at home here; so many of its last events.
    pub(crate) async fn inspect_here(&self, row: &AgentRow, events: usize) -> Result<Inspection, CallError> {
        let (store, agent) = (&self.inner().store, &row.agent);
        let (spec, damage) = match store.image(agent, None).await {
            Ok(Some(image)) => (Some(image.spec), None),
            Ok(None) => return Err(CallError::NotFound { agent: agent.clone() }),
            // The rest must be seen all the more.
            Err(StoreError::Corrupt { what }) => (None, Some(what)),
            Err(error) => return Err(store_error(error)),
        };
        let first = Page { after: 0, limit: SHOWN + 1 };
        let inputs = store.open_inputs(agent, first).await.map_err(store_error)?;
        let outputs = store.pending_outputs(agent, first).await.map_err(store_error)?;
        let timers = store.timers(agent).await.map_err(store_error)?;
        let operations = store.operations(agent).await.map_err(store_error)?;
        let before = Revision(row.revision.0.saturating_sub(SHOWN as u64));
        let receipts = store.receipts(agent, row.generation, before, SHOWN).await.map_err(store_error)?;
        let (events, last_error) = self.last_events(agent, row.next_event, events).await?;
        Ok(Inspection {
            view: self.view(row).await?,
            spec,
            damage,
            holder: row.holder,
            is_resident: self.inner().directory.handle(agent).is_some(),
            counters: counters(row),
            snapshots: store.kept_snapshots(agent).await.map_err(store_error)?,
            receipts,
            inputs: Rows::page(inputs.into_iter().map(input_alone).collect(), SHOWN),
            timers: Rows::page(timers.into_iter().take(SHOWN + 1).map(timer_alone).collect(), SHOWN),
            outputs: Rows::page(outputs.into_iter().map(output_alone).collect(), SHOWN),
            operations: Rows::page(
                operations.into_iter().take(SHOWN + 1).map(operation_alone).collect(),
                SHOWN,
            ),
            events,
            last_error,
        })
    }

    async fn last_events(
        &self,
        agent: &AgentId,
        next_event: u64,
        wanted: usize,
    ) -> Result<(Vec<Event>, Option<Event>), CallError> {
        let before = next_event.saturating_sub(1 + EVENTS_MAX as u64);
        let read = self.inner().store.agent_events(agent, before, EVENTS_MAX).await.map_err(store_error)?;
        let last_error = read.iter().rfind(|event| ERRORS.contains(&event.event.kind)).cloned();
        // The newest that fit a frame.
        let newest: Vec<Event> = read.into_iter().rev().take(wanted).collect();
        let mut events = Rows::page(newest, wanted).items;
        events.reverse();
        Ok((events, last_error))
    }
}

fn counters(row: &AgentRow) -> Counters {
    Counters {
        open_inputs: row.open_inputs,
        waking_inputs: row.waking_inputs,
        open_bytes: row.open_bytes,
        state_keys: row.state_keys,
        state_bytes: row.state_bytes,
        inputs_pruned: row.inputs_pruned,
        failed_starts: row.failed_starts,
        next_seq: row.next_seq.0,
        next_event: row.next_event,
        time_ms: row.time_ms,
    }
}

fn input_alone(mut stored: StoredInput) -> StoredInput {
    (stored.input.payload, stored.input.headers) = (Bytes::new(), Vec::new());
    stored
}

fn timer_alone(mut stored: StoredTimer) -> StoredTimer {
    stored.timer.payload = Bytes::new();
    stored
}

fn output_alone(mut stored: StoredOutput) -> StoredOutput {
    (stored.output.payload, stored.output.headers) = (Bytes::new(), Vec::new());
    stored
}

fn operation_alone(mut stored: StoredOperation) -> StoredOperation {
    let Request::Http(request) = &mut stored.operation.request;
    (request.body, request.headers) = (Bytes::new(), Vec::new());
    stored
}
