//! Making a restored backup usable.

use std::time::Duration;

use crate::event::{EventKind, NewEvent};
use crate::id::{AgentId, FencingToken, StoreEpoch};
use crate::lease::GrantCause;
use crate::lifecycle::{LifecycleCommit, SuspendReason, Verb};
use crate::store::agent::Home;
use crate::store::error::StoreError;
use crate::store::mark::{Restored, StoreMark};
use crate::store::memory::tables::{Tables, conflict};

impl Tables {
    pub(super) fn restore(
        &mut self,
        above: StoreMark,
        (boot, now_ms): (Duration, u64),
    ) -> Result<Restored, StoreError> {
        let found = self.mark();
        self.check_alone(boot)?;
        let epoch = StoreEpoch(found.epoch.max(above.epoch).0 + 1);
        let epochs = epoch.0 - found.epoch.0;
        let is_left = |home: &Home| !matches!(home, Home::Moved(_));
        let mut raised: Vec<(AgentId, Home, FencingToken)> = Vec::new();
        for (agent, rows) in self.agents.iter().filter(|(_, rows)| is_left(&rows.standing.home)) {
            let no_room =
                || conflict(format!("the token {} of agent {agent} has no room above", rows.standing.token));
            let token = rows.standing.token.raised(epochs).ok_or_else(no_room)?;
            let home = match rows.standing.home.clone() {
                Home::Prepared { migration, source, before, .. } => {
                    Home::Prepared { migration, source, token, before }
                }
                _ => Home::Here,
            };
            raised.push((agent.clone(), home, token));
        }
        self.begin_epoch(epoch, above);
        let event = NewEvent { agent: None, kind: EventKind::StoreRestored, at_ms: now_ms, data: Vec::new() };
        self.append([event.with("epoch", epoch)]);
        let agents = raised.len() as u64;
        for (agent, home, token) in raised {
            let is_here = home == Home::Here;
            let Some(before) = self.agents.get(&agent).map(|rows| self.seat(rows)) else { continue };
            let Some(rows) = self.agents.get_mut(&agent) else { continue };
            (rows.standing.home, rows.standing.token) = (home, token);
            rows.standing.holder = None;
            rows.standing.cause = GrantCause::Acquired;
            rows.skip_numbers(epochs);
            rows.update(|portable| {
                portable.next_event = portable.next_event.max(token.first_number());
            });
            if is_here {
                self.close_migrations(&agent, (None, &before), now_ms);
            }
            let Some(rows) = self.agents.get_mut(&agent) else { continue };
            let verb = Verb::Suspend(SuspendReason::Restored);
            // Retired and deleted agents run nothing as they are.
            if let Ok(commit) = LifecycleCommit::plan(&agent, &rows.portable().lifecycle, &verb, now_ms) {
                rows.update(|portable| portable.lifecycle = commit.next().clone());
                self.append(commit.events().iter().cloned());
            }
        }
        Ok(Restored { epoch, agents })
    }
}
