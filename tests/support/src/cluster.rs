//! Two hosts in a folder of their own: with separate stores and knowing each other, or on one shared file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::binaries;
use crate::cli;
use crate::client::Client;
use crate::host::{Host, HostOptions};
use crate::wait::until;

/// A store that nobody blocks takes a write in this time.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// A folder that is deleted at the end; kept, and named, when `GODWIT_KEEP` is set.
#[derive(Debug)]
pub struct Folder(Option<TempDir>);

impl Folder {
    /// Makes one.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("godwit-").context("cannot make a folder for the hosts")?;
        Ok(Self(Some(folder)))
    }

    /// Where it is.
    ///
    /// # Panics
    /// Never: the folder is taken out only when it is dropped.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("a folder lives as long as this does").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("GODWIT_KEEP").is_some()
            && let Some(folder) = self.0.take()
        {
            eprintln!("kept: {}", folder.keep().display());
        }
    }
}

/// Which of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Two hosts. They die before their folder goes.
#[derive(Debug)]
pub struct Cluster {
    /// The first host, called `a`.
    pub a: Host,
    /// The second host, called `b`.
    pub b: Host,
    is_shared: bool,
    folder: Folder,
}

impl Cluster {
    /// Two hosts with a store each, that know each other.
    ///
    /// # Errors
    /// When one does not get ready.
    pub async fn separate(program: &Path, variables: &[(&str, &str)]) -> Result<Self> {
        let folder = Folder::new()?;
        let options =
            |name: &str| with(HostOptions::new(program, &folder.path().join(name), name), variables);
        let (a, b) = (options("a").start(), options("b").start());
        let (a, b) = tokio::try_join!(a, b)?;
        let mut cluster = Self { a, b, is_shared: false, folder };
        let (a, b) = (cluster.a.peer(), cluster.b.peer());
        cluster.a.add_peer(b).await?;
        cluster.b.add_peer(a).await?;
        Ok(cluster)
    }

    /// Two hosts on one file, with leases of the fast profile.
    ///
    /// # Errors
    /// When one does not get ready.
    pub async fn shared(program: &Path, variables: &[(&str, &str)]) -> Result<Self> {
        let folder = Folder::new()?;
        let file = folder.path().join("shared.db");
        let options = |name: &str| {
            let options = HostOptions::new(program, &folder.path().join(name), name);
            with(options.shared_store(&file), variables)
        };
        // One after the other: the first makes the file.
        let a = options("a").start().await?;
        let b = options("b").start().await?;
        Ok(Self { a, b, is_shared: true, folder })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of a host's store.
    pub fn store_file(&self, side: Side) -> PathBuf {
        self.host(side).ready().store_path()
    }

    /// One of the hosts.
    pub fn host(&self, side: Side) -> &Host {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// One of the hosts, to be changed.
    pub fn host_mut(&mut self, side: Side) -> &mut Host {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// Clients of both.
    pub fn doors(&self) -> Vec<Client> {
        vec![self.a.client(), self.b.client()]
    }

    /// Loads plugins into both; a shared store needs them once.
    ///
    /// # Errors
    /// When a host refuses one.
    pub async fn load(&self, plugins: &[&str]) -> Result<()> {
        for plugin in plugins {
            let file = binaries::plugin(plugin)?;
            self.a.client().load_plugin(&file).await?;
            if !self.is_shared {
                self.b.client().load_plugin(&file).await?;
            }
        }
        Ok(())
    }

    /// Which host runs an agent, as both must say.
    ///
    /// # Errors
    /// When they don't agree in time, or it is on neither.
    pub async fn runner(&self, agent: &str, limit: Duration) -> Result<Side> {
        let look = || async {
            let (a, b) = (self.a.client().agent(agent).await?, self.b.client().agent(agent).await?);
            let whom = |shown: &crate::api::Agent| {
                if self.is_shared { shown.host.clone() } else { Some(shown.home.clone()) }
            };
            let (by_a, by_b) = (whom(&a), whom(&b));
            let is_agreed = by_a == by_b && a.token == b.token;
            Ok(match by_a {
                Some(key) if is_agreed && key == self.a.key() => Some(Side::A),
                Some(key) if is_agreed && key == self.b.key() => Some(Side::B),
                _ => None,
            })
        };
        until(&format!("both hosts to agree on who runs {agent}"), limit, look).await
    }

    /// Whether a host can write to its store now. On a shared file it can't while another process, stopped perhaps, holds
    /// the write lock. `agent` is one that takes any text.
    pub async fn can_write(&self, side: Side, agent: &str) -> bool {
        let door = self.host(side).client();
        let write = door.send(agent, "get", None);
        let fate = tokio::time::timeout(WRITE_MAX, write).await;
        fate.is_ok_and(|fate| fate.answer().is_some())
    }

    /// `godwit verify ID` through a host that runs.
    ///
    /// # Errors
    /// When it finds something.
    pub async fn verify(&self, side: Side, agents: &[String]) -> Result<()> {
        for agent in agents {
            self.host(side).cli(&["verify", agent]).await?.ok()?;
        }
        Ok(())
    }

    /// Ends both hosts in order, and runs `godwit verify --store URL` on what they leave. Answers what it printed.
    ///
    /// # Errors
    /// When a host does not end well, or something is found.
    pub async fn end_and_verify(&mut self) -> Result<String> {
        for side in [Side::A, Side::B] {
            if self.host_mut(side).is_running() {
                self.host_mut(side).terminate().await?;
            }
        }
        let mut printed = String::new();
        let sides: &[Side] = if self.is_shared { &[Side::A] } else { &[Side::A, Side::B] };
        for side in sides {
            let host = self.host(*side);
            printed +=
                &cli::run(host.program(), &["verify", "--store", &host.ready().store]).await?.ok()?.stdout;
        }
        Ok(printed)
    }
}

fn with(options: HostOptions, variables: &[(&str, &str)]) -> HostOptions {
    variables.iter().fold(options, |options, (name, value)| options.variable(name, value))
}
