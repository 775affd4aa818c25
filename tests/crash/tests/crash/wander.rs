//! Three hosts on machines of their own, whose agents move all the time, while hosts die in every gap of the protocol, sleep,
//! lose their cables, and are joined by lines that lose, repeat, damage and delay what passes.
//!
//! Between rounds everything heals, every other time without that a host is started anew that need not be: then each migration must
//! be over at both ends within 10 s, and each agent at home once. At the end the judge looks at the three stores as it does after any run. `GODWIT_WANDER_MOVES` makes it longer: from
//! `MOVES_FOR_ALL` on each failpoint of the protocol must have killed a host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_support::client::Client;
use godwit_support::cluster::Folder;
use godwit_support::host::Host;
use godwit_support::judge::Sight;
use godwit_support::line::{Line, Noise, Passed};
use godwit_support::machine::{self, Machine};
use godwit_support::random::Random;
use godwit_support::wait::until;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::jobs::{self, Job};
use crate::matrix;
use crate::runs::{begin, conclude, number, start};
use crate::scene::{Scene, Template};

const MOVES: u64 = 40;
/// Moves between two healings.
const ROUND: u64 = 20;
const MOVES_FOR_ALL: u64 = 1_000;
/// Walks in which something is planted, of which one must be found out; most are.
const GUILTY_TRIES: u8 = 5;
const HOSTS: [&str; 3] = ["a", "b", "c"];
const MOVERS: usize = 3;
const BUSY: &[Job] =
    &[Job::Count, Job::Count, Job::Pay, Job::Pay, Job::Relay, Job::Tick, Job::Spread, Job::Spread];
const SPREAD: u64 = 4;
const AGENTS: &[&str] = &[
    "counter-0",
    "counter-1",
    "sink",
    "relay-0",
    "ledger-0",
    "ledger-1",
    "ledger-2",
    "ticker-0",
    "counter-spread-0",
    "counter-spread-1",
    "counter-spread-2",
    "counter-spread-3",
];
/// A migration is decided by its deadline, one minute; what is left then is for the record to be seen.
const DECIDED_WITHIN: Duration = Duration::from_secs(60 + 20);
/// How soon everything is over once all can talk.
const OVER_WITHIN: Duration = Duration::from_secs(10);
/// How long a host may live on with an armed failpoint before another one gets its turn.
const ARMED_MAX: Duration = Duration::from_secs(6);

/// A walk that is to be made.
#[derive(Clone, Copy)]
struct Walk {
    /// How often agents move, altogether.
    moves: u64,
    /// Which.
    agents: &'static [&'static str],
    /// What clients do meanwhile.
    jobs: &'static [Job],
    /// Whether nothing befalls hosts and lines.
    is_calm: bool,
    /// Environment variables of the hosts.
    variables: &'static [(&'static str, &'static str)],
    /// Of how many it is in this process: each has machines of its own, since those of before go when the kernel gets to it.
    number: u8,
}

const WILD: Walk =
    Walk { moves: MOVES, agents: AGENTS, jobs: BUSY, is_calm: false, variables: &[], number: 0 };
/// What is planted here needs no mishap. Inputs wait for those who move.
const PLANTED: Walk = Walk {
    moves: 6,
    agents: &["counter-0", "counter-1", "sink"],
    jobs: &[Job::Crowd, Job::Crowd, Job::Crowd, Job::Count, Job::Count, Job::Relay],
    is_calm: true,
    variables: &[("GODWIT_BREAK", "left-behind")],
    number: 0,
};

/// What came of the moves.
#[derive(Debug, Default)]
struct Tally {
    complete: AtomicU64,
    /// Ends without a move, by reason.
    ended: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
}

impl Tally {
    fn note(&self, reason: &str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(reason.to_owned()).or_default() += 1;
    }

    fn violated(&self, what: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// The hosts and what joins them.
struct Map {
    hosts: Vec<Host>,
    /// The line from one host to another, by their numbers.
    lines: BTreeMap<(usize, usize), Line>,
    machines: Vec<Machine>,
    /// Hosts that will die when they come to a failpoint.
    armed: BTreeSet<usize>,
    heals: u64,
    random: Random,
    recoveries: Vec<Duration>,
    /// How often each failpoint has killed a host.
    deaths: BTreeMap<String, u64>,
    /// What else was done to hosts and cables.
    mishaps: BTreeMap<&'static str, u64>,
}

impl Map {
    async fn new(template: &Template, folder: &Folder, mut random: Random, walk: &Walk) -> Result<Self> {
        let (mut hosts, mut machines) = (Vec::new(), Vec::new());
        for (name, number) in HOSTS.into_iter().zip(1 + walk.number * HOSTS.len() as u8..) {
            let machine = Machine::new(number)?;
            let mut host = template.host_on(folder.path(), name, &machine, walk.variables)?;
            start(&mut host, &[]).await?;
            hosts.push(host);
            machines.push(machine);
        }
        let mut lines = BTreeMap::new();
        for near in 0..hosts.len() {
            for far in (0..hosts.len()).filter(|far| *far != near) {
                let mesh = hosts[far].ready().mesh;
                let line =
                    Line::open(machines[near].here(), machines[far].here(), mesh, random.draw()).await?;
                let peer = format!("{}@{}", hosts[far].key(), line.address);
                hosts[near].know(peer).await?;
                lines.insert((near, far), line);
            }
        }
        Ok(Self {
            hosts,
            lines,
            machines,
            armed: BTreeSet::new(),
            heals: 0,
            random,
            recoveries: Vec::new(),
            deaths: BTreeMap::new(),
            mishaps: BTreeMap::new(),
        })
    }

    fn doors(&self) -> Vec<Client> {
        self.hosts.iter().map(Host::client).collect()
    }

    fn any(&mut self) -> usize {
        self.random.below(HOSTS.len() as u64) as usize
    }

    fn count(&mut self, mishap: &'static str) {
        *self.mishaps.entry(mishap).or_default() += 1;
    }

    /// Every line with some noise of its own.
    fn stir(&mut self) {
        for line in self.lines.values() {
            let mut below = |bound| self.random.below(bound);
            line.set(Noise {
                is_cut: false,
                lost: below(30),
                damaged: below(20),
                repeated: below(30),
                delayed: below(200),
                delay_ms: 1 + below(20),
            });
        }
    }

    fn set_between(&self, one: usize, other: usize, noise: Noise) {
        for (_, line) in self.lines.iter().filter(|(ends, _)| [(one, other), (other, one)].contains(ends)) {
            line.set(noise);
        }
    }

    /// Whoever has died at a failpoint comes back.
    async fn revive(&mut self) -> Result<()> {
        for (number, host) in self.hosts.iter_mut().enumerate() {
            if !host.is_running() {
                self.recoveries.push(start(host, &[]).await?);
                self.armed.remove(&number);
            }
        }
        Ok(())
    }

    /// One mishap.
    async fn strike(&mut self, failpoints: &[String]) -> Result<()> {
        self.stir();
        let victim = self.any();
        match self.random.below(8) {
            0..4 => {
                let failpoint = self.rarest(failpoints);
                let armed = format!("{failpoint}=abort:1");
                self.hosts[victim].kill().await?;
                self.armed.insert(victim);
                let is_up = begin(&mut self.hosts[victim], &[("GODWIT_FAILPOINTS", &armed)]).await?;
                if !is_up || self.hosts[victim].died(ARMED_MAX).await.is_ok() {
                    *self.deaths.entry(failpoint).or_default() += 1;
                }
            }
            4 => {
                self.count("kills");
                self.hosts[victim].kill().await?;
                self.nap(1_500).await;
            }
            5 => {
                self.count("stops");
                self.hosts[victim].process()?.stop().await?;
                self.nap(4_000).await;
                self.hosts[victim].process()?.resume()?;
            }
            6 => {
                self.count("cables");
                self.machines[victim].plug(false)?;
                self.nap(5_000).await;
                self.machines[victim].plug(true)?;
            }
            _ => {
                self.count("cuts");
                let other = (victim + 1) % HOSTS.len();
                self.set_between(victim, other, Noise { is_cut: true, ..Noise::default() });
                self.nap(5_000).await;
                self.stir();
            }
        }
        self.revive().await
    }

    /// The failpoint that has killed fewest; those that hosts die at in turn.
    fn rarest(&mut self, failpoints: &[String]) -> String {
        let deaths = |name: &String| self.deaths.get(name).copied().unwrap_or_default();
        let fewest = failpoints.iter().map(deaths).min().unwrap_or_default();
        let rarest: Vec<_> = failpoints.iter().filter(|name| deaths(name) == fewest).cloned().collect();
        rarest[self.random.below(rarest.len() as u64) as usize].clone()
    }

    async fn nap(&mut self, at_most_ms: u64) {
        sleep(Duration::from_millis(50 + self.random.below(at_most_ms))).await;
    }

    /// All live, and hear each other. Armed hosts are started anew, and every other time all are.
    async fn heal(&mut self) -> Result<()> {
        for line in self.lines.values() {
            line.set(Noise::default());
        }
        self.heals += 1;
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let is_anew = self.heals.is_multiple_of(2) || self.armed.contains(&number);
            if is_anew && host.is_running() {
                host.kill().await?;
            }
        }
        self.revive().await
    }
}

/// Moves agents, whoever they are and wherever they go, until the goal is reached.
async fn wander(
    (doors, keys): (Vec<Client>, Vec<String>),
    agents: &'static [&'static str],
    mut random: Random,
    tally: Arc<Tally>,
    goal: u64,
) {
    while tally.complete.load(Ordering::Relaxed) < goal {
        let agent = agents[random.below(agents.len() as u64) as usize];
        let to = &keys[random.below(keys.len() as u64) as usize];
        let door = &doors[random.below(doors.len() as u64) as usize];
        let Ok(id) = door.migrate(agent, to).await else {
            // It is there, moves already, or is out of reach for now.
            sleep(Duration::from_millis(30)).await;
            continue;
        };
        match until(&format!("{agent} to have moved"), DECIDED_WITHIN, || over(&doors, &id)).await {
            Ok(end) if end == "complete" => drop(tally.complete.fetch_add(1, Ordering::Relaxed)),
            Ok(end) => tally.note(&end),
            Err(error) => tally.violated(format!("migration {id} of {agent} is not decided: {error:#}")),
        }
    }
}

/// How a migration ended, as its source says; none when it has not, or the source does not answer now.
async fn over(doors: &[Client], id: &str) -> Result<Option<String>> {
    // Whoever asks often keeps the hosts from work.
    sleep(Duration::from_millis(20)).await;
    for door in doors {
        let Ok(migration) = door.migration(id).await else { continue };
        if migration.body["role"] != "source" {
            continue;
        }
        return Ok(match migration.phase.as_str() {
            "complete" => Some("complete".to_owned()),
            "failed" | "aborted" => {
                let failure = &migration.body["failure"];
                let why = failure["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
                Some(format!("{}{why}", failure["code"].as_str().unwrap_or("?")))
            }
            _ => None,
        });
    }
    Ok(None)
}

/// Everything is over, everywhere, and everybody is at home somewhere.
async fn settled(scene: &Scene) -> Result<()> {
    let look = || async {
        for door in &scene.doors {
            let migrations = door.list("/v1/migrations").await?;
            let open = migrations.iter().find(|one| {
                !["complete", "failed", "aborted"].contains(&one["phase"].as_str().unwrap_or_default())
            });
            if let Some(open) = open {
                bail!("still open at {}: {open}", door.base());
            }
        }
        Ok(Some(()))
    };
    until("all migrations to be over at both ends", OVER_WITHIN, look).await?;
    for agent in AGENTS {
        for door in &scene.doors {
            let shown = door.agent(agent).await?;
            let sight = Sight { agent: (*agent).to_owned(), revision: shown.revision, token: shown.token };
            scene.facts().sights.push(sight);
        }
    }
    Ok(())
}

/// What has been seen of a walk.
struct Walked {
    map: Map,
    violations: Vec<String>,
    failpoints: Vec<String>,
}

/// Makes a walk, which is judged at its end.
async fn make(walk: Walk, template: &Template, mut random: Random) -> Result<Walked> {
    let Walk { moves, agents, jobs, is_calm, .. } = walk;
    let mut failpoints = matrix::names().await?;
    failpoints.retain(|name| name.starts_with("migration.") && !name.ends_with("transferred"));
    let folder = Folder::new()?;
    let mut map = Map::new(template, &folder, Random::from_seed(random.draw()), &walk).await?;
    let scene = Arc::new(Scene::spread_over(map.doors(), random.draw(), SPREAD));
    for number in 0..SPREAD {
        scene.doors[0].create(&jobs::spread(number), "counter").await?;
    }
    let keys: Vec<_> = map.hosts.iter().map(|host| host.key().to_owned()).collect();
    let clients = jobs::start(&scene, jobs);
    let (tally, began) = (Arc::new(Tally::default()), Instant::now());
    let mut goal = 0;
    while goal < moves {
        goal = (goal + ROUND).min(moves);
        let mut movers = JoinSet::new();
        for _ in 0..MOVERS {
            let seed = Random::from_seed(random.draw());
            movers.spawn(wander((map.doors(), keys.clone()), agents, seed, tally.clone(), goal));
        }
        while tally.complete.load(Ordering::Relaxed) < goal {
            match is_calm {
                true => map.nap(100).await,
                false => map.strike(&failpoints).await?,
            }
        }
        if !is_calm {
            map.heal().await?;
        }
        let healed = Instant::now();
        while let Some(mover) = movers.join_next().await {
            mover.context("a mover panicked")?;
        }
        if !is_calm && healed.elapsed() > OVER_WITHIN {
            let late = healed.elapsed().as_millis();
            tally.violated(format!("a migration was decided {late} ms after all could talk"));
        }
        settled(&scene).await?;
        scene.progress(10).await?;
    }
    if !is_calm {
        map.heal().await?;
    }
    let took = began.elapsed();
    jobs::finish(&scene, clients).await?;
    let hosts: Vec<&Host> = map.hosts.iter().collect();
    let mut outcome = conclude(&scene, map.recoveries.clone(), &hosts).await?;
    outcome.violations.extend(tally.violations.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    print(&map, &tally, took);
    println!("{} acknowledged, {} repeated", outcome.acknowledged, outcome.repeated);
    Ok(Walked { map, violations: outcome.violations, failpoints })
}

async fn run() -> Result<()> {
    let moves = number("GODWIT_WANDER_MOVES", MOVES)?;
    let template = Template::make().await?;
    let walk = Walk { moves, ..WILD };
    let Walked { map, violations, failpoints } = make(walk, &template, Random::printed("wander")).await?;
    ensure!(violations.is_empty(), "{violations:#?}");
    ensure!(!map.deaths.is_empty(), "nobody died: it has shown nothing");
    let missed: Vec<_> = failpoints.iter().filter(|name| !map.deaths.contains_key(*name)).collect();
    ensure!(moves < MOVES_FOR_ALL || missed.is_empty(), "nobody died at {missed:?}");
    Ok(())
}

/// Walks of hosts that are broken on purpose, until the judge finds one guilty. The same walk of sound hosts is found in order.
async fn must_be_found() -> Result<()> {
    let template = Template::make().await?;
    let mut random = Random::printed("planted");
    let sound = make(Walk { variables: &[], ..PLANTED }, &template, Random::from_seed(random.draw())).await?;
    ensure!(sound.violations.is_empty(), "sound hosts: {:#?}", sound.violations);
    for number in 1..=GUILTY_TRIES {
        match make(Walk { number, ..PLANTED }, &template, Random::from_seed(random.draw())).await {
            Ok(walked) if walked.violations.is_empty() => println!("nothing was found in this walk"),
            Ok(walked) => {
                println!("found: {}", walked.violations.join("; "));
                return Ok(());
            }
            // What hangs or fails is not what the judge is to find.
            Err(error) => println!("this walk was not judged: {error:#}"),
        }
    }
    bail!("nothing was found in {GUILTY_TRIES} walks")
}

fn print(map: &Map, tally: &Tally, took: Duration) {
    let passed = map.lines.values().map(Line::passed).fold(Passed::default(), |all, one| Passed {
        datagrams: all.datagrams + one.datagrams,
        lost: all.lost + one.lost,
        damaged: all.damaged + one.damaged,
        repeated: all.repeated + one.repeated,
        delayed: all.delayed + one.delayed,
    });
    let ended = tally.ended.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{} moves in {took:?}; others ended as {ended:?}", tally.complete.load(Ordering::Relaxed));
    println!("deaths at failpoints: {:?}", map.deaths);
    println!("besides: {:?}; {passed:?}", map.mishaps);
}

#[test]
fn agents_wander_while_hosts_die_sleep_and_lose_each_other() -> Result<()> {
    machine::inside("wander::agents_wander_while_hosts_die_sleep_and_lose_each_other", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(run())
    })
}

/// The negative control: without it a walk in which nothing is found shows nothing.
#[test]
fn a_walk_whose_moves_leave_inputs_behind_is_found_out() -> Result<()> {
    machine::inside("wander::a_walk_whose_moves_leave_inputs_behind_is_found_out", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(must_be_found())
    })
}
