//! Runs: outputs for one destination that travel together, and how many of several runs go in one request.

use std::sync::Arc;

use bytes::Bytes;
use godwit_core::channel::ChannelMessage;
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

/// Outputs of one generation to one destination, in order, which go in one request.
pub(super) struct Run {
    pub(super) destination: AgentId,
    pub(super) outputs: Vec<StoredOutput>,
    sender: Arc<Sender>,
    /// When it was made, by the wall clock.
    now_ms: u64,
}

impl Run {
    /// The first outputs of a lane that may travel together: nothing of a generation goes before all of the one before has
    /// ended, and what is too old is looked at by itself. Every lower number has ended, because outputs are read in order.
    pub(super) fn new(
        destination: AgentId,
        lane: Vec<StoredOutput>,
        sender: Arc<Sender>,
        now_ms: u64,
    ) -> Self {
        let mut run = Self { destination, outputs: lane, sender, now_ms };
        let generation = run.outputs.first().map(|first| first.generation);
        let mut room = BATCH_BYTES_MAX;
        let fits = |stored: &&StoredOutput| {
            let weight = weight(stored);
            let fits = weight <= room && Some(stored.generation) == generation && !is_expired(stored, now_ms);
            room = room.saturating_sub(weight);
            fits
        };
        let length = run.outputs.iter().take(BATCH_INPUTS_MAX).take_while(fits).count();
        run.outputs.truncate(length.max(1));
        run
    }

    /// Whether it is one output that is too old.
    pub(super) fn is_expired(&self) -> bool {
        self.outputs.first().is_some_and(|first| is_expired(first, self.now_ms))
    }

    /// The inputs that its outputs become.
    pub(super) fn inputs(&self) -> impl Iterator<Item = NewInput> {
        let lowest = self.outputs.first().map_or(0, |first| first.number);
        self.outputs.iter().map(move |stored| stored.delivery(&self.sender, lowest, self.now_ms))
    }

    fn weight(&self) -> usize {
        self.outputs.iter().map(weight).sum()
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

/// Runs by request, in order.
pub(super) fn by_request(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut requests: Vec<Vec<Run>> = Vec::new();
    let (mut inputs, mut bytes) = (0, 0);
    for run in runs {
        let (length, weight) = (run.outputs.len(), run.weight());
        match requests.last_mut() {
            Some(request) if inputs + length <= BATCH_INPUTS_MAX && bytes + weight <= BATCH_BYTES_MAX => {
                request.push(run);
                (inputs, bytes) = (inputs + length, bytes + weight);
            }
            _ => {
                requests.push(vec![run]);
                (inputs, bytes) = (length, weight);
            }
        }
    }
    requests
}

/// About how many bytes of a frame an output takes.
fn weight(stored: &StoredOutput) -> usize {
    let output = &stored.output;
    let token = match output.channel.as_deref() {
        Some(ChannelMessage::Request(request)) => request.token.as_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    let headers: usize = output.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    ENVELOPE_BYTES + output.payload.len() + headers + token
}

/// Answers to a request, by run.
pub(super) fn by_run(
    runs: Vec<Run>,
    delivered: Vec<Delivered>,
) -> impl Iterator<Item = (Run, Vec<Delivered>)> {
    let mut delivered = delivered.into_iter();
    runs.into_iter().map(move |run| {
        let answers = delivered.by_ref().take(run.outputs.len()).collect();
        (run, answers)
    })
}
