//! The host's session with its store: joining, heartbeats, and what happens when the session is lost. What is done when is
//! decided by `core::lease::keeper`.

use std::sync::Arc;
use std::time::Duration;

use godwit_core::failpoint;
use godwit_core::id::Incarnation;
use godwit_core::lease::keeper::{Heard, Keeper, Next};
use godwit_core::lease::{LeaseProfile, SessionLease};
use godwit_core::store::{SessionRequest, StoreError};
use godwit_core::time::{sleep, within};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Runtime;
use crate::hooks::ErrorEvent;

/// Longest pause between the expiry of a session and its burial, so that hosts don't all come at once.
const TAKEOVER_JITTER_MAX: Duration = Duration::from_millis(100);

/// The session under which this host acts now.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Arc<SessionLease>,
    /// `None` when holding the store's lock is the session.
    pub(crate) profile: Option<LeaseProfile>,
    /// Boot time from before the join was sent.
    pub(crate) joined_at: Duration,
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
    let (lease, profile) = match session.ttl {
        None => (SessionLease::unlimited(), None),
        Some(_) => (SessionLease::started(sent, &profile, inner.clock.clone()), Some(profile)),
    };
    Ok(Current { incarnation: session.incarnation, lease, profile, joined_at: sent })
}

/// Starts keeping the session of a shared store, until shutdown: on a thread of its own, so that no guest and no caller can
/// keep it from its heartbeat (a host without threads keeps it in a task). It ends when the host has no use for leases any
/// more, also when its tasks are dropped: nobody holds agents that nothing can run any more.
///
/// # Errors
/// `Closed` when there is no thread to have.
pub(crate) fn keep(runtime: &Runtime) -> Result<(), StoreError> {
    let current = runtime.session();
    let Some(profile) = current.profile else {
        return Ok(());
    };
    let tasks = &runtime.inner().keeping;
    let ending = tasks.shutdown().child_token();
    let keeper = Keeper::new(profile, current.joined_at);
    runtime.inner().tasks.spawn(watch_others(runtime.clone()));
    if runtime.inner().env.pool.is_inline() {
        let runtime = runtime.clone();
        tasks.spawn(async move { keep_until(&ending, &runtime, keeper).await });
        return Ok(());
    }
    let (working, ended) = oneshot::channel::<()>();
    let work = {
        let (runtime, ending) = (runtime.clone(), ending.clone());
        move || {
            match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(own) => own.block_on(keep_until(&ending, &runtime, keeper)),
                Err(error) => runtime.fail(&format!("the session can't be kept: {error}")),
            }
            drop(working);
        }
    };
    std::thread::Builder::new()
        .name("godwit-lease".to_owned())
        .spawn(work)
        .map_err(|error| StoreError::Closed { reason: format!("no thread for the session: {error}") })?;
    let ends_with_this = ending.drop_guard();
    tasks.spawn(async move {
        drop(ended.await);
        drop(ends_with_this);
    });
    Ok(())
}

async fn keep_until(ending: &CancellationToken, runtime: &Runtime, mut keeper: Keeper) {
    let now = || runtime.inner().clock.boot();
    while !ending.is_cancelled() {
        match keeper.next(now()) {
            Next::Wait(until) => {
                // Cancel safe: nothing is held while waiting.
                tokio::select! {
                    biased;
                    () = ending.cancelled() => return,
                    () = sleep(until.saturating_sub(now())) => {}
                }
            }
            Next::Beat => {
                // The deadline counts from before the send: the store may have written at any moment after it.
                let sent = now();
                let heard = beat(runtime, sent).await;
                keeper.heard(sent, now(), heard);
            }
            Next::Stop => {
                let dead = runtime.session();
                tracing::warn!(incarnation = %dead.incarnation, "session is dead: everything under it stops");
                runtime.inner().hooks.error(ErrorEvent::SessionLost { incarnation: dead.incarnation });
                dead.lease.lose();
                runtime.inner().directory.lose_all();
                keeper.stopped(now());
            }
            Next::Look => {
                let is_newer_there = is_newer_there(runtime).await;
                keeper.looked(now(), is_newer_there);
            }
            Next::Join => match join(runtime).await {
                Ok(current) => {
                    keeper.joined(current.joined_at);
                    runtime.set_session(current);
                    if let Err(error) = runtime.note_head().await {
                        tracing::error!(%error, "a backup of before this session would not be recognized");
                    }
                    runtime.inner().rescan.notify_one();
                    runtime.inner().directory.has_lost.notify_one();
                }
                Err(error) => {
                    tracing::warn!(%error, "can't join the store");
                    keeper.not_joined(now());
                }
            },
            Next::Exit => {
                runtime.fail("a newer process uses this host's key: this one stops");
                return;
            }
        }
    }
}

async fn beat(runtime: &Runtime, sent: Duration) -> Heard {
    let current = runtime.session();
    let Some(profile) = &current.profile else { return Heard::Renewed };
    match within(profile.ttl, runtime.inner().store.heartbeat(current.incarnation)).await {
        Some(Ok(())) => {
            current.lease.renewed(sent, profile);
            Heard::Renewed
        }
        Some(Err(StoreError::SessionDead { .. })) => Heard::Dead,
        Some(Err(error)) => {
            tracing::warn!(%error, "heartbeat failed");
            Heard::Unclear
        }
        None => {
            tracing::warn!("the store did not answer a heartbeat");
            Heard::Unclear
        }
    }
}

/// Whether another process has a session under this host's key. One at this process's own address is of a join of ours
/// whose answer was lost.
async fn is_newer_there(runtime: &Runtime) -> Option<bool> {
    let (host, own) = (runtime.inner().host, runtime.inner().mesh.local_address());
    match runtime.inner().store.sessions().await {
        Ok(sessions) => Some(sessions.iter().any(|session| session.host == host && session.mesh != own)),
        Err(error) => {
            tracing::warn!(%error, "sessions can't be read");
            None
        }
    }
}

/// Knows the other hosts of the store, and takes over from those whose session has expired. Ends at shutdown.
async fn watch_others(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    while let Some(profile) = runtime.session().profile {
        let expiry = know_each_other(&runtime).await;
        // All hosts see the same expiry: whoever comes first buries, and the others find it done.
        let pause = expiry.map_or(profile.heartbeat, |left| left.min(profile.heartbeat));
        // Cancel safe: nothing is held while waiting.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(pause + jitter(&runtime)) => {}
        }
        take_over(&runtime).await;
    }
}

fn jitter(runtime: &Runtime) -> Duration {
    let [random]: [u8; 1] = runtime.inner().clock.random();
    TAKEOVER_JITTER_MAX * u32::from(random) / 256
}

/// Hosts of one store trust each other, and the store says where they listen. Answers when the first of them expires, if it
/// sends no heartbeat.
async fn know_each_other(runtime: &Runtime) -> Option<Duration> {
    let own = runtime.inner().host;
    match runtime.inner().store.sessions().await {
        Ok(sessions) => {
            let expiry =
                sessions.iter().filter(|session| session.host != own).filter_map(|session| session.remaining);
            let expiry = expiry.min();
            let others: Vec<_> = sessions.into_iter().filter(|session| session.host != own).collect();
            runtime.inner().hints.set_store_mates(others.iter().map(|session| session.host).collect());
            for session in others {
                runtime.inner().mesh.add_peer(session.host, session.mesh);
            }
            expiry
        }
        Err(error) => {
            tracing::warn!(%error, "other hosts of the store can't be read");
            None
        }
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
