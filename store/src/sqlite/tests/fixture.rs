//! What the tests are built from: a clock that stands still, a store in a directory of its own, an owned agent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, HostId, Incarnation, InputId, Revision, RunId, Seq, SpecRevision};
use godwit_core::input::{Input, Kind, Mode, NewInput, Outcome, Reach, Reply, ReplyOutcome, Source};
use godwit_core::limits::Quotas;
use godwit_core::receipt::{BoundaryKind, Receipt};
use godwit_core::snapshot::Snapshot;
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::{
    Boundary, InputEnd, NewAgent, Owner, RuntimeStore, SessionRequest, Step, Unit, UnitOutcome,
};
use godwit_core::time::Clock;
use tempfile::TempDir;

use crate::sqlite::faults::Faults;
use crate::sqlite::writer::WriteEnv;
use crate::sqlite::{SqliteMode, SqliteStore};

pub(super) const TTL: Duration = Duration::from_secs(15);

/// Stands still until a test advances it. Its randomness counts.
#[derive(Default)]
pub(super) struct StillClock {
    elapsed_ms: AtomicU64,
    randoms: AtomicU64,
}

impl StillClock {
    pub(super) fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap();
        self.elapsed_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for StillClock {
    fn wall_ms(&self) -> u64 {
        1_750_000_000_000 + self.elapsed_ms.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(1_000) + Duration::from_millis(self.elapsed_ms.load(Ordering::SeqCst))
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let count = self.randoms.fetch_add(1, Ordering::SeqCst);
        let digest = Digest::of(&count.to_le_bytes());
        bytes.copy_from_slice(&digest.0[..bytes.len()]);
    }
}

/// A directory with a store file in it.
pub(super) struct Place {
    pub(super) directory: TempDir,
    pub(super) clock: Arc<StillClock>,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), clock: Arc::new(StillClock::default()) }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    pub(super) fn open(&self, mode: SqliteMode) -> Arc<SqliteStore> {
        SqliteStore::open(&self.path(), mode, self.clock.clone()).unwrap()
    }

    /// What a store of this place is opened with.
    pub(super) fn env(&self, mode: SqliteMode) -> WriteEnv {
        let (boot, faults) = ("boot".to_owned(), Faults::default());
        WriteEnv { clock: self.clock.clone(), mode, boot, faults, quotas: Quotas::default(), vault: None }
    }

    /// A connection of another program, for looking at rows and damaging them.
    pub(super) fn intruder(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

pub(super) fn host(number: u8) -> HostId {
    HostId([number; 32])
}

pub(super) async fn join(store: &SqliteStore, number: u8) -> Incarnation {
    let request = SessionRequest {
        host: host(number),
        name: format!("host-{number}"),
        api: "127.0.0.1:1".parse().unwrap(),
        mesh: "127.0.0.1:2".parse().unwrap(),
        ttl: TTL,
        now_ms: 1,
    };
    store.join(request).await.unwrap().incarnation
}

pub(super) fn plugin() -> (PluginInfo, Bytes) {
    let component = Bytes::from_static(b"component");
    let info = PluginInfo {
        digest: Digest::of(&component),
        name: "plain".to_owned(),
        version: "1".to_owned(),
        imports: Vec::new(),
        grants: Vec::new(),
        size: component.len() as u64,
        loaded_at_ms: 1,
        killed_hosts: 0,
    };
    (info, component)
}

pub(super) async fn create(store: &SqliteStore, agent: &str) -> AgentId {
    let (info, component) = plugin();
    let spec = Spec::new(info.digest);
    store.put_plugin(info, component).await.unwrap();
    let agent = AgentId::parse(agent).unwrap();
    let new = NewAgent { agent: agent.clone(), spec, labels: BTreeMap::new(), now_ms: 1, claim: None };
    store.create(new).await.unwrap();
    agent
}

static IDS: AtomicU64 = AtomicU64::new(1);

pub(super) fn message(agent: &AgentId, payload: &[u8]) -> NewInput {
    let number = u128::from(IDS.fetch_add(1, Ordering::SeqCst));
    NewInput {
        agent: agent.clone(),
        input: Input {
            id: InputId(number.to_be_bytes()),
            kind: Kind::Message,
            source: Source::Operator,
            content_type: "text/plain".to_owned(),
            payload: Bytes::copy_from_slice(payload),
            headers: Vec::new(),
            correlation: None,
            accepted_at_ms: 1,
        },
        idempotency_key: Some(format!("key-{number}")),
        mode: Mode::Default,
        is_silent: false,
        supersedes: None,
        traceparent: None,
        delivery: None,
        reach: Reach::Any,
    }
}

/// An owner at work, who knows where its chain ends.
pub(super) struct Desk {
    pub(super) owner: Owner,
    pub(super) head: Digest,
    pub(super) revision: Revision,
    pub(super) next_seq: Seq,
}

impl Desk {
    pub(super) async fn take(store: &SqliteStore, incarnation: Incarnation, agent: &AgentId) -> Self {
        let leases = store.acquire(incarnation, std::slice::from_ref(agent)).await.unwrap();
        let lease = leases.into_iter().next().unwrap().unwrap();
        let row = store.agent(agent).await.unwrap().unwrap();
        Self {
            owner: Owner {
                agent: agent.clone(),
                generation: lease.generation,
                incarnation,
                token: lease.token,
            },
            head: row.head,
            revision: row.revision,
            next_seq: row.next_seq,
        }
    }

    /// Joins as host 1, creates an agent and takes it.
    pub(super) async fn new(store: &SqliteStore, agent: &str) -> Self {
        let incarnation = join(store, 1).await;
        let agent = create(store, agent).await;
        Self::take(store, incarnation, &agent).await
    }

    /// One ask: an input that is accepted and answered in one unit, with the state after it.
    pub(super) fn ask(&mut self, input: NewInput, state: &[u8]) -> Unit {
        let base = self.revision;
        let seq = self.next_seq;
        let id = input.input.id;
        let boundary = self.boundary(&[(seq, id)], state);
        self.next_seq = seq.next();
        Unit {
            owner: self.owner.clone(),
            base,
            steps: vec![Step::Accept { input: Box::new(input), seq }, Step::Boundary(Box::new(boundary))],
        }
    }

    /// A boundary on top of the chain.
    pub(super) fn boundary(&mut self, ends: &[(Seq, InputId)], state: &[u8]) -> Boundary {
        self.revision = self.revision.next();
        let snapshot = Snapshot {
            generation: self.owner.generation,
            revision: self.revision,
            token: self.owner.token,
            time_ms: 1,
            plugin_version: "1".to_owned(),
            state: Bytes::copy_from_slice(state),
        };
        let receipt = Receipt {
            agent: self.owner.agent.clone(),
            generation: self.owner.generation,
            revision: self.revision,
            run: RunId([7; 16]),
            sequence: 0,
            kind: BoundaryKind::Turn,
            inputs: ends.iter().map(|(_, id)| *id).collect(),
            token: self.owner.token,
            host: host(1),
            incarnation: self.owner.incarnation,
            plugin: plugin().0.digest,
            spec_revision: SpecRevision(1),
            effects: Digest::ZERO,
            state: Some(snapshot.state_digest()),
            journal: None,
            parent: self.head,
            elapsed_us: 1,
            fuel: None,
            committed_at_ms: 1,
            from: None,
        };
        self.head = receipt.digest();
        let outcome = Outcome::Committed {
            revision: self.revision,
            token: self.owner.token,
            reply: Reply {
                outcome: ReplyOutcome::Ok(Bytes::from_static(b"done")),
                content_type: "text/plain".to_owned(),
                headers: Vec::new(),
            },
        };
        Boundary {
            ends: ends.iter().map(|(seq, _)| InputEnd { seq: *seq, outcome: outcome.clone() }).collect(),
            receipt,
            snapshot: Some(snapshot),
            journal: None,
            state: Vec::new(),
            outputs: Vec::new(),
            channels: Vec::new(),
            timers: Vec::new(),
            operations: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Asks once; it must commit.
    pub(super) async fn asked(&mut self, store: &SqliteStore, payload: &[u8], state: &[u8]) -> InputId {
        let input = message(&self.owner.agent, payload);
        let id = input.input.id;
        let unit = self.ask(input, state);
        assert_eq!(store.commit_turns(unit).await, done(2));
        id
    }
}

pub(super) fn done(committed: usize) -> UnitOutcome {
    UnitOutcome { committed, failure: None }
}

/// Bytes that no packing makes smaller, the same for the same seed.
pub(super) fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count + 32);
    let mut block = Digest::of(&seed.to_le_bytes());
    while bytes.len() < count {
        bytes.extend_from_slice(&block.0);
        block = Digest::of(&block.0);
    }
    bytes.truncate(count);
    bytes
}
