//! Machines and the processes on them: each process is a whole `godwit::runtime::Runtime`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use godwit::identity::HostKey;
use godwit::runtime::call::{AgentCall, AgentReply, CallError};
use godwit::runtime::operations::OperationPolicy;
use godwit::runtime::reconcile::RosterSources;
use godwit::runtime::routing::Forward;
use godwit::runtime::{Parts, PeerDoor, Runtime, RuntimeConfig};
use godwit_core::agent::{GuestPool, MemoryNotes};
use godwit_core::id::{AgentId, HostId};
use godwit_core::lease::LeaseProfile;
use godwit_core::limits::INPUTS_KEPT;
use godwit_core::store::{Home, RuntimeStore};
use godwit_core::task::TaskGroup;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::bug::Bug;
use crate::cage::Cage;
use crate::clock::SimClock;
use crate::guest::SimLoader;
use crate::net::Network;
use crate::store::FaultyStore;
use crate::world::{PROFILE, World, now};

/// All machines of a run.
pub struct Cluster {
    world: Arc<World>,
    network: Arc<Network>,
    machines: Vec<Machine>,
    park_after: Duration,
    resident_max: usize,
}

/// A machine: its clock outlives its processes.
struct Machine {
    key: HostId,
    secret: Arc<HostKey>,
    clock: Arc<SimClock>,
    /// The world with the store that its processes have.
    world: Arc<World>,
    /// The newest last. Older ones were stopped when they were given up, and may go on.
    processes: Mutex<Vec<Process>>,
    is_lost: AtomicBool,
}

/// A process.
#[derive(Clone)]
pub struct Process {
    /// Its tasks.
    pub cage: Arc<Cage>,
    runtime: Arc<OnceLock<Runtime>>,
    /// Somebody stops its runtime already. Two who wait for one end would be woken in an order that no seed rules: tokio's
    /// `watch` draws it by lot.
    is_stopping: Arc<AtomicBool>,
}

impl Machine {
    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Machines without processes.
    pub fn new(world: Arc<World>, count: u8, is_apart: bool) -> Arc<Self> {
        let machine = |number: u8| {
            let clock = world.machine_clock();
            let place = u64::from(number) + 1;
            let world = if is_apart { world.apart(place, clock.clone()) } else { world.clone() };
            let secret = Arc::new(HostKey::from_secret(&[number + 1; 32]));
            Machine {
                key: secret.id(),
                secret,
                clock,
                world,
                processes: Mutex::default(),
                is_lost: AtomicBool::new(false),
            }
        };
        let machines = (0..count).map(machine).collect();
        let (park_after, resident_max) = {
            let mut weather = world.weather();
            let random = weather.random();
            (
                Duration::from_millis(random.between(100, 3_000)),
                usize::try_from(random.between(1, 4)).unwrap_or(4),
            )
        };
        let network = Network::new(world.clone());
        Arc::new(Self { world, network, machines, park_after, resident_max })
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// The worlds with the stores that there are.
    pub fn worlds(&self) -> Vec<Arc<World>> {
        let worlds = self.machines.iter().map(|machine| machine.world.clone());
        let mut worlds: Vec<_> = worlds.collect();
        worlds.dedup_by_key(|world| world.place);
        worlds
    }

    /// The world with the store where an agent is at home, if it is in one.
    pub fn home_of(&self, agent: &AgentId) -> Option<Arc<World>> {
        let is_home = |world: &Arc<World>| {
            let row = now(world.memory.agent(agent)).ok().flatten();
            row.is_some_and(|row| row.home == Home::Here)
        };
        self.worlds().into_iter().find(is_home)
    }

    /// A machine's clock.
    pub fn clock(&self, host: usize) -> &SimClock {
        &self.machines[host].clock
    }

    /// The newest process of a machine, if it lives.
    pub fn process(&self, host: usize) -> Option<Process> {
        let newest = self.machines[host].processes().last().cloned();
        newest.filter(|process| process.cage.is_alive())
    }

    /// All processes that live.
    pub fn living(&self) -> Vec<Process> {
        let all = self.machines.iter().flat_map(|machine| machine.processes().clone());
        all.filter(|process| process.cage.is_alive()).collect()
    }

    /// A host's key.
    pub fn host_id(&self, host: usize) -> HostId {
        self.machines[host].key
    }

    /// The same, as people write it.
    pub fn key(&self, host: usize) -> String {
        self.machines[host].key.to_string()
    }

    /// Starts a process on a machine. It ends by itself when its runtime can't go on.
    pub fn start(self: &Arc<Self>, host: usize) {
        if self.is_lost(host) {
            return;
        }
        let is_locked = self.machines[host].processes().iter().any(|process| process.cage.is_alive());
        if self.machines[host].world.is_apart() && is_locked {
            // Its store is another process's.
            return;
        }
        let process =
            Process { cage: self.world.process(), runtime: Arc::default(), is_stopping: Arc::default() };
        self.world.note(format_args!("h{host} starts"));
        let number = {
            let mut processes = self.machines[host].processes();
            processes.retain(|process| process.cage.is_alive());
            processes.push(process.clone());
            u16::try_from(self.world.trace().lines() % 60_000).unwrap_or(0) + 1_024
        };
        let address = SocketAddr::from(([127, 0, 0, 1], number));
        let cluster = self.clone();
        let life = async move {
            cluster.live(host, address, &process).await;
            cluster.world.note(format_args!("h{host} ends"));
            process.cage.kill();
        };
        let cage = self.machines[host].processes().last().map(|process| process.cage.clone());
        if let Some(cage) = cage {
            cage.spawn(life.boxed());
        }
    }

    async fn live(&self, host: usize, address: SocketAddr, process: &Process) {
        let machine = &self.machines[host];
        let door = PeerDoor::default();
        let mesh = self.network.join((machine.key, address), &process.cage, Arc::new(door.clone()));
        let opener = machine.secret.clone();
        let parts = Parts {
            store: Arc::new(FaultyStore::new(machine.world.clone(), host, process.cage.clone())),
            loader: Arc::new(SimLoader::new(self.world.clone())),
            mesh,
            clock: machine.clock.clone(),
            peer_book: None,
            signer: None,
            unsealer: Some(Arc::new(move |context, sealed| opener.open(context, sealed))),
            load_notes: Arc::new(MemoryNotes::default()),
            head: None,
            roster: RosterSources::default(),
            hooks: Default::default(),
        };
        let tasks = {
            let cage = process.cage.clone();
            TaskGroup::on(Arc::new(move |task| cage.spawn(task)))
        };
        let world = self.world.clone();
        let pool = GuestPool::inline(Arc::new(move || {
            let takes = world.weather().guest_takes();
            if takes.is_zero() { std::future::ready(()).boxed() } else { sleep(takes).boxed() }
        }));
        match Runtime::start_on(self.config(machine, host), parts, &door, (tasks, pool)).await {
            Ok(runtime) => {
                self.world.note(format_args!("h{host} is up"));
                drop(process.runtime.set(runtime.clone()));
                let reason = runtime.failed().await;
                self.world.note(format_args!("h{host} can't go on: {reason}"));
                if process.is_stopping.swap(true, Ordering::Relaxed) {
                    // Whoever stops it ends the process.
                    return std::future::pending().await;
                }
                runtime.stop().await;
            }
            Err(error) => self.world.note(format_args!("h{host} can't start: {error}")),
        }
    }

    fn config(&self, machine: &Machine, host: usize) -> RuntimeConfig {
        let ttl = if self.world.bug == Some(Bug::DeadlineIgnored) { PROFILE.ttl * 100 } else { PROFILE.ttl };
        RuntimeConfig {
            host: machine.key,
            name: format!("h{host}"),
            api: SocketAddr::from(([127, 0, 0, 1], 1)),
            // Nobody opens envelopes here.
            carries_identity: true,
            takes_only_expected: false,
            arrival_rules: Vec::new(),
            delta_bytes_max: godwit_core::limits::DELTA_BYTES_MAX,
            capabilities: Default::default(),
            lease_profile: LeaseProfile { ttl, ..PROFILE },
            resident_max: self.resident_max,
            guest_threads: 2,
            park_after: self.park_after,
            inputs_kept: INPUTS_KEPT,
            receipts_kept: None,
            operations: OperationPolicy::default(),
            scratch: None,
            needs_edges: false,
            secrets: Default::default(),
        }
    }

    /// Kills the newest process of a machine.
    pub fn crash(&self, host: usize) {
        if let Some(process) = self.process(host) {
            process.cage.kill();
        }
    }

    /// Loses a machine for good, with all its processes.
    pub fn lose(&self, host: usize) {
        self.machines[host].is_lost.store(true, Ordering::Relaxed);
        for process in self.machines[host].processes().drain(..) {
            process.cage.kill();
        }
    }

    /// Whether a machine is lost.
    pub fn is_lost(&self, host: usize) -> bool {
        self.machines[host].is_lost.load(Ordering::Relaxed)
    }

    /// Whether the machine of a key is not lost.
    pub fn is_there(&self, key: HostId) -> bool {
        self.machines.iter().any(|machine| machine.key == key && !machine.is_lost.load(Ordering::Relaxed))
    }

    /// Stops the newest process of a machine in order: it leaves the store.
    pub fn shut_down(&self, host: usize) {
        let Some(process) = self.process(host) else { return };
        let Some(runtime) = process.runtime.get().cloned() else { return };
        if process.is_stopping.swap(true, Ordering::Relaxed) {
            return;
        }
        let cage = process.cage.clone();
        // The task that stops the runtime is none of those that it waits for.
        process.cage.spawn(Box::pin(async move {
            runtime.stop().await;
            cage.kill();
        }));
    }

    /// Ends everything.
    pub fn end(&self) {
        for process in self.living() {
            process.cage.kill();
        }
        self.network.clear();
        for machine in &self.machines {
            machine.processes().clear();
        }
    }
}

impl Process {
    /// Calls an agent through this process. `None` when no answer came within the time: the process may have died or done it.
    /// A caller that is gone takes its call with it.
    pub async fn call(
        &self,
        agent: &AgentId,
        call: AgentCall,
        patience: Duration,
    ) -> Option<Result<AgentReply, CallError>> {
        let runtime = self.runtime.get()?.clone();
        let (mut answer, answered) = oneshot::channel();
        let agent = agent.clone();
        self.cage.spawn(Box::pin(async move {
            let called = tokio::select! {
                biased;
                () = answer.closed() => return,
                called = runtime.call(&agent, call, Forward::Yes) => called,
            };
            // The caller may be gone.
            drop(answer.send(called.map(|called| called.reply)));
        }));
        tokio::time::timeout(patience, answered).await.ok()?.ok()
    }

    /// Whether it takes calls.
    pub fn is_up(&self) -> bool {
        self.cage.is_alive() && self.runtime.get().is_some()
    }
}
