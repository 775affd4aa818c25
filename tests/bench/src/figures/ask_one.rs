//! The latency of one ask: HTTP in, a turn, one durable commit, HTTP out.
//!
//! A write-ahead log that still grows makes the disk slower, since the file's size and blocks must become durable, too. So
//! both sides are measured once their logs have the size that they keep; the time until then is a row of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::{Bench, guest_file, host_cpu, note, populate};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::floor::PlainStore;
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

/// Rounds; each measures a batch of both sides.
const ROUNDS: u64 = 50;
const ASKS_PER_BATCH: u64 = 100;
/// Asks between two looks whether the host's log still grows.
const WARM_UP_BATCH: u64 = 250;
const WARM_UP_BATCHES_MAX: u64 = 40;
/// Commits that bring the floor's log to its size.
const FLOOR_WARM_UP: usize = 300;
const RATIO_MAX: f64 = 2.0;
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
        door: Door::Ask,
        payload: "turns".into(),
        expected: Expected::NextNumber,
        until: Until::Asks(WARM_UP_BATCH),
        pause_ms: 0,
    };
    let database = host.ready().store_path();
    let first = warm_up(&mut client, &order, &database, bench.scaled(WARM_UP_BATCHES_MAX))?;
    let mut floor = PlainStore::copy_of(&database, &scratch.path().join("floor.db"))?;
    for _ in 0..FLOOR_WARM_UP {
        floor.commit(1)?;
    }

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
    let asked = first.count() as u64 + rounds * ASKS_PER_BATCH;
    let turns = api.reply(AGENT, "turns").await?;
    ensure!(turns == (asked + 2).to_string(), "{turns} turns after {asked} asks");
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
    findings.row("ask, while the log of a new store grows", None, Measure::Time(first), None);
    Ok(findings)
}

/// Asks until the database's log no longer grows. Answers the times.
fn warm_up(client: &mut LoadClient, order: &Order, database: &Path, batches_max: u64) -> Result<Samples> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let (mut times, mut log_bytes) = (Samples::new(), 0);
    for _ in 0..batches_max {
        times.extend(client.run(order)?.nanos);
        let now = std::fs::metadata(&log)?.len();
        if now <= log_bytes {
            break;
        }
        log_bytes = now;
    }
    Ok(times)
}
