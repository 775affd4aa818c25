//! Independent checkers: from a journal and what a host shows, what does not fit. Pure; they answer sentences, and no
//! sentence means that all is well.
//!
//! A checker that can't fail proves nothing: `check/tests.rs` plants each mistake, and the cluster suite runs hosts that
//! were broken on purpose.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::api::{Agent, Input, Receipt};
use crate::client::Client;
use crate::fate::End;
use crate::journal::Operation;
use crate::load::PAYLOAD;

/// What a host shows of one agent.
#[derive(Debug, Clone)]
pub struct History {
    /// The agent's row.
    pub agent: Agent,
    /// All receipts.
    pub receipts: Vec<Receipt>,
    /// All inputs.
    pub inputs: Vec<Input>,
}

/// A moment when a host showed this token at this revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The revision then.
    pub revision: u64,
    /// The token then.
    pub token: u64,
}

impl History {
    /// Reads it from a host. Nobody may write meanwhile.
    ///
    /// # Errors
    /// When the host does not answer.
    pub async fn of(client: &Client, agent: &str) -> Result<Self> {
        Ok(Self {
            receipts: client.receipts(agent).await?,
            inputs: client.inputs(agent).await?,
            agent: client.agent(agent).await?,
        })
    }
}

impl Sight {
    /// What a host shows of an agent now.
    ///
    /// # Errors
    /// When the host does not answer.
    pub async fn of(client: &Client, agent: &str) -> Result<Self> {
        let Agent { revision, token, .. } = client.agent(agent).await?;
        Ok(Self { revision, token })
    }
}

/// Turns sentences into an error.
///
/// # Errors
/// When there is one.
pub fn none(what: &str, violations: &[String]) -> Result<()> {
    if !violations.is_empty() {
        let shown = &violations[..violations.len().min(12)];
        bail!("{what}: {} violations:\n  {}", violations.len(), shown.join("\n  "));
    }
    Ok(())
}

/// Receipts chain without gap or fork, tokens never fall, and no input is named twice (I2, I3, I4), but that a dead letter
/// may be named again: somebody gave it another chance.
pub fn chain(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut named = BTreeMap::new();
    let mut before: Option<&Receipt> = None;
    for receipt in &history.receipts {
        let revision = receipt.revision;
        let (expected, parent, token) = match before {
            Some(before) => (before.revision + 1, before.digest.clone(), before.token),
            None => (1, "0".repeat(receipt.parent.len()), 0),
        };
        if revision != expected {
            found.push(format!("receipt {revision} stands where {expected} should"));
        }
        if receipt.parent != parent {
            found.push(format!("receipt {revision} names another parent than the receipt before it"));
        }
        if receipt.token < token {
            found.push(format!("the token falls from {token} to {} at receipt {revision}", receipt.token));
        }
        for input in &receipt.inputs {
            let is_dead_letter = receipt.kind == "dead-letter";
            if let Some((other, false)) = named.insert(input.clone(), (revision, is_dead_letter)) {
                found.push(format!("input {input} is named by receipts {other} and {revision}"));
            }
        }
        before = Some(receipt);
    }
    match before {
        Some(last) if last.revision != history.agent.revision => found.push(format!(
            "the row is at revision {}, the last receipt at {}",
            history.agent.revision, last.revision
        )),
        Some(last) if last.digest != history.agent.last_receipt => {
            found.push("the row names another last receipt".to_owned());
        }
        None if history.agent.revision > 0 => found.push("there are no receipts".to_owned()),
        Some(_) | None => {}
    }
    found.extend(ended_without_receipt(history, &named));
    found
}

fn ended_without_receipt<'a>(
    history: &'a History,
    named: &'a BTreeMap<String, (u64, bool)>,
) -> impl Iterator<Item = String> + 'a {
    let ended =
        history.inputs.iter().filter(|input| matches!(input.state.as_str(), "consumed" | "dead-lettered"));
    ended
        .filter(|input| !named.contains_key(&input.id))
        .map(|input| format!("input {} is {} and no receipt names it", input.id, input.state))
}

/// Whoever showed a token at a revision: every later receipt carries at least that token (I4, I7).
pub fn tokens(history: &History, sights: &[Sight]) -> Vec<String> {
    let mut found = Vec::new();
    for sight in sights {
        let stale = history
            .receipts
            .iter()
            .filter(|receipt| receipt.revision > sight.revision && receipt.token < sight.token);
        found.extend(stale.map(|receipt| {
            format!(
                "receipt {} was committed under token {} after token {} had been granted at revision {}",
                receipt.revision, receipt.token, sight.token, sight.revision
            )
        }));
    }
    found
}

/// A counter that only the journal's clients used, each operation adding one: nothing acknowledged is lost, nothing ran
/// twice, and each client's operations ran in its order (I1, I2). `count` is what the agent itself says.
pub fn counter(operations: &[Operation], history: &History, count: u64) -> Vec<String> {
    let mut found = Vec::from_iter(counted(operations, count));
    let by_id: BTreeMap<&str, &Input> =
        history.inputs.iter().map(|input| (input.id.as_str(), input)).collect();
    for operation in operations {
        found.extend(lost(operation, &by_id));
    }
    found.extend(doubled(&history.inputs, count));
    found.extend(disordered(operations, &by_id));
    found
}

/// The agent's own state against the journal: needs nothing that the host says about inputs.
fn counted(operations: &[Operation], count: u64) -> Option<String> {
    let acknowledged =
        operations.iter().filter(|operation| operation.acknowledged().is_some()).count() as u64;
    let unknown = operations.iter().filter(|operation| operation.is_unknown()).count() as u64;
    let possible = acknowledged..=acknowledged + unknown;
    (!possible.contains(&count)).then(|| {
        format!(
            "the count is {count}, but {acknowledged} operations were acknowledged and {unknown} are unknown"
        )
    })
}

fn lost(operation: &Operation, by_id: &BTreeMap<&str, &Input>) -> Option<String> {
    let key = &operation.key;
    let answer = operation.acknowledged()?;
    let Some(input) = by_id.get(answer.input_id.as_str()) else {
        return Some(format!("acknowledged key {key}: its input {} is gone", answer.input_id));
    };
    if input.state != "consumed" {
        return Some(format!("acknowledged key {key}: its input is {}", input.state));
    }
    if input.key.as_ref() != Some(key) {
        return Some(format!("acknowledged key {key}: its input has key {:?}", input.key));
    }
    match &answer.end {
        End::Reply(reply) if input.reply.as_deref().map(str::as_bytes) != Some(reply) => {
            Some(format!("key {key} was answered otherwise than its input says"))
        }
        End::Reply(_) | End::Queued { .. } => None,
        other => Some(format!("key {key} ended in another way than a counter answers: {other:?}")),
    }
}

/// Each consumed input made the count one higher, so no two have the same reply and none is left out.
fn doubled(inputs: &[Input], count: u64) -> Vec<String> {
    let mut found = Vec::new();
    let (mut keys, mut positions) = (BTreeSet::new(), BTreeSet::new());
    let additions = inputs.iter().filter(|input| input.state == "consumed" && input.payload == PAYLOAD);
    for input in additions {
        if let Some(key) = &input.key
            && !keys.insert(key)
        {
            found.push(format!("key {key} ran twice"));
        }
        let position = input.reply.as_deref().and_then(|reply| reply.parse::<u64>().ok());
        if !position.is_some_and(|position| positions.insert(position)) {
            found.push(format!("input {} has reply {:?}, not one of its own", input.id, input.reply));
        }
    }
    if positions.len() as u64 != count {
        found.push(format!("the count is {count}, but {} inputs were consumed", positions.len()));
    }
    found
}

/// A client does one thing after the other, so its inputs stand, and ran, in its order.
fn disordered(operations: &[Operation], by_id: &BTreeMap<&str, &Input>) -> Vec<String> {
    let mut by_client: BTreeMap<(usize, &str), BTreeMap<u64, &Input>> = BTreeMap::new();
    for operation in operations {
        let answer = operation.acknowledged();
        if let Some(input) = answer.and_then(|answer| by_id.get(answer.input_id.as_str())) {
            by_client.entry((operation.client, &operation.agent)).or_default().insert(operation.index, input);
        }
    }
    let mut found = Vec::new();
    for ((client, agent), inputs) in by_client {
        let places: Vec<_> = inputs.values().map(|input| place(input)).collect();
        if let Some(pair) = places.windows(2).find(|pair| pair[0].0 >= pair[1].0 || pair[0].1 >= pair[1].1) {
            found.push(format!(
                "client {client}'s operations on {agent} are out of order: (seq, reply) {pair:?}"
            ));
        }
    }
    found
}

fn place(input: &Input) -> (u64, u64) {
    let reply = input.reply.as_deref().and_then(|reply| reply.parse().ok());
    (input.seq, reply.unwrap_or(0))
}

#[cfg(test)]
mod tests;
