//! Hosts on machines of their own: each in a network namespace, with one cable to here.
//!
//! ```text
//!   here (a namespace, too)                     machine n (a namespace of its own)
//!   198.18.n.1 ================ cable ========= 198.18.n.2     a host's API and mesh
//! ```
//! Nothing is routed between machines: what one sends another goes over `line::Line`, or not at all. The namespaces live as
//! long as the processes in them, so there is nothing to clean up. The addresses are those that RFC 2544 sets aside for tests.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Set in a process that `inside` has started.
const INSIDE_VARIABLE: &str = "GODWIT_INSIDE_NAMESPACE";
/// What a machine's end of its cable is called there.
const DEVICE: &str = "cable";

/// Runs a test of this program in a namespace of its own, in which it may lay cables: the test is started a second time, by
/// its name, and does its work there. Whoever runs it needs no rights but that to make user namespaces.
///
/// # Errors
/// When there are no namespaces here, or the test fails in there.
pub fn inside(test: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(INSIDE_VARIABLE).is_some() {
        run("ip", &["link", "set", "lo", "up"])?;
        return work();
    }
    let program = std::env::current_exe()?;
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE_VARIABLE, "1")
        .status()
        .context("cannot run `unshare`, of the package util-linux")?;
    // What `unshare` itself may have said stands above: without user namespaces nothing of this can run here.
    ensure!(
        status.success(),
        "{test}, in a network namespace of its own (unshare --user --net), ended with {status}"
    );
    Ok(())
}

/// A machine with one cable. Everything of it ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    number: u8,
    /// Keeps the namespace while no host runs.
    keeper: Child,
}

impl Machine {
    /// A machine whose cable is plugged in. Its number is its own within a test.
    ///
    /// # Errors
    /// When the namespace or the cable can't be made.
    pub fn new(number: u8) -> Result<Self> {
        let keeper = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run `unshare`")?;
        let mut machine = Self { number, keeper };
        machine.wait_for_namespace()?;
        let (pid, cable) = (machine.keeper.id().to_string(), machine.cable());
        let peer = ["peer", "name", DEVICE, "netns", &pid];
        run("ip", &[&["link", "add", &cable, "type", "veth"], &peer[..]].concat())?;
        run("ip", &["addr", "add", &format!("{}/30", machine.here()), "dev", &cable])?;
        run("ip", &["link", "set", &cable, "up"])?;
        machine.there(&["link", "set", "lo", "up"])?;
        machine.there(&["addr", "add", &format!("{}/30", machine.address()), "dev", DEVICE])?;
        machine.there(&["link", "set", DEVICE, "up"])?;
        Ok(machine)
    }

    /// What its keeper echoes comes from within its namespace.
    fn wait_for_namespace(&mut self) -> Result<()> {
        use std::io::{Read, Write};
        let (stdin, stdout) = (self.keeper.stdin.as_mut(), self.keeper.stdout.as_mut());
        stdin.context("it is piped")?.write_all(b".")?;
        stdout.context("it is piped")?.read_exact(&mut [0]).context("no network namespace")
    }

    /// Its address, as it is reached from here.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(198, 18, self.number, 2))
    }

    /// The address of this end of its cable.
    pub fn here(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(198, 18, self.number, 1))
    }

    fn cable(&self) -> String {
        format!("to-{}", self.number)
    }

    /// Plugs the cable in, or pulls it out.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plug(&self, is_in: bool) -> Result<()> {
        run("ip", &["link", "set", &self.cable(), if is_in { "up" } else { "down" }])
    }

    fn there(&self, arguments: &[&str]) -> Result<()> {
        let pid = self.keeper.id().to_string();
        run("nsenter", &[&["--target", &pid, "--net", "--", "ip"], arguments].concat())
    }

    /// What comes before a command so that it runs on the machine, as the same process.
    pub fn prefix(&self) -> Vec<OsString> {
        let pid = self.keeper.id().to_string();
        ["nsenter", "--target", &pid, "--net", "--"].map(OsString::from).to_vec()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}, of the packages iproute2 and util-linux"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
