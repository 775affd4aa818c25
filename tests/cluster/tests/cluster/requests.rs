//! Agents that ask other agents, with real guests on two hosts: each request ends once, with the reply, with why there is
//! none, or with the word that nobody knows, whoever dies or moves meanwhile.

use anyhow::{Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::wait::until;

use crate::room::{SOON, shared};

const ASKER: &str = "asker";
const ANSWERER: &str = "answerer";
/// Longer than any test takes.
const PATIENT: u64 = 600_000;

/// Two hosts with their own stores: who asks is on one, who answers on the other.
async fn pair() -> Result<Cluster> {
    let cluster = Cluster::separate(&binaries::product()?, &[]).await?;
    for host in [&cluster.a, &cluster.b] {
        host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    }
    cluster.a.client().create(ASKER, "hostile").await?;
    cluster.b.client().create(ANSWERER, "hostile").await?;
    Ok(cluster)
}

async fn request(pair: &Cluster, to: &str, wait_ms: u64, text: &str) -> Result<String> {
    pair.a.client().reply(ASKER, &format!("request {to} {wait_ms} {text}")).await
}

/// The ends of all requests, once there are so many.
async fn ends(pair: &Cluster, side: Side, count: usize) -> Result<Vec<String>> {
    let door = pair.host(side).client();
    let look = || async {
        let ends = door.reply(ASKER, "ends").await?;
        let ends: Vec<_> = ends.lines().map(str::to_owned).collect();
        Ok((ends.len() >= count).then_some(ends))
    };
    until(&format!("{count} requests to end"), SOON, look).await
}

#[tokio::test]
async fn every_request_ends_once_and_says_how() -> Result<()> {
    let _room = shared().await;
    let mut pair = pair().await?;
    let cases = [
        ("echo hello", PATIENT, "ok hello"),
        ("none", PATIENT, "none "),
        ("refuse shut", PATIENT, "refused "),
        ("fatal gone", PATIENT, "dead-letter gone"),
        // Nothing runs, so nobody knows in time.
        ("echo late", 300, "unknown "),
    ];
    for (number, (text, wait_ms, expected)) in cases.into_iter().enumerate() {
        if expected.starts_with("unknown") {
            pair.b.cli(&["agent", "pause", ANSWERER]).await?.ok()?;
        }
        let id = request(&pair, ANSWERER, wait_ms, text).await?;
        let ends = ends(&pair, Side::A, number + 1).await?;
        ensure!(ends.last() == Some(&format!("{id} {expected}")), "{text}: {ends:?}");
    }
    // The answer comes when the request has ended: it is the same input, and not a second one.
    pair.b.cli(&["agent", "resume", ANSWERER]).await?.ok()?;
    let said = || async { Ok((pair.b.client().agent(ANSWERER).await?.queue_depth == 0).then_some(())) };
    until("the late request to run", SOON, said).await?;
    let id = request(&pair, ANSWERER, PATIENT, "echo last").await?;
    let ends = ends(&pair, Side::A, cases.len() + 1).await?;
    ensure!(ends.len() == cases.len() + 1, "an end too many: {ends:?}");
    ensure!(ends.last() == Some(&format!("{id} ok last")), "{ends:?}");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn requests_outlive_kills_and_moves_on_both_sides() -> Result<()> {
    let _room = shared().await;
    let mut pair = pair().await?;
    let mut expected = Vec::new();
    for round in 0..4 {
        for number in 0..5 {
            let id = request(&pair, ANSWERER, PATIENT, &format!("echo {round}.{number}")).await?;
            expected.push(format!("{id} ok {round}.{number}"));
        }
        if round % 2 == 0 {
            pair.a.kill().await?;
            pair.a.start(&[]).await?;
        } else {
            pair.b.kill().await?;
            pair.b.start(&[]).await?;
        }
    }
    pair.a.client().move_to(ASKER, pair.b.key(), SOON).await?;
    let ends = ends(&pair, Side::B, expected.len()).await?;
    ensure!(ends == expected, "{ends:?}\nare not\n{expected:?}");
    pair.end_and_verify().await?;
    Ok(())
}
