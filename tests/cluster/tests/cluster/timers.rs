//! Timers fire once, whatever becomes of the host that should fire them: late if need be, and on another host if need be.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::wait::until;

use crate::room::{SOON, shared};

/// Gaps round the firing of a timer.
const GAPS: &[&str] = &["timer.before-fire", "timer.after-fire"];

const AGENT: &str = "sleeper";

/// Waits until the agent has ticked so often, and makes sure that it has by as many inputs, each of them applied.
async fn ticked(pair: &Cluster, side: Side, agent: &str, times: usize) -> Result<()> {
    let door = pair.host(side).client();
    let look = || async { Ok((door.reply(agent, "get").await? == times.to_string()).then_some(())) };
    until(&format!("{agent} to tick {times} times"), SOON, look).await?;
    let inputs = door.inputs(agent).await?;
    let timers: Vec<_> = inputs.iter().filter(|input| input.body["kind"] == "timer").collect();
    let is_applied = timers.iter().all(|input| input.state == "consumed");
    ensure!(timers.len() == times && is_applied, "{} timers fired: {timers:?}", timers.len());
    Ok(())
}

/// Sets a timer that is due soon after host a is gone.
async fn sleep_on(pair: &Cluster, agent: &str) -> Result<()> {
    let door = pair.a.client();
    door.create(agent, "ticker").await?;
    ensure!(door.reply(agent, "once 150").await? == "ok", "no timer");
    Ok(())
}

/// Lets the time of the timers pass, which is all that there is to wait for.
async fn oversleep() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_timer_that_was_missed_over_a_kill_fires_once() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["ticker"]).await?;
    sleep_on(&pair, AGENT).await?;
    let path = format!("/v1/agents/{AGENT}/timers");
    let waiting = pair.a.client().list(&path).await?;
    let due_ms = waiting.first().and_then(|timer| timer["at_ms"].as_u64());
    ensure!(waiting.len() == 1 && due_ms.is_some(), "{waiting:?}");
    pair.a.kill().await?;
    oversleep().await;
    pair.a.start(&[]).await?;
    ticked(&pair, Side::A, AGENT, 1).await?;
    pair.a.cli(&["timers", AGENT]).await?.ok()?;
    ensure!(pair.a.client().list(&path).await?.is_empty(), "it has fired");
    pair.a.kill().await?;
    pair.a.start(&[]).await?;
    ticked(&pair, Side::A, AGENT, 1).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_death_in_any_gap_of_firing_fires_once() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::failpoints()?, &[]).await?;
    pair.load(&["ticker"]).await?;
    for (number, failpoint) in GAPS.iter().enumerate() {
        println!("{failpoint}");
        let agent = format!("{AGENT}-{number}");
        pair.a.terminate().await?;
        pair.a.start(&[("GODWIT_FAILPOINTS", failpoint)]).await?;
        sleep_on(&pair, &agent).await?;
        pair.a.died(SOON).await.with_context(|| (*failpoint).to_owned())?;
        pair.a.start(&[]).await?;
        ticked(&pair, Side::A, &agent, 1).await.with_context(|| (*failpoint).to_owned())?;
    }
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn whoever_takes_over_fires_the_timers_of_a_dead_host() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::shared(&binaries::product()?, &[]).await?;
    pair.load(&["ticker"]).await?;
    sleep_on(&pair, AGENT).await?;
    pair.a.kill().await?;
    ticked(&pair, Side::B, AGENT, 1).await?;
    pair.a.start(&[]).await?;
    ticked(&pair, Side::A, AGENT, 1).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_parked_agent_is_woken() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[("GODWIT_LIMITS_RESIDENT_MAX", "1")]).await?;
    pair.load(&["ticker"]).await?;
    let door = pair.a.client();
    for number in 0..4 {
        sleep_on(&pair, &format!("{AGENT}-{number}")).await?;
    }
    for number in 0..4 {
        let agent = format!("{AGENT}-{number}");
        // Looking at rows wakes nobody.
        let fired = || async {
            let inputs = door.inputs(&agent).await?;
            let has_ticked = |input: &godwit_support::api::Input| {
                input.body["kind"] == "timer" && input.state == "consumed"
            };
            Ok(inputs.iter().any(has_ticked).then_some(()))
        };
        until(&format!("{agent} to be woken"), SOON, fired).await?;
        ticked(&pair, Side::A, &agent, 1).await?;
    }
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_moves_goes_on_ticking() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["ticker"]).await?;
    pair.a.client().create(AGENT, "ticker").await?;
    pair.a.client().reply(AGENT, "every 20").await?;
    let mut side = Side::A;
    for _ in 0..4 {
        let door = pair.host(side).client();
        let before: u64 = door.reply(AGENT, "get").await?.parse()?;
        let more =
            || async { Ok((door.reply(AGENT, "get").await?.parse::<u64>()? > before + 2).then_some(())) };
        until("more ticks", SOON, more).await?;
        door.move_to(AGENT, pair.host(side.other()).name(), SOON).await?;
        side = side.other();
    }
    let door = pair.host(side).client();
    ensure!(door.reply(AGENT, "stop").await? == "ok", "it does not stop");
    door.settled(AGENT, SOON).await?;
    let ticks = door.reply(AGENT, "get").await?.parse()?;
    ticked(&pair, side, AGENT, ticks).await?;
    pair.verify(side, &[AGENT.to_owned()]).await?;
    pair.end_and_verify().await?;
    Ok(())
}
