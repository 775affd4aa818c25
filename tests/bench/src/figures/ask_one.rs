//! The latency of one ask: HTTP in, a turn, one durable commit, HTTP out.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::{Bench, guest_file, host_cpu, note, populate};
use crate::client::{Expected, LoadClient, Order, Until};
use crate::floor::PlainStore;
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

/// Rounds; each measures a batch of both sides.
const ROUNDS: u64 = 50;
const ASKS_PER_BATCH: u64 = 100;
/// Asks before the first measurement.
const WARM_UP: u64 = 500;
const RATIO_MAX: f64 = 2.5;
const AGENT: &str = "solo";

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut host = bench.host(scratch.path(), "host").await?;
    let api = host.client();
    api.load_plugin(&guest_file("hostile")?).await?;
    populate(&api, "hostile", &[AGENT.to_owned()], Some(&note())).await?;
    let mut client = LoadClient::start(host.ready().api)?;
    let mut order = Order {
        lanes: vec![vec![AGENT.into()]],
        payload: "turns".into(),
        expected: Expected::NextNumber,
        until: Until::Asks(bench.scaled(WARM_UP)),
        pause_ms: 0,
    };
    client.run(&order)?;
    let mut floor = PlainStore::copy_of(&host.ready().store_path(), &scratch.path().join("floor.db"))?;

    order.until = Until::Asks(ASKS_PER_BATCH);
    let (mut floor_times, mut times) = (Samples::new(), Samples::new());
    let (mut client_cpu, idle_cpu) = (Duration::ZERO, host_cpu(&mut host)?);
    let rounds = bench.scaled(ROUNDS);
    for _ in 0..rounds {
        for _ in 0..ASKS_PER_BATCH {
            floor_times.time(|| floor.commit(1))?;
        }
        let done = client.run(&order)?;
        times.extend(done.nanos);
        client_cpu += done.cpu;
    }
    let busy_cpu = host_cpu(&mut host)?.saturating_sub(idle_cpu);
    let asked = bench.scaled(WARM_UP) + rounds * ASKS_PER_BATCH;
    let turns = api.reply(AGENT, "turns").await?;
    ensure!(
        turns == (asked + 2).to_string(),
        "{turns} turns after {asked} asks"
    );
    host.terminate().await?;

    let mut findings = Findings::default();
    let per_ask = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (rounds * ASKS_PER_BATCH) as f64;
    findings.note(floor.describe());
    findings.note(format!(
        "processor time per ask: client {:.0} us, host {:.0} us",
        per_ask(client_cpu),
        per_ask(busy_cpu)
    ));
    findings.row(
        "ask, one client, one agent",
        Some(Measure::Time(floor_times)),
        Measure::Time(times),
        Some(Target::RatioMax(RATIO_MAX)),
    );
    Ok(findings)
}
