//! Clients that look after more than inputs: what an agent asks of a web server, the plugin that it runs, copies of the store.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cli;
use godwit_support::cluster::Folder;
use godwit_support::fate::{End, Fate};
use godwit_support::load::How;
use godwit_support::store_file::StoreFile;
use godwit_support::wait::until;
use godwit_support::web::Web;
use reqwest::Method;
use serde_json::json;

use super::Worker;
use crate::scene::SOON;

/// Agent that asks, that fetches, and the one whose plugin changes.
const ASKER: &str = "hostile-2";
const FETCHER: &str = "fetcher-0";
const CHANGING: &str = "changing-0";

/// An operation that an agent has started.
struct Started {
    id: String,
    /// It may be made again when nobody knows what became of it.
    is_repeatable: bool,
}

impl Worker {
    /// Each roster names two of three agents and an edge between them: so each time one comes, one goes and one stays. However
    /// often the host dies, the roster is true once it says so, and nobody has begun anew.
    pub(super) async fn apply(&mut self) -> Result<()> {
        let worker = self.number;
        let agent = |number: u64| format!("rostered-{worker}-{}", number % 3);
        while !self.scene.is_over() {
            self.index += 1;
            let (one, other) = (agent(self.index), agent(self.index + 1));
            let roster = json!({
                "agents": [{"id": one, "plugin": "counter"}, {"id": other, "plugin": "counter"}],
                "edges": [{"between": [one, other]}],
            });
            let report = self.call(Method::PUT, "/v1/roster", Some(roster), &[]).await?;
            ensure!(report["complete"] == true, "the roster is not true: {report}");
            let edges = self.call(Method::GET, "/v1/edges", None, &[]).await?;
            let ours = edges["items"]
                .as_array()
                .context("edges")?
                .iter()
                .filter(|edge| edge["between"][0].as_str().is_some_and(|id| id.starts_with("rostered-")));
            let ours: Vec<_> = ours.collect();
            let pair = if one < other { [&one, &other] } else { [&other, &one] };
            ensure!(
                ours.len() == 1 && ours[0]["between"] == json!(pair) && ours[0]["whole"] == true,
                "edges of {pair:?}: {edges}"
            );
            for id in [&one, &other] {
                let shown = self.call(Method::GET, &format!("/v1/agents/{id}"), None, &[]).await?;
                let is_up = ["dormant", "active"].contains(&shown["state"].as_str().unwrap_or_default());
                ensure!(is_up && shown["generation"] == "1", "{shown}");
                self.scene.facts().created.insert(id.clone());
            }
        }
        // In the end all are up, and can be asked.
        let all: Vec<_> = (0..3).map(|number| json!({"id": agent(number), "plugin": "counter"})).collect();
        let report = self.call(Method::PUT, "/v1/roster", Some(json!({"agents": all})), &[]).await?;
        ensure!(report["complete"] == true, "the roster is not true: {report}");
        Ok(())
    }

    /// Notes what does not fit: a violation as those of the judge.
    fn expect(&self, holds: bool, otherwise: String) {
        if !holds {
            self.scene.facts().found.push(otherwise);
        }
    }

    /// Has an agent ask a server, and in the end compares what the server saw with what the agent was told.
    pub(super) async fn fetch(&mut self) -> Result<()> {
        let web = Web::start().await?;
        let mut started = Vec::new();
        while !self.scene.is_over() {
            self.index += 1;
            let is_repeatable = self.index.is_multiple_of(2);
            let payload = match is_repeatable {
                true => format!("fetch {}", web.url("/text")),
                false => format!("post {} text", web.url("/text")),
            };
            let told = self.submit(FETCHER, payload, How::Ask).await;
            if let Some(End::Reply(id)) = told.fates.last().and_then(Fate::answer).map(|answer| &answer.end) {
                started.push(Started { id: String::from_utf8(id.clone())?, is_repeatable });
            }
        }
        let ended = || async { Ok(self.door().reply(FETCHER, "active").await?.is_empty().then_some(())) };
        if let Err(error) = until("all operations to end", SOON, ended).await {
            self.expect(false, error.to_string());
        }
        let inputs = self.door().inputs(FETCHER).await?;
        for Started { id, is_repeatable } in started {
            let ends: Vec<_> = inputs
                .iter()
                .filter(|input| input.body["kind"] == "operation" && input.body["correlation"] == id.as_str())
                .map(|input| input.body["headers"].to_string())
                .collect();
            let times = web.times(&id);
            self.expect(ends.len() == 1, format!("operation {id} ended {} times: {ends:?}", ends.len()));
            let is_completed = ends.iter().any(|end| end.contains("completed"));
            let is_known = is_completed || ends.iter().any(|end| end.contains("unknown"));
            self.expect(is_known, format!("operation {id}: {ends:?}"));
            self.expect(is_completed || !is_repeatable, format!("operation {id} was given up"));
            self.expect(!is_completed || times > 0, format!("operation {id} has an answer of nobody"));
            self.expect(is_repeatable || times <= 1, format!("operation {id} was made {times} times"));
        }
        Ok(())
    }

    /// Has an agent ask a counter: each request ends once, with the counter's reply.
    pub(super) async fn request(&mut self) -> Result<()> {
        let mut requests = Vec::new();
        while !self.scene.is_over() {
            self.index += 1;
            // It waits longer than any run takes.
            let told = self.submit(ASKER, "request sink 600000 add 1".into(), How::Ask).await;
            if let Some(End::Reply(id)) = told.fates.last().and_then(Fate::answer).map(|answer| &answer.end) {
                requests.push(String::from_utf8(id.clone())?);
            }
        }
        ensure!(!requests.is_empty(), "nothing was requested");
        let ends = async || -> Result<Vec<String>> {
            let ends = self.door().reply(ASKER, "ends").await?;
            Ok(ends.lines().map(str::to_owned).collect())
        };
        let ended = || async { Ok((ends().await?.len() >= requests.len()).then_some(())) };
        if let Err(error) = until("all requests to end", SOON, ended).await {
            self.expect(false, error.to_string());
        }
        let ends = ends().await?;
        for id in requests {
            let of: Vec<_> = ends.iter().filter(|end| end.starts_with(&id)).collect();
            let is_one = of.len() == 1 && of.iter().all(|end| end.contains(" ok "));
            self.expect(is_one, format!("request {id} ended so: {of:?}"));
        }
        Ok(())
    }

    /// Gives a counter one plugin after the other; it goes on counting.
    pub(super) async fn change(&mut self) -> Result<()> {
        let mut plugin = "counter";
        while !self.scene.is_over() {
            self.index += 1;
            self.submit(CHANGING, "add 1".into(), How::Send).await;
            plugin = if plugin == "counter" { "other" } else { "counter" };
            let path = format!("/v1/agents/{CHANGING}/upgrade");
            // Illegal when the call whose answer got lost has done it.
            self.call(Method::POST, &path, Some(json!({ "plugin": plugin })), &[409]).await?;
        }
        let shown = self.door().agent(CHANGING).await?;
        let is_right = shown.body["plugin"]["name"] == plugin;
        self.expect(is_right, format!("{CHANGING} should run {plugin}: {}", shown.body));
        Ok(())
    }

    /// Copies the store again and again: each copy has all that was acknowledged before it was asked for.
    pub(super) async fn back_up(&mut self) -> Result<()> {
        let folder = Folder::new()?;
        while !self.scene.is_over() {
            self.index += 1;
            let acknowledged = self.scene.journal.operations();
            let path = folder.path().join(format!("{}.db", self.index));
            let target = path.display().to_string();
            let arguments = ["backup", &target, "--url", self.door().base()];
            let ended = cli::run(&binaries::failpoints()?, &arguments).await?;
            if ended.code != 0 {
                ensure!(!path.exists(), "a backup that failed leaves a file: {}", ended.stderr);
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let copy = StoreFile::read(Path::new(&path))?;
            for operation in acknowledged {
                let Some(answer) = operation.acknowledged() else { continue };
                let id = answer.input_id.replace('-', "");
                let inputs = copy.agents.get(&operation.agent).map(|agent| &agent.inputs);
                let is_there = inputs.is_some_and(|inputs| inputs.iter().any(|input| input.id == id));
                self.expect(
                    is_there,
                    format!("backup {} lacks input {id} of {}", self.index, operation.agent),
                );
            }
            std::fs::remove_file(&path)?;
        }
        Ok(())
    }
}
