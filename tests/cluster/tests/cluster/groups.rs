//! Groups of agents behind one name, over three hosts and through the command line: who has least to do takes a call, members
//! of a host that died are left out, and a member that moves goes on being reached.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use godwit_support::cluster::Folder;
use godwit_support::host::Host;
use godwit_support::wait::until;
use serde_json::Value;

use crate::drain::three_hosts;
use crate::room::{SOON, shared};

const MEMBERS: [&str; 3] = ["workers-0", "workers-1", "workers-2"];

/// Makes a group with a member on each host. Answers where each is.
async fn group_of_three(hosts: &[Host]) -> Result<BTreeMap<String, usize>> {
    let create = ["group", "create", "workers", "--replicas", "3", "--plugin", "counter"];
    for _ in 0..2 {
        hosts[0].cli(&create).await?.ok()?;
    }
    let homes = homes(&hosts[1], hosts).await?;
    ensure!(homes.keys().eq(MEMBERS.iter()), "{homes:?}");
    ensure!(homes.values().collect::<BTreeSet<_>>().len() == 3, "each on a host of its own: {homes:?}");
    Ok(homes)
}

async fn shown(host: &Host) -> Result<Vec<Value>> {
    let shown = host.cli(&["group", "show", "workers", "-o", "json"]).await?.ok()?.json()?;
    shown["items"].as_array().cloned().context("a list of members")
}

/// On which of the hosts each member is.
async fn homes(asked: &Host, hosts: &[Host]) -> Result<BTreeMap<String, usize>> {
    let place = |member: &Value| {
        let place = hosts.iter().position(|host| member["host"] == host.key());
        Some((member["agent"].as_str()?.to_owned(), place?))
    };
    shown(asked).await?.iter().map(|member| place(member).context("a member on a known host")).collect()
}

/// Asks the group, and answers which member took it.
async fn ask(host: &Host) -> Result<String> {
    let asked = host.cli(&["group", "ask", "workers", "add 1", "-o", "json"]).await?.ok()?.json()?;
    Ok(asked["agent"].as_str().context("a member")?.to_owned())
}

async fn asked(host: &Host, times: usize) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        *counts.entry(ask(host).await?).or_insert(0) += 1;
    }
    Ok(counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_while_its_members_are_busy_move_and_die() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut hosts = three_hosts(&folder).await?;
    let homes_before = group_of_three(&hosts).await?;

    // All are as good: each gets some. And what each has taken it has done.
    let mut counts = asked(&hosts[0], 30).await?;
    ensure!(counts.len() == 3, "{counts:?}");

    // Who has work waiting is spared, wherever the question comes in.
    for _ in 0..20 {
        hosts[1].cli(&["enqueue", "workers-1", "add 0"]).await?.ok()?;
    }
    let seen = shown(&hosts[2]).await?;
    ensure!(seen[1]["load"].as_u64() >= Some(20), "{seen:?}");
    let spared = asked(&hosts[2], 10).await?;
    ensure!(!spared.contains_key("workers-1"), "{spared:?}");

    // A key finds its member again through another host, after a move as well.
    let sent = hosts[0].cli(&["group", "send", "workers", "add 1", "--key", "k", "-o", "json"]);
    let sent = sent.await?.ok()?.json()?;
    let keeper = sent["agent"].as_str().context("a member")?.to_owned();
    *counts.entry(keeper.clone()).or_insert(0) += 1;
    let (from, to) = (homes_before[&keeper], (homes_before[&keeper] + 1) % 3);
    let name = hosts[to].key().to_owned();
    hosts[from].client().move_to(&keeper, &name, SOON).await?;
    let again = hosts[to].cli(&["group", "send", "workers", "add 1", "--key", "k", "-o", "json"]);
    let again = again.await?.ok()?.json()?;
    ensure!(again["agent"] == keeper.as_str() && again["deduplicated"] == true, "{again}");
    let moved = homes(&hosts[from], &hosts).await?;
    ensure!(moved[&keeper] == to, "{moved:?}");

    // The host with a member that has not moved dies: the others take everything.
    let dead = (from + 2) % 3;
    let gone: Vec<_> = moved.iter().filter(|(_, place)| **place == dead).map(|(agent, _)| agent).collect();
    ensure!(gone.len() == 1, "{moved:?}");
    hosts[dead].kill().await?;
    until("the dead to be missed", SOON, || async {
        Ok((shown(&hosts[from]).await?.len() == 2).then_some(()))
    })
    .await?;
    let after = asked(&hosts[from], 10).await?;
    ensure!(after.values().sum::<u64>() == 10 && !after.contains_key(gone[0]), "{after:?}");

    // And is back with it.
    hosts[dead].start(&[]).await?;
    until("the third member to be seen again", SOON, || async {
        Ok((shown(&hosts[to]).await?.len() == 3).then_some(()))
    })
    .await?;
    for more in [spared, after] {
        for (agent, count) in more {
            *counts.entry(agent).or_insert(0) += count;
        }
    }
    for (agent, count) in counts {
        let holds = hosts[dead].client().reply(&agent, "get").await?;
        ensure!(holds == count.to_string(), "{agent} has taken {count}, and holds {holds}");
    }
    let nobody = hosts[0].cli(&["group", "ask", "nobody", "get"]).await?;
    ensure!(nobody.code == 3 && nobody.stderr.contains("group_not_found"), "{nobody:?}");
    for mut host in hosts {
        host.terminate().await?;
    }
    Ok(())
}
