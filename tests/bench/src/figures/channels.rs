//! Deliveries of one publisher to 100 subscribers on two hosts: from the first publication of a round until all of them are
//! durable in the stores of the subscribers, which run them meanwhile.
//!
//! The floor writes the inputs alone, in one store and in large groups, without an outbox to come from and turns to go to.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use godwit_support::client::Client;
use godwit_support::wait::until;
use tokio::time::sleep;

use crate::bench::{Bench, guest_file, host_cpu, note, populate};
use crate::figures::pause::pair;
use crate::floor::PlainStore;
use crate::report::{Findings, Side, Target};

const SUBSCRIBERS: usize = 100;
const ROUNDS: u64 = 10;
/// Publications of one turn, and turns of one round: together fewer than what may wait for a subscriber.
const BURST: usize = 50;
const BURSTS: usize = 10;
const PAYLOAD_BYTES: usize = 100;
/// Inputs of one group of the floor, and its time in each round.
const GROUP: usize = 256;
const FLOOR_MS: u64 = 500;
const RATE_MIN: f64 = 20_000.0;
const LOOK_PAUSE: Duration = Duration::from_millis(2);
const SETTLED_MAX: Duration = Duration::from_secs(120);
const OWNER: &str = "owner";

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let (mut a, mut b) = pair(bench, scratch.path()).await?;
    for host in [&a, &b] {
        for plugin in ["publisher", "subscriber"] {
            host.client().load_plugin(&guest_file(plugin)?).await?;
        }
    }
    let api = a.client();
    populate(&api, "hostile", &["bare".to_owned()], Some(&note())).await?;
    api.create(OWNER, "publisher").await?;
    api.reply(OWNER, "open news").await?;
    let subscribers = subscribe(&api, &b.client()).await?;
    let mut floor = PlainStore::copy_of(&a.ready().store_path(), &scratch.path().join("floor.db"))?;

    let (mut floor_side, mut side) = (Side::default(), Side::default());
    let idle_cpu = host_cpu(&mut a)? + host_cpu(&mut b)?;
    let rounds = bench.scaled(ROUNDS);
    for _ in 0..rounds {
        floor_side.repeat(Duration::from_millis(FLOOR_MS), GROUP, || floor.accept(GROUP).map(drop))?;
        let started = Instant::now();
        for _ in 0..BURSTS {
            api.reply(OWNER, &format!("burst news {BURST} {PAYLOAD_BYTES}")).await?;
        }
        while !api.get(&format!("/v1/agents/{OWNER}/outputs?limit=1")).await?["items"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            sleep(LOOK_PAUSE).await;
        }
        let elapsed = started.elapsed();
        let count = BURST * BURSTS * SUBSCRIBERS;
        let each = u64::try_from(elapsed.as_nanos())? / count as u64;
        side.add(elapsed, vec![each; count]);
        // What the subscribers still have to run belongs to no round.
        all_heard(&api, &subscribers, (side.operations / SUBSCRIBERS) as u64).await?;
    }
    let cpu = (host_cpu(&mut a)? + host_cpu(&mut b)?).saturating_sub(idle_cpu);
    a.terminate().await?;
    b.terminate().await?;

    let mut findings = Findings::default();
    findings.note(format!(
        "{} deliveries; {:.0} us of both hosts for each, with its turn",
        side.operations,
        cpu.as_secs_f64() * 1e6 / side.operations as f64,
    ));
    let name = format!(
        "deliveries to {SUBSCRIBERS} subscribers on 2 hosts (floor: plain inputs, groups of {GROUP})"
    );
    findings.row(name, Some(floor_side.rate()), side.rate(), Some(Target::RateMin(RATE_MIN)));
    Ok(findings)
}

/// Half of them on each host. Answers who.
async fn subscribe(a: &Client, b: &Client) -> Result<Vec<String>> {
    let names: Vec<String> = (0..SUBSCRIBERS).map(|number| format!("subscriber-{number}")).collect();
    let (on_a, on_b) = names.split_at(SUBSCRIBERS / 2);
    for (api, names) in [(a, on_a), (b, on_b)] {
        populate(api, "subscriber", names, Some(&format!("subscribe {OWNER} news"))).await?;
    }
    let look = || async {
        let shown = a.list(&format!("/v1/agents/{OWNER}/channels")).await?;
        let count = shown.first().and_then(|shown| shown["subscribers"].as_u64());
        Ok((count == Some(SUBSCRIBERS as u64)).then_some(()))
    };
    until("all to subscribe", SETTLED_MAX, look).await?;
    Ok(names)
}

/// Waits until each has heard all publications, each once and in order.
async fn all_heard(api: &Client, subscribers: &[String], last: u64) -> Result<()> {
    let question = &format!("heard {OWNER} news");
    try_join_all(subscribers.iter().map(|agent| async move {
        let look = || async {
            let said = api.reply(agent, question).await?;
            Ok(said.split(' ').nth(1).is_some_and(|heard| heard == last.to_string()).then_some(said))
        };
        let said = until(&format!("{agent} to hear everything"), SETTLED_MAX, look).await?;
        ensure!(said == format!("1 {last} {last} 0"), "{agent} has heard {said}");
        Ok(())
    }))
    .await?;
    Ok(())
}
