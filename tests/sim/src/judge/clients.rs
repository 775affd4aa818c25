//! What clients were told.

use godwit_core::id::{AgentId, InputId, Revision};
use godwit_core::input::Outcome;

use super::Judge;

impl Judge {
    /// A client was told that its input has ended so.
    pub fn told_end(&mut self, agent: &AgentId, input: InputId, outcome: &Outcome) {
        self.counts.told += 1;
        let known = self.agent(agent).inputs.get(&input);
        if known.and_then(|known| known.outcome.as_ref()) != Some(outcome) {
            let known = known.map(|known| &known.outcome);
            let what = format!(
                "I5: a client was told that {input} of {agent} ended as {outcome:?}; it is {known:?}"
            );
            self.fail(what);
        }
    }

    /// A client was told that its input is accepted.
    pub fn told_accepted(&mut self, agent: &AgentId, input: InputId) {
        self.counts.told += 1;
        if !self.agent(agent).inputs.contains_key(&input) {
            self.fail(format!("I1: a client was told that {input} of {agent} is accepted, and it is not"));
        }
    }

    /// A client was told that its input is not accepted.
    pub fn told_refused(&mut self, agent: &AgentId, input: InputId, why: &str) {
        self.counts.told += 1;
        if self.agent(agent).inputs.contains_key(&input) {
            self.fail(format!(
                "I1: a client was told that {input} of {agent} is refused ({why}), and it is accepted"
            ));
        }
        self.refused.insert(input, why.to_owned());
    }

    /// The newest revision of an agent.
    pub fn revision(&self, agent: &AgentId) -> Revision {
        self.sum_at(agent, Revision(0)).1
    }

    /// A client's query, begun at revision `since`, was answered.
    pub fn told_query(&mut self, agent: &AgentId, since: Revision, revision: Revision, answer: &str) {
        self.counts.told += 1;
        let (sum, newest) = self.sum_at(agent, revision);
        if revision < since || revision > newest {
            self.fail(format!(
                "I9: a query of {agent} was answered from revision {revision}, of {since} to {newest}"
            ));
        } else if sum.map(|sum| sum.to_string()).as_deref() != Some(answer) {
            self.fail(format!(
                "I9: {agent} at revision {revision} is {sum:?}, and a query was answered {answer}"
            ));
        }
    }
}
