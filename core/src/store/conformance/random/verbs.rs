//! Verbs of the life cycle in random sequences.

use super::Run;
use super::model::{Answer, Fate, Life, answer};
use crate::lifecycle::{LifecycleCommit, Verb};
use crate::store::Owner;
use crate::store::conformance::fixture::new_agent;
use crate::time::Clock;

impl Run {
    /// A verb that the state of the model allows, as a grant of the past.
    pub(super) async fn verb(&mut self, agent: usize) {
        let Some(desk) = self.grant(agent) else { return };
        let life = self.models[agent].life;
        let waits = self.models[agent].inputs.iter().any(|input| input.fate == Fate::Waiting);
        let (verb, next) = match (life, self.random.below(6)) {
            (Life::Deleted, _) => (Verb::Delete, Life::Deleted),
            (Life::Active | Life::Paused, 0) => (Verb::Pause, Life::Paused),
            (_, 0 | 1) => (Verb::Resume, Life::Active),
            (Life::Retiring | Life::Retired, 2) => (Verb::Drained, Life::Retired),
            (_, 2) => (Verb::Retire, Life::Retiring),
            (Life::Paused, 3) => (Verb::Reset, Life::Paused),
            (_, 3) => (Verb::Reset, Life::Active),
            (Life::Retired, _) => (Verb::Resume, Life::Active),
            (_, 4) => (Verb::Respawn, life),
            (_, _) => (Verb::Delete, Life::Deleted),
        };
        let commit = LifecycleCommit::plan(&desk.owner.agent, &life.stored(), &verb, 7).unwrap();
        let answered = self.store().commit_lifecycle(&desk.owner, commit.clone()).await;
        let is_raised = self.is_raised_already(agent, &desk.owner, &verb, next);
        let expected = match verb {
            _ if is_raised => Answer::Done,
            _ if !self.is_current(agent, &desk.owner) => Answer::Fenced,
            Verb::Drained if waits => Answer::Conflict,
            _ => Answer::Done,
        };
        assert_eq!(answer(answered.clone()), expected, "{}: {}", self.at, verb.name());
        let Ok(standing) = answered else { return };
        if is_raised {
            return;
        }
        if self.random.chance(20) {
            let again = self.store().commit_lifecycle(&desk.owner, commit).await;
            assert_eq!(again.map(|again| again.token), Ok(standing.token), "{}: repeated", self.at);
        }
        let model = &mut self.models[agent];
        model.life = next;
        if life == Life::Deleted {
            return;
        }
        let is_destructive = matches!(verb, Verb::Reset | Verb::Delete);
        if is_destructive {
            model.state.clear();
            model.timers.clear();
            model.journal.clear();
            model.kept = [0, 0];
            let now_ms = self.world.clock.wall_ms();
            for input in model.inputs.iter_mut().filter(|input| input.fate == Fate::Waiting) {
                (input.fate, input.ended_at_ms) = (Fate::Abandoned, Some(now_ms));
                input.is_ended_by_verb = true;
            }
        }
        if verb == Verb::Reset {
            model.begin_generation();
        }
        if is_destructive || verb == Verb::Respawn {
            model.token += 1;
        }
        match standing.lease {
            None => model.holder = None,
            Some(lease) if verb != Verb::Delete => {
                let number = model.holder.unwrap();
                self.grants[agent].push((number, self.sites[number].desk(lease).owner));
            }
            Some(lease) => panic!("{}: a deleted agent is held: {lease:?}", self.at),
        }
    }

    /// Whether the verb was done before, or what it would do: the token after the owner's is its own host's.
    fn is_raised_already(&self, agent: usize, owner: &Owner, verb: &Verb, next: Life) -> bool {
        let model = &self.models[agent];
        let generation = owner.generation.0 + u64::from(*verb == Verb::Reset);
        let holder = model.holder.map(|number| self.sites[number].incarnation);
        matches!(verb, Verb::Reset | Verb::Respawn)
            && (model.token, model.generation) == (owner.token.0 + 1, generation)
            && (model.life, holder) == (next, Some(owner.incarnation))
    }

    pub(super) async fn recreate(&mut self, agent: usize) {
        let answered = self.store().recreate(new_agent(super::AGENTS[agent], "plain")).await;
        let model = &mut self.models[agent];
        match model.life {
            Life::Deleted => {
                assert_eq!(answered, Ok(true), "{}", self.at);
                model.life = Life::Active;
                model.holder = None;
                model.token += 1;
                model.begin_generation();
            }
            Life::Active => assert_eq!(answered, Ok(false), "{}", self.at),
            _ => assert_eq!(answer(answered), Answer::Lifecycle, "{}", self.at),
        }
    }
}
