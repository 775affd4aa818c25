//! What keeps a host's leases alive, in a file that several hosts share: one heartbeat of its session, however many agents
//! it holds. The stores lie on one disk and are asked in turns; the floor is the heartbeat of the host with one agent.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use godwit_core::id::{AgentId, Incarnation};
use godwit_core::store::RuntimeStore;
use godwit_core::time::SystemClock;
use godwit_store::{SqliteMode, SqliteStore};

use crate::bench::{Bench, component};
use crate::product::{self, Product};
use crate::report::{Findings, Measure, Target, nanos};
use crate::samples::Samples;

const ROUNDS: u64 = 1_000;
/// Agents of each host.
const AGENTS: [u64; 3] = [1, 1_000, 100_000];
/// Agents that are created at the same time, and taken at once.
const LANES: usize = 64;
const TAKEN_AT_ONCE: usize = 256;
/// "Independent": less than this apart.
const RATIO_MAX: f64 = 1.2;

/// A host's store, its session, and how long its heartbeats took.
struct Beating {
    store: Arc<SqliteStore>,
    incarnation: Incarnation,
    agents: u64,
    times: Samples,
}

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let (component, scratch) = (component("hostile")?, bench.scratch()?);
    let product = Product::compile(&component, scratch.path())?;
    let mut findings = Findings::default();
    let mut hosts = Vec::new();
    for agents in AGENTS {
        let file = scratch.path().join(format!("{agents}.db"));
        let store = SqliteStore::open(&file, SqliteMode::Shared, Arc::new(SystemClock))?;
        let taken = fill(store.as_ref(), &product, bench.scaled(agents), &mut findings).await?;
        hosts.push(Beating { store, incarnation: taken, agents, times: Samples::new() });
    }
    for _ in 0..bench.scaled(ROUNDS) {
        for host in &mut hosts {
            let started = Instant::now();
            host.store.heartbeat(host.incarnation).await?;
            host.times.push(started.elapsed());
        }
    }
    let floor = hosts[0].times.clone();
    for host in hosts {
        host.store.close().await;
        let name = format!("heartbeat of a host with {} agents (floor: with 1)", host.agents);
        if host.agents > 1 {
            let floor = Measure::Time(floor.clone());
            findings.row(name, Some(floor), Measure::Time(host.times), Some(Target::RatioMax(RATIO_MAX)));
        }
    }
    Ok(findings)
}

/// Joins, makes agents and takes them all.
async fn fill(
    store: &SqliteStore,
    product: &Product,
    agents: u64,
    findings: &mut Findings,
) -> Result<Incarnation> {
    product.put(store).await?;
    let names = (0..agents).map(|number| AgentId::parse(&format!("held-{number}")));
    let agents = names.collect::<Result<Vec<_>, _>>()?;
    let lanes = agents.chunks(agents.len().div_ceil(LANES).max(1));
    try_join_all(lanes.map(|lane| async move {
        for agent in lane {
            product.create(store, agent.clone()).await?;
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    let session = product::join(store).await?;
    ensure!(session.ttl.is_some(), "a shared store has sessions that expire");
    let started = Instant::now();
    for some in agents.chunks(TAKEN_AT_ONCE) {
        for lease in store.acquire(session.incarnation, some).await? {
            lease?;
        }
    }
    let each = started.elapsed().as_nanos() as f64 / agents.len() as f64;
    findings.note(format!(
        "{} leases, {TAKEN_AT_ONCE} at once, were taken in {} each",
        agents.len(),
        nanos(each)
    ));
    Ok(session.incarnation)
}
