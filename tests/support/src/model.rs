//! What the plugins of the suites do, written down a second time: from what an agent was given follows what it says, what
//! it sends, and its state.

use serde_json::Value;

/// Which plugin an agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `plugins/counter`
    Counter,
    /// `plugins/ledger`
    Ledger,
    /// `plugins/relay`
    Relay,
    /// `plugins/ticker`
    Ticker,
    /// `plugins/fetcher`, without what servers say.
    Fetcher,
    /// `tests/guests/hostile`, of which the model knows only the harmless commands.
    Hostile,
}

/// An agent's state.
#[derive(Debug, Clone)]
pub struct Model {
    kind: Kind,
    count: i64,
    balance: u128,
    turns: u64,
    note: String,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// This text.
    Text(String),
    /// A refusal with this code.
    Refused(String),
    /// No reply.
    Nothing,
    /// A text that the model does not foresee.
    Anything,
}

/// What an agent is given.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The agent's own name.
    pub agent: &'a str,
    /// The agent that it comes from, if it does from one.
    pub peer: Option<&'a str>,
    /// The input's kind, as hosts show it.
    pub kind: &'a str,
    /// What it says.
    pub payload: &'a str,
}

/// What a turn does to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The reply.
    pub reply: Said,
    /// Messages, in order: to whom, what.
    pub outputs: Vec<(String, String)>,
}

impl Step {
    fn says(reply: Said) -> Self {
        Self { reply, outputs: Vec::new() }
    }

    fn text(text: impl Into<String>) -> Self {
        Self::says(Said::Text(text.into()))
    }

    fn refused(code: &str) -> Self {
        Self::says(Said::Refused(code.to_owned()))
    }
}

impl Kind {
    /// The plugin of an agent of the suites, by its name: `KIND-...`; `sink`, `made`, `verbs` and `changing` are counters.
    pub fn of(agent: &str) -> Option<Self> {
        match agent.split('-').next()? {
            "counter" | "sink" | "made" | "verbs" | "changing" => Some(Self::Counter),
            "ledger" => Some(Self::Ledger),
            "relay" => Some(Self::Relay),
            "ticker" => Some(Self::Ticker),
            "fetcher" => Some(Self::Fetcher),
            "hostile" => Some(Self::Hostile),
            _ => None,
        }
    }
}

impl Model {
    /// A fresh agent.
    pub fn new(kind: Kind) -> Self {
        Self { kind, count: 0, balance: 0, turns: 0, note: String::new() }
    }

    /// Runs a turn.
    pub fn step(&mut self, given: Given<'_>) -> Step {
        let payload = given.payload;
        match self.kind {
            Kind::Counter => self.counter(payload),
            Kind::Ledger => self.ledger(given.agent, given.peer, payload),
            Kind::Relay => relay(payload),
            Kind::Ticker => self.ticker(given.kind == "timer", payload),
            Kind::Fetcher => self.fetcher(given.kind == "operation", payload),
            Kind::Hostile => self.hostile(given.kind == "peer-response-terminal", payload),
        }
    }

    /// A timer may be replaced before it fires, so there are at most as many ticks as timers were set.
    fn ticker(&mut self, is_timer: bool, payload: &str) -> Step {
        if is_timer {
            self.turns += 1;
            let sets = u64::try_from(self.count).unwrap_or(0);
            let is_set = self.turns <= sets;
            return Step::says(if is_set {
                Said::Nothing
            } else {
                Said::Text("a timer that nobody set".into())
            });
        }
        match payload.split_once(' ') {
            Some(("once", _)) => {
                self.count += 1;
                Step::text("ok")
            }
            None if payload == "stop" => Step::text("ok"),
            None if payload == "get" => Step::text(self.turns.to_string()),
            _ => Step::refused("malformed"),
        }
    }

    fn fetcher(&mut self, is_end: bool, payload: &str) -> Step {
        if is_end {
            self.turns += 1;
            return Step::says(Said::Nothing);
        }
        match payload.split_once(' ') {
            // The operation's id, or that there are too many.
            Some(("fetch" | "post", _)) => Step::says(Said::Anything),
            None if payload == "count" => Step::text(self.turns.to_string()),
            None if payload == "active" || payload == "last" => Step::says(Said::Anything),
            _ => Step::refused("malformed"),
        }
    }

    fn counter(&mut self, payload: &str) -> Step {
        let step = match payload.trim().split_once(' ') {
            Some(("add", number)) => number.trim().parse().ok(),
            None if payload.trim() == "get" => Some(0),
            _ => None,
        };
        match step.map(|step| self.count.checked_add(step)) {
            None => Step::refused("malformed"),
            Some(None) => Step::refused("overflow"),
            Some(Some(count)) => {
                self.count = count;
                Step::text(count.to_string())
            }
        }
    }

    fn ledger(&mut self, agent: &str, peer: Option<&str>, payload: &str) -> Step {
        let request: Value = serde_json::from_str(payload).unwrap_or_default();
        if let Some(amount) = request["deposit"].as_u64() {
            self.balance += u128::from(amount);
        } else if let Some(amount) = request["credit"].as_u64() {
            if peer.is_none() {
                return Step::refused("forbidden");
            }
            self.balance += u128::from(amount);
        } else if let (Some(to), Some(amount)) =
            (request["transfer"]["to"].as_str(), request["transfer"]["amount"].as_u64())
        {
            let Some(rest) = self.balance.checked_sub(amount.into()) else {
                return Step::refused("insufficient");
            };
            if amount > 0 && to != agent {
                self.balance = rest;
                let credit = (to.to_owned(), format!(r#"{{"credit":{amount}}}"#));
                return Step { outputs: vec![credit], ..self.shows_balance() };
            }
        } else if request.get("balance") != Some(&Value::Null) {
            return Step::refused("malformed");
        }
        self.shows_balance()
    }

    fn shows_balance(&self) -> Step {
        Step::text(format!(r#"{{"balance":{}}}"#, self.balance))
    }

    fn hostile(&mut self, is_end: bool, payload: &str) -> Step {
        self.turns += 1;
        if is_end {
            return Step::says(Said::Nothing);
        }
        let (command, rest) = payload.split_once(' ').unwrap_or((payload, ""));
        match command {
            "note" => {
                self.note = rest.to_owned();
                Step::text("ok")
            }
            // Kept, and never asked for.
            "word" => Step::text("ok"),
            "noted" => Step::text(self.note.clone()),
            "turns" => Step::text(self.turns.to_string()),
            "echo" => Step::text(rest),
            // It replies the attempt at which it worked.
            "retry" => Step::says(Said::Anything),
            // To whom, how long it waits, what.
            "request" => {
                let mut words = rest.splitn(3, ' ');
                let (to, text) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
                let outputs = vec![(to.to_owned(), text.to_owned())];
                Step { reply: Said::Anything, outputs }
            }
            "ends" => Step::says(Said::Anything),
            "send" => {
                let (to, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let outputs = vec![(to.to_owned(), text.to_owned())];
                Step { reply: Said::Anything, outputs }
            }
            _ => Step::refused("malformed"),
        }
    }
}

fn relay(payload: &str) -> Step {
    let request: Value = serde_json::from_str(payload).unwrap_or_default();
    match (request["to"].as_str(), request["payload"].as_str()) {
        (Some(to), Some(text)) => {
            Step { reply: Said::Text("ok".into()), outputs: vec![(to.to_owned(), text.to_owned())] }
        }
        _ => Step::refused("malformed"),
    }
}

#[cfg(test)]
mod tests;
