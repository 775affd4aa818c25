//! What must be true when the faults are over and all is quiet.

use godwit_core::digest::Digest;
use godwit_core::id::AgentId;
use godwit_core::receipt::Receipt;
use godwit_core::store::StoredInput;

use super::Judge;

impl Judge {
    /// Inputs without an end, and outputs that have neither arrived nor ended.
    pub fn unfinished(&self) -> Vec<String> {
        let mut unfinished = Vec::new();
        for (name, agent) in &self.agents {
            let open = agent.open.iter().map(|(seq, input)| {
                let text = agent.inputs.get(input).map_or("", |known| known.text.as_str());
                format!("input {seq} of {name}: {text}")
            });
            unfinished.extend(open);
            for (destination, sent) in &agent.sent {
                let waiting =
                    sent.iter().zip(1..).filter(|(sent, _)| !sent.is_heard && !sent.is_undeliverable);
                unfinished
                    .extend(waiting.map(|(_, number)| format!("output {number} of {name} to {destination}")));
            }
        }
        unfinished
    }

    /// All that the store keeps of an agent, against what was seen.
    pub fn check_rows(&mut self, name: &AgentId, inputs: &[StoredInput], receipts: &[Receipt]) {
        let Some(agent) = self.agents.get(name) else { return };
        let mut wrong = None;
        if inputs.len() != agent.inputs.len() {
            wrong = Some(format!(
                "I1: {name} has {} inputs and {} were accepted",
                inputs.len(),
                agent.inputs.len()
            ));
        }
        for stored in inputs {
            let is_as_known = agent.inputs.get(&stored.input.id).is_some_and(|known| {
                known.text.as_bytes() == stored.input.payload && known.outcome == stored.outcome
            });
            if !is_as_known {
                wrong = Some(format!(
                    "I1: input {} of {name} is not as it was accepted or ended",
                    stored.input.id
                ));
            }
        }
        let mut head = Digest::ZERO;
        for receipt in receipts {
            if receipt.parent != head {
                wrong = Some(format!("I3: receipt {} of {name} does not follow", receipt.revision));
            }
            head = receipt.digest();
        }
        if head != agent.head {
            wrong = Some(format!("I3: the last receipt of {name} is not the one that was committed last"));
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }
}
