//! Inputs, boundaries and outputs.

use godwit_core::id::{AgentId, FencingToken, Revision, Seq};
use godwit_core::input::{DeadLetterReason, Kind, NewInput, Outcome, ReplyOutcome};
use godwit_core::store::{
    Accepted, Boundary, InputEnd, OutputEnd, OutputKey, Owner, Step, StoredInput, Unit, UnitOutcome,
};

use super::{Judge, Known, Sent};
use crate::model::{Expected, expected};

impl Judge {
    /// An input was offered, and not refused.
    pub fn accepted(&mut self, input: &NewInput, accepted: &Accepted) {
        match accepted {
            Accepted::New { seq } => self.enter(input, *seq),
            Accepted::Duplicate(stored) => {
                if !self.agent(&input.agent).inputs.contains_key(&stored.input.id) {
                    let id = input.input.id;
                    self.fail(format!("I1: {id} is a duplicate of an input that nobody accepted"));
                } else if stored.input.id == input.input.id {
                    // An answer that comes after the timer that ended its request is heard all the same.
                    self.check_delivery(input, false);
                }
            }
            // No scene has channels.
            Accepted::AlreadyEnded | Accepted::Answered => {}
        }
    }

    fn enter(&mut self, input: &NewInput, seq: Seq) {
        self.check_delivery(input, true);
        let agent = self.agent(&input.agent);
        let NewInput { agent: name, input: content, idempotency_key: key, .. } = input;
        let mut wrong = None;
        if seq != agent.next_seq {
            wrong = Some(format!(
                "I1: input {} of {name} got place {seq} and not {}",
                content.id, agent.next_seq
            ));
        }
        agent.next_seq = seq.next();
        let text = String::from_utf8_lossy(&content.payload).into_owned();
        let known = Known { kind: content.kind.clone(), text, outcome: None };
        if agent.inputs.insert(content.id, known).is_some() {
            wrong = Some(format!("I2: input {} of {name} was accepted twice", content.id));
        }
        agent.open.insert(seq, content.id);
        if let Some(key) = key
            && let Some(before) = agent.keys.insert(key.clone(), content.id)
        {
            wrong = Some(format!("I2: key {key} of {name} was accepted for {before} and for {}", content.id));
        }
        if content.kind == Kind::PeerResponseTerminal
            && let Some(request) = &content.correlation
            && agent.answered.insert(request.clone(), content.id).is_some()
        {
            wrong = Some(format!("I2: request {request} of {name} has ended twice"));
        }
        if let Some(told) = self.refused.get(&content.id) {
            wrong = Some(format!("I1: input {} was accepted, and a client was told: {told}", content.id));
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// A delivery was accepted: it was committed before, and comes in order.
    fn check_delivery(&mut self, input: &NewInput, is_new: bool) {
        let Some(stamp) = &input.delivery else { return };
        let sent = self.agent(&stamp.origin).sent.entry(input.agent.clone()).or_default();
        let index = usize::try_from(stamp.number).unwrap_or(0).wrapping_sub(1);
        match sent.get_mut(index) {
            Some(output) if output.payload == input.input.payload => {
                if output.is_heard && !is_new {
                    return;
                }
                output.is_heard = true;
            }
            _ => {
                let name = format!("{} of {} to {}", stamp.number, stamp.origin, input.agent);
                return self.fail(format!("I5: output {name} was delivered, and not committed"));
            }
        }
        let skipped = sent[..index].iter().any(|output| !output.is_heard && !output.is_undeliverable);
        self.counts.deliveries += 1;
        let heard =
            self.agent(&input.agent).heard.entry(stamp.origin.clone()).or_insert((0, FencingToken(0)));
        let before = *heard;
        *heard = (stamp.number, stamp.token);
        if skipped || stamp.number <= before.0 {
            self.fail(format!(
                "I6: output {} of {} was accepted after {}",
                stamp.number, stamp.origin, before.0
            ));
        }
        if stamp.token < before.1 {
            self.fail(format!(
                "I4: {} was heard under token {} after {}",
                stamp.origin, stamp.token, before.1
            ));
        }
    }

    /// A unit was executed.
    pub fn committed(&mut self, unit: &Unit, outcome: &UnitOutcome) {
        let done = &unit.steps[..outcome.committed.min(unit.steps.len())];
        let boundaries: Vec<_> = done.iter().filter_map(Step::boundary).collect();
        let known = self.agent(&unit.owner.agent);
        let is_repetition = !boundaries.is_empty()
            && boundaries.iter().all(|boundary| known.receipts.contains(&boundary.receipt.digest()));
        if done.is_empty() || is_repetition {
            return;
        }
        self.passes(&unit.owner, "commit");
        for step in done {
            match step {
                Step::Accept { input, seq } => self.enter(input, *seq),
                other => {
                    if let Some(boundary) = other.boundary() {
                        self.boundary(&unit.owner, boundary);
                    }
                }
            }
        }
    }

    fn boundary(&mut self, owner: &Owner, boundary: &Boundary) {
        self.counts.boundaries += 1;
        let receipt = &boundary.receipt;
        let name = format!("receipt {} of {}", receipt.revision, receipt.agent);
        let agent = self.agent(&receipt.agent);
        let mut wrong = None;
        if receipt.parent != agent.head || receipt.revision.0 != agent.revision + 1 {
            wrong = Some(format!("I3: {name} does not follow on {}", agent.revision));
        }
        if receipt.token != owner.token || receipt.incarnation != owner.incarnation {
            wrong = Some(format!("I4: {name} names another owner than the one who commits"));
        }
        agent.head = receipt.digest();
        agent.receipts.insert(agent.head);
        agent.revision = receipt.revision.0;
        let mut sum = agent.sum();
        for (end, input) in boundary.ends.iter().zip(&receipt.inputs) {
            let earliest = agent.open.first_key_value().map(|(seq, _)| *seq);
            let Some(known) = agent.inputs.get_mut(input).filter(|known| known.outcome.is_none()) else {
                wrong =
                    Some(format!("I2: {name} ends input {input}, which has an end or was never accepted"));
                break;
            };
            if agent.open.remove(&end.seq) != Some(*input) {
                wrong =
                    Some(format!("I1: {name} ends input {input} at place {}, which is another's", end.seq));
            } else if earliest != Some(end.seq) {
                wrong = Some(format!("I1: {name} ends place {} before {earliest:?}", end.seq));
            }
            known.outcome = Some(end.outcome.clone());
            if let Err(what) = check_end(known, end, &mut sum, receipt.revision) {
                wrong = Some(format!("I9: {name}: {what}"));
            }
        }
        agent.sums.insert(receipt.revision.0, sum);
        for output in &boundary.outputs {
            let sent = agent.sent.entry(output.destination.clone()).or_default();
            sent.push(Sent { payload: output.payload.to_vec(), is_heard: false, is_undeliverable: false });
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// Outputs were ended.
    pub fn ended_outputs(&mut self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) {
        self.passes(owner, "end outputs");
        for (key, end) in ends {
            let sent = self.agent(&owner.agent).sent.entry(key.destination.clone()).or_default();
            let index = usize::try_from(key.number).unwrap_or(0).wrapping_sub(1);
            let Some(output) = sent.get_mut(index) else {
                return self.fail(format!(
                    "I5: output {} of {} ended, and never committed",
                    key.number, owner.agent
                ));
            };
            match end {
                OutputEnd::Undeliverable(_) => output.is_undeliverable = true,
                OutputEnd::Acknowledged if output.is_heard => {}
                OutputEnd::Acknowledged => {
                    let (agent, destination) = (&owner.agent, &key.destination);
                    let name = format!("output {} of {agent} to {destination}", key.number);
                    return self.fail(format!("I6: {name} was acknowledged, and never accepted"));
                }
            }
        }
    }

    /// A timer has fired: its input is in the store at this place.
    pub fn fired(&mut self, owner: &Owner, stored: Option<&StoredInput>) {
        let agent = &owner.agent;
        let Some(stored) = stored else {
            return self.fail(format!("I1: a timer of {agent} has fired, and its input is not there"));
        };
        if self.agent(agent).inputs.contains_key(&stored.input.id) {
            // It fired before, or the answer came first.
            return;
        }
        self.passes(owner, "fire a timer");
        self.counts.timers += 1;
        let input = NewInput::of_host(agent, stored.input.clone());
        self.enter(&input, stored.seq);
    }

    /// The sum of an agent at a revision, and the newest revision.
    pub(super) fn sum_at(&self, agent: &AgentId, revision: Revision) -> (Option<i64>, Revision) {
        let known = self.agents.get(agent);
        let sum = known.and_then(|agent| agent.sums.get(&revision.0).copied());
        (sum, Revision(known.map_or(0, |agent| agent.revision)))
    }
}

/// Compares an end with what the model says, and moves the model on.
fn check_end(known: &Known, end: &InputEnd, sum: &mut i64, made: Revision) -> Result<(), String> {
    let Known { kind, text, .. } = known;
    let should = expected(kind, text, *sum);
    match (&end.outcome, &should) {
        (Outcome::DeadLettered { reason: DeadLetterReason::KilledHost { .. }, .. }, _)
        | (Outcome::DeadLettered { .. }, Expected::DeadLetter) => Ok(()),
        (Outcome::Committed { reply, revision, .. }, _) if *revision == made => {
            match (&reply.outcome, should) {
                (ReplyOutcome::Ok(bytes), Expected::Sum(next)) if bytes == next.to_string().as_bytes() => {
                    *sum = next;
                    Ok(())
                }
                (ReplyOutcome::Refused { .. }, Expected::Refusal) => Ok(()),
                (other, should) => Err(format!("`{text}` on {sum} must come to {should:?} and is {other:?}")),
            }
        }
        (other, should) => Err(format!("`{text}` on {sum} must come to {should:?} and ended as {other:?}")),
    }
}
