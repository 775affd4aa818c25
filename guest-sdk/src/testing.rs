//! Runs an agent natively, under the rules that the real host has: effects are collected and dropped when a turn fails,
//! snapshots are pure, and a restored agent is the same agent.
//!
//! `Harness` is the door; `TestHost` (in `testing/host.rs`) stands in for the host. Not here: time limits, memory
//! limits and traps. A panic of the agent is a panic of the test.

use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::{Agent, AgentError, Input, Map, OperationOutcome, Outcome, Query, Reply};

mod channels;
mod host;
#[cfg(test)]
mod tests;

pub use channels::{Ask, Asked, Channel, Published};
pub use host::{Operation, Sent, TestHost, Timer};

/// Timers that one passing of time fires at most.
const FIRED_MAX: usize = 10_000;

/// An agent under test.
///
/// After each good turn it takes a snapshot twice, restores it, takes a third, and panics unless the three are equal. The
/// next turn runs in the restored agent, so a field that is not part of the snapshot shows at once.
pub struct Harness<A> {
    agent: A,
    host: TestHost,
    snapshot: Vec<u8>,
}

impl<A: Agent> Default for Harness<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Agent> Harness<A> {
    /// Creates an agent called `agent` without configuration.
    ///
    /// # Panics
    /// When its `init` fails.
    pub fn new() -> Self {
        Self::create("agent", &[]).expect("init succeeds")
    }

    /// Creates an agent with an id and a configuration, and runs its `init`.
    ///
    /// # Errors
    /// That of `init`.
    pub fn create(id: &str, config: &[(&str, &str)]) -> Result<Self, AgentError> {
        let mut harness = Self { agent: A::default(), host: TestHost::new(id, config), snapshot: Vec::new() };
        harness.host.begin();
        harness.agent.init(&mut harness.host)?;
        harness.commit();
        Ok(harness)
    }

    /// Sends a message from outside and gives the reply.
    ///
    /// # Panics
    /// When the turn fails.
    pub fn ask(&mut self, payload: impl AsRef<[u8]>) -> Reply {
        self.handle(Input::message(payload)).expect("the turn succeeds")
    }

    /// As `ask`, for an answer of text.
    ///
    /// # Panics
    /// When the turn fails, or the reply is not an answer of text.
    pub fn ask_text(&mut self, payload: impl AsRef<[u8]>) -> String {
        match self.ask(payload).outcome {
            Outcome::Ok(body) => String::from_utf8(body).expect("the answer is text"),
            other => panic!("no answer but {other:?}"),
        }
    }

    /// Runs a turn over one input.
    ///
    /// # Errors
    /// That of the agent; the turn is undone.
    ///
    /// # Panics
    /// When the agent breaks a rule.
    pub fn handle(&mut self, input: Input) -> Result<Reply, AgentError> {
        let mut replies = self.handle_batch(&[input])?;
        Ok(replies.remove(0))
    }

    /// Runs a turn over several inputs.
    ///
    /// # Errors
    /// That of the agent; the turn is undone.
    ///
    /// # Panics
    /// When the agent breaks a rule.
    pub fn handle_batch(&mut self, inputs: &[Input]) -> Result<Vec<Reply>, AgentError> {
        self.host.begin();
        match self.agent.handle_batch(inputs, &mut self.host) {
            Ok(replies) => {
                assert!(replies.len() == inputs.len(), "one reply per input");
                self.commit();
                Ok(replies)
            }
            Err(error) => {
                self.host.roll_back();
                self.agent = restored(&self.snapshot);
                Err(error)
            }
        }
    }

    /// The agent as it is now.
    pub fn agent(&self) -> &A {
        &self.agent
    }

    /// The host as it is now: clock, log, configuration.
    pub fn host(&mut self) -> &mut TestHost {
        &mut self.host
    }

    /// Takes all that the agent has sent so far, in order.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        self.host.take_sent()
    }

    /// Takes all that the agent has published so far, in order.
    pub fn take_published(&mut self) -> Vec<Published> {
        self.host.take_published()
    }

    /// Takes all that the agent has asked of owners of channels so far, in order.
    pub fn take_asked(&mut self) -> Vec<Asked> {
        self.host.take_asked()
    }

    /// The agent's channels, by name: who subscribes is said by the test.
    pub fn channels(&mut self) -> &mut Map<String, Channel> {
        self.host.channels()
    }

    /// Lets the time of turns pass to `now_ms`, and runs a turn for each timer that is due by then, earliest first. Gives
    /// the replies to them.
    ///
    /// # Panics
    /// When a turn fails.
    pub fn pass_to(&mut self, now_ms: u64) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(input) = self.host.take_due(now_ms) {
            assert!(replies.len() < FIRED_MAX, "timers are set for the past again and again");
            self.host.set_now_ms(input.timer_at_ms().unwrap_or(now_ms));
            replies.push(self.handle(input).expect("the turn succeeds"));
        }
        self.host.set_now_ms(now_ms);
        replies
    }

    /// The agent's timers that wait, by name.
    pub fn timers(&self) -> &Map<String, Timer> {
        self.host.timers()
    }

    /// Ends an operation, and runs the turn over its end.
    ///
    /// # Panics
    /// When the agent has no such operation, or the turn fails.
    pub fn end_operation(
        &mut self,
        id: &str,
        outcome: OperationOutcome,
        status: Option<u16>,
        body: impl AsRef<[u8]>,
    ) -> Reply {
        self.host.take_operation(id).expect("the agent has this operation");
        self.handle(Input::operation_end(id, outcome, status, body)).expect("the turn succeeds")
    }

    /// The agent's operations that have not ended, in the order of their starts.
    pub fn operations(&self) -> &[Operation] {
        self.host.operations()
    }

    /// The agent's rows.
    pub fn state(&self) -> &Map<String, Vec<u8>> {
        self.host.state()
    }

    /// The snapshot after the last good turn.
    pub fn snapshot(&self) -> &[u8] {
        &self.snapshot
    }

    fn commit(&mut self) {
        self.host.commit();
        let first = taken(&self.agent);
        assert!(first.len() <= SNAPSHOT_BYTES_MAX, "a snapshot is 16 MiB at most");
        assert!(first == taken(&self.agent), "two snapshots of one state are the same");
        self.agent = restored(&first);
        assert!(first == taken(&self.agent), "a restored agent has the same snapshot");
        self.snapshot = first;
    }
}

impl<A: Query> Harness<A> {
    /// Asks about the committed state, as the host does: in an agent of its own, made of the last snapshot.
    ///
    /// # Errors
    /// That of the agent.
    pub fn query(&mut self, payload: impl AsRef<[u8]>) -> Result<Reply, AgentError> {
        restored::<A>(&self.snapshot).query(payload.as_ref(), &mut self.host)
    }
}

fn taken<A: Agent>(agent: &A) -> Vec<u8> {
    agent.snapshot().expect("the snapshot succeeds")
}

fn restored<A: Agent>(snapshot: &[u8]) -> A {
    A::restore(snapshot, "test").expect("the snapshot can be restored")
}
