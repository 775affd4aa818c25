//! Asks per second when many clients ask many agents: what group commit makes of one disk.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::{Bench, guest_file, host_cpu, note, populate};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::floor::PlainStore;
use crate::report::{Findings, Side, Target};

const CLIENTS: usize = 64;
const AGENTS: usize = 1_000;
/// Asks that plain SQLite commits in one transaction.
const GROUP: usize = 64;
const ROUNDS: u64 = 10;
/// Of each side in each round.
const ROUND_MS: u64 = 1_500;
const RATIO_MIN: f64 = 0.5;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut host = bench.host(scratch.path(), "host").await?;
    let api = host.client();
    api.load_plugin(&guest_file("hostile")?).await?;
    let agents: Vec<String> = (0..AGENTS).map(|number| format!("many-{number}")).collect();
    populate(&api, "hostile", &agents, Some(&note())).await?;
    let lanes = (0..CLIENTS).map(|client| agents.iter().skip(client).step_by(CLIENTS).cloned().collect());
    let order = Order {
        lanes: lanes.collect(),
        door: Door::Ask,
        payload: "turns".into(),
        expected: Expected::NextNumber,
        until: Until::Milliseconds(ROUND_MS),
        pause_ms: 0,
    };
    let mut client = LoadClient::start(host.ready().api)?;
    let mut asked = client.run(&order)?.nanos.len();
    let mut floor = PlainStore::copy_of(&host.ready().store_path(), &scratch.path().join("floor.db"))?;

    let (mut floor_side, mut side) = (Side::default(), Side::default());
    let (mut client_cpu, idle_cpu) = (Duration::ZERO, host_cpu(&mut host)?);
    for _ in 0..bench.scaled(ROUNDS) {
        floor_side.repeat(Duration::from_millis(ROUND_MS), GROUP, || floor.commit(GROUP))?;
        let done = client.run(&order)?;
        side.add(done.elapsed, done.nanos);
        client_cpu += done.cpu;
    }
    let busy_cpu = host_cpu(&mut host)?.saturating_sub(idle_cpu);
    asked += side.operations;
    let mut turns = 0;
    for agent in &agents {
        turns += api.reply(agent, "turns").await?.parse::<usize>()?;
    }
    // Each agent has counted its note and the question for the count, too.
    ensure!(turns == asked + 2 * AGENTS, "{turns} turns after {asked} asks of {AGENTS} agents");
    host.terminate().await?;

    let mut findings = Findings::default();
    let share = |cpu: Duration| cpu.as_secs_f64() / side.elapsed.as_secs_f64();
    findings.note(floor.describe());
    findings.note(format!(
        "processors busy while asking: client {:.2}, host {:.2}; {:.0} us of the host per ask",
        share(client_cpu),
        share(busy_cpu),
        busy_cpu.as_secs_f64() * 1e6 / side.operations as f64
    ));
    let name = format!("asks, {CLIENTS} clients, {AGENTS} agents (floor: groups of {GROUP})");
    findings.row(name, Some(floor_side.rate()), side.rate(), Some(Target::RatioMin(RATIO_MIN)));
    Ok(findings)
}
