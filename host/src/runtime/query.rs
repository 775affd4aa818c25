//! Queries of agents that this host owns.

use bytes::Bytes;
use godwit_core::agent::Grant;
use godwit_core::agent::query::{self, QueryError};
use godwit_core::id::AgentId;
use godwit_core::limits::PAYLOAD_BYTES_MAX;
use godwit_core::store::{AgentRow, StoreError};
use godwit_core::time::sleep;

use super::Runtime;
use super::call::{AgentReply, CallError, Queried};
use super::directory::Owned;
use super::routing::{Try, store_error};
use super::verbs::LOADING_PAUSE;

impl Runtime {
    /// Answers a query of an agent at home here, under its lease. The driver, if there is one, does not notice.
    pub(crate) async fn query_here(
        &self,
        agent: &AgentId,
        row: &AgentRow,
        payload: &Bytes,
    ) -> Result<Try, CallError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let reason = format!("the query has {} bytes, and may have {PAYLOAD_BYTES_MAX}", payload.len());
            return Err(CallError::Invalid { reason });
        }
        if !row.lifecycle.answers_queries() {
            return Err(store_error(StoreError::Lifecycle { state: row.lifecycle.clone() }));
        }
        let again = || async {
            sleep(LOADING_PAUSE).await;
            Ok(Try::Again { may_be_durable: false })
        };
        let Owned { lease, guard, .. } = match self.own(agent).await {
            Ok(owned) => owned,
            Err(
                StoreError::Fenced { .. }
                | StoreError::NotHome { .. }
                | StoreError::NoAgent
                | StoreError::SessionDead { .. },
            ) => return again().await,
            Err(error) => return Err(store_error(error)),
        };
        match query::query(&self.inner().env, Grant { lease, guard, warm: None }, payload.clone()).await {
            Ok(query::Queried { reply, revision, token }) => {
                Ok(Try::Done(AgentReply::Queried(Queried { reply, revision, token })))
            }
            Err(QueryError::Lost) => again().await,
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(error: QueryError) -> CallError {
    match error {
        QueryError::NoQuery => CallError::NoQuery,
        QueryError::Agent { message, is_retryable } => CallError::QueryFailed { message, is_retryable },
        QueryError::Fault(fault) => CallError::QueryFault(fault),
        QueryError::Busy { depth } => CallError::Busy { depth: depth as u64 },
        QueryError::NotInitialized => CallError::Conflict {
            what: "the agent has not been initialized: there is nothing to ask about before its first input"
                .into(),
        },
        QueryError::Unbuilt { .. } => CallError::Internal { reason: error.to_string() },
        QueryError::Unavailable { reason } => CallError::Unavailable { reason },
        QueryError::Store(error) => store_error(error),
        QueryError::Lost => CallError::Unavailable { reason: error.to_string() },
    }
}
