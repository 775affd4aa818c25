//! Operations: who must look after them, beginning and ending one.

use crate::id::{AgentId, Generation, Incarnation, InputId, OperationId, Revision, Seq};
use crate::input::NewInput;
use crate::lifecycle::Lifecycle;
use crate::operation::{
    After, OperationChange, OperationEnd, OperationEvent, OperationState, StoredOperation,
};
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
        incarnation: Incarnation,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Vec<AgentId> {
        let is_ours = |rows: &AgentRows| {
            rows.standing.home == Home::Here
                && rows.portable().lifecycle == Lifecycle::Active
                && rows.operations().next().is_some()
                && self.holder(rows).is_none_or(|holder| holder.incarnation == incarnation)
        };
        let behind = self.agents.iter().filter(|(agent, _)| after.is_none_or(|after| *agent > after));
        behind.filter(|(_, rows)| is_ours(rows)).map(|(agent, _)| agent.clone()).take(limit).collect()
    }

    pub(super) fn begin_operation(
        &mut self,
        owner: &Owner,
        operation: OperationId,
    ) -> Result<Option<StoredOperation>, StoreError> {
        let rows = self.fenced(owner)?;
        let Some(mut stored) = rows.operation(operation).cloned() else { return Ok(None) };
        match after(&stored, OperationEvent::Begin(owner.token))? {
            After::Goes(state) if state != stored.state => {
                stored.state = state;
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
pub(super) fn write(
    rows: &mut AgentRows,
    change: OperationChange,
    (generation, revision): (Generation, Revision),
) {
    match change {
        OperationChange::Start(operation) => {
            let state = OperationState::Wanted;
            let stored = StoredOperation { operation, generation, revision, state, is_cancelled: false };
            rows.put(Row::Operation(stored));
        }
        OperationChange::Cancel(operation) => {
            if let Some(stored) = rows.operation(operation).filter(|stored| !stored.is_cancelled) {
                let stored = StoredOperation { is_cancelled: true, ..stored.clone() };
                rows.put(Row::Operation(stored));
            }
        }
    }
}
