//! The door for peers: what other hosts ask of this one.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use godwit_core::id::HostId;
use godwit_core::limits::FRAME_BYTES_MAX;
use godwit_core::mesh::{Bulk, MeshHandler};
use godwit_core::migration::Refusal;

use super::Runtime;
use super::call::CallError;
use super::wire::{self, BulkHeader, MigrationAnswer, PeerAnswer, PeerRequest};

/// Opened once the runtime has started, closed when it has stopped; before and after peers hear "not now".
#[derive(Clone, Default)]
pub struct PeerDoor {
    runtime: Arc<RwLock<Option<Runtime>>>,
}

impl PeerDoor {
    pub(crate) fn open(&self, runtime: Runtime) {
        *self.runtime.write().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
    }

    pub(crate) fn close(&self) {
        let runtime = self.runtime.write().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: it may be the last one.
        drop(runtime);
    }

    fn runtime(&self) -> Option<Runtime> {
        self.runtime.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What peers are told while the door is not open.
const NOT_NOW: &str = "the host is starting or has stopped";

#[async_trait]
impl MeshHandler for PeerDoor {
    async fn on_request(&self, from: HostId, body: Bytes) -> Bytes {
        let answer = match (self.runtime(), wire::decode::<PeerRequest>(&body)) {
            (None, _) => {
                PeerAnswer::NotNow { reason: NOT_NOW.into(), retry_after_ms: wire::NOT_NOW_RETRY_MS }
            }
            (_, Err(reason)) => PeerAnswer::Malformed { reason },
            (Some(runtime), Ok(request)) => runtime.answer_peer(from, request).await,
        };
        let version = wire::version_of(&body);
        let bytes = wire::encode_in(version, &answer.in_version(version));
        if bytes.len() <= FRAME_BYTES_MAX {
            return bytes;
        }
        let reason =
            format!("the answer of {} bytes does not fit a frame: ask the home host itself", bytes.len());
        wire::encode_in(version, &PeerAnswer::Called(Box::new(Err(CallError::Invalid { reason }))))
    }

    async fn on_bulk(&self, from: HostId, bulk: Bulk) -> Bytes {
        let version = wire::version_of(&bulk.header);
        let refused = |reason: String| {
            PeerAnswer::Migration(MigrationAnswer::Refused { why: Refusal::Protocol, reason })
        };
        let answer = match (self.runtime(), wire::decode::<BulkHeader>(&bulk.header)) {
            (None, _) => PeerAnswer::Migration(MigrationAnswer::NotReady { reason: NOT_NOW.into() }),
            (_, Err(reason)) => refused(reason),
            (
                Some(runtime),
                Ok(
                    header @ (BulkHeader::Rows { .. }
                    | BulkHeader::PackedRows { .. }
                    | BulkHeader::Plugin { .. }),
                ),
            ) => PeerAnswer::Migration(runtime.take_bulk(from, header, bulk).await),
            (Some(runtime), Ok(header)) => {
                PeerAnswer::Standby(runtime.take_standby_bulk(from, header, bulk.body).await)
            }
        };
        wire::encode_in(version, &answer.in_version(version))
    }
}

impl Runtime {
    pub(super) async fn answer_peer(&self, from: HostId, request: PeerRequest) -> PeerAnswer {
        match request {
            PeerRequest::Hello => PeerAnswer::Introduction {
                name: self.name().to_owned(),
                api: self.inner().api,
                release: env!("CARGO_PKG_VERSION").to_owned(),
            },
            PeerRequest::WhoIsHome { agent } => PeerAnswer::Home(self.home_of(&agent).await),
            PeerRequest::Claim { agent } => match self.on_claim(&agent, from).await {
                Ok(answer) => PeerAnswer::Claim(answer),
                // Whoever asked takes it for silence.
                Err(error) => PeerAnswer::Malformed { reason: error.to_string() },
            },
            PeerRequest::Offer => match self.offer().await {
                Ok(offer) => PeerAnswer::Offer(offer),
                Err(error) => PeerAnswer::Malformed { reason: error.to_string() },
            },
            PeerRequest::Members { group } => match self.members_here(&group).await {
                Ok(members) => PeerAnswer::Members(members),
                Err(error) => PeerAnswer::Malformed { reason: error.to_string() },
            },
            PeerRequest::Create { request } => {
                PeerAnswer::Created(Box::new(self.create_agent(*request).await))
            }
            PeerRequest::Standby { agent, message } => {
                PeerAnswer::Standby(self.on_standby(from, agent, *message).await)
            }
            PeerRequest::Host { call } => PeerAnswer::Host(Box::new(self.on_host_call(call).await)),
            PeerRequest::Call { agent, call, hops } => {
                PeerAnswer::Called(Box::new(self.call_with_hops(&agent, *call, hops).await))
            }
            PeerRequest::Deliver { inputs, statement } => {
                self.take_deliveries(from, inputs, statement.as_deref()).await
            }
            PeerRequest::Migration { id, agent, message } => {
                PeerAnswer::Migration(self.on_migration(from, id, agent, message).await)
            }
        }
    }
}
