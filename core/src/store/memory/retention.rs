//! Removing what has ended and is no longer kept.

use std::collections::BTreeSet;

use crate::id::{AgentId, Revision, Seq};
use crate::input::{InputState, Outcome};
use crate::lifecycle::Lifecycle;
use crate::limits::PRUNE_ROWS_MAX;
use crate::output::{OutputState, StoredOutput};
use crate::receipt::{Receipt, ReceiptCheckpoint};
use crate::store::agent::StoredInput;
use crate::store::error::StoreError;
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::{Tables, conflict};
use crate::store::retention::{Pruned, Retention};
use crate::store::rows::{Row, RowKey};

impl Tables {
    pub(super) fn prune(
        &mut self,
        agent: &AgentId,
        retention: &Retention,
        after: Seq,
        now_ms: u64,
    ) -> Result<Pruned, StoreError> {
        let rows = self.at_home(agent)?;
        if rows.is_travelling {
            return Ok(Pruned::default());
        }
        let before_ms = retention.inputs_before_ms(now_ms);
        let newest = newest_dead_letters(rows, retention.dead_letters);
        let looked_at: Vec<&StoredInput> = rows.inputs_after(after.0).take(PRUNE_ROWS_MAX).collect();
        let is_over = |input: &&&StoredInput| {
            input.ended_at_ms.is_some_and(|at| at <= before_ms)
                && !newest.contains(&input.seq)
                && !is_needed(rows, input)
        };
        let over: Vec<Seq> = looked_at.iter().filter(is_over).map(|input| input.seq).collect();
        // What stays says nothing of what is behind it: inputs do not end in the order of their seqs.
        let next = looked_at.get(PRUNE_ROWS_MAX - 1).map(|input| input.seq);
        for seq in &over {
            rows.forget_input(*seq);
        }
        let gone = over_outputs(rows, retention.outputs_before_ms(now_ms));
        for key in &gone {
            rows.delete(key.clone());
        }
        let inputs = over.len() as u64;
        if inputs > 0 {
            rows.update(|portable| portable.inputs_pruned += inputs);
        }
        Ok(Pruned { inputs, outputs: gone.len() as u64, next })
    }

    pub(super) fn checkpoint_receipts(&mut self, signed: ReceiptCheckpoint) -> Result<u64, StoreError> {
        let checkpoint = &signed.checkpoint;
        let (generation, revision) = (checkpoint.generation, checkpoint.revision);
        let rows = self.at_home(&checkpoint.agent)?;
        if rows.checkpoint(generation) == Some(&signed) {
            return Ok(0);
        }
        if rows.is_travelling {
            return Err(StoreError::Busy);
        }
        if !signed.is_signed() {
            return Err(conflict("the checkpoint is not signed by the host that it names"));
        }
        if generation == rows.portable().generation && revision >= rows.kept_from() {
            return Err(conflict(format!("receipt {revision} is needed above the oldest kept snapshot")));
        }
        let before = rows.checkpoint(generation).map_or(Revision(0), |known| known.checkpoint.revision);
        let digest = rows.receipt(generation, revision).map(Receipt::digest);
        let between =
            rows.receipts_from(generation, before.next()).take_while(|receipt| receipt.revision <= revision);
        if digest != Some(checkpoint.head) || between.count() as u64 != revision.0.saturating_sub(before.0) {
            return Err(conflict(format!(
                "receipts {} to {revision} are not what the checkpoint stands for",
                before.next()
            )));
        }
        let gone = rows.forget_receipts(generation, revision);
        rows.put(Row::ReceiptCheckpoint(signed));
        rows.update(|_| {});
        Ok(gone)
    }
}

fn newest_dead_letters(rows: &AgentRows, count: usize) -> BTreeSet<Seq> {
    let dead = rows.inputs_after(0).filter(|input| input.state == InputState::DeadLettered);
    let seqs: Vec<Seq> = dead.map(|input| input.seq).collect();
    seqs.into_iter().rev().take(count).collect()
}

/// Whether a journal entry needs the payload of an input: that of the turn that ended it.
fn is_needed(rows: &AgentRows, input: &StoredInput) -> bool {
    let Some(Outcome::Committed { revision, .. } | Outcome::DeadLettered { revision, .. }) = &input.outcome
    else {
        return false;
    };
    if rows.portable().lifecycle == Lifecycle::Deleted {
        return false;
    }
    let generation = rows.portable().generation;
    // An input that an earlier generation ended has a revision of that one.
    let named = rows.receipt(generation, *revision).map(|receipt| &receipt.inputs);
    rows.is_journaled(generation, *revision) && named.is_some_and(|inputs| inputs.contains(&input.input.id))
}

fn over_outputs(rows: &AgentRows, before_ms: u64) -> Vec<RowKey> {
    let is_over = |output: &&StoredOutput| {
        matches!(output.state, OutputState::Undeliverable { .. }) && output.committed_at_ms <= before_ms
    };
    let over = rows.outputs_after(0).filter(is_over).take(PRUNE_ROWS_MAX);
    over.map(|stored| RowKey::Output(stored.output.destination.clone(), stored.generation, stored.number))
        .collect()
}
