//! What cases are built from: fresh stores, joined hosts, owned agents, and chains of steps that fit the head.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::channel::ChannelChange;
use crate::digest::Digest;
use crate::event::{Event, NewEvent};
use crate::id::{
    AgentId, FencingToken, Generation, HostId, Incarnation, InputId, MigrationId, OperationId, Revision,
    RunId, Seq, SpecRevision,
};
use crate::input::{
    DeadLetterReason, DeliveryStamp, Input, InputState, Kind, NewInput, Outcome, Reply, ReplyOutcome, Source,
};
use crate::journal::{JournalEntry, RecordedAnswer};
use crate::lease::Lease;
use crate::lifecycle::Verb;
use crate::limits::{PAGE_MAX, Quotas};
use crate::operation::{Class, HttpRequest, NewOperation, OperationChange, Request, StoredOperation};
use crate::output::{Output, ReplyRole, StoredOutput};
use crate::receipt::{BoundaryKind, Receipt};
use crate::snapshot::Snapshot;
use crate::spec::{PluginInfo, Spec};
use crate::store::conformance::{ManualClock, Opening, StoreFactory};
use crate::store::{
    Accepted, AgentImage, AgentRow, Attempt, Boundary, Home, InputEnd, LifecycleCommit, NewAgent, Owner,
    Page, RowFrame, RuntimeStore, SessionRequest, Sharing, Standing, Step, StoreError, StoredInput, Unit,
    UnitFailure, UnitOutcome,
};
use crate::time::Clock;
use crate::timer::{NewTimer, StoredTimer};

pub(super) type Store = Arc<dyn RuntimeStore>;

/// Life of a session in a shared store.
pub(super) const TTL: Duration = Duration::from_secs(15);

/// The intent that wakes no agent of the fixture.
pub(super) const SILENT: &str = "gossip";

/// A page that begins at the first row and has room for all that a case makes.
pub(super) const ALL: Page = Page { after: 0, limit: PAGE_MAX };

static WORLDS: AtomicU64 = AtomicU64::new(0);

/// One run of one case: its clock and its stores.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) factory: Arc<dyn StoreFactory>,
    prefix: String,
}

impl World {
    pub(super) fn new(factory: Arc<dyn StoreFactory>, case: &str) -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        Self {
            clock: Arc::new(ManualClock::default()),
            factory,
            prefix: format!("{number}-{}", case.replace("::", ".")),
        }
    }

    /// Opens the store of this case that is called `letter`.
    pub(super) async fn open(&self, letter: &str, sharing: Sharing) -> Store {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let name = format!("{}-{letter}", self.prefix);
        self.factory.open(&name, Opening { sharing, clock, quotas: Quotas::default() }).await
    }

    /// Closes a store and opens it again.
    pub(super) async fn reopen(&self, letter: &str, sharing: Sharing, store: Store) -> Store {
        self.factory.close(store).await;
        self.open(letter, sharing).await
    }

    /// A fresh exclusive store with a host in it.
    pub(super) async fn site(&self, letter: &str) -> Site {
        let store = self.open(letter, Sharing::Exclusive).await;
        let number = letter.bytes().map(u64::from).sum();
        Site::join(store, host(number)).await
    }

    /// A fresh shared store with one host in it.
    pub(super) async fn shared_site(&self, letter: &str) -> Site {
        let store = self.open(letter, Sharing::Shared).await;
        Site::join(store, host(1)).await
    }
}

/// A joined host.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) store: Store,
    pub(super) host: HostId,
    pub(super) incarnation: Incarnation,
}

impl Site {
    pub(super) async fn join(store: Store, host: HostId) -> Self {
        let incarnation = store.join(session_request(host)).await.unwrap().incarnation;
        Self { store, host, incarnation }
    }

    /// Another host that joins the same store.
    pub(super) async fn beside(&self, number: u64) -> Self {
        Self::join(Arc::clone(&self.store), host(number)).await
    }

    /// Creates an agent of the common plugin.
    pub(super) async fn create(&self, agent: &str) -> AgentId {
        put_plugin(&self.store, "plain").await;
        let new = new_agent(agent, "plain");
        assert_eq!(self.store.create(new).await, Ok(true));
        id(agent)
    }

    /// Creates an agent and takes its lease.
    pub(super) async fn own(&self, agent: &str) -> Desk {
        let agent = self.create(agent).await;
        self.take(&agent).await
    }

    /// Takes the lease of an agent.
    pub(super) async fn take(&self, agent: &AgentId) -> Desk {
        let leases = self.store.acquire(self.incarnation, std::slice::from_ref(agent)).await;
        let lease = leases.unwrap().remove(0).unwrap();
        self.desk(lease)
    }

    /// Tries to take the lease of an agent.
    pub(super) async fn try_take(&self, agent: &AgentId) -> Result<Lease, StoreError> {
        let leases = self.store.acquire(self.incarnation, std::slice::from_ref(agent)).await;
        leases.unwrap().remove(0)
    }

    pub(super) fn desk(&self, lease: Lease) -> Desk {
        Desk {
            site: self.clone(),
            owner: Owner {
                agent: lease.agent,
                generation: lease.generation,
                incarnation: lease.incarnation,
                token: lease.token,
            },
        }
    }
}

/// An owner at work: one agent under one grant.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) site: Site,
    pub(super) owner: Owner,
}

impl Desk {
    pub(super) fn store(&self) -> &dyn RuntimeStore {
        self.site.store.as_ref()
    }

    pub(super) fn agent(&self) -> &AgentId {
        &self.owner.agent
    }

    pub(super) async fn row(&self) -> AgentRow {
        self.store().agent(self.agent()).await.unwrap().unwrap()
    }

    /// Accepts a message and answers it as stored.
    pub(super) async fn accept(&self, body: &str) -> StoredInput {
        let new = message(self.agent(), body);
        let id = new.input.id;
        let accepted = self.store().accept(new, self.owner.incarnation).await;
        assert!(matches!(accepted, Ok(Accepted::New { .. })), "{accepted:?}");
        self.store().input(self.agent(), id).await.unwrap().unwrap()
    }

    /// A chain on the current head.
    pub(super) async fn chain(&self) -> Chain {
        let row = self.row().await;
        Chain {
            owner: self.owner.clone(),
            host: self.site.host,
            plugin: row.plugin,
            spec_revision: row.spec_revision,
            base: row.revision,
            revision: row.revision,
            head: row.head,
            next_seq: row.next_seq,
            steps: Vec::new(),
        }
    }

    /// Commits in one of the two ways, which must be alike: every other revision by the calling thread, if the store does.
    pub(super) async fn commit(&self, unit: Unit) -> UnitOutcome {
        let unit =
            if unit.base.0.is_multiple_of(2) { self.store().commit_turns_here(unit) } else { Err(unit) };
        match unit {
            Ok(outcome) => outcome,
            Err(unit) => self.store().commit_turns(unit).await,
        }
    }

    /// Moves the agent along the table by a verb that its state allows.
    pub(super) async fn verb(&self, verb: &Verb) -> Result<Standing, StoreError> {
        self.store().commit_lifecycle(&self.owner, self.plan(verb).await).await
    }

    /// The commit of a verb from the state that the agent is in.
    pub(super) async fn plan(&self, verb: &Verb) -> LifecycleCommit {
        let state = self.row().await.lifecycle;
        LifecycleCommit::plan(self.agent(), &state, verb, super::START_MS).unwrap()
    }

    /// Commits one turn that ends `inputs` and must succeed.
    pub(super) async fn turn(&self, turn: Turn) -> Receipt {
        let unit = self.chain().await.turn(turn).unit();
        let Some(Step::Boundary(boundary)) = unit.steps.first() else {
            panic!("a turn is one boundary");
        };
        let receipt = boundary.receipt.clone();
        let outcome = self.commit(unit).await;
        assert_eq!(outcome, done(1));
        receipt
    }

    /// Fills the agent with a row of every kind.
    pub(super) async fn furnish(&self) {
        let input = self.accept("furnish").await;
        let waiting = stamp_message(self.agent(), "origin", 1, 1, 1);
        self.store().accept(waiting, self.owner.incarnation).await.unwrap();
        let other = id("somebody");
        let turn = Turn::of(BoundaryKind::Init)
            .state("a", Some("1"))
            .state("b", Some("2"))
            .output(&other, "first")
            .output(&other, "second")
            .start(self.agent(), Revision(0), 0, Class::AtLeastOnce)
            .timer("furnished", Some((u64::from(u32::MAX) * 1_000, "in the future")));
        self.turn(turn).await;
        let turn = Turn::ends([&input]).state("a", None).output(&other, "third").snapshot("s2");
        self.turn(turn).await;
    }
}

/// A unit in the making. Each step fits what is before it.
pub(super) struct Chain {
    pub(super) owner: Owner,
    host: HostId,
    plugin: Digest,
    spec_revision: SpecRevision,
    pub(super) base: Revision,
    pub(super) revision: Revision,
    pub(super) head: Digest,
    pub(super) next_seq: Seq,
    pub(super) steps: Vec<Step>,
}

impl Chain {
    pub(super) fn unit(self) -> Unit {
        Unit { owner: self.owner, base: self.base, steps: self.steps }
    }

    pub(super) fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(super) fn accept(mut self, input: NewInput) -> Self {
        let seq = self.next_seq;
        self.next_seq = seq.next();
        self.step(Step::Accept { input: Box::new(input), seq })
    }

    pub(super) fn attempt(self, seq: Seq, state: InputState, attempts: u32) -> Self {
        self.step(Step::Attempts(vec![Attempt { seq, state, attempts, deaths: 0 }]))
    }

    /// A boundary on top of the chain.
    pub(super) fn turn(mut self, turn: Turn) -> Self {
        let boundary = self.boundary(turn);
        self.revision = boundary.receipt.revision;
        self.head = boundary.receipt.digest();
        self.step(Step::Boundary(Box::new(boundary)))
    }

    /// The boundary that would be next, not added.
    pub(super) fn boundary(&self, turn: Turn) -> Boundary {
        let revision = self.revision.next();
        let has_turn = matches!(turn.kind, BoundaryKind::Init | BoundaryKind::Turn);
        let is_journaled = turn.is_journaled || (has_turn && turn.snapshot.is_none());
        let journal = is_journaled.then(|| entry(revision));
        let snapshot = turn.snapshot.map(|state| self.snapshot(revision, &state));
        let receipt = Receipt {
            agent: self.owner.agent.clone(),
            generation: self.owner.generation,
            revision,
            run: RunId([7; 16]),
            sequence: 0,
            kind: turn.kind,
            inputs: turn.ends.iter().map(|(_, id)| *id).collect(),
            token: self.owner.token,
            host: self.host,
            incarnation: self.owner.incarnation,
            plugin: self.plugin,
            spec_revision: self.spec_revision,
            effects: Digest::of(format!("effects of {revision}").as_bytes()),
            state: snapshot.as_ref().map(Snapshot::state_digest),
            journal: journal.as_ref().map(JournalEntry::digest),
            parent: self.head,
            elapsed_us: 10,
            fuel: None,
            committed_at_ms: super::START_MS + revision.0,
            from: None,
        };
        let ends = turn
            .ends
            .iter()
            .map(|(seq, _)| InputEnd { seq: *seq, outcome: end(turn.kind, revision, self.owner.token) });
        Boundary {
            ends: ends.collect(),
            receipt,
            snapshot,
            journal,
            state: turn.state,
            outputs: turn.outputs,
            channels: turn.channels,
            timers: turn.timers,
            operations: turn.operations,
            events: turn.events,
        }
    }

    pub(super) fn snapshot(&self, revision: Revision, state: &str) -> Snapshot {
        Snapshot {
            generation: self.owner.generation,
            revision,
            token: self.owner.token,
            time_ms: super::START_MS + revision.0,
            plugin_version: "1".to_owned(),
            state: Bytes::from(state.to_owned()),
        }
    }
}

/// The journal entry of a turn.
pub(super) fn entry(revision: Revision) -> JournalEntry {
    let answer = Bytes::from(format!("answer at {revision}"));
    JournalEntry {
        attempt: 1,
        seed: [revision.0 as u8; 32],
        answers: vec![RecordedAnswer { call: 2, answer }],
    }
}

/// The end that a boundary of a kind gives its inputs.
pub(super) fn end(kind: BoundaryKind, revision: Revision, token: FencingToken) -> Outcome {
    if kind == BoundaryKind::DeadLetter {
        let reason = DeadLetterReason::Fatal { message: "never ".repeat(200) };
        return Outcome::DeadLettered { revision, reason };
    }
    Outcome::Committed {
        revision,
        token,
        reply: Reply {
            outcome: ReplyOutcome::Ok(Bytes::from(format!("answer at {revision}"))),
            content_type: "text/plain".to_owned(),
            headers: Vec::new(),
        },
    }
}

/// What a boundary does.
pub(super) struct Turn {
    kind: BoundaryKind,
    ends: Vec<(Seq, InputId)>,
    state: Vec<(String, Option<Bytes>)>,
    pub(super) outputs: Vec<Output>,
    pub(super) channels: Vec<ChannelChange>,
    timers: Vec<(String, Option<NewTimer>)>,
    operations: Vec<OperationChange>,
    snapshot: Option<String>,
    is_journaled: bool,
    events: Vec<NewEvent>,
}

impl Turn {
    pub(super) fn of(kind: BoundaryKind) -> Self {
        Self {
            kind,
            ends: Vec::new(),
            state: Vec::new(),
            outputs: Vec::new(),
            channels: Vec::new(),
            timers: Vec::new(),
            operations: Vec::new(),
            snapshot: None,
            is_journaled: false,
            events: Vec::new(),
        }
    }

    /// A turn that applies inputs.
    pub(super) fn ends<'a>(inputs: impl IntoIterator<Item = &'a StoredInput>) -> Self {
        Self::of(BoundaryKind::Turn).and_ends(inputs)
    }

    pub(super) fn and_ends<'a>(mut self, inputs: impl IntoIterator<Item = &'a StoredInput>) -> Self {
        let named = inputs.into_iter().map(|input| (input.seq, input.input.id));
        self.ends.extend(named);
        self
    }

    /// Ends an input that the same chain accepts.
    pub(super) fn end(mut self, seq: Seq, id: InputId) -> Self {
        self.ends.push((seq, id));
        self
    }

    pub(super) fn state(mut self, key: &str, value: Option<&str>) -> Self {
        let value = value.map(|value| Bytes::from(value.to_owned()));
        self.state.push((key.to_owned(), value));
        self
    }

    pub(super) fn output(mut self, destination: &AgentId, body: &str) -> Self {
        self.outputs.push(Output {
            destination: destination.clone(),
            kind: Kind::PeerMessage,
            content_type: "text/plain".to_owned(),
            payload: Bytes::from(body.to_owned()),
            headers: vec![("name".to_owned(), "value".to_owned())],
            correlation: None,
            reply: ReplyRole::None,
            channel: None,
        });
        self
    }

    /// Sets a timer to a time with a payload, or cancels it.
    pub(super) fn timer(mut self, name: &str, timer: Option<(u64, &str)>) -> Self {
        let timer =
            timer.map(|(at_ms, payload)| NewTimer { at_ms, payload: Bytes::from(payload.to_owned()) });
        self.timers.push((name.to_owned(), timer));
        self
    }

    /// Starts an operation as the `index`-th of the turn on top of `base`.
    pub(super) fn start(mut self, agent: &AgentId, base: Revision, index: u32, class: Class) -> Self {
        let request = HttpRequest {
            method: "POST".to_owned(),
            url: "https://api.example.com/".to_owned(),
            headers: vec![("accept".to_owned(), "text/plain".to_owned())],
            body: Bytes::from(format!("request {index}")),
            timeout_ms: 1_000,
            class,
        };
        let id = OperationId::of(agent, Generation(1), base, index);
        let operation = NewOperation { id, index, request: Request::Http(request) };
        self.operations.push(OperationChange::Start(operation));
        self
    }

    pub(super) fn cancel(mut self, operation: OperationId) -> Self {
        self.operations.push(OperationChange::Cancel(operation));
        self
    }

    pub(super) fn snapshot(mut self, state: &str) -> Self {
        self.snapshot = Some(state.to_owned());
        self
    }

    /// With a journal entry also where it has a snapshot: the snapshot goes beside the newest.
    pub(super) fn journaled(mut self) -> Self {
        self.is_journaled = true;
        self
    }

    pub(super) fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }
}

pub(super) fn id(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

pub(super) fn host(number: u64) -> HostId {
    HostId(Digest::of(&number.to_le_bytes()).0)
}

pub(super) fn migration(number: u8) -> MigrationId {
    MigrationId::generate(super::START_MS + u64::from(number), [number; 10])
}

pub(super) fn session_request(host: HostId) -> SessionRequest {
    let address = SocketAddr::from(([127, 0, 0, 1], 4710));
    SessionRequest {
        host,
        name: format!("host {:02x}", host.0[0]),
        api: address,
        mesh: address,
        ttl: TTL,
        now_ms: super::START_MS,
    }
}

pub(super) fn plugin(name: &str) -> (PluginInfo, Bytes) {
    let component = Bytes::from(format!("component of {name}"));
    let info = PluginInfo {
        digest: Digest::of(&component),
        name: name.to_owned(),
        version: "1".to_owned(),
        imports: vec!["godwit:agent/turn".to_owned()],
        grants: Vec::new(),
        size: component.len() as u64,
        loaded_at_ms: super::START_MS,
        killed_hosts: 0,
    };
    (info, component)
}

/// Stores a plugin and answers its digest.
pub(super) async fn put_plugin(store: &Store, name: &str) -> Digest {
    let (info, component) = plugin(name);
    store.put_plugin(info, component.clone()).await.unwrap();
    Digest::of(&component)
}

pub(super) fn new_agent(agent: &str, plugin_name: &str) -> NewAgent {
    NewAgent {
        agent: id(agent),
        spec: Spec {
            config: BTreeMap::from([("greeting".to_owned(), "hello".to_owned())]),
            silent_intents: BTreeSet::from([SILENT.to_owned()]),
            ..Spec::new(plugin(plugin_name).0.digest)
        },
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        now_ms: super::START_MS,
        claim: None,
    }
}

/// A message with a fresh id.
pub(super) fn message(agent: &AgentId, body: &str) -> NewInput {
    static IDS: AtomicU64 = AtomicU64::new(1);
    let count = IDS.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&count.to_be_bytes());
    let input = Input {
        id: InputId::generate(super::START_MS, random),
        kind: Kind::Message,
        source: Source::External { name: "http".to_owned() },
        content_type: "text/plain".to_owned(),
        payload: Bytes::from(body.to_owned()),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 1,
    };
    NewInput::of_host(agent, input)
}

/// A message under an idempotency key.
pub(super) fn keyed(agent: &AgentId, key: &str, body: &str) -> NewInput {
    NewInput { idempotency_key: Some(key.to_owned()), ..message(agent, body) }
}

/// Delivery `number` of generation 1 of `origin`, whose owner has `token`.
pub(super) fn stamp_message(
    agent: &AgentId,
    origin: &str,
    number: u64,
    lowest_open: u64,
    token: u64,
) -> NewInput {
    delivery(agent, origin, (1, token), number, lowest_open)
}

/// A delivery of an owner that has (generation, token).
pub(super) fn delivery(
    agent: &AgentId,
    origin: &str,
    (generation, token): (u64, u64),
    number: u64,
    lowest_open: u64,
) -> NewInput {
    let stamp = DeliveryStamp {
        origin: id(origin),
        generation: Generation(generation),
        number,
        lowest_open,
        token: FencingToken(token),
        host: host(9),
        origin_hash: None,
        origin_generation: Generation(generation),
        is_vouched_for: true,
        channel: None,
    };
    let new = message(agent, &format!("delivery {number}"));
    let id = InputId::of_delivery(&stamp.origin, stamp.generation, agent, number);
    NewInput { input: Input { id, ..new.input }, delivery: Some(stamp), ..new }
}

pub(super) fn done(steps: usize) -> UnitOutcome {
    UnitOutcome { committed: steps, failure: None }
}

/// Asserts that a unit committed `steps` steps and then failed with a store error that `fits`.
pub(super) fn assert_failed(outcome: &UnitOutcome, steps: usize, fits: impl Fn(&StoreError) -> bool) {
    let is_right = matches!(&outcome.failure, Some(UnitFailure::Store(error)) if fits(error))
        && outcome.committed == steps;
    assert!(is_right, "after {steps} steps: {outcome:?}");
}

pub(super) fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::Conflict { .. })
}

pub(super) fn is_stale(error: &StoreError) -> bool {
    matches!(error, StoreError::Stale { .. })
}

pub(super) fn is_fenced(error: &StoreError) -> bool {
    matches!(error, StoreError::Fenced { .. })
}

pub(super) fn is_not_home(error: &StoreError) -> bool {
    matches!(error, StoreError::NotHome { .. })
}

/// All that reads show of one agent, to compare before and after.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) row: Option<AgentRow>,
    pub(super) lease: Option<Lease>,
    pub(super) image: Option<AgentImage>,
    pub(super) inputs: Vec<StoredInput>,
    pub(super) open: Vec<Seq>,
    pub(super) outputs: Vec<StoredOutput>,
    pub(super) pending: Vec<u64>,
    pub(super) state: Vec<(String, Option<Bytes>)>,
    pub(super) timers: Vec<StoredTimer>,
    pub(super) operations: Vec<StoredOperation>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) events: Vec<Event>,
    pub(super) frames: Vec<RowFrame>,
}

/// Reads all of an agent.
pub(super) async fn picture(store: &dyn RuntimeStore, agent: &AgentId) -> Picture {
    let row = store.agent(agent).await.unwrap();
    let generation = row.as_ref().map_or(Generation(1), |row| row.generation);
    let mut state = Vec::new();
    for key in store.state_keys(agent, "", None, PAGE_MAX).await.unwrap() {
        let value = store.state_value(agent, &key).await.unwrap();
        state.push((key, value));
    }
    let open = store.open_inputs(agent, ALL).await.unwrap();
    let pending = store.pending_outputs(agent, ALL).await.unwrap();
    let can_export = row.as_ref().is_some_and(|row| matches!(row.home, Home::Here | Home::HandingOff { .. }));
    Picture {
        lease: store.lease(agent).await.unwrap(),
        image: store.image(agent, None).await.unwrap(),
        inputs: store.inputs(agent, None, ALL).await.unwrap(),
        open: open.iter().map(|input| input.seq).collect(),
        outputs: store.outputs(agent, ALL).await.unwrap(),
        pending: pending.iter().map(|output| output.position).collect(),
        state,
        timers: store.timers(agent).await.unwrap(),
        operations: store.operations(agent).await.unwrap(),
        receipts: store.receipts(agent, generation, Revision(0), PAGE_MAX).await.unwrap(),
        events: store.events(0, Some(agent), None, PAGE_MAX).await.unwrap(),
        frames: match can_export {
            true => store.export_rows(agent, 0, usize::MAX).await.unwrap(),
            false => Vec::new(),
        },
        row,
    }
}

impl Picture {
    /// What must be the same at both ends of a move: not the lease, not the store's own marks.
    pub(super) fn moved_rows(&self) -> Vec<RowFrame> {
        super::journey::moved(self.frames.clone())
    }
}
