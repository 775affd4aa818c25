//! Tests of proofs with guests that count how they are used.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::agent::{outside_context, state_reader};
use crate::digest::Digest;
use crate::guest::{Interrupt, LoadError, LoadedPlugin, TurnEffects};
use crate::id::{AgentId, FencingToken, Generation, Revision};
use crate::input::{Input, Reply};
use crate::lease::{LeaseGuard, SessionLease};
use crate::spec::Spec;
use crate::store::memory::MemoryStore;
use crate::time::SystemClock;

/// Guests that take any state but `garbage`; a used one takes it as well, or none, as `when_used` says.
struct Loader {
    started: AtomicU32,
    when_used: Used,
}

#[derive(Clone, Copy)]
enum Used {
    TakesAll,
    TakesNone,
}

struct Taker {
    when_used: Used,
    is_used: bool,
}

impl GuestLoader for Loader {
    fn load(&self, _component: &[u8]) -> Result<LoadedPlugin, LoadError> {
        unreachable!("nothing is loaded here")
    }

    fn is_loaded(&self, _plugin: Digest) -> bool {
        true
    }

    fn answers_queries(&self, _plugin: Digest) -> bool {
        false
    }

    fn start(&self, _request: GuestRequest) -> Result<Box<dyn Guest>, GuestError> {
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Taker { when_used: self.when_used, is_used: false }))
    }
}

impl Guest for Taker {
    fn init(&mut self, _context: &TurnContext) -> Result<TurnEffects, GuestError> {
        unreachable!("a proof only restores")
    }

    fn handle(&mut self, _context: &TurnContext, _inputs: &[Input]) -> Result<TurnEffects, GuestError> {
        unreachable!("a proof only restores")
    }

    fn snapshot(&mut self, _context: &TurnContext) -> Result<Bytes, GuestError> {
        unreachable!("a proof only restores")
    }

    fn restore(&mut self, _context: &TurnContext, state: &[u8], _from: &str) -> Result<(), GuestError> {
        let takes = match (std::mem::replace(&mut self.is_used, true), self.when_used) {
            (false, _) => state != b"garbage",
            (true, Used::TakesAll) => true,
            (true, Used::TakesNone) => false,
        };
        if takes { Ok(()) } else { Err(GuestError::Fatal { message: "unreadable".into() }) }
    }

    fn query(&mut self, _context: &TurnContext, _payload: &[u8]) -> Result<Reply, GuestError> {
        unreachable!("a proof only restores")
    }
}

struct Desk {
    loader: Arc<Loader>,
    spares: Arc<Semaphore>,
    prover: Prover,
}

fn desk(when_used: Used, spares: usize) -> Desk {
    let loader = Arc::new(Loader { started: AtomicU32::new(0), when_used });
    let agent = AgentId::parse("a").unwrap();
    let request = GuestRequest {
        state: state_reader(Arc::new(MemoryStore::exclusive(Arc::new(SystemClock))), agent.clone()),
        agent,
        spec: Arc::new(Spec::new(Digest::of(b"p"))),
        grants: Arc::new([]),
        guard: LeaseGuard::new(SessionLease::unlimited(), FencingToken(1)),
        interrupt: Interrupt::default(),
    };
    let spares = Arc::new(Semaphore::new(spares));
    let prover = Prover::new(loader.clone(), request, spares.clone());
    Desk { loader, spares, prover }
}

impl Desk {
    fn prove(&mut self, at_ms: u64, state: &[u8]) -> Result<(), GuestError> {
        let agent = AgentId::parse("a").unwrap();
        let context = outside_context(&agent, Generation(1), FencingToken(1), Revision(1), 1);
        self.prover.prove(Duration::from_millis(at_ms), &context, &Bytes::copy_from_slice(state), "1.0.0")
    }

    fn started(&self) -> u32 {
        self.loader.started.load(Ordering::Relaxed)
    }
}

fn is_snapshot_fault(result: Result<(), GuestError>) -> bool {
    matches!(result, Err(GuestError::Fault(fault)) if fault.kind == FaultKind::Snapshot)
}

#[tokio::test]
async fn proofs_share_a_guest_for_a_second() {
    let mut desk = desk(Used::TakesAll, 1);
    for at_ms in [0, 400, 999] {
        assert_eq!(desk.prove(at_ms, b"state"), Ok(()));
    }
    assert_eq!(desk.started(), 1);
    assert!(is_snapshot_fault(desk.prove(1_000, b"garbage")), "a fresh guest is asked again");
    assert_eq!(desk.started(), 2);
}

#[tokio::test]
async fn garbage_is_refused_by_a_fresh_guest_at_once() {
    let mut desk = desk(Used::TakesNone, 1);
    assert!(is_snapshot_fault(desk.prove(0, b"garbage")));
    assert_eq!(desk.prove(1, b"state"), Ok(()));
    assert!(is_snapshot_fault(desk.prove(2, b"garbage")));
}

#[tokio::test]
async fn a_guest_that_can_be_used_once_is_not_kept() {
    let mut desk = desk(Used::TakesNone, 1);
    for at_ms in 0..4 {
        assert_eq!(desk.prove(at_ms, b"state"), Ok(()));
    }
    assert_eq!(desk.started(), 4);
    assert!(!desk.prover.has_spare());
    assert_eq!(desk.spares.available_permits(), 1);
}

#[tokio::test]
async fn no_more_guests_are_kept_than_the_host_allows() {
    let mut desk = desk(Used::TakesAll, 1);
    assert_eq!(desk.prove(0, b"state"), Ok(()));
    assert_eq!(desk.spares.available_permits(), 0);
    desk.prover.drop_spare();
    assert_eq!(desk.spares.available_permits(), 1);
    desk.spares.close();
    assert_eq!(desk.prove(1, b"state"), Ok(()));
    assert!(!desk.prover.has_spare());
}

#[tokio::test]
async fn a_large_state_is_proved_once_a_second() {
    let mut desk = desk(Used::TakesAll, 1);
    let large = vec![b'x'; ALWAYS_BYTES + 1];
    assert_eq!(desk.prove(0, &large), Ok(()));
    assert_eq!(desk.prove(500, &large), Ok(()));
    assert_eq!(desk.started(), 1);
    assert_eq!(desk.prove(1_000, &large), Ok(()));
    assert_eq!(desk.started(), 2);
}
