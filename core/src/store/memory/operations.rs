//! Operations: who must look after them, beginning and ending one.

use crate::id::{AgentId, Incarnation, InputId, OperationId, Seq};
use crate::input::NewInput;
use crate::lifecycle::Lifecycle;
use crate::operation::{
    After, OperationChange, OperationEnd, OperationEvent, OperationState, StoredOperation,
};
use crate::receipt::Receipt;
use crate::store::agent::Home;
use crate::store::commit::{AcceptError, Owner};
use crate::store::error::StoreError;
use crate::store::memory::commit::{admit, door};
use crate::store::memory::rows::AgentRows;
use crate::store::memory::tables::{Tables, conflict};
use crate::store::rows::{Row, RowKey};

impl Tables {
    pub(super) fn operating(
        &self,
        incarnation: Option<Incarnation>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Vec<AgentId> {
        let may_own = |rows: &AgentRows, incarnation| {
            rows.portable().lifecycle == Lifecycle::Active
                && self.holder(rows).is_none_or(|holder| holder.incarnation == incarnation)
        };
        let is_ours = |rows: &AgentRows| {
            rows.standing.home == Home::Here
                && rows.operations().next().is_some()
                && incarnation.is_none_or(|incarnation| may_own(rows, incarnation))
        };
        let behind = self.agents.iter().filter(|(agent, _)| after.is_none_or(|after| *agent > after));
        behind.filter(|(_, rows)| is_ours(rows)).map(|(agent, _)| agent.clone()).take(limit).collect()
    }

    pub(super) fn begin_operation(
        &mut self,
        owner: &Owner,
        operation: OperationId,
        now_ms: u64,
    ) -> Result<Option<StoredOperation>, StoreError> {
        let rows = self.fenced(owner)?;
        let Some(mut stored) = rows.operation(operation).cloned() else { return Ok(None) };
        match after(&stored, OperationEvent::Begin(owner.token))? {
            After::Goes(state) if state != stored.state => {
                (stored.state, stored.since_ms) = (state, now_ms);
                rows.put(Row::Operation(stored.clone()));
            }
            After::Goes(_) | After::Ended(_) => {}
        }
        Ok(Some(stored))
    }

    pub(super) fn end_operation(
        &mut self,
        owner: &Owner,
        operation: OperationId,
        end: OperationEnd,
        now_ms: u64,
    ) -> Result<Option<Seq>, AcceptError> {
        let quotas = self.quotas;
        let rows = self.fenced(owner)?;
        let Some(stored) = rows.operation(operation) else {
            let ended = InputId::of_operation_end(&owner.agent, operation);
            return Ok(rows.input_by_id(ended).map(|input| input.seq));
        };
        after(stored, OperationEvent::End(end.outcome))?;
        let mut input = end.input(&owner.agent, operation);
        input.accepted_at_ms = now_ms;
        let new = NewInput::of_host(&owner.agent, input);
        let known = match door(rows, &new, &quotas) {
            Ok(known) => known,
            // There is always room for ends: an agent has few operations.
            Err(AcceptError::Busy { .. }) => None,
            Err(refused) => return Err(refused),
        };
        rows.delete(RowKey::Operation(operation));
        Ok(Some(match known {
            Some(known) => known.seq,
            None => admit(rows, new, owner.incarnation),
        }))
    }
}

fn after(stored: &StoredOperation, event: OperationEvent) -> Result<After, StoreError> {
    let class = stored.operation.request.class();
    stored.state.on(event, class).map_err(|error| conflict(error.to_string()))
}

/// Starts or cancels an operation with a boundary.
pub(super) fn write(rows: &mut AgentRows, change: OperationChange, receipt: &Receipt) {
    match change {
        OperationChange::Start(operation) => {
            rows.put(Row::Operation(StoredOperation {
                operation,
                generation: receipt.generation,
                revision: receipt.revision,
                state: OperationState::Wanted,
                since_ms: receipt.committed_at_ms,
                is_cancelled: false,
            }));
        }
        OperationChange::Cancel(operation) => {
            if let Some(stored) = rows.operation(operation).filter(|stored| !stored.is_cancelled) {
                let stored = StoredOperation { is_cancelled: true, ..stored.clone() };
                rows.put(Row::Operation(stored));
            }
        }
    }
}
