//! A host: a data directory, and the process that serves it, which may die and come back at the same addresses.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::{self, Output};
use crate::client::Client;
use crate::machine::Machine;
use crate::port::Port;
use crate::process::Process;
use crate::ready::Ready;

/// How a host is started.
#[derive(Debug, Clone)]
pub struct HostOptions {
    program: PathBuf,
    data: PathBuf,
    name: String,
    arguments: Vec<OsString>,
    variables: Vec<(String, String)>,
    /// What comes before the command.
    prefix: Vec<OsString>,
    /// Where it listens.
    address: IpAddr,
}

impl HostOptions {
    /// A host that runs `program` on the data directory `data`, at a port of its own.
    pub fn new(program: &Path, data: &Path, name: &str) -> Self {
        Self {
            program: program.to_path_buf(),
            data: data.to_path_buf(),
            name: name.to_owned(),
            arguments: Vec::new(),
            variables: vec![("NO_COLOR".into(), "1".into())],
            prefix: Vec::new(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// Adds arguments of `godwit serve`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets it run on a machine of its own.
    #[must_use]
    pub fn on(self, machine: &Machine) -> Self {
        Self { prefix: machine.prefix(), address: machine.address(), ..self }
    }

    /// Makes it a host on a file that several processes share, with leases of the fast profile.
    #[must_use]
    pub fn shared_store(self, file: &Path) -> Self {
        let url = format!("sqlite:{}?shared", file.display());
        self.arguments(&["--store", &url, "--lease-profile", "fast"])
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(self) -> Result<Host> {
        let mut host = self.prepare()?;
        host.start(&[]).await?;
        Ok(host)
    }

    /// A host that has not been started yet: only `Host::start` and `Host::dies_at_start` may be used before it is ready.
    ///
    /// # Errors
    /// When its data directory can't be made, or no port is free.
    pub fn prepare(self) -> Result<Host> {
        std::fs::create_dir_all(&self.data)?;
        Ok(Host {
            log: self.data.with_extension("log"),
            port: Port::take()?,
            options: self,
            peers: Vec::new(),
            ready: None,
            process: None,
        })
    }
}

/// A host, running or not. Dropping it kills its process; when a test fails, the end of its log is printed.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
    log: PathBuf,
    /// As `--peer` takes them, for the next start.
    peers: Vec<String>,
    /// For all its lives, its interface by TCP and its mesh by UDP.
    port: Port,
    /// Of the last start.
    ready: Option<Ready>,
    process: Option<Process>,
}

impl Host {
    /// Starts the process, again at the address it had, with more environment variables for this life only.
    ///
    /// # Errors
    /// When it still runs or does not get ready.
    pub async fn start(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        self.start_with(&[], variables).await
    }

    /// As `start`, with more arguments of `godwit serve` for this life only.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_with(&mut self, more: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        if self.is_running() {
            bail!("host {} runs already", self.options.name);
        }
        let options = &self.options;
        let mut command = options.prefix.clone();
        command.push(options.program.clone().into());
        command.extend(["serve".into(), "--data".into(), options.data.clone().into()]);
        let address = SocketAddr::new(options.address, self.port.number()).to_string();
        for (flag, value) in [("--listen", &address), ("--mesh", &address), ("--name", &options.name)] {
            command.extend([OsString::from(flag), OsString::from(value)]);
        }
        command.extend(options.arguments.iter().cloned());
        command.extend(more.iter().map(OsString::from));
        for peer in &self.peers {
            command.extend([OsString::from("--peer"), OsString::from(peer)]);
        }
        let own = options.variables.iter().cloned();
        let more = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables: Vec<_> = own.chain(more).collect();
        let (process, ready) = Process::start(&command, &variables, &self.log)
            .await
            .with_context(|| format!("host {}", options.name))?;
        self.process = Some(process);
        self.ready = Some(ready);
        Ok(())
    }

    /// Starts it so that it aborts itself before it is ready.
    ///
    /// # Errors
    /// When it gets ready, or ends in another way.
    pub async fn dies_at_start(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let Err(error) = self.start(variables).await else {
            bail!("host {} got ready", self.options.name);
        };
        if is_abort(&error) { Ok(()) } else { Err(error) }
    }

    /// What it said when it got ready.
    ///
    /// # Panics
    /// Never: a host exists only after its first ready line.
    pub fn ready(&self) -> &Ready {
        self.ready.as_ref().expect("a host is made by a start that got ready")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.ready().id
    }

    /// Its key and mesh address, as `--peer` takes them.
    pub fn peer(&self) -> String {
        format!("{}@{}", self.key(), self.ready().mesh)
    }

    /// Makes it know another host, now and after a restart.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn add_peer(&mut self, peer: String) -> Result<()> {
        self.cli(&["peer", "add", &peer]).await?.ok()?;
        self.peers.push(peer);
        Ok(())
    }

    /// As `add_peer`, over HTTP: no second process.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn know(&mut self, peer: String) -> Result<()> {
        let body = Some(serde_json::json!({ "peer": peer }));
        let reply = self.client().call(reqwest::Method::POST, "/v1/peers", body).await?;
        if !(200..300).contains(&reply.status) {
            bail!("peer {peer}: {} {}", reply.status, reply.body);
        }
        self.peers.push(peer);
        Ok(())
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// Where its standard error goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All of its standard error so far.
    pub fn log_text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let client = Client::new(&format!("http://{}", self.ready().api));
        if self.ready().api.ip().is_loopback() {
            return client;
        }
        // A host that is up and listens beyond loopback has written one.
        let token = std::fs::read_to_string(self.options.data.join("api.token")).unwrap_or_default();
        client.with_token(token.trim())
    }

    /// The running process.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&mut self) -> Result<&mut Process> {
        let name = &self.options.name;
        self.process.as_mut().with_context(|| format!("host {name} does not run"))
    }

    /// The running process's id.
    ///
    /// # Errors
    /// When there is none.
    pub fn pid(&self) -> Result<u32> {
        let process = self.process.as_ref();
        process.map(Process::pid).with_context(|| format!("host {} does not run", self.options.name))
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Kills it as by `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.process()?.kill().await
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub async fn terminate(&mut self) -> Result<()> {
        let code = self.process()?.terminate().await?;
        if code != 0 {
            bail!("host {} ended with exit code {code}", self.options.name);
        }
        Ok(())
    }

    /// Waits until it has died by itself, as at a failpoint.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn died(&mut self, limit: Duration) -> Result<()> {
        let process = self.process()?;
        match tokio::time::timeout(limit, process.exit()).await {
            Ok(exit) => {
                exit?;
                Ok(())
            }
            Err(_) => bail!("host {} still runs after {limit:?}", self.options.name),
        }
    }

    /// Runs a client command of the command line against it.
    ///
    /// # Errors
    /// When the command can't be started.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let url = format!("http://{}", self.ready().api);
        cli::run(&self.options.program, &[&["--url", url.as_str()], arguments].concat()).await
    }

    /// Its program.
    pub fn program(&self) -> &Path {
        &self.options.program
    }
}

/// Whether a start failed because the process aborted itself.
pub fn is_abort(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("signal: 6")
}

impl Drop for Host {
    fn drop(&mut self) {
        let failed = std::thread::panicking() || std::env::var_os("GODWIT_SHOW_LOGS").is_some();
        if failed && let Some(process) = &self.process {
            eprintln!("--- end of the log of host {}:\n{}", self.options.name, process.log_end(40));
        }
    }
}
