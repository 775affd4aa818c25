//! One run of one seed: faults, in which safety is judged at each step; then healing, in which everything must come to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use godwit_core::id::{AgentId, Generation, HostId, Revision};
use godwit_core::limits::PAGE_MAX;
use godwit_core::spec::{Durability, Spec};
use godwit_core::store::{Lifecycle, NewAgent, Page, RuntimeStore};
use godwit_core::testing::script_plugin;
use tokio::time::{Instant, sleep};

use crate::bug::Bug;
use crate::client::Client;
use crate::host::Cluster;
use crate::judge::Counts;
use crate::nemesis::Nemesis;
use crate::random::Random;
use crate::world::{PROFILE, World, now};

/// How long faults last.
const FAULTS: Duration = Duration::from_millis(4_000);
/// How long they last in some runs: a process may be stopped for ten times the life of its lease.
const FAULTS_LONG: Duration = PROFILE.ttl.saturating_mul(12);
/// In how many runs of a thousand.
const LONG: u64 = 100;
/// In how many runs of a thousand hosts have stores of their own.
const APART: u64 = 400;
/// How often the run looks whether it is over.
const LOOK: Duration = Duration::from_millis(10);
/// Within this time after the faults each agent that has work has an owner: lease, one scan (and takeover's jitter), one
/// renewal; and room for what is under way.
const OWNED_WITHIN: Duration =
    PROFILE.ttl.saturating_add(PROFILE.heartbeat).saturating_add(Duration::from_millis(1_000));
/// Within this time after the faults everything has come to its end. Longest are deliveries, which back off up to 5 s.
const DONE_WITHIN: Duration = Duration::from_secs(30);
/// Things that each client does, and in long runs.
const WISHES: u64 = 14;
const WISHES_LONG: u64 = 30;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of which seed.
    pub seed: u64,
    /// The hash of all that happened.
    pub hash: String,
    /// What must not be.
    pub violation: Option<String>,
    /// How much has happened.
    pub counts: Counts,
    /// Lines of the trace.
    pub lines: u64,
}

/// Runs a seed, with a bug or without.
///
/// # Panics
/// When there is no runtime to have.
pub fn run(seed: u64, bug: Option<Bug>, is_printed: bool) -> Report {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime with timers and nothing else needs nothing of the system");
    tokio.block_on(async {
        let mut random = Random::new(seed);
        let world = World::new(&mut random, bug, is_printed);
        let scene = Scene::new(world.clone(), &mut random);
        scene.play().await;
        scene.cluster.end();
        world.outside.kill();
        let (hash, lines) = world.trace().sum_up();
        let judge = world.judge();
        let violation = judge.violation().map(ToOwned::to_owned);
        Report { seed, hash, violation, counts: judge.counts(), lines }
    })
}

struct Scene {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    agents: Vec<AgentId>,
    clients: u64,
    is_long: bool,
}

impl Scene {
    fn new(world: Arc<World>, random: &mut Random) -> Self {
        // Whether hosts have stores of their own.
        let is_apart = random.chance(world.bug.map_or(APART, Bug::apart));
        let hosts = u8::try_from(random.between(2, 3)).unwrap_or(3);
        let cluster = Cluster::new(world.clone(), hosts, is_apart);
        let (plugin, component) = script_plugin();
        let spec = Spec::new(plugin.digest);
        let worlds = cluster.worlds();
        for world in &worlds {
            let put = now(world.memory.put_plugin(plugin.clone(), component.clone()));
            put.expect("an empty store takes a plugin");
        }
        let mut agents = Vec::new();
        for name in ["a", "b", "c"].iter().take(usize::try_from(random.between(2, 3)).unwrap_or(3)) {
            let agent = AgentId::parse(name).expect("a letter is a name");
            let durability = random.pick(&[Durability::Auto, Durability::Snapshot, Durability::Journal]);
            let spec = Spec { durability: durability.copied().unwrap_or_default(), ..spec.clone() };
            let new =
                NewAgent { agent: agent.clone(), spec, labels: BTreeMap::new(), now_ms: 0, claim: None };
            let world = &worlds[agents.len() % worlds.len()];
            now(world.memory.create(new)).expect("an empty store takes an agent");
            agents.push(agent);
        }
        Self { world, cluster, agents, clients: random.between(2, 4), is_long: random.chance(LONG) }
    }

    fn is_violated(&self) -> bool {
        self.world.judge().violation().is_some()
    }

    async fn play(&self) {
        for host in 0..self.cluster.len() {
            self.cluster.start(host);
        }
        let (wishes, faults) = if self.is_long { (WISHES_LONG, FAULTS_LONG) } else { (WISHES, FAULTS) };
        let (mut clients, finished) = (Vec::new(), Arc::new(std::sync::atomic::AtomicU64::new(0)));
        for number in 1..=self.clients {
            let client = Client::new(self.world.clone(), self.cluster.clone(), self.agents.clone(), number);
            let finished = finished.clone();
            clients.push(async move {
                client.run(wishes).await;
                finished.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        for client in clients {
            self.world.outside.spawn(Box::pin(client));
        }
        let until = Instant::now() + faults;
        let nemesis = Nemesis::new(self.world.clone(), self.cluster.clone(), self.agents.clone());
        self.world.outside.spawn(Box::pin(nemesis.run(until)));
        while Instant::now() < until && !self.is_violated() {
            sleep(LOOK).await;
        }
        if !self.is_violated() {
            self.heal().await;
            self.end(|| finished.load(std::sync::atomic::Ordering::Relaxed) == self.clients).await;
        }
    }

    /// All faults end: clocks are right, the store answers, what was stopped goes on, what died is started.
    async fn heal(&self) {
        self.world.note(format_args!("healing"));
        self.world.weather().clear_up();
        for host in 0..self.cluster.len() {
            self.cluster.clock(host).set_wall_ahead_ms(0);
        }
        let is_apart = self.cluster.worlds().iter().any(|world| world.is_apart());
        if self.world.chance(500) && !is_apart {
            // It never comes back: the others take over, whatever it holds.
            self.world.note(format_args!("h0 is lost"));
            self.cluster.lose(0);
        }
        for process in self.cluster.living() {
            process.cage.go_on();
        }
    }

    fn start_missing(&self) {
        for host in 0..self.cluster.len() {
            if !self.cluster.is_lost(host) && self.cluster.process(host).is_none() {
                self.cluster.start(host);
            }
        }
    }

    /// Waits until all has come to its end, and looks at what the store keeps then.
    async fn end(&self, has_finished: impl Fn() -> bool) {
        let healed = Instant::now();
        while !self.is_violated() {
            self.start_missing();
            sleep(LOOK).await;
            let since = healed.elapsed();
            if since >= OWNED_WITHIN && since < OWNED_WITHIN + LOOK {
                self.check_owned();
            }
            let mut unfinished = self.world.judge().unfinished();
            unfinished.extend(self.open_migrations());
            if unfinished.is_empty() && has_finished() {
                return self.check_rows();
            }
            if since > DONE_WITHIN {
                let (number, what) = (unfinished.len(), unfinished.join("; "));
                let clients = if has_finished() { "" } else { "a client waits; " };
                self.world.judge().fail(format!("I8: {clients}{number} are not over: {what}"));
            }
        }
    }

    /// Migrations that are not over, though both ends can talk.
    fn open_migrations(&self) -> Vec<String> {
        let worlds = self.cluster.worlds();
        let records = worlds.iter().map(|world| now(world.memory.migrations(PAGE_MAX)).unwrap_or_default());
        let records: Vec<_> = records.flatten().collect();
        let can_talk = |host: HostId| self.cluster.is_there(host);
        let open = records.iter().filter(|record| !record.phase.is_terminal());
        let open = open.filter(|record| can_talk(record.source) && can_talk(record.target));
        open.map(|record| format!("migration {} of {}", record.id, record.agent)).collect()
    }

    fn check_owned(&self) {
        let at = self.world.elapsed();
        for agent in &self.agents {
            let Some(world) = self.cluster.home_of(agent) else { continue };
            let row = now(world.memory.agent(agent)).ok().flatten();
            let has_work = row.is_some_and(|row| row.waking_inputs > 0);
            if has_work && !self.world.judge().is_owned(at, agent) {
                self.world
                    .judge()
                    .fail(format!("I8: {agent} has work and no owner {OWNED_WITHIN:?} after the faults"));
            }
        }
    }

    fn check_rows(&self) {
        for agent in &self.agents {
            let Some(world) = self.cluster.home_of(agent) else {
                return self.world.judge().fail(format!("I8: {agent} is at home nowhere"));
            };
            let (store, mut inputs, mut receipts) = (&world.memory, Vec::new(), Vec::new());
            loop {
                let after = inputs.last().map_or(0, |input: &godwit_core::store::StoredInput| input.seq.0);
                let page =
                    now(store.inputs(agent, None, Page { after, limit: PAGE_MAX })).unwrap_or_default();
                let after = Revision(receipts.len() as u64);
                let more = now(store.receipts(agent, Generation(1), after, PAGE_MAX)).unwrap_or_default();
                if page.is_empty() && more.is_empty() {
                    break;
                }
                inputs.extend(page);
                receipts.extend(more);
            }
            self.world.judge().check_rows(agent, &inputs, &receipts);
            let row = now(store.agent(agent)).ok().flatten();
            if row.is_none_or(|row| row.lifecycle != Lifecycle::Active) {
                self.world.judge().fail(format!("I8: {agent} is not active any more"));
            }
        }
    }
}
