//! The stage on which a false peer appears: two honest hosts, and what must not change about them.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use godwit_core::id::{AgentId, FencingToken, Generation, MigrationId, Revision};
use godwit_core::spec::{PluginInfo, Spec};
use godwit_support::client::Client;
use godwit_support::cluster::{Cluster, Side};
use godwit_support::host::Host;
use godwit_support::store_file::StoreFile;
use godwit_support::wait::until;
use rusqlite::Connection as Database;

use super::raw::{self, Message, Raw, Request, Reservation, message};
use super::{RESIDENT, TRAVELLER};
use crate::room::SOON;

/// What a host may still hold after an attack, beyond what it held before.
const SPARE_DESCRIPTORS: usize = 8;
const SPARE_KIB: u64 = 96 << 10;

pub(super) fn agent(name: &str) -> AgentId {
    AgentId::parse(name).expect("tests name agents well")
}

pub(super) fn migration(number: usize) -> MigrationId {
    MigrationId((number as u128 + (1 << 100)).to_be_bytes())
}

pub(super) fn about(id: MigrationId, name: &str, what: Message) -> Vec<u8> {
    message(&Request::Migration { id, agent: agent(name), message: what })
}

/// What an attack must not change: everything in a store that an agent consists of.
pub(super) fn state(host: &Host) -> Result<String> {
    Ok(format!("{:?}", StoreFile::read(&host.ready().store_path())?.agents))
}

pub(super) fn count(host: &Host, table: &str) -> Result<u64> {
    let file = Database::open(host.ready().store_path())?;
    file.busy_timeout(SOON)?;
    let rows: i64 = file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

/// Descriptors and resident KiB of a host's process.
pub(super) fn held(host: &Host) -> Result<(usize, u64)> {
    let process = format!("/proc/{}", host.pid()?);
    let descriptors = std::fs::read_dir(format!("{process}/fd"))?.count();
    let status = std::fs::read_to_string(format!("{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().next().context("VmRSS is empty")?.parse()?;
    Ok((descriptors, kib))
}

/// Waits until a host holds no more than it did, but for a little.
pub(super) async fn is_back_at(host: &Host, before: (usize, u64)) -> Result<()> {
    let look = || async {
        let (descriptors, kib) = held(host)?;
        let is_back = descriptors <= before.0 + SPARE_DESCRIPTORS && kib <= before.1 + SPARE_KIB;
        Ok(is_back.then_some(()))
    };
    until(&format!("{} to give back what it took", host.name()), SOON, look).await
}

pub(super) async fn counter(client: &Client) -> Result<PluginInfo> {
    let plugins = client.list("/v1/plugins").await?;
    let shown = plugins.iter().find(|plugin| plugin["name"] == "counter").context("it is not loaded")?;
    let texts = |name: &str| -> Vec<String> {
        let items = shown[name].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    Ok(PluginInfo {
        digest: text("digest").parse()?,
        name: text("name"),
        version: text("version"),
        imports: texts("imports"),
        grants: texts("grants"),
        size: shown["size"].as_u64().unwrap_or_default(),
        loaded_at_ms: 0,
        killed_hosts: 0,
    })
}

/// Two honest hosts with an agent each, and a listed peer that is not honest.
pub(super) struct Stage {
    pub(super) pair: Cluster,
    pub(super) liar: Raw,
    /// What the two have sent to it.
    pub(super) recording: Arc<Mutex<raw::Recording>>,
    pub(super) plugin: PluginInfo,
}

impl Stage {
    pub(super) async fn new(program: &std::path::Path, variables: &[(&str, &str)]) -> Result<Self> {
        let mut pair = Cluster::separate(program, variables).await?;
        pair.load(&["counter"]).await?;
        let liar = Raw::start(77).await?;
        let recording = liar.record();
        for side in [Side::A, Side::B] {
            pair.host_mut(side).know(liar.peer()?).await?;
        }
        pair.a.client().create(TRAVELLER, "counter").await?;
        pair.a.client().reply(TRAVELLER, "add 7").await?;
        pair.b.client().create(RESIDENT, "counter").await?;
        pair.b.client().reply(RESIDENT, "add 3").await?;
        let plugin = counter(&pair.b.client()).await?;
        Ok(Self { pair, liar, recording, plugin })
    }

    pub(super) fn reservation(&self, token: u64) -> Reservation {
        Reservation {
            token: FencingToken(token),
            generation: Generation(1),
            revision: Revision(0),
            plugin: self.plugin.clone(),
            spec: Spec::new(self.plugin.digest),
            public_key: None,
            residency: None,
            is_shared: false,
            deadline_ms: u64::MAX,
        }
    }

    pub(super) fn reserve(&self, id: MigrationId, name: &str, token: u64) -> Vec<u8> {
        about(id, name, Message::Reserve(Box::new(self.reservation(token))))
    }

    pub(super) fn states(&self) -> Result<[String; 2]> {
        Ok([state(&self.pair.a)?, state(&self.pair.b)?])
    }

    /// Both hosts are well, their agents are as they were, and one moves between them.
    pub(super) async fn is_well(&mut self) -> Result<()> {
        for side in [Side::A, Side::B] {
            let ready = self.pair.host(side).client().get("/readyz").await?;
            ensure!(ready["status"] == "ready", "{side:?}: {ready}");
        }
        ensure!(self.pair.b.client().reply(RESIDENT, "get").await? == "3");
        let runner = self.pair.runner(TRAVELLER, SOON).await?;
        let there = self.pair.host(runner.other()).key().to_owned();
        self.pair.host(runner).client().move_to(TRAVELLER, &there, SOON).await?;
        ensure!(self.pair.host(runner).client().reply(TRAVELLER, "get").await? == "7");
        self.pair.end_and_verify().await?;
        Ok(())
    }
}
