//! Hosts that are emptied while agents work, through the command line: nobody is lost, nobody is there twice, and a host that
//! is killed in the middle of it is emptied the next time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::room::{SOON, shared};

const AGENTS: usize = 60;
/// Asks of each agent while hosts are emptied.
const ASKS: u64 = 20;
const HOSTS: [&str; 3] = ["left", "middle", "right"];

/// Three hosts that know each other; `right` offers what the others don't.
pub(crate) async fn three_hosts(folder: &Folder) -> Result<Vec<Host>> {
    let product = binaries::product()?;
    let options = HOSTS.map(|name| {
        let options = HostOptions::new(&product, &folder.path().join(name), name);
        if name == "right" { options.variable("GODWIT_HOST_CAPABILITIES", "zone=eu") } else { options }
    });
    acquainted(options).await
}

/// Hosts that know each other.
pub(crate) async fn acquainted(options: [HostOptions; 3]) -> Result<Vec<Host>> {
    let mut hosts = Vec::new();
    for options in options {
        hosts.push(options.start().await?);
    }
    let peers: Vec<_> = hosts.iter().map(Host::peer).collect();
    for (number, host) in hosts.iter_mut().enumerate() {
        for (_, peer) in peers.iter().enumerate().filter(|(other, _)| *other != number) {
            host.add_peer(peer.clone()).await?;
        }
        host.client().load_plugin(&binaries::plugin("counter")?).await?;
    }
    Ok(hosts)
}

fn agents() -> impl Iterator<Item = String> {
    (0..AGENTS).map(|number| format!("resident-{number}"))
}

/// How often each agent is at home somewhere.
async fn homes(hosts: &[Host]) -> Result<BTreeMap<String, Vec<&'static str>>> {
    let mut homes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (host, name) in hosts.iter().zip(HOSTS) {
        for agent in host.client().list("/v1/agents").await? {
            let id = agent["id"].as_str().context("an id")?.to_owned();
            homes.entry(id).or_default().push(name);
        }
    }
    Ok(homes)
}

/// Everybody is somewhere, once, and nowhere else than there.
async fn are_all_at(hosts: &[Host], places: &[&str]) -> Result<()> {
    let homes = homes(hosts).await?;
    for agent in agents() {
        let at = homes.get(&agent).map(Vec::as_slice).unwrap_or_default();
        ensure!(at.len() == 1 && places.contains(&at[0]), "{agent} is at {at:?}, not one of {places:?}");
    }
    Ok(())
}

/// Asks every agent through every host in turn, while others do what they do. Each must answer with the next number.
fn load(hosts: &[Host]) -> JoinSet<Result<()>> {
    let mut load = JoinSet::new();
    for agent in agents() {
        let doors: Vec<_> = hosts.iter().map(Host::client).collect();
        load.spawn(async move {
            for asked in 1..=ASKS {
                let door = &doors[asked as usize % doors.len()];
                // One key for each ask: what is repeated after a lost answer is not done twice.
                let key = format!("{agent}-{asked}");
                let answer = || async {
                    let fate = door.ask(&agent, "add 1", Some(&key)).await;
                    Ok(fate.reply().map(ToOwned::to_owned))
                };
                let answer = until("an answer", SOON, answer).await?;
                ensure!(answer == asked.to_string(), "{agent} answers {answer} to ask {asked}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
    }
    load
}

async fn joined(mut load: JoinSet<Result<()>>) -> Result<()> {
    while let Some(client) = load.join_next().await {
        client??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_emptied_while_its_agents_work() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let hosts = three_hosts(&folder).await?;
    for agent in agents() {
        hosts[0].client().create(&agent, "counter").await?;
    }
    let planned: Value = hosts[0].cli(&["drain", "--plan", "-o", "json"]).await?.ok()?.json()?;
    let planned = planned["items"].as_array().context("a list")?;
    ensure!(planned.len() == AGENTS && planned.iter().all(|item| item["to"].is_string()), "{planned:?}");
    are_all_at(&hosts, &["left"]).await.context("a plan moves nobody")?;

    let working = load(&hosts);
    // Asked of another host than the one that is emptied.
    let drained: Value = hosts[1].cli(&["drain", "left", "-o", "json"]).await?.ok()?.json()?;
    ensure!(drained["moved"] == AGENTS && drained["left"] == serde_json::json!([]), "{drained}");
    println!("pause {} ms at the median, {} ms at most", drained["pause_median_ms"], drained["pause_max_ms"]);
    joined(working).await?;
    are_all_at(&hosts, &["middle", "right"]).await?;

    // It takes nobody now, and does again when it is uncordoned.
    let refused = hosts[0].cli(&["agent", "create", "late", "--plugin", "counter"]).await?;
    ensure!(refused.code != 0 && refused.stderr.contains("cordoned"), "{refused:?}");
    hosts[0].cli(&["uncordon"]).await?.ok()?;
    hosts[1].cli(&["rebalance"]).await?.ok()?;
    let counts = homes(&hosts).await?.into_values().flatten().fold(BTreeMap::new(), |mut counts, host| {
        *counts.entry(host).or_insert(0) += 1;
        counts
    });
    ensure!(counts.get("left").is_some_and(|count: &usize| *count > 0), "{counts:?}");
    for mut host in hosts {
        host.terminate().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_while_it_is_emptied_is_emptied_the_next_time() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut hosts = three_hosts(&folder).await?;
    for agent in agents() {
        hosts[0].client().create(&agent, "counter").await?;
        hosts[0].client().reply(&agent, "add 1").await?;
    }
    let door = hosts[0].client();
    let begun = door.call(reqwest::Method::POST, "/v1/hosts/self/drain", None).await?;
    ensure!(begun.status == 202, "{} {}", begun.status, begun.body);
    let some_moved = || async {
        let progress = door.get("/v1/hosts/self/drain").await?;
        Ok((progress["moved"].as_u64() > Some(5)).then_some(()))
    };
    until("some to have moved", SOON, some_moved).await?;
    hosts[0].kill().await?;
    hosts[0].start(&[]).await?;
    let drained = hosts[0].cli(&["drain", "-o", "json"]).await?.ok()?.json()?;
    ensure!(drained["left"] == serde_json::json!([]), "{drained}");
    are_all_at(&hosts, &["middle", "right"]).await?;
    for agent in agents() {
        ensure!(hosts[0].client().reply(&agent, "get").await? == "1", "{agent} has lost its count");
    }
    for mut host in hosts {
        host.terminate().await?;
    }
    Ok(())
}
