//! A host dies while it obtains or refreshes a secret: the sign-in is open or consumed, or there are tokens, whole.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::authority::Authority;
use godwit_support::client::{Client, Method};
use godwit_support::cluster::Folder;
use godwit_support::host::Host;
use godwit_support::wait::until;
use godwit_support::web::Web;
use serde_json::{Value, json};

use crate::jobs;
use crate::runs::{AFTERWARDS, BUSY, Cell, Outcome, conclude, start_with};
use crate::scene::{SOON, Scene, Template};

/// It asks a web server, with the secret that its plugin may use.
const AGENT: &str = "fetcher-0";
const SECRET: &str = "fetcher";
/// Access tokens live for less than a minute, so that each use refreshes them.
const LIFE_S: u64 = 30;

struct Stage {
    host: Host,
    web: Web,
    authority: Authority,
    config: String,
}

impl Stage {
    async fn start(&mut self, variables: &[(&str, &str)]) -> Result<Duration> {
        start_with(&mut self.host, &["--config", &self.config], variables).await
    }

    fn door(&self) -> Client {
        self.host.client()
    }

    async fn died(&mut self, cell: &Cell) -> Result<()> {
        self.host.died(SOON).await.with_context(|| format!("{} was not reached", cell.failpoint))
    }

    /// Starts a sign-in; answers its path and what the browser brings back.
    async fn browse(&self) -> Result<(String, Value)> {
        let body = json!({ "secret": SECRET, "kind": "pkce" });
        let flow = self.door().call(Method::POST, "/v1/auth-flows", Some(body)).await?;
        ensure!(flow.status == 201, "{flow:?}");
        let (code, state) = self.authority.browse(flow.body["authorize_url"].as_str().context("a page")?)?;
        Ok((flow.location.context("a location")?, json!({ "code": code, "state": state })))
    }

    async fn complete(&self, path: &str, brought: &Value) -> Result<u16> {
        let answer =
            self.door().call(Method::POST, &format!("{path}/complete"), Some(brought.clone())).await?;
        Ok(answer.status)
    }

    /// Has the agent use the secret, and answers how that ended.
    async fn fetch(&self) -> Result<String> {
        let door = self.door();
        let before = door.reply(AGENT, "count").await?;
        let line = format!("fetch {}\nauthorization: Bearer {{{{secret:{SECRET}}}}}", self.web.url("/text"));
        door.reply(AGENT, &line).await?;
        let look = || async { Ok((door.reply(AGENT, "count").await? != before).then_some(())) };
        until("the operation to end", SOON, look).await?;
        door.reply(AGENT, "last").await
    }

    /// Makes sure that what arrives is a token that was given, and the newest.
    async fn serves(&self) -> Result<()> {
        let last = self.fetch().await?;
        ensure!(last.starts_with("completed 200"), "{last}");
        let heads = self.web.heads();
        let token = self.authority.access_tokens().pop().context("a token")?;
        let arrived = heads.last().is_some_and(|head| head.contains(&format!("Bearer {token}\r\n")));
        ensure!(arrived, "another token than {token} arrived: {heads:?}");
        Ok(())
    }
}

pub(crate) async fn run(
    cell: &Cell,
    template: &Template,
    folder: &Folder,
    armed: &[(&str, &str)],
) -> Result<Outcome> {
    let (web, authority) = (Web::start().await?, Authority::start(LIFE_S).await?);
    let config = folder.path().join("godwit.toml");
    let target = web.url("").trim_start_matches("http://").to_owned();
    std::fs::write(&config, authority.section(SECRET, &target))?;
    let host = template.host(folder.path(), "a", &[])?;
    let mut stage = Stage { host, web, authority, config: config.display().to_string() };
    stage.start(&[]).await?;
    let scene = Arc::new(Scene::new(vec![stage.door()], cell.seed));
    let clients = jobs::start(&scene, BUSY);
    scene.progress(AFTERWARDS).await?;
    let recovery = match cell.failpoint.as_str() {
        "auth.before-refreshed" | "auth.after-refreshed" => refresh(cell, &mut stage, armed).await?,
        _ if cell.failpoint.ends_with("settle") && cell.seed % 2 == 1 => {
            device(cell, &mut stage, armed).await?
        }
        _ => browser(cell, &mut stage, armed).await?,
    };
    stage.serves().await?;
    scene.progress(AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    conclude(&scene, vec![recovery], &[&stage.host]).await
}

/// The host dies while it takes a browser's code.
async fn browser(cell: &Cell, stage: &mut Stage, armed: &[(&str, &str)]) -> Result<Duration> {
    let (path, brought) = stage.browse().await?;
    stage.host.kill().await?;
    stage.start(armed).await?;
    drop(stage.complete(&path, &brought).await);
    stage.died(cell).await?;
    let recovery = stage.start(&[]).await?;
    let state = stage.door().get(&path).await?["state"].clone();
    let (expected, status) = match cell.failpoint.as_str() {
        "auth.before-consume" => ("open", 200),
        "auth.after-settle" => ("done", 409),
        _ => ("consumed", 409),
    };
    ensure!(state == expected, "the sign-in is {state}");
    let again = stage.complete(&path, &brought).await?;
    ensure!(again == status, "completing it again: {again}");
    ensure!(stage.authority.refused().is_empty(), "sent twice: {:?}", stage.authority.refused());
    if expected == "consumed" {
        let last = stage.fetch().await?;
        ensure!(last.contains("nobody has signed in"), "half of a sign-in: {last}");
        let (path, brought) = stage.browse().await?;
        ensure!(stage.complete(&path, &brought).await? == 200, "another sign-in");
    }
    Ok(recovery)
}

/// The host dies with a device's tokens in its hands.
async fn device(cell: &Cell, stage: &mut Stage, armed: &[(&str, &str)]) -> Result<Duration> {
    let body = json!({ "secret": SECRET, "kind": "device" });
    let flow = stage.door().call(Method::POST, "/v1/auth-flows", Some(body)).await?;
    let path = flow.location.context("a location")?;
    stage.host.kill().await?;
    stage.authority.answer_devices(true);
    stage.start(armed).await?;
    stage.died(cell).await?;
    let recovery = stage.start(&[]).await?;
    let is_written = cell.failpoint == "auth.after-settle";
    // The authority gives tokens once: without them the flow ends as it says.
    let expected = if is_written { "done" } else { "expired" };
    let door = stage.door();
    let look = || async { Ok((door.get(&path).await?["state"] == expected).then_some(())) };
    until(&format!("the sign-in to be {expected}"), SOON, look).await?;
    if !is_written {
        let last = stage.fetch().await?;
        ensure!(last.contains("nobody has signed in"), "half of a sign-in: {last}");
        let (path, brought) = stage.browse().await?;
        ensure!(stage.complete(&path, &brought).await? == 200, "another sign-in");
    }
    Ok(recovery)
}

/// The host dies with refreshed tokens in its hands.
async fn refresh(cell: &Cell, stage: &mut Stage, armed: &[(&str, &str)]) -> Result<Duration> {
    let (path, brought) = stage.browse().await?;
    ensure!(stage.complete(&path, &brought).await? == 200, "a sign-in");
    stage.serves().await?;
    stage.host.kill().await?;
    stage.start(armed).await?;
    let line = format!("fetch {}\nauthorization: Bearer {{{{secret:{SECRET}}}}}", stage.web.url("/text"));
    drop(stage.door().reply(AGENT, &line).await);
    stage.died(cell).await?;
    let recovery = stage.start(&[]).await?;
    let door = stage.door();
    let ended = || async { Ok(door.reply(AGENT, "active").await?.is_empty().then_some(())) };
    until("the operation to end", SOON, ended).await?;
    if cell.failpoint == "auth.before-refreshed" {
        // The authority gives them once: whoever lost them is told so, and signs in again.
        let last = stage.fetch().await?;
        ensure!(last.starts_with("completed") || last.contains("godwit auth start"), "{last}");
        let (path, brought) = stage.browse().await?;
        ensure!(stage.complete(&path, &brought).await? == 200, "another sign-in");
    } else {
        ensure!(stage.authority.refused().is_empty(), "refreshed twice: {:?}", stage.authority.refused());
    }
    Ok(recovery)
}
