//! The independent checker: from the stores' files, what hosts show of inputs, and the clients' journals it proves I1..I6, or
//! answers sentences that say what does not fit. Pure; `judge/tests.rs` plants each mistake.
//!
//! | rule | how |
//! |---|---|
//! | I1 | nothing waits once all is quiet; every acknowledged input is there and ended as its client was told; places have no gap |
//! | I2 | at most one turn names an input, and each that ended is named; one key is one input; nobody invented inputs |
//! | I3 | receipts stand without gap and say what a receipt of their kind says, each names the computed digest of the one before, the row names the last |
//! | I4 | tokens never fall, and nothing commits under one that was succeeded; one token belongs to one incarnation of one host |
//! | I5 | what clients were told and what receivers got is what the receipts' turns made, and nothing else |
//! | I6 | each receiver has each message once, in the order of commits |
//!
//! What turns make is known from `model`: the state that a host shows must be what the receipts' inputs make of an empty one.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Input;
use crate::fate::{Answer, End, Fate};
use crate::journal::Operation;
use crate::model::{Given, Kind, Model, Said};
use crate::store_file::{AgentRows, HOME_HERE, InputRow, ReceiptRow, StoreFile};

const CONSUMED: u64 = 2;
const DEAD_LETTERED: u64 = 3;
const TURN: u64 = 1;
const DEAD_LETTER: u64 = 2;
const REPAIR: u64 = 4;

/// All that is known after a run.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// One per store.
    pub files: Vec<StoreFile>,
    /// What hosts show of every agent's inputs, by agent.
    pub shown: BTreeMap<String, Vec<Input>>,
    /// What clients did.
    pub operations: Vec<Operation>,
    /// Agents whose creation was acknowledged.
    pub created: BTreeSet<String>,
    /// Agents that may be broken, and whose inputs then wait.
    pub breakable: BTreeSet<String>,
    /// Inputs that may have got another chance after they were dead letters: 32 hex digits each.
    pub redriven: BTreeSet<String>,
    /// Moments when a host showed an agent's token.
    pub sights: Vec<Sight>,
}

/// A moment when a host showed this token of an agent at this revision: whatever commits later carries at least that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Whose.
    pub agent: String,
    /// The revision then.
    pub revision: u64,
    /// The token then.
    pub token: u64,
}

/// Messages by (sender, receiver), in commit order.
type Mail = BTreeMap<(String, String), Vec<String>>;

/// What does not fit; empty when everything does.
pub fn judge(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    let mut at_home: BTreeMap<&str, &AgentRows> = BTreeMap::new();
    for (id, agent) in evidence.files.iter().flat_map(|file| &file.agents) {
        if agent.home == HOME_HERE && at_home.insert(id, agent).is_some() {
            found.push(format!("{id} is at home in two stores"));
        }
    }
    let ids: BTreeSet<&str> =
        evidence.files.iter().flat_map(|file| file.agents.keys()).map(String::as_str).collect();
    for id in ids.into_iter().chain(evidence.created.iter().map(String::as_str)) {
        if !at_home.contains_key(id) {
            found.push(format!("{id} is at home nowhere"));
        }
    }
    let mut mail = Mail::new();
    for (id, agent) in &at_home {
        let case = Case::of(evidence, id, agent);
        let mut of_agent = chain(agent);
        let sights = evidence.sights.iter().filter(|sight| sight.agent == **id);
        of_agent.extend(sights.flat_map(|sight| stale(agent, sight)));
        of_agent.extend(places(agent, evidence.breakable.contains(*id)));
        of_agent.extend(case.named());
        of_agent.extend(case.replayed(&mut mail));
        of_agent.extend(case.told());
        of_agent.extend(case.invented());
        found.extend(of_agent.into_iter().map(|violation| format!("{id}: {violation}")));
    }
    found.extend(delivered(evidence, &at_home, &mail));
    found
}

/// Receipts chain, and tokens rise.
fn chain(agent: &AgentRows) -> Vec<String> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<u64, ([u8; 32], u64)> = BTreeMap::new();
    let mut before: Option<&ReceiptRow> = None;
    for receipt in &agent.receipts {
        let ReceiptRow { generation, revision, body, .. } = receipt;
        let is_next =
            before.is_some_and(|before| before.generation == *generation && before.revision + 1 == *revision);
        let is_first = *revision == 1 && before.is_none_or(|before| before.generation < *generation);
        if !is_next && !is_first {
            found.push(format!("receipt {generation}.{revision} stands where another should"));
        }
        let parent = before.filter(|_| is_next).map_or([0; 32], |before| before.computed);
        if body.parent != parent {
            found.push(format!("receipt {revision} names another parent than the receipt before it"));
        }
        if receipt.computed != receipt.digest {
            found.push(format!("receipt {revision} has another digest than its row says"));
        }
        let columns = (*generation, *revision, receipt.kind, receipt.token, receipt.incarnation);
        if columns != (body.generation, body.revision, body.kind, body.token, body.incarnation) {
            found.push(format!("receipt {revision} says otherwise than its row: {body:?}"));
        }
        if ![TURN, DEAD_LETTER].contains(&body.kind) && !body.inputs.is_empty() {
            found.push(format!("receipt {revision} of kind {} names inputs", body.kind));
        }
        if body.kind > REPAIR || (body.kind == REPAIR && !(body.has_state && body.has_from)) {
            found.push(format!("receipt {revision} of kind {} does not say what it did", body.kind));
        }
        if before.is_some_and(|before| before.token > receipt.token) {
            found.push(format!("the token falls to {} at receipt {revision}", receipt.token));
        }
        let owner = (body.host, body.incarnation);
        if *owners.entry(receipt.token).or_insert(owner) != owner {
            found.push(format!("token {} was used by two owners", receipt.token));
        }
        before = Some(receipt);
    }
    let last = before.filter(|last| last.generation == agent.generation);
    let (revision, head) = last.map_or((0, [0; 32]), |last| (last.revision, last.computed));
    if (agent.revision, agent.head) != (revision, head) {
        found.push(format!("the row is at revision {}, the receipts end at {revision}", agent.revision));
    }
    if before.is_some_and(|last| last.token > agent.token) {
        found.push(format!("the row's token is {}, less than its receipts'", agent.token));
    }
    found
}

/// Receipts of an owner that had been succeeded.
fn stale<'a>(agent: &'a AgentRows, sight: &'a Sight) -> impl Iterator<Item = String> + 'a {
    let later = agent.receipts.iter().filter(|receipt| receipt.revision > sight.revision);
    later.filter(|receipt| receipt.token < sight.token).map(|receipt| {
        let (revision, token) = (receipt.revision, receipt.token);
        format!("receipt {revision} has token {token}, after token {} had been granted", sight.token)
    })
}

/// Inputs stand without gap, and nothing waits.
fn places(agent: &AgentRows, may_wait: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (input, place) in agent.inputs.iter().zip(1..) {
        if input.seq != place {
            found.push(format!("input {} has place {}, not {place}", input.id, input.seq));
            break;
        }
    }
    if agent.next_seq != agent.inputs.len() as u64 + 1 {
        found.push(format!("the next place is {} after {} inputs", agent.next_seq, agent.inputs.len()));
    }
    let open = agent.inputs.iter().filter(|input| input.state < CONSUMED).count() as u64;
    if open != agent.open_inputs {
        found.push(format!("{open} inputs wait, the row says {}", agent.open_inputs));
    }
    if agent.sizes != agent.counted {
        let (sizes, counted) = (agent.sizes, agent.counted);
        found.push(format!("bytes that wait, state rows, their bytes: {counted:?}, the row says {sizes:?}"));
    }
    if open > 0 && !may_wait {
        found.push(format!("{open} inputs wait in silence"));
    }
    if agent.outputs != agent.pending_outputs {
        found.push(format!("{} outputs wait, the row says {}", agent.outputs, agent.pending_outputs));
    }
    if agent.outputs > 0 {
        found.push(format!("{} outputs wait in silence", agent.outputs));
    }
    found
}

/// Everything about one agent.
struct Case<'a> {
    id: &'a str,
    agent: &'a AgentRows,
    rows: BTreeMap<&'a str, &'a InputRow>,
    /// By id without hyphens.
    shown: BTreeMap<String, &'a Input>,
    operations: Vec<&'a Operation>,
    redriven: &'a BTreeSet<String>,
}

impl<'a> Case<'a> {
    fn of(evidence: &'a Evidence, id: &'a str, agent: &'a AgentRows) -> Self {
        let shown = evidence.shown.get(id).into_iter().flatten();
        Self {
            id,
            agent,
            rows: agent.inputs.iter().map(|input| (input.id.as_str(), input)).collect(),
            shown: shown.map(|input| (plain(&input.id), input)).collect(),
            operations: evidence.operations.iter().filter(|operation| operation.agent == id).collect(),
            redriven: &evidence.redriven,
        }
    }

    /// Each input that ended is named by the one boundary that ended it. A dead letter that got another chance has more
    /// than one boundary, of which at most the last is a turn.
    fn named(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut names: BTreeMap<&str, Vec<&ReceiptRow>> = BTreeMap::new();
        for receipt in &self.agent.receipts {
            for input in &receipt.body.inputs {
                names.entry(input).or_default().push(receipt);
            }
        }
        for (input, receipts) in &names {
            let revisions: Vec<_> = receipts.iter().map(|receipt| receipt.revision).collect();
            let again = &receipts[..receipts.len() - 1];
            if again.iter().any(|receipt| receipt.kind != DEAD_LETTER) {
                found.push(format!("input {input} is named by receipts {revisions:?}"));
            }
            if !self.rows.contains_key(input) {
                found.push(format!("receipts {revisions:?} name input {input}, which is not there"));
            }
        }
        for row in &self.agent.inputs {
            let last = names.get(row.id.as_str()).and_then(|receipts| receipts.last());
            let kind = match row.state {
                CONSUMED => TURN,
                DEAD_LETTERED => DEAD_LETTER,
                _ if last.is_some_and(|last| last.kind == TURN) => {
                    found.push(format!("input {} is in state {} after its turn", row.id, row.state));
                    continue;
                }
                _ => continue,
            };
            match last {
                None => found.push(format!("input {} is in state {} without a receipt", row.id, row.state)),
                Some(last) if last.kind != kind || row.revision != Some(last.revision) => {
                    found.push(format!(
                        "input {} ended at {:?}, its receipt is of kind {} at {}",
                        row.id, row.revision, last.kind, last.revision
                    ))
                }
                Some(_) => {}
            }
        }
        found
    }

    /// Replays the receipts' turns on the model: replies, and what is sent.
    fn replayed(&self, mail: &mut Mail) -> Vec<String> {
        let Some(kind) = Kind::of(self.id) else { return Vec::new() };
        let mut found = Vec::new();
        let mut model = Model::new(kind);
        let mut generation = 0;
        for receipt in &self.agent.receipts {
            if receipt.generation != generation {
                (model, generation) = (Model::new(kind), receipt.generation);
            }
            if receipt.kind != TURN {
                continue;
            }
            for id in &receipt.body.inputs {
                let Some(input) = self.shown.get(id) else {
                    found.push(format!("input {id} of receipt {} is not shown", receipt.revision));
                    continue;
                };
                let given = Given {
                    agent: self.id,
                    peer: input.body["source"]["agent"].as_str(),
                    kind: input.body["kind"].as_str().unwrap_or_default(),
                    payload: &input.payload,
                };
                let step = model.step(given);
                if !says(input, &step.reply) {
                    found.push(format!(
                        "at revision {} the reply to {:?} should be {:?} and is {}",
                        receipt.revision, input.payload, step.reply, input.body["reply"]
                    ));
                }
                if let Some(asker) = given.peer.filter(|_| input.body["source"]["expects_reply"] == true) {
                    let reply = input.body["reply"]["body"].as_str().unwrap_or_default().to_owned();
                    mail.entry((self.id.to_owned(), asker.to_owned())).or_default().push(reply);
                }
                for (to, payload) in step.outputs {
                    mail.entry((self.id.to_owned(), to)).or_default().push(payload);
                }
            }
        }
        found
    }

    /// What each client was told is what the store says.
    fn told(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut last_places: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut operations = self.operations.clone();
        operations.sort_by_key(|operation| (operation.client, operation.index));
        for operation in operations {
            let key = &operation.key;
            let answers: Vec<&Answer> = operation.fates.iter().filter_map(Fate::answer).collect();
            let ids: BTreeSet<_> = answers.iter().map(|answer| plain(&answer.input_id)).collect();
            if ids.len() > 1 {
                found.push(format!("key {key} is {} inputs: {ids:?}", ids.len()));
            }
            for answer in &answers {
                found.extend(self.fits(operation, answer).map(|what| format!("key {key}: {what}")));
            }
            let was_refused = matches!(operation.fates.last(), Some(Fate::Refused(_)));
            let is_clean = operation.fates.iter().all(|fate| matches!(fate, Fate::Refused(_)));
            if was_refused && is_clean && self.agent.inputs.iter().any(|row| row.key.as_ref() == Some(key)) {
                found.push(format!("key {key} was definitely refused, and is there"));
            }
            // A client does one thing after the other, so its inputs stand in its order.
            if let Some(row) = ids.first().and_then(|id| self.rows.get(id.as_str())) {
                let place = (operation.index, row.seq);
                let before = last_places.insert(operation.client, place);
                if before.is_some_and(|before| before.1 >= row.seq) {
                    found.push(format!(
                        "client {}'s operations are out of order: {before:?}, {place:?}",
                        operation.client
                    ));
                }
            }
        }
        found
    }

    /// Whether one answer fits the store.
    fn fits(&self, operation: &Operation, answer: &Answer) -> Option<String> {
        let id = plain(&answer.input_id);
        let Some(row) = self.rows.get(id.as_str()) else {
            return Some(format!("its acknowledged input {id} is gone"));
        };
        if row.key.as_ref() != Some(&operation.key) {
            return Some(format!("its input has key {:?}", row.key));
        }
        let Some(input) = self.shown.get(&id) else {
            return Some(format!("its input {id} is not shown"));
        };
        if input.payload != operation.payload {
            return Some(format!("{:?} was sent, {:?} is there", operation.payload, input.payload));
        }
        let reply = &input.body["reply"];
        let (state, is_same) = match &answer.end {
            End::Queued { .. } => return None,
            End::Reply(said) => (
                CONSUMED,
                reply["outcome"] == "ok" && reply["body"].as_str().map(str::as_bytes) == Some(said),
            ),
            End::Silent => (CONSUMED, reply["outcome"] == "none"),
            End::AgentRefused(_) => (CONSUMED, reply["outcome"] == "refused"),
            End::AgentError(_) | End::AgentFault(_) => return self.gave_up(row, answer),
        };
        if row.state != state || !is_same {
            return Some(format!("it was answered {:?}, the store says {}", answer.end, input.body));
        }
        let receipt = self.agent.receipts.iter().rfind(|receipt| receipt.body.inputs.contains(&id));
        let receipt = receipt?;
        if answer.revision.is_some_and(|revision| revision != receipt.revision) {
            return Some(format!("it was told {:?}, its receipt is {}", answer.revision, receipt.revision));
        }
        if answer.token.is_some_and(|token| token != receipt.token) {
            return Some(format!("it was told token {:?}, its receipt has {}", answer.token, receipt.token));
        }
        None
    }

    /// Whether an input that its client was told to be given up is, or was before it got another chance, a dead letter.
    fn gave_up(&self, row: &InputRow, answer: &Answer) -> Option<String> {
        let is_letter =
            |receipt: &&ReceiptRow| receipt.body.kind == DEAD_LETTER && receipt.body.inputs.contains(&row.id);
        let letters: Vec<u64> =
            self.agent.receipts.iter().filter(is_letter).map(|receipt| receipt.revision).collect();
        if letters.is_empty() || answer.revision.is_some_and(|revision| !letters.contains(&revision)) {
            return Some(format!(
                "it was answered {:?} at {:?}, its dead letters are {letters:?}",
                answer.end, answer.revision
            ));
        }
        if row.state != DEAD_LETTERED && !self.redriven.contains(&row.id) {
            return Some(format!("it was given up for good, and is in state {}", row.state));
        }
        None
    }

    /// Every input under a key was sent by the client that has the key.
    fn invented(&self) -> Vec<String> {
        let sent: BTreeSet<&str> = self.operations.iter().map(|operation| operation.key.as_str()).collect();
        let keys = self.agent.inputs.iter().filter_map(|row| row.key.as_deref());
        keys.filter(|key| !sent.contains(key)).map(|key| format!("nobody sent key {key}")).collect()
    }
}

/// Messages arrived as committed: each once, in order, and nothing else.
fn delivered(evidence: &Evidence, at_home: &BTreeMap<&str, &AgentRows>, mail: &Mail) -> Vec<String> {
    let mut got = Mail::new();
    for (receiver, inputs) in &evidence.shown {
        let mut inputs: Vec<_> = inputs.iter().collect();
        inputs.sort_by_key(|input| input.seq);
        for input in inputs {
            if let Some(sender) = input.body["source"]["agent"].as_str() {
                got.entry((sender.to_owned(), receiver.clone())).or_default().push(input.payload.clone());
            }
        }
    }
    let mut found = Vec::new();
    let pairs: BTreeSet<_> = mail.keys().chain(got.keys()).collect();
    let none = Vec::new();
    for pair in pairs {
        let (sent, arrived) = (mail.get(pair).unwrap_or(&none), got.get(pair).unwrap_or(&none));
        let (sender, receiver) = pair;
        if let Some(at) = (0..sent.len().max(arrived.len())).find(|at| sent.get(*at) != arrived.get(*at)) {
            found.push(format!(
                "{sender} committed {} messages for {receiver}, {} arrived; message {} is {:?} and arrived as {:?}",
                sent.len(),
                arrived.len(),
                at + 1,
                sent.get(at),
                arrived.get(at)
            ));
        }
        let numbers = at_home.get(sender.as_str()).map(|agent| {
            let last = agent.destinations.iter().rfind(|((to, _), _)| to == receiver);
            last.map_or(1, |(_, next)| *next)
        });
        let heard = at_home
            .get(receiver.as_str())
            .map(|agent| agent.receivers.get(sender).map_or(1, |(_, _, next)| *next));
        if numbers != heard {
            found
                .push(format!("{sender}'s next number to {receiver} is {numbers:?}, it has heard {heard:?}"));
        }
    }
    found
}

fn says(input: &Input, said: &Said) -> bool {
    let reply = &input.body["reply"];
    match said {
        Said::Text(text) => reply["outcome"] == "ok" && reply["body"] == text.as_str(),
        Said::Refused(code) => reply["outcome"] == "refused" && reply["code"] == code.as_str(),
        Said::Nothing => reply["outcome"] == "none",
        Said::Anything => true,
    }
}

/// An id as the store's file has it: without hyphens.
pub fn plain(id: &str) -> String {
    id.replace('-', "").to_lowercase()
}

#[cfg(test)]
mod tests;
