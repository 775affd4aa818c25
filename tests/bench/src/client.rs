//! The load client: this program in another process, so that its work is not the host's, with its processor time shown.
//!
//! ```text
//! figure --Order (a line of JSON)--> client --asks over kept-open connections--> host
//!        <--Done (a line of JSON)--
//! ```
//! Connections and what is known of the agents stay from order to order, so that a figure can go back and forth between
//! its floor and the product.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::http::{Connection, post};

/// Wrong answers that are reported.
const WRONG_MAX: usize = 5;

/// What the client is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// One lane is one connection, which asks its agents in turn, one ask at a time.
    pub(crate) lanes: Vec<Vec<String>>,
    /// Where each request goes.
    pub(crate) door: Door,
    /// What is asked, or sent.
    pub(crate) payload: String,
    /// What the answers must be.
    pub(crate) expected: Expected,
    /// When each lane stops.
    pub(crate) until: Until,
    /// Pause between two asks of a lane, in milliseconds.
    pub(crate) pause_ms: u64,
}

/// The door of an agent that requests go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Door {
    /// Answered when the turn has committed.
    Ask,
    /// Answered when the input is durable.
    Send,
}

impl Door {
    fn path(self, agent: &str) -> String {
        let door = match self {
            Self::Ask => "ask",
            Self::Send => "send",
        };
        format!("/v1/agents/{agent}/{door}")
    }
}

/// What a right answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Expected {
    /// Whatever accepts the input.
    Accepted,
    /// A number, larger by one than the agent's last: no ask was lost, doubled or mixed up.
    NextNumber,
    /// This text.
    Text(String),
}

/// When a lane stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Until {
    /// After so many asks.
    Asks(u64),
    /// When so many milliseconds are over.
    Milliseconds(u64),
}

/// What the client did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Time of each right answer in nanoseconds.
    pub(crate) nanos: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// The client's own processor time meanwhile.
    pub(crate) cpu: Duration,
    /// Some wrong answers, if there were any.
    pub(crate) wrong: Vec<String>,
}

/// Runs orders from standard input until it ends.
///
/// # Errors
/// When the host or the figure is gone.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let mut lanes: Vec<Lane> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        while lanes.len() < order.lanes.len() {
            lanes.push(Lane::open(address).await?);
        }
        let (started, cpu) = (Instant::now(), cpu_time());
        let work = lanes.iter_mut().zip(&order.lanes);
        let parts = try_join_all(work.map(|(lane, agents)| lane.work(agents, &order))).await?;
        let mut done =
            Done { elapsed: started.elapsed(), cpu: cpu_time().saturating_sub(cpu), ..Done::default() };
        for part in parts {
            done.nanos.extend(part.nanos);
            done.wrong.extend(part.wrong);
        }
        done.wrong.truncate(WRONG_MAX);
        let mut stdout = std::io::stdout().lock();
        serde_json::to_writer(&mut stdout, &done)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    Ok(())
}

/// One connection and the agents that are its own.
struct Lane {
    connection: Connection,
    /// The last number of each agent.
    numbers: HashMap<String, u64>,
    /// The agent that is next.
    next: usize,
}

impl Lane {
    async fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self { connection: Connection::open(address).await?, numbers: HashMap::new(), next: 0 })
    }

    async fn work(&mut self, agents: &[String], order: &Order) -> Result<Done> {
        let requests: Vec<_> =
            agents.iter().map(|agent| post(&order.door.path(agent), &order.payload)).collect();
        if requests.is_empty() {
            bail!("a lane without agents");
        }
        let mut done = Done::default();
        let started = Instant::now();
        for asks in 0.. {
            let is_over = match order.until {
                Until::Asks(count) => asks >= count,
                Until::Milliseconds(limit) => started.elapsed() >= Duration::from_millis(limit),
            };
            if is_over {
                break;
            }
            let index = self.next % requests.len();
            self.next = index + 1;
            let asked = Instant::now();
            let (status, body) = self.connection.call(&requests[index]).await?;
            let nanos = asked.elapsed().as_nanos();
            match check(&order.expected, &mut self.numbers, &agents[index], status, body) {
                Ok(()) => done.nanos.push(u64::try_from(nanos).unwrap_or(u64::MAX)),
                Err(wrong) => done.wrong.push(wrong),
            }
            if order.pause_ms > 0 {
                tokio::time::sleep(Duration::from_millis(order.pause_ms)).await;
            }
        }
        Ok(done)
    }
}

/// Checks one answer; `Err` says what is wrong with it.
fn check(
    expected: &Expected,
    numbers: &mut HashMap<String, u64>,
    agent: &str,
    status: u16,
    body: &[u8],
) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let wrong = |what: &str| Err(format!("{agent} answered {status} {text:?}, expected {what}"));
    match expected {
        Expected::Accepted if status == 202 => Ok(()),
        Expected::Accepted => wrong("202"),
        _ if status != 200 => wrong("200"),
        Expected::Text(expected) if text == expected.as_str() => Ok(()),
        Expected::Text(expected) => wrong(expected),
        Expected::NextNumber => {
            let Ok(number) = text.parse::<u64>() else {
                return wrong("a number");
            };
            match numbers.insert(agent.to_owned(), number) {
                Some(last) if number != last + 1 => wrong(&format!("{}", last + 1)),
                _ => Ok(()),
            }
        }
    }
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (time.tv_sec.max(0).unsigned_abs(), time.tv_nsec.max(0).unsigned_abs());
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// The figure's end of a client process. Dropping it ends the client.
pub(crate) struct LoadClient {
    process: std::process::Child,
    orders: Option<std::process::ChildStdin>,
    answers: std::io::BufReader<std::process::ChildStdout>,
}

impl LoadClient {
    /// Starts a client of the host at `address`.
    ///
    /// # Errors
    /// When the process can't be started.
    pub(crate) fn start(address: SocketAddr) -> Result<Self> {
        let mut process = std::process::Command::new(std::env::current_exe()?)
            .args(["client", &address.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("cannot start the load client")?;
        let answers = process.stdout.take().context("standard output is piped")?;
        Ok(Self { orders: process.stdin.take(), answers: std::io::BufReader::new(answers), process })
    }

    /// Gives an order. The client works while the caller does something else.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let orders = self.orders.as_mut().context("the client takes orders until it is dropped")?;
        orders.write_all(&line).context("the load client is gone")
    }

    /// Waits until the last order is done.
    ///
    /// # Errors
    /// When the client is gone, or an answer was wrong.
    pub(crate) fn done(&mut self) -> Result<Done> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the load client is gone");
        }
        let done: Done = serde_json::from_str(&line)?;
        if !done.wrong.is_empty() {
            bail!("wrong answers: {}", done.wrong.join("; "));
        }
        Ok(done)
    }

    /// Gives an order and waits until it is done.
    ///
    /// # Errors
    /// As `order` and `done`.
    pub(crate) fn run(&mut self, order: &Order) -> Result<Done> {
        self.order(order)?;
        self.done()
    }
}

impl Drop for LoadClient {
    fn drop(&mut self) {
        self.orders = None;
        // The client ends with its input; its exit code says nothing that its answers have not said.
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests;
