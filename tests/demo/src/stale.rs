//! Scene: two hosts on one file. The owner is stopped in the middle of a turn, another takes over, the owner wakes up:
//! its next import is refused.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use godwit_support::binaries;
use godwit_support::check::Sight;
use godwit_support::client::Client;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::events;
use godwit_support::fate::Fate;
use godwit_support::signal;
use godwit_support::wait::until;

use crate::SOON;
use crate::screen::{say, section};

const AGENT: &str = "hermit";
/// Takes the writes that show whether the file can be written.
const PROBE: &str = "probe";
/// Length of the turn in which the owner is stopped; a turn may take 2 s.
const TURN: Duration = Duration::from_millis(1_200);
/// Processor time that shows that the guest is at it.
const BUSY: Duration = Duration::from_millis(200);
/// Tries to stop the owner at a moment when it holds no lock of the file.
const TRIES: usize = 5;

/// Plays the scene.
pub(crate) async fn run(program: &Path) -> Result<Cluster> {
    section(
        "A stale owner: two hosts on one file, the owner stopped in mid-turn until another has taken over",
    );
    let cluster = Cluster::shared(program, &[]).await?;
    let (a, b) = (cluster.a.client(), cluster.b.client());
    a.load_plugin(&binaries::test_guest("hostile")?).await?;
    a.create(AGENT, "hostile").await?;
    a.create(PROBE, "hostile").await?;
    let rounds = rounds(&a).await?;
    let before = Sight::of(&a, AGENT).await?;
    let input = stop_in_turn(&cluster, rounds).await?;
    let stopped = Instant::now();
    say(format!(
        "host a owns {AGENT} under token {}; SIGSTOP while its guest calls the host in a loop",
        before.token
    ));

    let is_taken = || async {
        let shown = b.agent(AGENT).await?;
        Ok((shown.host.as_deref() == Some(cluster.b.key())).then_some(shown.token))
    };
    let token = until("host b to take over", SOON, is_taken).await?;
    ensure!(token > before.token, "token {token} does not rise above {}", before.token);
    say(format!(
        "host b took over {:.1} s later (leases of 3 s), token {token}",
        stopped.elapsed().as_secs_f64()
    ));

    signal::send(cluster.a.pid()?, signal::Send::Continue)?;
    let event = events::fenced(&b, AGENT, "guest call", SOON).await?;
    ensure!(event.detail("token") == before.token.to_string(), "fenced under another token: {}", event.body);
    say("SIGCONT: the guest on host a goes on, and its next import is refused. The event:");
    say(event.body.to_string());
    let look = || async { Ok(fenced_line(&cluster.a.log_text())) };
    let line = until("the line in host a's log", SOON, look).await?;
    say(format!("host a's log: {line}"));

    let path = format!("/v1/agents/{AGENT}/inputs/{input}");
    let consumed = || async {
        let shown = b.get(&path).await?;
        Ok((shown["state"] == "consumed").then(|| shown["outcome"]["token"].to_string()))
    };
    let committed = until("the turn to be done by its new owner", SOON, consumed).await?;
    ensure!(committed.contains(&token.to_string()), "the turn committed under token {committed}");
    say(format!("the input itself is applied once, by host b, under token {token}"));
    Ok(cluster)
}

/// How often the guest must call the host to keep busy for `TURN`, on this machine.
async fn rounds(door: &Client) -> Result<u64> {
    let sample = 20_000;
    door.reply(AGENT, "echo warm").await?;
    let began = Instant::now();
    door.reply(AGENT, &format!("spin-import {sample}")).await?;
    let each = began.elapsed().as_secs_f64() / f64::from(sample);
    Ok((TURN.as_secs_f64() / each) as u64)
}

/// Gives host a a long turn and stops it in the middle, not holding the file's write lock. Answers the input's id.
async fn stop_in_turn(cluster: &Cluster, rounds: u64) -> Result<String> {
    let (a, pid) = (cluster.a.client(), cluster.a.pid()?);
    for _ in 0..TRIES {
        a.settled(AGENT, SOON).await?;
        let idle = signal::cpu_time(pid)?;
        let Fate::Accepted(answer) = a.send(AGENT, format!("spin-import {rounds}"), None).await else {
            bail!("{AGENT} takes no input");
        };
        let is_busy = || async { Ok((signal::cpu_time(pid)? > idle + BUSY).then_some(())) };
        until("the guest to be busy", SOON, is_busy).await?;
        signal::send(pid, signal::Send::Stop)?;
        let is_stopped = || async { Ok(signal::is_stopped(pid)?.then_some(())) };
        until("host a to stop", SOON, is_stopped).await?;
        // A process that was stopped with the write lock keeps everybody out: then it is no stale owner, only a slow one.
        if cluster.can_write(Side::B, PROBE).await {
            return Ok(answer.input_id);
        }
        signal::send(pid, signal::Send::Continue)?;
        say("host a held the file's write lock when it was stopped: continued, and again");
    }
    bail!("host a held the write lock at each of {TRIES} tries")
}

/// The line of a log that says that a guest's call was fenced.
fn fenced_line(log: &str) -> Option<String> {
    let says_so = |line: &&str| line.contains("fenced") && line.contains("guest call");
    log.lines().find(says_so).map(str::to_owned)
}
