//! Guests that misbehave: a typed fault for whoever sent the input, and nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::Folder;
use godwit_support::host::HostOptions;
use godwit_support::stats::Latencies;
use tokio::task::JoinSet;

use crate::room::alone;

const NEIGHBOUR: &str = "neighbour";
const BASELINE_ASKS: usize = 400;
/// A neighbour's p99 stays below this multiple of what it was.
const SLOWDOWN_MAX: u32 = 5;
/// Below this, what is measured is the machine's scheduler.
const FLOOR: Duration = Duration::from_millis(2);
const FAULT_MAX: Duration = Duration::from_secs(60);

/// What the guest does, and the faults that fit it.
const MISDEEDS: &[(&str, &[&str])] = &[
    ("loop", &["deadline"]),
    ("spin-import 0", &["deadline"]),
    ("sleep 10", &["blocked"]),
    ("poll 10", &["blocked"]),
    ("trap", &["trap"]),
    ("panic", &["trap"]),
    ("recurse", &["trap"]),
    ("allocate 0", &["memory"]),
    ("exit 3", &["exited"]),
    ("replies 2", &["reply_count"]),
    ("mode trap-in-snapshot", &["trap"]),
    ("mode loop-in-snapshot", &["deadline"]),
    ("mode garbage-snapshot", &["snapshot"]),
    ("mode big-snapshot 24", &["snapshot", "memory"]),
    ("mode big-snapshot 1024", &["snapshot", "memory"]),
];

/// One agent does one misdeed: the fault is typed, the input is a dead letter, and the agent lives on.
async fn misbehave(door: Client, number: usize) -> Result<()> {
    let (misdeed, faults) = MISDEEDS[number];
    let agent = format!("hostile-{number}");
    let fate = door.ask_within(&agent, misdeed, None, FAULT_MAX).await;
    let problem = fate.problem().with_context(|| format!("{misdeed}: no fault but {fate:?}"))?;
    ensure!(problem.code == "agent_fault", "{misdeed}: {}", problem.body);
    let fault = problem.body["fault"].as_str().unwrap_or_default();
    ensure!(faults.contains(&fault), "{misdeed}: fault {fault:?}, not one of {faults:?}: {}", problem.body);
    let reply = door.reply(&agent, "echo alive").await?;
    ensure!(reply == "alive", "after {misdeed} the agent replies {reply:?}");
    Ok(())
}

/// Asks the neighbour as long as `more` says.
async fn neighbour(door: &Client, more: impl Fn(usize) -> bool) -> Result<Latencies> {
    let mut asks = Vec::new();
    while more(asks.len()) {
        let asked = Instant::now();
        door.reply(NEIGHBOUR, "add 1").await?;
        asks.push(asked.elapsed());
    }
    Ok(Latencies::of(asks))
}

#[tokio::test]
async fn hostile_guests_get_typed_faults_and_their_neighbours_go_on() -> Result<()> {
    let _room = alone().await;
    let folder = Folder::new()?;
    let host = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host").start().await?;
    let door = host.client();
    door.load_plugin(&binaries::plugin("counter")?).await?;
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    door.create(NEIGHBOUR, "counter").await?;
    for number in 0..MISDEEDS.len() {
        let agent = format!("hostile-{number}");
        door.create(&agent, "hostile").await?;
        door.reply(&agent, "echo ready").await?;
    }
    let before = neighbour(&door, |asks| asks < BASELINE_ASKS).await?;
    let mut misdeeds = JoinSet::new();
    for number in 0..MISDEEDS.len() {
        misdeeds.spawn(misbehave(door.clone(), number));
    }
    let is_over = AtomicBool::new(false);
    let ask = neighbour(&door, |_| !is_over.load(Ordering::Relaxed));
    let watch = async {
        let mut failures = Vec::new();
        while let Some(ended) = misdeeds.join_next().await {
            failures.extend(ended.context("a client panicked").and_then(|ended| ended).err());
        }
        is_over.store(true, Ordering::Relaxed);
        failures
    };
    let (during, failures) = tokio::join!(ask, watch);
    let during = during?;
    let after = neighbour(&door, |asks| asks < BASELINE_ASKS).await?;
    println!("neighbour before: {before}\nneighbour during: {during}\nneighbour after: {after}");
    let failures: Vec<_> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    let undisturbed = before.percentile(99).max(after.percentile(99)).max(FLOOR);
    ensure!(
        during.percentile(99) < undisturbed * SLOWDOWN_MAX,
        "a neighbour is slower than {SLOWDOWN_MAX} x {undisturbed:?}: {during}"
    );
    let count: usize = door.reply(NEIGHBOUR, "get").await?.parse()?;
    ensure!(count == before.count() + during.count() + after.count(), "the neighbour counts {count}");
    Ok(())
}
