//! The suite that every `RuntimeStore` passes: one named case per rule, method and documented error.
//!
//! A store's own test is a `StoreFactory` and one call:
//! ```ignore
//! #[tokio::test]
//! async fn honours_the_contract() {
//!     godwit_core::store::conformance::run(Arc::new(MyFactory::default())).await;
//! }
//! ```
//! Cases speak to the store through the port alone. Each opens fresh stores, so cases may run in any order or at once.
//! `flawed.rs` is the negative control: a wrapper that breaks one rule, so that a test can prove which cases notice.
//!
//! Not here, because the port can't show it: sessions of another boot (rule 6), `Unknown`, `Full` and `Corrupt`, and
//! crashes between two writes. Stores prove those with faults of their own engine.

use std::future::Future;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::limits::Quotas;
use crate::store::{RuntimeStore, Sharing};
use crate::time::Clock;

mod accept;
mod agents;
mod archive;
mod auth;
mod chain;
mod channels;
mod commit;
mod edges;
mod entity_keys;
mod events;
mod fence;
mod fixture;
pub mod flawed;
mod groups;
mod handoff;
mod handoff_rows;
mod homes;
mod journal;
mod journey;
mod leases;
mod lifecycle;
mod migrations;
mod operations;
mod outbox;
mod places;
mod placing;
mod plugins;
mod quotas;
mod random;
mod repair;
mod restore;
mod retention;
mod sessions;
mod specs;
mod standby;
mod starts;
mod timers;
mod transfer;

use fixture::World;

/// How a store is opened.
pub struct Opening {
    /// For one host or several.
    pub sharing: Sharing,
    /// The store's clock.
    pub clock: Arc<dyn Clock>,
    /// What agents may fill.
    pub quotas: Quotas,
}

/// Opens stores for the suite.
#[async_trait]
pub trait StoreFactory: Send + Sync + 'static {
    /// Opens the store called `name` (letters, digits, `-`, `_`, `.`) under a clock. A new name is an empty store; a name
    /// that was opened before has all its rows. A shared store may be opened again while it is open; an exclusive one is
    /// closed first.
    async fn open(&self, name: &str, opening: Opening) -> Arc<dyn RuntimeStore>;

    /// Seeds of the random sequences; a failing one is named in the failure.
    fn seeds(&self) -> Range<u64> {
        1..17
    }

    /// Closes a store, of which this is the last handle; afterwards it can be opened again.
    async fn close(&self, store: Arc<dyn RuntimeStore>) {
        drop(store);
    }
}

type Body = dyn Fn(World) -> BoxFuture<'static, ()> + Send + Sync;

/// One named check.
pub struct Case {
    name: &'static str,
    body: Box<Body>,
}

/// A case that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseFailure {
    /// The case's name.
    pub case: &'static str,
    /// What it said.
    pub message: String,
}

impl Case {
    /// A case named after its function.
    fn of<F, Fut>(body: F) -> Self
    where
        F: Fn(World) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let path = std::any::type_name::<F>();
        Self {
            name: path.split_once("conformance::").map_or(path, |(_, name)| name),
            body: Box::new(move |world| body(world).boxed()),
        }
    }

    /// Its topic and what it claims: `commit::a_stale_revision_changes_nothing`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case.
    ///
    /// # Panics
    /// When the store does not do what the case claims.
    pub async fn run(&self, factory: Arc<dyn StoreFactory>) {
        (self.body)(World::new(factory, self.name)).await;
    }

    async fn failure(&self, factory: Arc<dyn StoreFactory>) -> Option<CaseFailure> {
        let panic = AssertUnwindSafe(self.run(factory)).catch_unwind().await.err()?;
        let message = match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic
                .downcast_ref::<&str>()
                .map_or_else(|| "panicked".to_owned(), |message| (*message).to_owned()),
        };
        Some(CaseFailure { case: self.name, message })
    }
}

/// All cases, by topic.
pub fn cases() -> Vec<Case> {
    [
        sessions::cases(),
        leases::cases(),
        agents::cases(),
        accept::cases(),
        placing::cases(),
        fence::cases(),
        commit::cases(),
        chain::cases(),
        channels::cases(),
        outbox::cases(),
        timers::cases(),
        lifecycle::cases(),
        operations::cases(),
        specs::cases(),
        standby::cases(),
        starts::cases(),
        plugins::cases(),
        quotas::cases(),
        events::cases(),
        places::cases(),
        transfer::cases(),
        migrations::cases(),
        handoff::cases(),
        handoff_rows::cases(),
        homes::cases(),
        retention::cases(),
        restore::cases(),
        archive::cases(),
        entity_keys::cases(),
        auth::cases(),
        journal::cases(),
        repair::cases(),
        edges::cases(),
        groups::cases(),
        random::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs all cases and answers those that failed, in order.
pub async fn failures(factory: Arc<dyn StoreFactory>) -> Vec<CaseFailure> {
    let mut failures = Vec::new();
    for case in cases() {
        failures.extend(case.failure(Arc::clone(&factory)).await);
    }
    failures
}

/// Runs all cases.
///
/// # Panics
/// Names every case that failed, with its message.
pub async fn run(factory: Arc<dyn StoreFactory>) {
    let failures = failures(factory).await;
    let report: Vec<String> =
        failures.iter().map(|failure| format!("{}: {}", failure.case, failure.message)).collect();
    assert!(report.is_empty(), "{} cases failed:\n{}", report.len(), report.join("\n"));
}

/// A clock that stands still until a case advances it. Its random bytes are a counter: unique, and the same in each run.
#[derive(Debug)]
pub struct ManualClock {
    elapsed_ms: AtomicU64,
    randoms: AtomicU64,
}

/// Wall time at which a `ManualClock` starts, Unix milliseconds.
pub const START_MS: u64 = 1_750_000_000_000;
/// Boot time at which a `ManualClock` starts.
const START_BOOT: Duration = Duration::from_secs(1_000);

impl Default for ManualClock {
    fn default() -> Self {
        Self { elapsed_ms: AtomicU64::new(0), randoms: AtomicU64::new(1) }
    }
}

impl ManualClock {
    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).expect("cases advance by seconds");
        self.elapsed_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        START_MS + self.elapsed_ms.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Duration {
        START_BOOT + Duration::from_millis(self.elapsed_ms.load(Ordering::SeqCst))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let count = self.randoms.fetch_add(1, Ordering::SeqCst);
            let digest = blake3::hash(&count.to_le_bytes());
            chunk.copy_from_slice(&digest.as_bytes()[..chunk.len()]);
        }
    }
}
