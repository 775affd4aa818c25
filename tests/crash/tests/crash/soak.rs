//! Two hosts on one file, and one of them is killed or stopped every few seconds: never two owners, nothing lost, nothing done
//! twice, and whoever is left takes over as soon as the lease has expired.
//!
//! `GODWIT_SOAK_SECONDS` and `GODWIT_SOAK_AGENTS` make it longer and larger.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use godwit_support::cluster::Folder;
use godwit_support::events;
use godwit_support::host::Host;
use godwit_support::random::Random;
use tokio::time::sleep;

use crate::jobs::{self, Job};
use crate::pairs::{newest_event, stop_beside};
use crate::runs::{conclude, number, start};
use crate::scene::{SOON, Scene, Template};

const SECONDS: u64 = 20;
const AGENTS: u64 = 100;
const CLIENTS: usize = 64;
/// Life of a session in the fast profile: the lease of a host that dies now has expired by then.
const TTL: Duration = Duration::from_secs(3);
/// From then on it must not take longer until somebody has buried it, 99 times of 100.
const TAKEOVER_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_or_sleeps_there_is_one_owner() -> Result<()> {
    let (seconds, agents) = (number("GODWIT_SOAK_SECONDS", SECONDS)?, number("GODWIT_SOAK_AGENTS", AGENTS)?);
    let mut random = Random::printed("soak");
    let (template, folder) = (Template::make().await?, Folder::new()?);
    let (mut a, mut b) = template.sharers(folder.path(), &[("GODWIT_LEASE_PROFILE", "fast")])?;
    start(&mut a, &[]).await?;
    start(&mut b, &[]).await?;
    for agent in (0..agents).map(jobs::spread) {
        a.client().create(&agent, "counter").await?;
    }
    let scene = Arc::new(Scene::spread_over(vec![a.client(), b.client()], random.draw(), agents));
    let clients = jobs::start(&scene, &[Job::Spread; CLIENTS]);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut takeovers, mut recoveries, mut naps) = (Vec::new(), Vec::new(), 0);
    while Instant::now() < until {
        sleep(Duration::from_millis(200 + random.below(1_500))).await;
        let (victim, other) = if random.below(2) == 0 { (&mut a, &b) } else { (&mut b, &a) };
        match random.below(5) {
            0 | 1 => {
                let before = newest_event(other).await?;
                victim.kill().await?;
                takeovers.push(buried(victim.key(), other, before).await?);
                recoveries.push(start(victim, &[]).await?);
            }
            2 | 3 => {
                let before = newest_event(other).await?;
                if stop_beside(victim, other).await.is_err() {
                    // Each time it held the file's lock, and nobody can take over then: it has been woken again.
                    naps += 1;
                    continue;
                }
                takeovers.push(buried(victim.key(), other, before).await?);
                victim.process()?.resume()?;
            }
            // Shorter than its lease, and perhaps with the file's lock: everything waits, and goes on.
            _ => {
                victim.process()?.stop().await?;
                sleep(Duration::from_millis(random.below(1_500))).await;
                victim.process()?.resume()?;
                naps += 1;
            }
        }
    }
    scene.progress(CLIENTS).await?;
    jobs::finish(&scene, clients).await?;
    let outcome = conclude(&scene, recoveries, &[&a]).await?;
    takeovers.sort();
    let late = takeovers.iter().filter(|took| **took > TTL + TAKEOVER_MAX).count();
    println!(
        "{seconds} s, {agents} agents, {CLIENTS} clients: {} takeovers, {naps} naps, {} acknowledged, {} repeated; from death to \
         burial {:?} to {:?} (a lease lives {TTL:?})",
        takeovers.len(),
        outcome.acknowledged,
        outcome.repeated,
        takeovers.first(),
        takeovers.last(),
    );
    ensure!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    ensure!(!takeovers.is_empty(), "nobody took over: it has shown nothing");
    ensure!(late * 100 <= takeovers.len(), "{late} of {} takeovers came late", takeovers.len());
    Ok(())
}

/// Waits until the other host has buried a session of this key, and answers how long after now it did.
#[expect(clippy::disallowed_methods, reason = "the wall clock by which the store dates its events")]
async fn buried(key: &str, other: &Host, before: u64) -> Result<Duration> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let is_end = |event: &events::Event| event.kind() == "host-gone" && event.detail("host") == key;
    let event = events::find_after(&other.client(), before, "the end of a session", SOON, is_end).await?;
    // As the store has it: finding the event takes its time as well.
    Ok(Duration::from_millis(event.at_ms()).saturating_sub(now))
}
