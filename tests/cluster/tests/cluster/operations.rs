//! Background work of agents, asked of a web server that counts: what may be done again is done again under the same key,
//! what may not is not, and each ends once, whatever becomes of the host.

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::{Cluster, Folder, Side};
use godwit_support::wait::until;
use godwit_support::web::Web;
use serde_json::json;

use crate::room::{SOON, shared};

/// Gaps round the beginning and the end of an operation.
const GAPS: &[&str] =
    &["operation.before-begin", "operation.after-begin", "operation.before-end", "operation.after-end"];

const AGENT: &str = "fetcher";
/// What the operator allows.
const POLICY: [(&str, &str); 2] =
    [("GODWIT_OPERATIONS_HTTP", "127.0.0.1:*"), ("GODWIT_OPERATIONS_NETWORKS", "127.0.0.1")];

/// Waits until so many operations of an agent have ended, and makes sure that each has by one input.
async fn ended(pair: &Cluster, side: Side, agent: &str, times: usize) -> Result<String> {
    let door = pair.host(side).client();
    let look = || async { Ok((door.reply(agent, "count").await? == times.to_string()).then_some(())) };
    until(&format!("{times} operations of {agent} to end"), SOON, look).await?;
    let inputs = door.inputs(agent).await?;
    let ends: Vec<_> = inputs.iter().filter(|input| input.body["kind"] == "operation").collect();
    ensure!(ends.len() == times, "{} ends: {ends:?}", ends.len());
    ensure!(door.reply(agent, "active").await?.is_empty(), "something is still active");
    door.reply(agent, "last").await
}

async fn pair(cluster: Cluster) -> Result<(Cluster, Web)> {
    cluster.load(&["fetcher"]).await?;
    cluster.a.client().create(AGENT, "fetcher").await?;
    Ok((cluster, Web::start().await?))
}

#[tokio::test]
async fn answers_come_back_as_inputs() -> Result<()> {
    let _room = shared().await;
    let (mut pair, web) = pair(Cluster::separate(&binaries::product()?, &POLICY).await?).await?;
    let door = pair.a.client();
    let cases = [
        ("/text", "completed 200\nhello"),
        ("/teapot", "completed 418\nshort and stout"),
        ("/moved", "completed 302\n"),
    ];
    for (number, (path, expected)) in cases.into_iter().enumerate() {
        let id = door.reply(AGENT, &format!("fetch {}", web.url(path))).await?;
        let last = ended(&pair, Side::A, AGENT, number + 1).await?;
        ensure!(last == expected && web.times(&id) == 1, "{path}: {last:?} after {:?}", web.asked());
    }
    ensure!(web.asked().len() == cases.len(), "somebody followed a redirect: {:?}", web.asked());
    let never = door.reply(AGENT, &format!("fetch {}", web.url("/never"))).await?;
    let asked = || async { Ok((web.times(&never) == 1).then_some(())) };
    until("the server to be asked", SOON, asked).await?;
    ensure!(door.reply(AGENT, "active").await? == never, "it is active");
    let listed = door.list(&format!("/v1/agents/{AGENT}/operations")).await?;
    let shown = listed.iter().map(|operation| (&operation["id"], &operation["state"], &operation["class"]));
    let shown: Vec<_> = shown.collect();
    ensure!(shown == [(&json!(never), &json!("begun"), &json!("at-least-once"))], "{listed:?}");
    let table = pair.a.cli(&["operations", AGENT, "-o", "name"]).await?.ok()?;
    ensure!(table.stdout.trim() == never, "{}", table.stdout);
    door.reply(AGENT, &format!("cancel {never}")).await?;
    let last = ended(&pair, Side::A, AGENT, cases.len() + 1).await?;
    ensure!(last == "cancelled 0\nthe agent has cancelled it", "{last:?}");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn servers_prove_who_they_are() -> Result<()> {
    let _room = shared().await;
    let (web, certificate) = Web::start_tls().await?;
    let folder = Folder::new()?;
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, certificate)?;
    let trusted = trusted.display().to_string();
    // Where the system's certificates are looked for: without the server's own, and with it.
    let cases = [("/dev/null", "failed 0\n", 0), (trusted.as_str(), "completed 200\nhello", 1)];
    for (file, expected, times) in cases {
        let policy = [POLICY[0], POLICY[1], ("SSL_CERT_FILE", file)];
        let mut cluster = Cluster::separate(&binaries::product()?, &policy).await?;
        cluster.load(&["fetcher"]).await?;
        cluster.a.client().create(AGENT, "fetcher").await?;
        let id = cluster.a.client().reply(AGENT, &format!("fetch {}", web.url("/text"))).await?;
        let last = ended(&cluster, Side::A, AGENT, 1).await?;
        ensure!(last.starts_with(expected) && web.times(&id) == times, "{file}: {last:?}, {:?}", web.asked());
        cluster.end_and_verify().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_the_operator_has_not_listed_is_not_asked() -> Result<()> {
    let _room = shared().await;
    let policies: [&[(&str, &str)]; 3] = [
        &[],
        &[("GODWIT_OPERATIONS_HTTP", "127.0.0.1:*")],
        &[("GODWIT_OPERATIONS_HTTP", "*:443"), ("GODWIT_OPERATIONS_NETWORKS", "127.0.0.1")],
    ];
    for policy in policies {
        let (mut pair, web) = pair(Cluster::separate(&binaries::product()?, policy).await?).await?;
        pair.a.client().reply(AGENT, &format!("fetch {}", web.url("/text"))).await?;
        let last = ended(&pair, Side::A, AGENT, 1).await?;
        let has_reason = last.strip_prefix("failed 0\n").is_some_and(|reason| !reason.is_empty());
        ensure!(has_reason && web.asked().is_empty(), "{policy:?}: {last:?}, {:?}", web.asked());
        pair.end_and_verify().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_death_in_any_gap_of_an_operation_keeps_its_promise() -> Result<()> {
    let _room = shared().await;
    let (mut pair, web) = pair(Cluster::separate(&binaries::failpoints()?, &POLICY).await?).await?;
    let mut count = 0;
    for failpoint in GAPS {
        for command in ["fetch", "post"] {
            println!("{failpoint} {command}");
            pair.a.terminate().await?;
            pair.a.start(&[("GODWIT_FAILPOINTS", failpoint)]).await?;
            let line = match command {
                "fetch" => format!("fetch {}", web.url("/text")),
                _ => format!("post {} text", web.url("/text")),
            };
            let key = format!("{failpoint} {command}");
            // The host may die before it has answered; the answer is stored with the turn.
            drop(pair.a.client().ask(AGENT, line.as_str(), Some(&key)).await);
            pair.a.died(SOON).await.with_context(|| (*failpoint).to_owned())?;
            pair.a.start(&[]).await?;
            count += 1;
            let told = pair.a.client().ask(AGENT, line.as_str(), Some(&key)).await;
            let id = told.reply().with_context(|| format!("no id: {told:?}"))?.to_owned();
            let last = ended(&pair, Side::A, AGENT, count)
                .await
                .with_context(|| format!("{failpoint} {command}"))?;
            let (times, expected) = match (*failpoint, command) {
                ("operation.before-begin", _) | ("operation.after-end", _) => (1, "completed 200\nhello"),
                ("operation.after-begin", "fetch") => (1, "completed 200\nhello"),
                // Its answer was there and not yet durable.
                ("operation.before-end", "fetch") => (2, "completed 200\nhello"),
                ("operation.after-begin", _) => (0, "unknown 0\n"),
                _ => (1, "unknown 0\n"),
            };
            ensure!(last.starts_with(expected), "{failpoint} {command}: {last:?}");
            ensure!(web.times(&id) == times, "{failpoint} {command}: asked {} times", web.times(&id));
        }
    }
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn whoever_takes_over_ends_what_a_dead_host_has_begun() -> Result<()> {
    let _room = shared().await;
    let (mut pair, web) = pair(Cluster::shared(&binaries::product()?, &POLICY).await?).await?;
    let door = pair.a.client();
    let again = door.reply(AGENT, &format!("fetch {}", web.url("/slow/1500"))).await?;
    let once = door.reply(AGENT, &format!("post {} text", web.url("/slow/1500"))).await?;
    let asked = || async { Ok((web.times(&again) == 1 && web.times(&once) == 1).then_some(())) };
    until("the server to be asked", SOON, asked).await?;
    pair.a.kill().await?;
    let last = ended(&pair, Side::B, AGENT, 2).await?;
    ensure!(last == "completed 200\nslow", "the one that may be repeated ends last: {last:?}");
    ensure!(web.times(&again) == 2 && web.times(&once) == 1, "{:?}", web.asked());
    pair.a.start(&[]).await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_moves_takes_its_operations_along() -> Result<()> {
    let _room = shared().await;
    let (mut pair, web) = pair(Cluster::separate(&binaries::product()?, &POLICY).await?).await?;
    let door = pair.a.client();
    let start = async |path: &str| {
        let id = door.reply(AGENT, &format!("post {} text", web.url(path))).await?;
        let asked = || async { Ok((web.times(&id) == 1).then_some(())) };
        until("the server to be asked", SOON, asked).await.map(|()| id)
    };
    // The move waits for the one, and not for the other, which must not be made again.
    let short = start("/slow/500").await?;
    let long = start("/never").await?;
    door.move_to(AGENT, pair.b.name(), SOON).await?;
    ended(&pair, Side::B, AGENT, 2).await?;
    ensure!(web.times(&short) == 1 && web.times(&long) == 1, "{:?}", web.asked());
    let ends = pair.b.client().inputs(AGENT).await?;
    let outcome = |id: &str| {
        let of = ends.iter().find(|input| input.body["correlation"] == id);
        of.map(|input| input.body["headers"].to_string()).unwrap_or_default()
    };
    ensure!(outcome(&short).contains("completed"), "{}", outcome(&short));
    ensure!(outcome(&long).contains("unknown"), "{}", outcome(&long));
    let again = door.reply(AGENT, &format!("fetch {}", web.url("/text"))).await?;
    let last = ended(&pair, Side::B, AGENT, 3).await?;
    ensure!(last == "completed 200\nhello" && web.times(&again) == 1, "it goes on there: {last:?}");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn operations_that_hang_hold_up_nobody() -> Result<()> {
    let _room = shared().await;
    let (mut pair, web) = pair(Cluster::separate(&binaries::product()?, &POLICY).await?).await?;
    let door = pair.a.client();
    for _ in 0..16 {
        door.reply(AGENT, &format!("fetch {}", web.url("/never"))).await?;
    }
    let refused = door.ask(AGENT, format!("fetch {}", web.url("/text")), None).await;
    ensure!(
        refused.problem().is_some_and(|problem| problem.status == 422),
        "one more than it may: {refused:?}"
    );
    door.create("other", "fetcher").await?;
    door.reply("other", &format!("fetch {}", web.url("/text"))).await?;
    ended(&pair, Side::A, "other", 1).await?;
    for id in door.reply(AGENT, "active").await?.lines() {
        door.reply(AGENT, &format!("cancel {id}")).await?;
    }
    ended(&pair, Side::A, AGENT, 16).await?;
    pair.end_and_verify().await?;
    Ok(())
}
