//! The host's session with its store: joining, heartbeats, and what happens when the session is lost.

use std::sync::Arc;
use std::time::Duration;

use godwit_core::failpoint;
use godwit_core::id::Incarnation;
use godwit_core::lease::{LeaseProfile, SessionLease};
use godwit_core::store::{SessionRequest, StoreError};
use godwit_core::time::{sleep, within};

use super::Runtime;

/// The session under which this host acts now.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Arc<SessionLease>,
    /// `None` when holding the store's lock is the session.
    pub(crate) profile: Option<LeaseProfile>,
}

/// Joins the store: a new incarnation.
///
/// # Errors
/// As `RuntimeStore::join`.
pub(crate) async fn join(runtime: &Runtime) -> Result<Current, StoreError> {
    let inner = runtime.inner();
    let profile = inner.lease_profile;
    let sent = inner.clock.boot();
    let request = SessionRequest {
        host: inner.host,
        name: inner.name.clone(),
        api: inner.api,
        mesh: inner.mesh.local_address(),
        ttl: profile.ttl,
        now_ms: inner.clock.wall_ms(),
    };
    let session = inner.store.join(request).await?;
    failpoint::hit("session.after-join");
    tracing::info!(incarnation = %session.incarnation, shared = session.ttl.is_some(), "joined the store");
    Ok(match session.ttl {
        None => Current { incarnation: session.incarnation, lease: SessionLease::unlimited(), profile: None },
        Some(_) => Current {
            incarnation: session.incarnation,
            lease: SessionLease::started(sent, &profile),
            profile: Some(profile),
        },
    })
}

/// Keeps the session alive, and takes over from sessions that died. Ends at shutdown.
pub(crate) async fn keep(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    let Some(profile) = runtime.session().profile else {
        return;
    };
    let mut pause = profile.heartbeat;
    loop {
        know_each_other(&runtime).await;
        // Cancel safe: nothing is held while waiting.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = match beat(&runtime, &profile).await {
            Ok(()) => profile.heartbeat,
            Err(StoreError::SessionDead { .. }) => {
                if !rejoin(&runtime).await {
                    return;
                }
                profile.heartbeat
            }
            Err(error) => {
                tracing::warn!(%error, "heartbeat failed");
                profile.heartbeat / 4
            }
        };
        take_over(&runtime).await;
    }
}

async fn beat(runtime: &Runtime, profile: &LeaseProfile) -> Result<(), StoreError> {
    let current = runtime.session();
    // The deadline counts from before the send: the store may have written at any moment after it.
    let sent = runtime.inner().clock.boot();
    match within(profile.ttl, runtime.inner().store.heartbeat(current.incarnation)).await {
        Some(Ok(())) => {
            current.lease.renewed(sent, profile);
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Err(StoreError::Busy),
    }
}

/// The store said that the session is dead: everything under it stops, then the host joins anew. Answers whether it goes on.
async fn rejoin(runtime: &Runtime) -> bool {
    let dead = runtime.session();
    tracing::warn!(incarnation = %dead.incarnation, "session is dead: everything under it stops");
    dead.lease.lose();
    runtime.inner().directory.lose_all();
    let sessions = runtime.inner().store.sessions().await.unwrap_or_default();
    if sessions.iter().any(|session| session.host == runtime.inner().host) {
        runtime.fail("a newer process uses this host's key: this one stops");
        return false;
    }
    loop {
        match join(runtime).await {
            Ok(current) => {
                runtime.set_session(current);
                if let Err(error) = runtime.note_head().await {
                    tracing::error!(%error, "a backup of before this session would not be recognized");
                }
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, "can't join the store");
                let shutdown = runtime.inner().tasks.shutdown();
                if within(Duration::from_millis(500), shutdown.cancelled()).await.is_some() {
                    return false;
                }
            }
        }
    }
}

/// Hosts of one store trust each other, and the store says where they listen.
async fn know_each_other(runtime: &Runtime) {
    let own = runtime.inner().host;
    match runtime.inner().store.sessions().await {
        Ok(sessions) => {
            let others: Vec<_> = sessions.into_iter().filter(|session| session.host != own).collect();
            runtime.inner().hints.set_store_mates(others.iter().map(|session| session.host).collect());
            for session in others {
                runtime.inner().mesh.add_peer(session.host, session.mesh);
            }
        }
        Err(error) => tracing::warn!(%error, "other hosts of the store can't be read"),
    }
}

async fn take_over(runtime: &Runtime) {
    match runtime.inner().store.bury_expired().await {
        Ok(buried) if buried.is_empty() => {}
        Ok(buried) => {
            failpoint::hit("session.after-bury");
            tracing::info!(sessions = ?buried, "buried expired sessions");
            runtime.inner().rescan.notify_one();
        }
        Err(error) => tracing::warn!(%error, "can't bury expired sessions"),
    }
}
