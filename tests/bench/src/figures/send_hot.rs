//! Inputs that one hot agent gets through when many clients send to it: accepted durably one by one, run turn after turn,
//! committed in chains.
//!
//! The floor writes the same rows twice, as the product must: the inputs when they are accepted, and what their turns
//! make of them. A round of the product ends when the agent has answered an ask, which waits behind all that was sent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::{Bench, guest_file, host_cpu, note, populate};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::floor::PlainStore;
use crate::report::{Findings, Side, Target};

const CLIENTS: usize = 64;
/// Inputs of one group of the floor: what the clients can have under way.
const GROUP: usize = CLIENTS;
const ROUNDS: u64 = 20;
/// Of each side in each round; what is sent in it stays far below what an inbox holds.
const ROUND_MS: u64 = 400;
const RATIO_MIN: f64 = 0.4;
const AGENT: &str = "hot";

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut host = bench.host(scratch.path(), "host").await?;
    let api = host.client();
    api.load_plugin(&guest_file("hostile")?).await?;
    populate(&api, "hostile", &[AGENT.to_owned()], Some(&note())).await?;
    let order = Order {
        lanes: vec![vec![AGENT.to_owned()]; CLIENTS],
        door: Door::Send,
        payload: "turns".into(),
        expected: Expected::Accepted,
        until: Until::Milliseconds(ROUND_MS),
        pause_ms: 0,
    };
    let mut client = LoadClient::start(host.ready().api)?;
    let mut sent = client.run(&order)?.nanos.len();
    ensure!(api.reply(AGENT, "turns").await? == (sent + 2).to_string(), "inputs were lost, or run twice");
    let mut floor = PlainStore::copy_of(&host.ready().store_path(), &scratch.path().join("floor.db"))?;

    let (mut floor_side, mut side, mut drain) = (Side::default(), Side::default(), Duration::ZERO);
    let idle_cpu = host_cpu(&mut host)?;
    for round in 0..bench.scaled(ROUNDS) {
        floor_side.repeat(Duration::from_millis(ROUND_MS), GROUP, || {
            floor.accept(GROUP).and_then(|inputs| floor.run(inputs))
        })?;
        let started = Instant::now();
        let done = client.run(&order)?;
        let turns = api.reply(AGENT, "turns").await?;
        sent += done.nanos.len();
        drain += started.elapsed().saturating_sub(done.elapsed);
        side.add(started.elapsed(), done.nanos);
        let expected = sent as u64 + 3 + round;
        ensure!(turns == expected.to_string(), "{turns} turns, expected {expected}");
    }
    let cpu = host_cpu(&mut host)?.saturating_sub(idle_cpu);
    host.terminate().await?;

    let mut findings = Findings::default();
    findings.note(format!(
        "{} inputs; after the last was accepted it took {:.0} % of the time until all had run; {:.0} us of the host per input",
        side.operations,
        drain.as_secs_f64() * 100.0 / side.elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / side.operations as f64,
    ));
    let name = format!("sent inputs run, {CLIENTS} clients, one agent (floor: groups of {GROUP})");
    findings.row(name, Some(floor_side.rate()), side.rate(), Some(Target::RatioMin(RATIO_MIN)));
    Ok(findings)
}
