//! What happens to machines and processes while faults are allowed. The seed decides what, when, and how often in this run.

use std::sync::Arc;
use std::time::Duration;

use godwit::runtime::call::AgentCall;
use godwit::runtime::verbs::VerbCall;
use godwit_core::id::AgentId;
use tokio::time::{Instant, sleep};

use crate::host::Cluster;
use crate::random::Random;
use crate::world::{PROFILE, World};

/// Pause between two blows, at most.
const PAUSE_MAX_MS: u64 = 500;
/// How long a process is stopped, at most, in times to live.
const STOPPED_TTLS: u64 = 10;
/// How far wall time is wrong, at most.
const WALL_MAX_MS: u64 = 3_000;
/// The kinds of blows.
const KINDS: usize = 12;
/// The kind that moves agents, and how much more often it comes where a move takes all of an agent's rows from store to store.
const MOVE: usize = 6;
const MOVES_MORE: u64 = 24;

/// Does harm.
pub struct Nemesis {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    agents: Vec<AgentId>,
    random: Random,
    /// How often each kind comes.
    weights: [u64; KINDS],
}

impl Nemesis {
    /// The harm of a run.
    pub fn new(world: Arc<World>, cluster: Arc<Cluster>, agents: Vec<AgentId>) -> Self {
        let mut random = world.weather().random().fork();
        let mut weights = std::array::from_fn(|_| random.below(4));
        if cluster.worlds().iter().any(|world| world.is_apart()) {
            weights[MOVE] += MOVES_MORE;
        }
        Self { world, cluster, agents, random, weights }
    }

    /// Does harm until then.
    pub async fn run(mut self, until: Instant) {
        loop {
            sleep(Duration::from_millis(self.random.between(5, PAUSE_MAX_MS))).await;
            if Instant::now() >= until {
                return;
            }
            let host = usize::try_from(self.random.below(self.cluster.len() as u64)).unwrap_or(0);
            self.strike(host, until);
        }
    }

    fn kind(&mut self) -> usize {
        let mut drawn = self.random.below(self.weights.iter().sum());
        for (kind, weight) in self.weights.iter().enumerate() {
            if drawn < *weight {
                return kind;
            }
            drawn -= weight;
        }
        0
    }

    fn strike(&mut self, host: usize, until: Instant) {
        let ttl_ms = crate::clock::millis(PROFILE.ttl);
        match self.kind() {
            0 => {
                self.world.note(format_args!("h{host} crashes"));
                self.cluster.crash(host);
                self.restart(host, ttl_ms);
            }
            1 | 2 => self.stop(host, ttl_ms, until),
            3 => {
                let by = Duration::from_millis(self.random.below(2 * ttl_ms));
                self.world.note(format_args!("h{host} jumps {by:?} of boot time"));
                self.cluster.clock(host).jump_boot(by);
            }
            4 => {
                let ahead = i64::try_from(self.random.below(2 * WALL_MAX_MS)).unwrap_or(0);
                let ahead = ahead - i64::try_from(WALL_MAX_MS).unwrap_or(0);
                self.world.note(format_args!("h{host} has a wall clock {ahead} ms ahead"));
                self.cluster.clock(host).set_wall_ahead_ms(ahead);
            }
            5 => {
                let time = Duration::from_millis(self.random.below(2 * ttl_ms));
                self.world.note(format_args!("h{host} has no store for {time:?}"));
                self.world.weather().take_down(host, Instant::now() + time);
            }
            MOVE | 7 => {
                let to = self.cluster.key(host);
                self.order("move", AgentCall::Migrate { to });
            }
            9 => self.order("respawn", AgentCall::Verb(VerbCall::Respawn)),
            8 => {
                // Under the same key as one that runs: the newer one wins.
                self.cluster.start(host);
            }
            10 => {
                let time = Duration::from_millis(self.random.below(4 * ttl_ms));
                self.world.note(format_args!("h{host} is cut off from the others for {time:?}"));
                self.world.weather().cut_off(self.cluster.host_id(host), Instant::now() + time);
            }
            _ => {
                self.world.note(format_args!("h{host} shuts down"));
                self.cluster.shut_down(host);
                self.restart(host, 2 * ttl_ms);
            }
        }
    }

    /// Starts a machine's next process a while later, if it has none then.
    fn restart(&mut self, host: usize, within_ms: u64) {
        let pause = Duration::from_millis(self.random.below(within_ms));
        let cluster = self.cluster.clone();
        self.world.outside.spawn(Box::pin(async move {
            sleep(pause).await;
            if cluster.process(host).is_none() {
                cluster.start(host);
            }
        }));
    }

    /// Stops a process for a while. Sometimes somebody starts another one meanwhile.
    fn stop(&mut self, host: usize, ttl_ms: u64, until: Instant) {
        let Some(process) = self.cluster.process(host).filter(|process| !process.cage.is_stopped()) else {
            return;
        };
        let time = Duration::from_millis(self.random.below(STOPPED_TTLS * ttl_ms));
        self.world.note(format_args!("h{host} is stopped for {time:?}"));
        process.cage.stop();
        let (world, is_given_up) = (self.world.clone(), self.random.chance(150));
        let ends = (Instant::now() + time).min(until);
        self.world.outside.spawn(Box::pin(async move {
            tokio::time::sleep_until(ends).await;
            world.note(format_args!("h{host} goes on"));
            process.cage.go_on();
        }));
        if is_given_up {
            self.cluster.start(host);
        }
    }

    /// Has something done with an agent.
    fn order(&mut self, what: &'static str, call: AgentCall) {
        let by = usize::try_from(self.random.below(self.cluster.len() as u64)).unwrap_or(0);
        let Some(agent) = self.random.pick(&self.agents).cloned() else { return };
        let Some(process) = self.cluster.process(by).filter(|process| process.is_up()) else { return };
        let world = self.world.clone();
        self.world.outside.spawn(Box::pin(async move {
            let told = process.call(&agent, call, PROFILE.ttl).await;
            world.note(format_args!("{agent} is to {what}: {told:?}"));
        }));
    }
}
