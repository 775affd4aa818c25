//! Channels on real hosts: subscribers on both hear everything once and in order, whoever moves or dies; who may not is
//! refused; and what leaves, leaves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::{Cluster, Folder, Side};
use godwit_support::host::HostOptions;
use godwit_support::wait::until;

use crate::room::{SOON, shared};

const OWNER: &str = "owner";
const SUBSCRIBERS: [(&str, Side); 3] = [("one", Side::A), ("two", Side::B), ("three", Side::B)];

/// An owner on one host, with an open channel; subscribers on both.
async fn pair(options: &str) -> Result<Cluster> {
    let pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["publisher", "subscriber"]).await?;
    pair.a.client().create(OWNER, "publisher").await?;
    pair.a.client().reply(OWNER, &format!("open news{options}")).await?;
    for (agent, side) in SUBSCRIBERS {
        pair.host(side).client().create(agent, "subscriber").await?;
    }
    Ok(pair)
}

/// Asks until it is answered, under one key, whatever dies meanwhile.
async fn said(door: &Client, agent: &str, text: &str, key: &str) -> Result<String> {
    let look = || async {
        let fate = door.ask(agent, text, Some(key)).await;
        Ok(fate.reply().map(str::to_owned))
    };
    until(&format!("an answer of {agent} to {text:?}"), SOON, look).await
}

/// Waits until a note of the agent says this.
async fn noted(door: &Client, agent: &str, line: &str) -> Result<()> {
    let look = || async {
        let notes = door.ask(agent, "notes", None).await;
        Ok(notes.reply().is_some_and(|notes| notes.lines().any(|note| note == line)).then_some(()))
    };
    until(&format!("{agent} to note {line:?}"), SOON, look).await
}

async fn subscribe(pair: &Cluster, agent: &str, token: &str) -> Result<()> {
    let text = format!("subscribe {OWNER} news {token}");
    pair.a.client().reply(agent, text.trim_end()).await?;
    Ok(())
}

async fn subscribe_all(pair: &Cluster) -> Result<()> {
    for (agent, _) in SUBSCRIBERS {
        subscribe(pair, agent, "").await?;
        noted(&pair.a.client(), agent, "news subscribed").await?;
    }
    Ok(())
}

/// Waits until the agent has heard publications up to a number, and checks that it has heard each from the first on once, in
/// order.
async fn heard(door: &Client, agent: &str, first: u64, last: u64) -> Result<()> {
    let question = format!("heard {OWNER} news");
    let look = || async {
        let said = door.ask(agent, question.as_str(), None).await;
        let said = said.reply().map(str::to_owned).unwrap_or_default();
        let is_last = said.split(' ').nth(1) == Some(last.to_string().as_str());
        Ok(is_last.then_some(said))
    };
    let said = until(&format!("{agent} to hear publication {last}"), SOON, look).await?;
    let count = last + 1 - first;
    ensure!(said == format!("{first} {last} {count} 0"), "{agent} has heard {said}");
    Ok(())
}

#[tokio::test]
async fn what_is_published_reaches_subscribers_on_both_hosts_until_they_leave() -> Result<()> {
    let _room = shared().await;
    let mut pair = pair("").await?;
    subscribe_all(&pair).await?;
    let door = pair.a.client();
    for number in 1..=20 {
        door.reply(OWNER, &format!("publish news text {number}")).await?;
    }
    door.reply(OWNER, "burst news 30").await?;
    for (agent, _) in SUBSCRIBERS {
        heard(&door, agent, 1, 50).await?;
    }
    let shown = door.list(&format!("/v1/agents/{OWNER}/channels")).await?.remove(0);
    ensure!(shown["subscribers"] == 3 && shown["next_publication"] == "51", "{shown}");
    let path = format!("/v1/agents/{OWNER}/subscribers?channel=news");
    let who: Vec<_> = pair.b.client().list(&path).await?.iter().map(|row| row["agent"].clone()).collect();
    ensure!(who == ["one", "three", "two"], "{who:?}");
    let printed = pair.b.cli(&["subscriptions", "one"]).await?.ok()?.stdout;
    ensure!(printed.contains(OWNER) && printed.contains("subscribed"), "{printed}");
    let printed = pair.a.cli(&["channels", OWNER, "news"]).await?.ok()?.stdout;
    ensure!(printed.contains("three"), "{printed}");

    door.reply("two", &format!("unsubscribe {OWNER} news")).await?;
    noted(&door, "two", "news unsubscribed").await?;
    door.reply(OWNER, "publish news too late for two").await?;
    heard(&door, "three", 1, 51).await?;
    heard(&door, "two", 1, 50).await?;
    ensure!(door.reply("two", "subscriptions").await?.is_empty(), "it is still listed");
    // Who is deleted is told nothing more, and whose owner is deleted is told that.
    pair.b.cli(&["agent", "delete", "three"]).await?.ok()?;
    let look = || async {
        let rows = door.list(&path).await?;
        Ok((rows.len() == 1).then_some(()))
    };
    until("the deleted one to leave", SOON, look).await?;
    pair.a.cli(&["agent", "delete", OWNER]).await?.ok()?;
    noted(&door, "one", "news ended deleted").await?;
    pair.end_and_verify().await?;
    Ok(())
}

/// Publishes in the background, one after the other, and answers how many there were.
struct Press {
    stop: tokio::sync::watch::Sender<bool>,
    done: tokio::task::JoinHandle<Result<u64>>,
}

impl Press {
    fn start(doors: Vec<Client>) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let done = tokio::spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                count += 1;
                let door = &doors[usize::try_from(count % 2)?];
                said(door, OWNER, &format!("publish news text {count}"), &format!("press-{count}")).await?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(count)
        });
        Self { stop, done }
    }

    async fn end(self) -> Result<u64> {
        self.stop.send(true)?;
        self.done.await?
    }
}

/// Waits until so many more were published.
async fn go_on(pair: &Cluster, more: u64) -> Result<()> {
    let count = async || -> Result<Option<u64>> {
        let path = format!("/v1/agents/{OWNER}/channels");
        let Ok(mut shown) = pair.a.client().list(&path).await else { return Ok(None) };
        Ok(shown.pop().and_then(|shown| shown["next_publication"].as_str()?.parse().ok()))
    };
    let from = until("the channel", SOON, &count).await?;
    let look = || async { Ok(count().await?.filter(|now| *now >= from + more).map(drop)) };
    until("more publications", SOON, look).await
}

async fn migrate(pair: &Cluster, agent: &str, side: Side) -> Result<()> {
    let look = || async {
        let door = pair.a.client();
        if pair.runner(agent, SOON).await? == side {
            return Ok(Some(()));
        }
        let Ok(id) = door.migrate(agent, pair.host(side).name()).await else { return Ok(None) };
        let source = pair.host(side.other()).client();
        source.migration_over(&id, SOON).await?;
        Ok(None)
    };
    until(&format!("{agent} to move"), SOON, look).await
}

#[tokio::test]
async fn moves_and_kills_of_both_sides_lose_double_and_reorder_nothing() -> Result<()> {
    let _room = shared().await;
    let mut pair = pair("").await?;
    subscribe_all(&pair).await?;
    let press = Press::start(pair.doors());
    go_on(&pair, 20).await?;
    migrate(&pair, "two", Side::A).await?;
    go_on(&pair, 20).await?;
    migrate(&pair, OWNER, Side::B).await?;
    go_on(&pair, 20).await?;
    for side in [Side::A, Side::B] {
        pair.host_mut(side).kill().await?;
        pair.host_mut(side).start(&[]).await?;
        go_on(&pair, 20).await?;
    }
    // Both at once, and the host that they leave dies.
    let ids = [pair.b.client().migrate(OWNER, "a").await?, pair.a.client().migrate("one", "b").await?];
    pair.b.kill().await?;
    pair.b.start(&[]).await?;
    println!("under way when it died: {ids:?}");
    go_on(&pair, 20).await?;
    migrate(&pair, "one", Side::B).await?;
    migrate(&pair, OWNER, Side::A).await?;
    go_on(&pair, 20).await?;
    let count = press.end().await?;
    for (agent, _) in SUBSCRIBERS {
        heard(&pair.a.client(), agent, 1, count).await?;
    }
    println!("{count} publications");
    let agents: Vec<String> = SUBSCRIBERS.iter().map(|(agent, _)| (*agent).to_owned()).collect();
    pair.verify(Side::A, &agents).await?;
    pair.end_and_verify().await?;
    Ok(())
}

/// The owner's token for one agent.
async fn issue(pair: &Cluster, agent: &str, rights: &str, until_ms: u64) -> Result<String> {
    let key = pair.a.client().reply(agent, "key").await?;
    pair.a.client().reply(OWNER, &format!("issue news {key} {rights} {until_ms}")).await
}

/// An agent's token passed on to another one.
async fn delegate(pair: &Cluster, from: &str, token: &str, to: &str, rights: &str) -> Result<String> {
    let key = pair.a.client().reply(to, "key").await?;
    pair.a.client().reply(from, &format!("delegate {token} {key} {rights} 4000000000000")).await
}

const LATER: u64 = 4_000_000_000_000;

#[tokio::test]
async fn tokens_let_their_bearers_in_and_nobody_else() -> Result<()> {
    let _room = shared().await;
    let mut pair = pair(" by-token").await?;
    let door = pair.a.client();
    subscribe(&pair, "two", "").await?;
    noted(&door, "two", "news refused token-needed").await?;
    let of_one = issue(&pair, "one", "subscribe+publish+delegate", LATER).await?;
    subscribe(&pair, "two", &of_one).await?;
    noted(&door, "two", "news refused token-of-another").await?;
    let expired = issue(&pair, "two", "subscribe", 1).await?;
    subscribe(&pair, "two", &expired).await?;
    noted(&door, "two", "news refused token-expired").await?;
    let mut damaged = of_one.clone().into_bytes();
    let middle = damaged.len() / 2;
    damaged[middle] = if damaged[middle] == b'0' { b'1' } else { b'0' };
    subscribe(&pair, "one", &String::from_utf8(damaged)?).await?;
    noted(&door, "one", "news refused token-invalid").await?;

    // The bearer may be anywhere, and moves; so may the owner.
    pair.a.client().move_to("one", "b", SOON).await?;
    subscribe(&pair, "one", &of_one).await?;
    noted(&door, "one", "news subscribed").await?;
    pair.a.client().move_to(OWNER, "b", SOON).await?;
    let of_two = delegate(&pair, "one", &of_one, "two", "subscribe+delegate").await?;
    subscribe(&pair, "two", &of_two).await?;
    noted(&door, "two", "news subscribed").await?;
    door.reply("two", &format!("publish-to {OWNER} news {of_two} not mine")).await?;
    noted(&door, "two", "news refused no-right").await?;
    door.reply("one", &format!("publish-to {OWNER} news {of_one} from one")).await?;
    heard(&door, "two", 1, 1).await?;
    ensure!(door.reply("two", "last").await? == "from one");
    // Passed on too often: the fifth link is refused where it is made.
    let third = delegate(&pair, "two", &of_two, "three", "subscribe+delegate").await?;
    let fourth = delegate(&pair, "three", &third, "one", "subscribe+delegate").await?;
    let fifth = delegate(&pair, "one", &fourth, "two", "subscribe").await;
    ensure!(fifth.is_err(), "passed on four times: {fifth:?}");

    door.reply(OWNER, "revoke news").await?;
    noted(&door, "one", "news ended revoked").await?;
    noted(&door, "two", "news ended revoked").await?;
    subscribe(&pair, "three", &third).await?;
    noted(&door, "three", "news refused token-revoked").await?;
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_archive_keeps_channels_and_subscriptions() -> Result<()> {
    let _room = shared().await;
    let mut pair = pair("").await?;
    subscribe_all(&pair).await?;
    let folder = Folder::new()?;
    let elsewhere = HostOptions::new(&binaries::product()?, &folder.path().join("c"), "c").start().await?;
    for agent in [OWNER, "one"] {
        let file = folder.path().join(agent);
        let file = file.to_str().context("a path of text")?;
        pair.a.cli(&["export", agent, file]).await?.ok()?;
        elsewhere.cli(&["import", file]).await?.ok()?;
    }
    let door = elsewhere.client();
    let shown = door.list(&format!("/v1/agents/{OWNER}/channels")).await?.remove(0);
    ensure!(shown["subscribers"] == 3, "{shown}");
    let kept = door.list("/v1/agents/one/subscriptions").await?.remove(0);
    ensure!(kept["state"] == "subscribed" && kept["owner"] == OWNER, "{kept}");
    pair.end_and_verify().await?;
    Ok(())
}
