//! A program that embeds a host, as others would: the example runs to its end and shows what it promises.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use tokio::process::Command;

use crate::room::shared;

/// It takes a second where nothing else runs.
const RUN_MAX: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_example_runs_to_its_end_by_itself() -> Result<()> {
    let _room = shared().await;
    let mut embed = Command::new(binaries::embed()?);
    let running = embed.arg(binaries::plugin("counter")?).kill_on_drop(true).output();
    let output = tokio::time::timeout(RUN_MAX, running).await.context("it does not end")??;
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{said}\n{log}", output.status);
    for expected in [
        "started: services",
        "godwit ready name=",
        "hook: anna was created",
        "hook: 3 agents reconciled, complete: true",
        "carl says 3",
        "LeaseAcquired of bert",
        "released=3",
        "tasks_left=0",
    ] {
        ensure!(said.contains(expected), "it does not say {expected:?}:\n{said}");
    }
    Ok(())
}
