//! Clients: each does one thing after the other, under a key of its own, and repeats it until somebody says what became of it.
//! The judge hears what they are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use godwit::runtime::call::{AgentCall, AgentReply, CallError, Submission};
use godwit_core::id::{AgentId, InputId};
use godwit_core::input::{Kind, Mode, ReplyOutcome, Source};
use tokio::time::sleep;

use crate::host::Cluster;
use crate::random::Random;
use crate::world::World;

/// Pause before another try.
const RETRY_MS: u64 = 60;

/// A client.
pub struct Client {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    agents: Vec<AgentId>,
    number: u64,
    random: Random,
}

/// What a client wants.
enum Wish {
    Ask(String),
    Send(String),
    Query,
    Checkpoint,
}

impl Client {
    /// A client of some agents.
    pub fn new(world: Arc<World>, cluster: Arc<Cluster>, agents: Vec<AgentId>, number: u64) -> Self {
        let random = world.weather().random().fork();
        Self { world, cluster, agents, number, random }
    }

    /// Does so many things.
    pub async fn run(mut self, count: u64) {
        for step in 0..count {
            let Some(agent) = self.random.pick(&self.agents).cloned() else { return };
            let number = self.number * 1_000 + step + 1;
            let wish = self.wish(&agent, number);
            self.do_it(&agent, &wish, &format!("k{number}")).await;
            let pause = self.random.below(120);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn wish(&mut self, agent: &AgentId, number: u64) -> Wish {
        let others: Vec<_> = self.agents.iter().filter(|other| *other != agent).collect();
        let other = self.random.pick(&others).map_or("nobody", |other| other.as_str()).to_owned();
        let text = match self.random.below(20) {
            0..=8 => format!("add {number}"),
            9 => "get".to_owned(),
            10 => "refuse".to_owned(),
            11 => "fatal".to_owned(),
            12 => ["trap", "hang", "retry-until 2"][usize::try_from(self.random.below(3)).unwrap_or(0)]
                .to_owned(),
            13..=15 => format!("send {other} add {number}"),
            16 | 17 => format!("request {} {other} add {number}", self.random.between(20, 800)),
            18 => return Wish::Checkpoint,
            _ => return Wish::Query,
        };
        if self.random.chance(500) { Wish::Ask(text) } else { Wish::Send(text) }
    }

    async fn do_it(&mut self, agent: &AgentId, wish: &Wish, key: &str) {
        loop {
            if self.try_it(agent, wish, key).await {
                return;
            }
            sleep(Duration::from_millis(self.random.below(RETRY_MS) + 1)).await;
        }
    }

    /// Answers whether the client knows enough.
    async fn try_it(&mut self, agent: &AgentId, wish: &Wish, key: &str) -> bool {
        let host = usize::try_from(self.random.below(self.cluster.len() as u64)).unwrap_or(0);
        let Some(process) = self.cluster.process(host).filter(|process| process.is_up()) else {
            return false;
        };
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.random.number().to_le_bytes());
        let id = InputId::generate(1, bytes);
        let patience_ms = self.random.between(30, 1_500);
        let call = match wish {
            Wish::Ask(text) => AgentCall::Ask {
                submission: submission(id, text, key),
                timeout_ms: patience_ms + self.random.below(200),
            },
            Wish::Send(text) => AgentCall::Send { submission: submission(id, text, key) },
            Wish::Query => AgentCall::Query { payload: Bytes::from_static(b"get") },
            Wish::Checkpoint => AgentCall::Checkpoint,
        };
        let since = self.world.judge().revision(agent);
        let told = process.call(agent, call, Duration::from_millis(patience_ms)).await;
        let number = self.number;
        self.world.note(format_args!("c{number} {key} by h{host}: {}", show(told.as_ref())));
        let mut judge = self.world.judge();
        match told {
            Some(Ok(AgentReply::Asked(asked))) => judge.told_end(agent, asked.input, &asked.outcome),
            Some(Ok(AgentReply::Sent(sent))) => match sent.outcome {
                Some(outcome) => judge.told_end(agent, sent.input, &outcome),
                None => judge.told_accepted(agent, sent.input),
            },
            Some(Ok(AgentReply::Queried(queried))) => {
                if let ReplyOutcome::Ok(bytes) = &queried.reply.outcome {
                    judge.told_query(agent, since, queried.revision, &String::from_utf8_lossy(bytes));
                }
            }
            Some(Ok(AgentReply::Checkpointed(_))) => {}
            Some(Ok(other)) => judge.fail(format!("a client got {other:?} to what it asked")),
            // It has not been initialized yet.
            Some(Err(CallError::Conflict { .. })) if matches!(wish, Wish::Query | Wish::Checkpoint) => {}
            Some(Err(error)) => {
                if is_refusal(&error) && matches!(wish, Wish::Ask(_) | Wish::Send(_)) {
                    judge.told_refused(agent, id, &error.to_string());
                }
                return false;
            }
            None => return false,
        }
        true
    }
}

fn show(told: Option<&Result<AgentReply, CallError>>) -> String {
    match told {
        None => "no answer".to_owned(),
        Some(Ok(reply)) => format!("{reply:?}"),
        Some(Err(error)) => format!("{error:?}"),
    }
}

/// Whether an error says that nothing was accepted and nothing will be.
fn is_refusal(error: &CallError) -> bool {
    matches!(
        error,
        CallError::NotFound { .. }
            | CallError::PeersSilent { .. }
            | CallError::Busy { .. }
            | CallError::Unavailable { .. }
            | CallError::Interrupted
            | CallError::Full
            | CallError::InboxFull { .. }
    )
}

fn submission(id: InputId, text: &str, key: &str) -> Submission {
    Submission {
        id,
        kind: Kind::Message,
        source: Source::Operator,
        content_type: "text/plain".into(),
        payload: Bytes::from(text.to_owned()),
        headers: Vec::new(),
        idempotency_key: Some(key.to_owned()),
        mode: Mode::Default,
        is_silent: false,
        supersedes: None,
        traceparent: None,
        correlation: None,
        is_dispatched: false,
    }
}
