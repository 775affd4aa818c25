//! Every failpoint that the program has, under several seeds each.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cli;
use godwit_support::random::Random;
use godwit_support::stats::Latencies;
use tokio::task::JoinSet;

use crate::journeys;
use crate::runs::{Cell, Outcome, number};
use crate::scene::Template;

/// Seeds of each name; `GODWIT_CRASH_SEEDS` tries others.
const SEEDS: u64 = 5;
const SEEDS_VARIABLE: &str = "GODWIT_CRASH_SEEDS";
const FAILPOINTS_MIN: usize = 30;
/// Runs at once: they wait for disk and timers as much as for a processor.
const WORKERS: usize = 4;
/// A recovery to ready takes no longer, 99 times of 100.
const RECOVERY_MAX: Duration = Duration::from_secs(2);
/// Restricts the matrix to names that contain it; for looking into one.
const ONLY_VARIABLE: &str = "GODWIT_CRASH_ONLY";

/// The failpoints that the program names.
pub(crate) async fn names() -> Result<Vec<String>> {
    let version = cli::run(&binaries::failpoints()?, &["version", "-o", "json"]).await?.ok()?.json()?;
    let names = version["failpoints"].as_array().context("this build names its failpoints")?;
    Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// All cells, the seeds of one name far from each other.
fn cells(names: &[String], seed: u64, seeds: u64) -> Result<VecDeque<Cell>> {
    let lost: Vec<_> = names.iter().filter(|name| journeys::to(name).is_none()).collect();
    ensure!(lost.is_empty(), "no journey leads to {lost:?}: give journeys.rs a row");
    let mut cells = VecDeque::new();
    for number in 0..seeds {
        for name in names {
            let journey = journeys::to(name).context("every name has a journey")?;
            cells.push_back(Cell { failpoint: name.clone(), seed: seed.wrapping_add(number), journey });
        }
    }
    Ok(cells)
}

#[derive(Default)]
struct Results {
    of_names: BTreeMap<String, Vec<Outcome>>,
    failures: Vec<String>,
    longest: (Duration, String),
}

async fn work(template: Arc<Template>, cells: Arc<Mutex<VecDeque<Cell>>>, results: Arc<Mutex<Results>>) {
    loop {
        let cell = cells.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(cell) = cell else { return };
        let began = Instant::now();
        let outcome = cell.run(&template, &[], &[]).await;
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        let what = format!("{} seed {}", cell.armed(), cell.seed);
        results.longest = results.longest.clone().max((began.elapsed(), what.clone()));
        match outcome {
            Ok(outcome) => {
                if !outcome.violations.is_empty() {
                    results.failures.push(format!("{what}:\n  {}", outcome.violations.join("\n  ")));
                }
                results.of_names.entry(cell.failpoint).or_default().push(outcome);
            }
            Err(error) => results.failures.push(format!("{what}: {error:#}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_in_any_gap_loses_and_doubles_nothing() -> Result<()> {
    let seed = Random::printed("crash matrix").draw();
    let mut names = names().await?;
    ensure!(names.len() >= FAILPOINTS_MIN, "only {} failpoints", names.len());
    if let Ok(only) = std::env::var(ONLY_VARIABLE) {
        names.retain(|name| name.contains(&only));
    }
    let seeds = number(SEEDS_VARIABLE, SEEDS)?;
    let cells = Arc::new(Mutex::new(cells(&names, seed, seeds)?));
    let template = Arc::new(Template::make().await?);
    let results = Arc::new(Mutex::new(Results::default()));
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(template.clone(), cells.clone(), results.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker.context("a worker panicked")?;
    }
    let results = results.lock().unwrap_or_else(PoisonError::into_inner);
    // Before the table, which is long.
    for failure in &results.failures {
        println!("failed: {failure}");
    }
    let recoveries = print(&results, began.elapsed());
    ensure!(results.failures.is_empty(), "{} runs failed", results.failures.len());
    ensure!(recoveries.percentile(99) <= RECOVERY_MAX, "recovery to ready takes too long: {recoveries}");
    Ok(())
}

/// Prints a line for each name. Answers how long recoveries took.
fn print(results: &Results, elapsed: Duration) -> Latencies {
    println!(
        "{:<40} {:>5} {:>13} {:>9} {:>18}",
        "failpoint", "runs", "acknowledged", "repeated", "longest recovery"
    );
    let mut recoveries = Vec::new();
    let mut runs = 0;
    for (name, outcomes) in &results.of_names {
        let acknowledged: usize = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
        let repeated: usize = outcomes.iter().map(|outcome| outcome.repeated).sum();
        let of_name = outcomes.iter().flat_map(|outcome| outcome.recoveries.iter().copied());
        let longest = of_name.clone().max().unwrap_or_default().as_millis();
        println!("{name:<40} {:>5} {acknowledged:>13} {repeated:>9} {longest:>15} ms", outcomes.len());
        recoveries.extend(of_name);
        runs += outcomes.len();
    }
    let recoveries = Latencies::of(recoveries);
    let ms = |percent| recoveries.percentile(percent).as_secs_f64() * 1_000.0;
    println!(
        "{} failpoints, {runs} runs in {:.0} s, the longest {:.1} s ({}); recovery to ready: p50 {:.0} ms, p99 {:.0} ms",
        results.of_names.len(),
        elapsed.as_secs_f64(),
        results.longest.0.as_secs_f64(),
        results.longest.1,
        ms(50),
        ms(99)
    );
    recoveries
}
