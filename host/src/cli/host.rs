//! The verbs that need no running host: serve, key, version.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::output::Output;
use crate::api::health::version_json;
use crate::config::{self, Flags, HostConfig};
use crate::identity::HostKey;

/// `godwit serve`
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// A configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: ./godwit-data].
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where everything durable is [default: sqlite:DATA/godwit.db].
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where the HTTP API listens [default: 127.0.0.1:7700]; port 0 picks one.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Where the mesh listens [default: 127.0.0.1:7701]; port 0 picks one.
    #[arg(long, value_name = "IP:PORT")]
    mesh: Option<String>,
    /// A host to talk to; may be given several times.
    #[arg(long, value_name = "KEY@IP:PORT")]
    peer: Vec<String>,
    /// What people call this host.
    #[arg(long)]
    name: Option<String>,
    /// How soon another host on a shared store takes over: normal or fast.
    #[arg(long, value_name = "PROFILE")]
    lease_profile: Option<String>,
    /// The store is a backup that was put back: give it a new epoch and suspend its agents until each is resumed.
    #[arg(long)]
    restored: bool,
    /// Print every key of the configuration file with its default and meaning.
    #[arg(long)]
    help_config: bool,
}

/// Threads for the host's tasks: half as many as processors, because guests and the store have threads of their own, and
/// because one that has nothing to do is woken all the same when work comes from such a thread, and takes the processor
/// from it.
fn task_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}

impl Serve {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        if self.help_config {
            print!("{}", config::help());
            return Ok(ExitCode::SUCCESS);
        }
        // What is not text can't be one of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let is_restoring = self.restored;
        let (flags, environment) = (self.into_flags(), environment.collect::<Vec<_>>());
        let config = HostConfig::load(&flags, environment.clone());
        let config = config.map_err(|error| CliError::Usage(error.to_string()))?;
        let read_peers = move || {
            let config = HostConfig::load(&flags, environment.clone());
            config.map(|config| config.peers).map_err(|error| error.to_string())
        };
        crate::telemetry::start()?;
        let threads = task_threads();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        let ended = runtime.block_on(crate::serve::serve(config, is_restoring, Box::new(read_peers)));
        // Whoever ends the host at once does not wait for a guest that still runs.
        runtime.shutdown_background();
        Ok(ended?)
    }

    fn into_flags(self) -> Flags {
        let scalars = [
            ("--data", self.data),
            ("--store", self.store),
            ("--listen", self.listen),
            ("--mesh", self.mesh),
            ("--name", self.name),
            ("--lease-profile", self.lease_profile),
        ];
        let given = scalars.into_iter().filter_map(|(flag, value)| Some((flag, vec![value?])));
        let mut values: Vec<_> = given.collect();
        if !self.peer.is_empty() {
            values.push(("--peer", self.peer));
        }
        Flags { config: self.config, values }
    }
}

/// `godwit key`
#[derive(Debug, Args)]
pub(super) struct Key {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "./godwit-data", env = "GODWIT_HOST_DATA")]
    data: PathBuf,
}

impl Key {
    pub(super) fn run(&self, output: &Output) -> Result<(), CliError> {
        let key = HostKey::load_or_create(&self.data).map_err(anyhow::Error::from)?.id().to_string();
        output.done(&json!({"key": key}), "/key", &key)
    }
}

/// `godwit version`
pub(super) fn version(output: &Output) -> Result<(), CliError> {
    let version = version_json();
    let text = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
    let mut sentence = format!("godwit {}", text("version"));
    if let Some(names) = version["failpoints"].as_array() {
        let names: Vec<_> = names.iter().filter_map(|name| name.as_str()).collect();
        sentence.push_str(&format!("\nfailpoints: {}", names.join(" ")));
    }
    output.done(&version, "/version", &sentence)
}
