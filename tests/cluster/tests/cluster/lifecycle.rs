//! The verbs of an agent's life cycle on real hosts: what a report says holds after `kill -9`, and a death in any gap of a verb
//! leaves the agent before the verb or after it.

use anyhow::{Context, Result, ensure};
use godwit_support::api::Agent;
use godwit_support::binaries;
use godwit_support::client::{Client, Method};
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;
use serde_json::json;

use crate::room::{SOON, shared};

/// Gaps of verbs, each with the verb that comes by, and whether the verb is done when the host dies there.
const VERBS: &[(&str, &str, bool)] = &[
    ("lifecycle.before-commit", "reset", false),
    ("lifecycle.after-commit", "reset", true),
    ("lifecycle.before-commit", "delete", false),
    ("lifecycle.after-commit", "delete", true),
    ("lifecycle.before-commit", "pause", false),
    ("lifecycle.after-commit", "pause", true),
    ("lifecycle.before-commit", "respawn", false),
    ("lifecycle.respawn.after-raise", "respawn", true),
    ("lifecycle.before-drained", "retire", true),
    ("respec.before-commit", "upgrade", false),
    ("respec.after-commit", "upgrade", true),
    ("checkpoint.before-commit", "checkpoint", false),
    ("checkpoint.after-commit", "checkpoint", true),
];

/// The counter's component as another plugin: a custom section more.
fn other_counter() -> Result<Vec<u8>> {
    let file = binaries::plugin("counter")?;
    let mut component = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = b"other";
    let size = u8::try_from(name.len() + 1)?;
    component.extend([0, size, size - 1]);
    component.extend(name);
    Ok(component)
}

async fn start(folder: &Folder) -> Result<Host> {
    let options = HostOptions::new(&binaries::failpoints()?, &folder.path().join("host"), "host");
    let host = options.start().await?;
    let door = host.client();
    door.load_plugin(&binaries::plugin("counter")?).await?;
    door.load_plugin(&binaries::test_guest("hostile")?).await?;
    let loaded = door.upload(other_counter()?, Some("other")).await?;
    ensure!(loaded.is_ok(), "{loaded:?}");
    Ok(host)
}

async fn act(door: &Client, agent: &str, verb: &str) -> Result<u16> {
    let path = format!("/v1/agents/{agent}/{verb}");
    let body = (verb == "upgrade").then(|| json!({"plugin": "other"}));
    Ok(door.call(Method::POST, &path, body).await?.status)
}

/// An agent that has counted to 5.
async fn create(door: &Client, agent: &str) -> Result<Agent> {
    let body = json!({"plugin": "counter", "policy": "journal"});
    let created = door.call(Method::PUT, &format!("/v1/agents/{agent}"), Some(body)).await?;
    ensure!(created.status == 201, "{} {}", created.status, created.body);
    ensure!(door.reply(agent, "add 5").await? == "5", "it can't count");
    door.agent(agent).await
}

/// What must hold after a verb that was done, or was not.
async fn check(door: &Client, agent: &str, before: &Agent, verb: &str, is_done: bool) -> Result<()> {
    let now = door.agent(agent).await?;
    let number = |agent: &Agent, member: &str| -> Result<u64> {
        Ok(agent.body[member].as_str().context("a number as text")?.parse()?)
    };
    let generation = number(&now, "generation")?;
    match (verb, is_done) {
        ("reset", true) => {
            ensure!(generation == 2, "generation {generation}");
            ensure!(door.reply(agent, "get").await? == "0", "its state survived");
        }
        ("delete", true) => {
            ensure!(now.state == "deleted", "{}", now.state);
            let gone = door.call(Method::POST, &format!("/v1/agents/{agent}/send"), None).await?;
            ensure!(gone.status == 410, "{} {}", gone.status, gone.body);
        }
        ("pause", true) => {
            ensure!(now.state == "paused", "{}", now.state);
            ensure!(act(door, agent, "resume").await? == 200, "it does not run again");
            ensure!(door.reply(agent, "get").await? == "5", "its state is another");
        }
        ("retire", true) => {
            let look = || async { Ok((door.agent(agent).await?.state == "retired").then_some(())) };
            until("the agent to rest", SOON, look).await?;
        }
        _ => {
            ensure!(generation == 1, "generation {generation}");
            ensure!(door.reply(agent, "get").await? == "5", "its state is another");
            let now = door.agent(agent).await?;
            let is_raised = now.token > before.token;
            ensure!(is_raised, "a restart raises the token");
            let is_other = now.body["plugin"]["name"] == "other";
            ensure!(is_other == (verb == "upgrade" && is_done), "plugin {}", now.body["plugin"]);
        }
    }
    ensure!(door.verb(agent, "verify").await?["ok"] == true, "its history is broken");
    Ok(())
}

#[tokio::test]
async fn a_death_in_any_gap_of_a_verb_leaves_it_done_or_not() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder).await?;
    for (number, (failpoint, verb, is_done)) in VERBS.iter().enumerate() {
        println!("{failpoint} {verb}");
        let agent = format!("gap-{number}");
        host.terminate().await?;
        host.start(&[("GODWIT_FAILPOINTS", failpoint)]).await?;
        let before = create(&host.client(), &agent).await?;
        // The answer dies with the host, unless the gap is behind it.
        drop(act(&host.client(), &agent, verb).await);
        host.died(SOON).await.with_context(|| format!("{failpoint} {verb}"))?;
        host.start(&[]).await?;
        let door = host.client();
        check(&door, &agent, &before, verb, *is_done)
            .await
            .with_context(|| format!("{failpoint} {verb}\n{}", host.log_text()))?;
    }
    host.terminate().await
}

#[tokio::test]
async fn a_death_before_an_interrupted_input_is_given_up_leaves_it_open() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let mut host = start(&folder).await?;
    host.terminate().await?;
    host.start(&[("GODWIT_FAILPOINTS", "lifecycle.before-interrupted")]).await?;
    let door = host.client();
    door.create("loop", "hostile").await?;
    let sent = door.send("loop", "loop", None).await;
    let input = sent.answer().with_context(|| format!("{sent:?}"))?.input_id.clone();
    let mut is_dead = false;
    while !is_dead {
        // Until its turn runs there is nothing to interrupt.
        drop(act(&door, "loop", "interrupt").await);
        is_dead = !host.is_running();
    }
    host.start(&[]).await?;
    let door = host.client();
    let look = || async {
        let inputs = door.inputs("loop").await?;
        let known = inputs.iter().find(|known| known.body["id"] == input.as_str()).context("it vanished")?;
        drop(act(&door, "loop", "interrupt").await);
        Ok(matches!(known.state.as_str(), "abandoned" | "dead-lettered").then_some(()))
    };
    until("the input to end", SOON, look).await?;
    host.terminate().await
}
