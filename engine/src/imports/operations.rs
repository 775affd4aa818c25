//! `godwit:agent/operations`: work that the host does for the agent, collected for the commit.

use bytes::Bytes;
use godwit_core::id::OperationId;
use godwit_core::limits::OPERATIONS_MAX;
use godwit_core::operation::request::{RequestError, is_granted};
use godwit_core::operation::{Class, HttpRequest, NewOperation, OperationChange, Request};

use crate::bindings::godwit::agent::operations::{self, OperationError};
use crate::context::GuestContext;
use crate::effects::QuotaReached;
use crate::fault::Stop;
use crate::tape::Answered;

impl operations::Host for GuestContext {
    fn start(&mut self, request: operations::Request) -> wasmtime::Result<Result<String, OperationError>> {
        self.taped("operations.start", |context| {
            let request = match context.checked(request) {
                Ok(request) => request,
                Err(error) => return Ok(Answered::Computed(Err(error))),
            };
            if !context.has_room_for_operation()? {
                return Ok(Answered::Computed(Err(OperationError::Quota)));
            }
            Ok(Answered::Computed(context.note_start(request)))
        })
    }

    fn cancel(&mut self, id: String) -> wasmtime::Result<Result<(), OperationError>> {
        self.taped("operations.cancel", |context| Ok(Answered::Computed(context.note_cancel(&id))))
    }

    fn list_active(&mut self) -> wasmtime::Result<Result<Vec<String>, OperationError>> {
        self.taped("operations.list-active", |context| {
            if !context.call.phase.may_read() {
                return Ok(Answered::Computed(Err(OperationError::NotInTurn)));
            }
            context.check_live()?;
            let mut active = context.state.operations().map_err(Stop::StateRead)?;
            active.extend(context.effects.started().map(|operation| operation.id));
            Ok(Answered::Fetched(Ok(active.iter().map(OperationId::to_string).collect())))
        })
    }
}

impl GuestContext {
    /// Whether the agent would have no more operations than it may with one more. What ends meanwhile only makes room.
    fn has_room_for_operation(&self) -> Result<bool, Stop> {
        if self.call.tape.is_replay() {
            // Had there been none, the error would be on the tape.
            return Ok(true);
        }
        let active = self.state.operations().map_err(Stop::StateRead)?.len();
        Ok(active + self.effects.started().count() < OPERATIONS_MAX)
    }

    fn note_start(&mut self, request: Request) -> Result<String, OperationError> {
        let turn = &self.call.turn;
        let index = u32::try_from(self.effects.started().count()).unwrap_or(u32::MAX);
        let id = OperationId::of(&self.agent, turn.generation, turn.revision, index);
        let operation = NewOperation { id, index, request };
        let noted = self.effects.change_operation(OperationChange::Start(operation));
        noted.map(|()| id.to_string()).map_err(|QuotaReached| OperationError::Quota)
    }

    fn note_cancel(&mut self, id: &str) -> Result<(), OperationError> {
        if !self.call.phase.is_turn() {
            return Err(OperationError::NotInTurn);
        }
        let Ok(id) = id.parse() else {
            let what = "the id is none that `start` has given";
            return Err(OperationError::InvalidRequest(what.into()));
        };
        let noted = self.effects.change_operation(OperationChange::Cancel(id));
        noted.map_err(|QuotaReached| OperationError::Quota)
    }

    fn checked(&self, request: operations::Request) -> Result<Request, OperationError> {
        if !self.call.phase.is_turn() {
            return Err(OperationError::NotInTurn);
        }
        let operations::Request::Http(request) = request;
        let request = HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: Bytes::from(request.body),
            timeout_ms: request.timeout_ms,
            class: match request.class {
                operations::Class::AtLeastOnce => Class::AtLeastOnce,
                operations::Class::AtMostOnce => Class::AtMostOnce,
            },
        };
        let target = request.check().map_err(|error| match error {
            RequestError::Invalid(what) => OperationError::InvalidRequest(what),
            RequestError::TooLarge(_) => OperationError::TooLarge,
        })?;
        let has_secrets = request.secrets().iter().all(|secret| secret.is_granted(&self.grants));
        if is_granted(&self.grants, &target) && has_secrets {
            Ok(Request::Http(request))
        } else {
            Err(OperationError::NotGranted)
        }
    }
}

#[cfg(test)]
mod tests;
