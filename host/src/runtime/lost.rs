//! What this host says of leases that are not its own any more: that an act under one was refused, and that it has lost
//! them. It says so in transactions of their own, because the refused one wrote nothing; and of a dead session's leases
//! under the next session, once the store knows this host again.

use std::time::Duration;

use godwit_core::event::{EventKind, NewEvent};
use godwit_core::failpoint;
use godwit_core::lease::{Lease, LeaseState};
use godwit_core::retry::{Backoff, Retry, Retryable};
use godwit_core::time::within;

use super::Runtime;
use super::directory::Owned;

/// Events of one transaction: a host may lose 100,000 agents at once, and others write in between.
const BATCH: usize = 256;
/// First and longest pause before a batch is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Tells of lost leases, each once, until shutdown. A process that dies before it comes to that has said nothing of them: that
/// its session is gone, and who holds the agents now, others have written.
pub(crate) async fn tell(runtime: Runtime) {
    let shutdown = runtime.inner().tasks.shutdown();
    loop {
        // Cancel safe: a notice that is not taken stays.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = runtime.inner().directory.has_lost.notified() => {}
        }
        // Not before this host has joined again, which notifies once more.
        if runtime.session().lease.state() == LeaseState::Lost {
            continue;
        }
        let lost = runtime.inner().directory.take_lost();
        if !lost.is_empty() {
            failpoint::hit("session.before-lost");
        }
        for batch in lost.chunks(BATCH) {
            append(&runtime, batch).await;
        }
    }
}

async fn append(runtime: &Runtime, lost: &[Lease]) {
    let now_ms = runtime.now_ms();
    let events: Vec<NewEvent> = lost.iter().map(|lease| lost_event(runtime, lease, now_ms)).collect();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match runtime.inner().store.append_events(events.clone()).await {
            Ok(()) => return,
            Err(error) if error.retry() == Retry::Later => {
                tracing::warn!(%error, "lost leases can't be told of now");
            }
            Err(error) => {
                tracing::warn!(%error, leases = lost.len(), "lost leases can't be told of");
                return;
            }
        }
        let [random] = runtime.inner().clock.random();
        if within(backoff.delay(random), runtime.inner().tasks.shutdown().cancelled()).await.is_some() {
            return;
        }
    }
}

/// `incarnation` is the session that lost it, `under` the one that says so: they differ when the session has died.
fn lost_event(runtime: &Runtime, lease: &Lease, now_ms: u64) -> NewEvent {
    NewEvent::of_agent(&lease.agent, EventKind::LeaseLost, now_ms)
        .with("token", lease.token)
        .with("host", runtime.inner().host)
        .with("incarnation", lease.incarnation)
        .with("under", runtime.session().incarnation)
}

impl Runtime {
    /// The store has refused an act under a lease of this host's: lets go of what that lease is held for, so that the next
    /// act asks for one anew, and writes it down, whoever owns the agent now.
    pub(crate) async fn fenced(&self, owned: &Owned, place: &str) {
        let Lease { agent, token, incarnation, .. } = &owned.lease;
        owned.guard.lose();
        self.inner().directory.lose_fenced(agent, *token);
        tracing::warn!(%agent, %token, place, "fenced");
        let event = NewEvent::of_agent(agent, EventKind::Fenced, self.now_ms())
            .with("place", place)
            .with("token", token)
            .with("host", self.inner().host)
            .with("incarnation", incarnation);
        if let Err(error) = self.inner().store.append_events(vec![event]).await {
            tracing::warn!(%agent, %error, "fenced event can't be written");
        }
    }
}
