//! Ending a host: in order, with a report in its log; and at once, when it is told twice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::signal::{self, Send};
use godwit_support::wait::until;

use crate::room::{SOON, shared};

const PHASES: [&str; 7] = ["admission", "turns", "checkpoints", "outbox", "leases", "flush", "close"];
/// Much less than a turn that computes for ever has when a host ends.
const AT_ONCE: Duration = Duration::from_secs(4);

async fn host(folder: &Folder) -> Result<Host> {
    let host = HostOptions::new(&binaries::product()?, &folder.path().join("a"), "a").start().await?;
    host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    host.client().create("a", "hostile").await?;
    host.client().reply("a", "turns").await?;
    Ok(host)
}

/// Has an agent compute until somebody ends it.
async fn compute(host: &Host) -> Result<()> {
    let sent = host.client().send("a", "loop", None).await;
    ensure!(sent.answer().is_some(), "{sent:?}");
    let pid = host.pid()?;
    let before = signal::cpu_time(pid)?;
    // It counts as running when it has used more than the host needs for anything else.
    let look = || async { Ok((signal::cpu_time(pid)? > before + Duration::from_millis(200)).then_some(())) };
    until("the turn to run", SOON, look).await
}

/// What the log says of the phases, in its order: name and the rest of the line.
fn phases(log: &str) -> Vec<(String, String)> {
    let lines = log.lines().filter_map(|line| line.split_once("shutdown phase is over"));
    lines
        .filter_map(|(_, fields)| {
            let (_, rest) = fields.split_once("phase=")?;
            let (name, rest) = rest.split_once(' ')?;
            Some((name.to_owned(), rest.to_owned()))
        })
        .collect()
}

#[tokio::test]
async fn a_host_that_is_told_to_end_goes_through_its_phases_in_order() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    host.terminate().await?;
    let log = host.log_text();
    let (names, counts): (Vec<_>, Vec<_>) = phases(&log).into_iter().unzip();
    ensure!(names == PHASES, "{names:?}\n{log}");
    ensure!(counts[4].contains("released=1") && counts[6].contains("tasks_left=0"), "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_told_twice_ends_at_once_and_loses_nothing() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = host(&folder).await?;
    compute(&host).await?;
    let pid = host.pid()?;
    signal::send(pid, Send::Terminate)?;
    let admission = || async { Ok((!phases(&host.log_text()).is_empty()).then_some(())) };
    until("the shutdown to begin", SOON, admission).await?;
    let began = Instant::now();
    let code = host.process()?.terminate().await?;
    ensure!(code == 1, "it ended in order, with exit code {code}");
    ensure!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    host.start(&[]).await?;
    let inputs = host.client().inputs("a").await?;
    ensure!(inputs.len() >= 2, "the input that ran is gone: {inputs:?}");
    host.kill().await
}
