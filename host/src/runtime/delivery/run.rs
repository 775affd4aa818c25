//! Runs: outputs for one destination that may travel together, and how many of several runs go in one request.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_core::channel::{ChannelDelivery, ChannelMessage};
use godwit_core::id::AgentId;
use godwit_core::input::NewInput;
use godwit_core::limits::{FRAME_BYTES_MAX, OUTPUT_LIFETIME};
use godwit_core::output::{Sender, StoredOutput};
use godwit_core::store::OutputKey;

use crate::runtime::wire::Delivered;

/// Inputs of one request, which are accepted in one transaction.
pub(crate) const BATCH_INPUTS_MAX: usize = 512;
/// Payloads and envelopes of one request in bytes: with the rest of it they fit a frame, and one input always does.
const BATCH_BYTES_MAX: usize = 768 * 1024;
/// What an input takes beside its payload and headers: names of 128 bytes, a correlation, a proof.
const ENVELOPE_BYTES: usize = 1_024;

const _: () = assert!(BATCH_BYTES_MAX < FRAME_BYTES_MAX);

/// Outputs of one generation to one destination, and the inputs that they become, in order.
pub(super) struct Run {
    pub(super) destination: AgentId,
    pub(super) outputs: Vec<StoredOutput>,
    pub(super) inputs: Vec<NewInput>,
}

impl Run {
    /// The first outputs of a lane that may travel together: nothing of a generation goes before all of the one before has
    /// ended, and what is too old is looked at by itself. Every lower number has ended, because outputs are read in order.
    pub(super) fn new(
        destination: AgentId,
        mut lane: Vec<StoredOutput>,
        sender: &Sender,
        now_ms: u64,
    ) -> Self {
        let first = lane.first().map_or((0, sender.generation), |first| (first.number, first.generation));
        let (lowest, generation) = first;
        let fits = |stored: &StoredOutput| stored.generation == generation && !is_expired(stored, now_ms);
        let length = lane.iter().take_while(|stored| fits(stored)).count();
        lane.truncate(length.max(1));
        let inputs = lane.iter().map(|stored| stored.delivery(sender, lowest, now_ms)).collect();
        Self { destination, outputs: lane, inputs }
    }

    /// Whether it is one output that is too old.
    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.outputs.first().is_some_and(|first| is_expired(first, now_ms))
    }
}

fn is_expired(stored: &StoredOutput, now_ms: u64) -> bool {
    let age_ms = now_ms.saturating_sub(stored.committed_at_ms);
    u128::from(age_ms) > OUTPUT_LIFETIME.as_millis()
}

pub(super) fn key_of(stored: &StoredOutput) -> OutputKey {
    OutputKey {
        destination: stored.output.destination.clone(),
        generation: stored.generation,
        number: stored.number,
    }
}

/// What of some runs goes at once: the first of each, then the second of each, until it is enough. Each with the place of its
/// run.
pub(super) fn batch_of(runs: &[Run]) -> Vec<(usize, NewInput)> {
    let longest = runs.iter().map(|run| run.inputs.len()).max().unwrap_or(0);
    let mut batch = Vec::new();
    let mut bytes = 0;
    for depth in 0..longest {
        for (index, run) in runs.iter().enumerate() {
            let Some(input) = run.inputs.get(depth) else { continue };
            bytes += weight(input);
            if !batch.is_empty() && (bytes > BATCH_BYTES_MAX || batch.len() >= BATCH_INPUTS_MAX) {
                return by_destination(batch);
            }
            batch.push((index, input));
        }
    }
    by_destination(batch)
}

/// Those of each run together: a store looks at an agent once then.
fn by_destination(mut batch: Vec<(usize, &NewInput)>) -> Vec<(usize, NewInput)> {
    batch.sort_by_key(|(index, _)| *index);
    batch.into_iter().map(|(index, input)| (index, input.clone())).collect()
}

/// About how many bytes of a frame an input takes.
fn weight(input: &NewInput) -> usize {
    let token = |delivery: &ChannelDelivery| match &delivery.message {
        ChannelMessage::Request(request) => request.token.as_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    let channel = input.delivery.as_ref().and_then(|stamp| stamp.channel.as_deref()).map_or(0, token);
    let bytes = usize::try_from(input.input.bytes()).unwrap_or(usize::MAX);
    bytes.saturating_add(channel + ENVELOPE_BYTES)
}

/// Answers to a batch, by run. Runs of which nothing was in it have none: they go in the next round.
pub(super) fn by_run(
    runs: Vec<Run>,
    places: Vec<usize>,
    delivered: Vec<Delivered>,
) -> impl Iterator<Item = (Run, Vec<Delivered>)> {
    let mut answers: BTreeMap<usize, Vec<Delivered>> = BTreeMap::new();
    for (index, delivered) in places.into_iter().zip(delivered) {
        answers.entry(index).or_default().push(delivered);
    }
    runs.into_iter().enumerate().map(move |(index, run)| (run, answers.remove(&index).unwrap_or_default()))
}
