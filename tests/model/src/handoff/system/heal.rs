//! Healing: no fault happens any more, all processes are up, and whoever has something to do does it. What is then not over never
//! will be.

use super::{Action, Handoffs, State};

/// Steps after which something goes round in a circle.
const STEPS_MAX: usize = 200;

impl Handoffs {
    /// The state that is come to without faults. `None` when there is no end to it.
    pub fn healed(&self, state: &State) -> Option<State> {
        let mut state = state.clone();
        let mut turn = 0;
        for _ in 0..STEPS_MAX {
            let Some(action) = self.next_in_health(&state, turn) else { return Some(state) };
            turn += usize::from(matches!(action, Action::Settle(..)));
            self.step(&mut state, action)?;
        }
        None
    }

    /// What happens next when nothing goes wrong: first whoever is down comes back, then what is under way goes on, then what
    /// nobody works at is settled, by each in its turn, and at last somebody takes the agent.
    fn next_in_health(&self, state: &State, turn: usize) -> Option<Action> {
        let numbers = || 0..self.bounds.hosts;
        if let Some(down) = numbers().find(|host| !state.host(*host).is_up) {
            return Some(Action::Restart(down));
        }
        if let Some(dead) = numbers().find(|host| state.store(*host).session_of(*host).is_none()) {
            return Some(Action::Join(dead));
        }
        if state.stray.is_some() {
            return Some(Action::Arrive);
        }
        for host in numbers() {
            if let Some(task) = state.host(host).tasks.first() {
                return Some(match task.call {
                    None => Action::Step(host, 0),
                    Some((_, None)) => Action::Handle(host, 0),
                    Some((_, Some(_))) => Action::Receive(host, 0),
                });
            }
        }
        let mut actions = Vec::new();
        for host in numbers() {
            self.host_actions(state, host, &mut actions);
        }
        let changes = |action: &Action| {
            let mut after = state.clone();
            self.step(&mut after, *action).is_some() && after != *state
        };
        let settles = actions.iter().copied().filter(|it| matches!(it, Action::Settle(..)) && changes(it));
        let settles: Vec<_> = settles.collect();
        // Whoever asks somebody that has not decided yet asks again: nobody may wait for its turn for ever.
        let settle = settles.get(turn % settles.len().max(1)).copied();
        settle.or_else(|| {
            let own = actions.iter().copied().find(|it| matches!(it, Action::Own(_)));
            own.filter(|_| state.hosts.iter().all(|host| host.guest.is_none()))
        })
    }
}
