//! Negative controls: hosts that are broken on purpose (`GODWIT_BREAK`, in the failpoints build only), in runs that are sound
//! otherwise. A checker that does not find what is planted here proves nothing in the matrix.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::cluster::Folder;
use godwit_support::judge::Sight;
use godwit_support::load::{How, Order};
use godwit_support::random::Random;
use godwit_support::wait::until;

use crate::jobs::Job;
use crate::journeys::{self, Journey, Way};
use crate::runs::{Cell, conclude, start};
use crate::scene::{SOON, Scene, Template};

/// Runs of a broken host, of which one must be found out; most are.
const TRIES: u64 = 5;

/// Clients that check nothing themselves: the judge must find it.
const JUDGED: &[Job] = &[Job::Count, Job::Crowd, Job::Crowd, Job::Crowd, Job::Pay, Job::Relay];

/// Deaths at a failpoint with one rule taken away: the checker must notice. The same runs with the rule are in the matrix.
/// `is_lasting`: also after the death.
async fn must_be_found(failpoint: &str, broken: &str, is_lasting: bool) -> Result<()> {
    let template = Template::make().await?;
    let seed = Random::printed(broken).draw();
    for seed in (0..TRIES).map(|number| seed.wrapping_add(number)) {
        let journey = journeys::to(failpoint).with_context(|| format!("no journey to {failpoint}"))?;
        let journey = Journey { way: Way::Work(JUDGED), ..journey };
        let cell = Cell { failpoint: failpoint.to_owned(), seed, journey };
        let switch = [("GODWIT_BREAK", broken)];
        let outcome = match is_lasting {
            true => cell.run(&template, &[], &switch).await?,
            false => cell.run(&template, &switch, &[]).await?,
        };
        if !outcome.violations.is_empty() {
            println!("found: {}", outcome.violations.join("; "));
            return Ok(());
        }
    }
    anyhow::bail!("{broken}: nothing was found in {TRIES} runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dedup_the_checker_fails() -> Result<()> {
    // Clients that heard nothing repeat their keys.
    must_be_found("turn.after-commit", "no-dedup", true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_acknowledgement_before_the_commit_the_checker_fails() -> Result<()> {
    must_be_found("store.before-commit", "ack-before-commit", false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_output_gate_the_checker_fails() -> Result<()> {
    must_be_found("turn.before-commit-queued", "no-output-gate", false).await
}

/// Host a stops itself in front of a commit, host b takes the agent over, and then a goes on. `None` when a stopped while
/// it held the file's write lock: then nobody can take over.
async fn stale_commit(template: &Template, variables: &[(&str, &str)]) -> Result<Option<Vec<String>>> {
    const AGENT: &str = "counter-0";
    let folder = Folder::new()?;
    let (mut a, mut b) = template.sharers(folder.path(), variables)?;
    start(&mut a, &[("GODWIT_FAILPOINTS", "turn.before-commit-queued=stop:2")]).await?;
    start(&mut b, &[]).await?;
    let scene = Scene::new(vec![b.client(), a.client()], 0);
    let add = |key: &str, client: usize| Order {
        client,
        index: 1,
        agent: AGENT.to_owned(),
        key: key.to_owned(),
        payload: "add 1".to_owned(),
        how: How::Ask,
    };
    scene.journal.record(add("first", 1).carry_out(&[a.client()], true).await);
    let door = a.client();
    let held = add("held", 2);
    let asked = tokio::spawn(async move { held.carry_out(&[door], true).await });
    a.process()?.stopped(SOON).await?;
    let write = b.client();
    let write = write.send("sink", "get", None);
    let can_write = tokio::time::timeout(Duration::from_secs(1), write).await;
    if !can_write.is_ok_and(|fate| fate.answer().is_some()) {
        return Ok(None);
    }
    // A checkpoint takes the lease and commits no turn, so the held commit still builds on the newest revision.
    let checkpoint = || async { b.client().verb(AGENT, "checkpoint").await.map(Some) };
    until("host b to take over", SOON, checkpoint).await?;
    let shown = b.client().agent(AGENT).await?;
    let sight = Sight { agent: AGENT.into(), revision: shown.revision, token: shown.token };
    scene.facts().sights.push(sight);
    a.process()?.resume()?;
    scene.journal.record(asked.await?);
    for index in 3..10 {
        let order = Order { index, ..add(&format!("later-{index}"), 3) };
        scene.journal.record(order.carry_out(&[b.client()], true).await);
    }
    let outcome = conclude(&scene, vec![], &[&b]).await?;
    Ok(Some(outcome.violations))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_token_check_the_checker_fails() -> Result<()> {
    let template = Template::make().await?;
    for (variables, is_sound) in [(&[][..], true), (&[("GODWIT_BREAK", "no-token-check")][..], false)] {
        let mut found = None;
        for _ in 0..TRIES {
            found = stale_commit(&template, variables).await?;
            if found.is_some() {
                break;
            }
        }
        let found = found.context("host a held the file's write lock at each pause")?;
        println!("sound: {is_sound}; found: {}", found.join("; "));
        ensure!(found.is_empty() == is_sound, "sound: {is_sound}, found {found:?}");
    }
    Ok(())
}
