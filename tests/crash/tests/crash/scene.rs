//! What clients and hosts of one run share: doors, journal, facts that were acknowledged; and what is made of them at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::Folder;
use godwit_support::host::{Host, HostOptions};
use godwit_support::journal::Journal;
use godwit_support::judge::{Evidence, Sight, judge};
use godwit_support::machine::Machine;
use godwit_support::store_file::{HOME_HERE, StoreFile};
use godwit_support::wait::until;
use reqwest::Method;
use serde_json::json;

use crate::jobs::variant;

/// Longest wait for anything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// What is loaded in every store.
pub(crate) const PLUGINS: &[&str] = &["counter", "ledger", "relay", "ticker", "fetcher"];
/// Ledgers of the template, and what each has.
pub(crate) const LEDGERS: u64 = 3;
const DEPOSIT: u64 = 1_000;

/// Data directories that each run begins with a copy of: plugins are loaded and compiled, agents exist.
pub(crate) struct Template {
    folder: Folder,
}

impl Template {
    pub(crate) async fn make() -> Result<Self> {
        let folder = Folder::new()?;
        for name in ["a", "b", "c"] {
            let options = HostOptions::new(&binaries::failpoints()?, &folder.path().join(name), name);
            let mut host = options.start().await?;
            let door = host.client();
            for plugin in PLUGINS {
                door.load_plugin(&binaries::plugin(plugin)?).await?;
            }
            door.load_plugin(&binaries::test_guest("hostile")?).await?;
            let other = door.upload(variant("other")?, Some("other")).await?;
            ensure!(other.is_ok(), "{other:?}");
            if name == "a" {
                create_agents(&door).await?;
            }
            host.terminate().await?;
        }
        Ok(Self { folder })
    }

    /// The data directory of a host in `folder`.
    pub(crate) fn data(&self, folder: &Path, name: &str) -> Result<()> {
        copy(&self.folder.path().join(name), &folder.join(name))
    }

    /// A host of this name in `folder`, not started yet.
    pub(crate) fn host(&self, folder: &Path, name: &str, variables: &[(&str, &str)]) -> Result<Host> {
        self.data(folder, name)?;
        options(folder, name, variables)?.prepare()
    }

    /// The same on a machine of its own.
    pub(crate) fn host_on(
        &self,
        folder: &Path,
        name: &str,
        machine: &Machine,
        variables: &[(&str, &str)],
    ) -> Result<Host> {
        self.data(folder, name)?;
        options(folder, name, variables)?.on(machine).prepare()
    }

    /// Two hosts on one file, which has the agents, not started yet.
    pub(crate) fn sharers(&self, folder: &Path, variables: &[(&str, &str)]) -> Result<(Host, Host)> {
        let file = folder.join("shared.db");
        copy(&self.folder.path().join("a").join("godwit.db"), &file)?;
        let host = |name: &str| {
            self.data(folder, name)?;
            // It tells of the store that the host had, and refuses another.
            std::fs::remove_file(folder.join(name).join("head"))?;
            options(folder, name, variables)?.shared_store(&file).prepare()
        };
        Ok((host("a")?, host("b")?))
    }
}

fn options(folder: &Path, name: &str, variables: &[(&str, &str)]) -> Result<HostOptions> {
    let options = HostOptions::new(&binaries::failpoints()?, &folder.join(name), name)
        .variable("GODWIT_OPERATIONS_HTTP", "127.0.0.1:*")
        .variable("GODWIT_OPERATIONS_NETWORKS", "127.0.0.1");
    Ok(variables.iter().fold(options, |options, (name, value)| options.variable(name, value)))
}

/// A host in an empty directory.
pub(crate) fn newcomer(folder: &Path) -> Result<Host> {
    options(folder, "new", &[])?.prepare()
}

pub(crate) async fn create_agents(door: &Client) -> Result<()> {
    // One under each policy, so that dying is tried with snapshots and with replay.
    for (counter, policy) in [("counter-0", "journal"), ("counter-1", "snapshot"), ("sink", "auto")] {
        let spec = json!({ "plugin": "counter", "policy": policy });
        let created = door.call(Method::PUT, &format!("/v1/agents/{counter}"), Some(spec)).await?;
        ensure!(created.status == 201, "{counter} was not created: {}", created.body);
    }
    door.create("relay-0", "relay").await?;
    door.create("hostile-0", "hostile").await?;
    door.create("hostile-1", "hostile").await?;
    door.create("hostile-2", "hostile").await?;
    door.create("ticker-0", "ticker").await?;
    door.create("verbs-0", "counter").await?;
    door.create("fetcher-0", "fetcher").await?;
    let spec = json!({ "plugin": "counter", "policy": "journal" });
    door.create_with("changing-0", spec).await?;
    for ledger in (0..LEDGERS).map(|number| format!("ledger-{number}")) {
        door.create(&ledger, "ledger").await?;
        door.reply(&ledger, &json!({ "deposit": DEPOSIT }).to_string()).await?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    // As the product makes it: it refuses what others may read.
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What an agent is asked that shows its state and changes nothing.
pub(crate) fn question(agent: &str) -> &'static str {
    match agent.split('-').next() {
        Some("ledger") => r#"{"balance": null}"#,
        Some("hostile") => "turns",
        Some("fetcher") => "count",
        Some("relay") => "{}",
        _ => "get",
    }
}

/// What was acknowledged apart from inputs.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Agents that were created.
    pub(crate) created: BTreeSet<String>,
    /// Agents that were reset: what waited then was given up.
    pub(crate) resets: BTreeSet<String>,
    /// Agents that break at their first turn.
    pub(crate) breakable: BTreeSet<String>,
    /// Inputs that may have got another chance, as the store's file has their ids.
    pub(crate) redriven: BTreeSet<String>,
    /// Plugins by digest: whether they are there.
    pub(crate) plugins: BTreeMap<String, bool>,
    /// Addresses that a peer was given, by its key: the last one that was acknowledged and those tried since.
    pub(crate) peers: BTreeMap<String, Vec<String>>,
    /// Moments when a host showed an agent's token.
    pub(crate) sights: Vec<Sight>,
    /// What clients saw that does not fit.
    pub(crate) found: Vec<String>,
    /// The highest revision at which a checkpoint was acknowledged, by agent.
    pub(crate) checkpoints: BTreeMap<String, u64>,
}

/// One run, as its clients see it.
pub(crate) struct Scene {
    pub(crate) doors: Vec<Client>,
    pub(crate) seed: u64,
    pub(crate) journal: Journal,
    /// Agents over which `Job::Spread` spreads its additions.
    pub(crate) spread: u64,
    is_over: AtomicBool,
    facts: Mutex<Facts>,
}

impl Scene {
    pub(crate) fn new(doors: Vec<Client>, seed: u64) -> Self {
        Self {
            doors,
            seed,
            journal: Journal::default(),
            spread: 0,
            is_over: AtomicBool::new(false),
            facts: Mutex::new(Facts::default()),
        }
    }

    /// A run over so many counters of its own.
    pub(crate) fn spread_over(doors: Vec<Client>, seed: u64, spread: u64) -> Self {
        Self { spread, ..Self::new(doors, seed) }
    }

    /// The same clients at other doors: all agents are there now.
    pub(crate) fn at(&self, doors: Vec<Client>) -> Self {
        Self { journal: self.journal.clone(), ..Self::new(doors, self.seed) }
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether clients should end what they do.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Waits until `more` operations have been acknowledged from now on.
    pub(crate) async fn progress(&self, more: usize) -> Result<()> {
        let goal = self.journal.acknowledged() + more;
        let look = || async { Ok((self.journal.acknowledged() >= goal).then_some(())) };
        until(&format!("{more} more acknowledged operations"), SOON, look).await
    }

    /// What does not fit, once all is quiet. `files` are the stores, `doors` a host of each.
    pub(crate) async fn verdict(&self, files: &[PathBuf]) -> Result<Vec<String>> {
        let mut found = self.facts().found.clone();
        let mut agents = BTreeMap::new();
        if let Err(error) = self.quiet(files).await {
            found.push(format!("{error:#}"));
        }
        for (file, door) in files.iter().zip(&self.doors) {
            for (id, rows) in StoreFile::read(file)?.agents {
                if rows.home == HOME_HERE {
                    agents.insert(id, door.clone());
                }
            }
        }
        let breakable = self.facts().breakable.clone();
        for (agent, door) in agents.iter().filter(|(agent, _)| !breakable.contains(*agent)) {
            // The reply is compared with the model, as every other; a question changes nothing, so it may be repeated.
            let answered = || async { Ok(door.ask(agent, question(agent), None).await.answer().map(drop)) };
            if let Err(error) = until(&format!("{agent} to answer"), SOON, answered).await {
                found.push(format!("{error:#}"));
            }
        }
        if let Err(error) = self.quiet(files).await {
            found.push(format!("{error:#}"));
        }
        let mut evidence = Evidence { operations: self.journal.operations(), ..Evidence::default() };
        for file in files {
            evidence.files.push(StoreFile::read(file)?);
        }
        for (agent, door) in &agents {
            evidence.shown.insert(agent.clone(), door.inputs(agent).await?);
        }
        for (agent, door) in &agents {
            let report = door.verb(agent, "verify").await?;
            if report["breaks"].as_array().is_none_or(|breaks| !breaks.is_empty()) {
                found.push(format!("the product's own verification of {agent}: {report}"));
            }
        }
        (evidence.created, evidence.breakable) = (self.facts().created.clone(), breakable);
        evidence.sights.clone_from(&self.facts().sights);
        evidence.redriven.clone_from(&self.facts().redriven);
        found.extend(judge(&evidence));
        found.extend(self.other_facts(&evidence).await?);
        Ok(found)
    }

    /// Waits until nothing waits anywhere, apart from agents that are broken.
    async fn quiet(&self, files: &[PathBuf]) -> Result<()> {
        let look = || async {
            let breakable = self.facts().breakable.clone();
            for file in files {
                for (id, rows) in StoreFile::read(file)?.agents {
                    let waits = rows.open_inputs + rows.outputs;
                    if rows.home == HOME_HERE && waits > 0 && !breakable.contains(&id) {
                        bail!("{id} has {} inputs and {} outputs waiting", rows.open_inputs, rows.outputs);
                    }
                    if !(rows.home == HOME_HERE || rows.home == 3) {
                        bail!("{id} is still on its way: home {}", rows.home);
                    }
                }
            }
            Ok(Some(()))
        };
        until("all to be quiet", SOON, look).await
    }

    /// Plugins, peers, checkpoints.
    async fn other_facts(&self, evidence: &Evidence) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let door = &self.doors[0];
        let listed = door.list("/v1/plugins").await?;
        let listed: BTreeSet<_> = listed.iter().filter_map(|plugin| plugin["digest"].as_str()).collect();
        let peers = door.list("/v1/peers").await?;
        let facts = self.facts();
        for (digest, is_there) in &facts.plugins {
            if listed.contains(digest.as_str()) != *is_there {
                found.push(format!("plugin {digest}: acknowledged as there: {is_there}"));
            }
        }
        for (key, addresses) in &facts.peers {
            let listed = peers.iter().find(|peer| peer["key"] == key.as_str());
            let address = listed.and_then(|peer| peer["address"].as_str());
            if !address.is_some_and(|address| addresses.iter().any(|tried| tried == address)) {
                found.push(format!("peer {key} is listed at {address:?}, not at one of {addresses:?}"));
            }
        }
        for (agent, revision) in &facts.checkpoints {
            let rows = evidence.files.iter().find_map(|file| file.agents.get(agent));
            if rows.is_none_or(|rows| rows.revision < *revision) {
                found.push(format!("{agent} had a checkpoint at {revision}, which is gone"));
            }
        }
        Ok(found)
    }
}
