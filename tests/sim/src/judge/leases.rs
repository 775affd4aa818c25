//! Sessions, tokens and owners.

use std::time::Duration;

use godwit_core::id::{AgentId, FencingToken, Incarnation};
use godwit_core::lease::Lease;
use godwit_core::store::{Owner, Session, SessionRequest};

use super::{Death, INCARNATIONS_MAX, Judge, Seen};

impl Judge {
    /// A host has joined.
    pub fn joined(&mut self, now: Duration, request: &SessionRequest, session: &Session, ttl: Duration) {
        let incarnation = self.of_here(session.incarnation);
        for seen in self.sessions.values_mut() {
            if seen.host == request.host && seen.death.is_none() {
                seen.death = Some(Death::Replaced);
            }
        }
        let of_store = self.of_here(Incarnation(0))..self.of_here(Incarnation(INCARNATIONS_MAX));
        if self.sessions.range(of_store).next_back().is_some_and(|(last, _)| *last >= incarnation) {
            self.fail(format!("incarnation {} is not above all before it", session.incarnation));
        }
        let seen = Seen { host: request.host, ttl, renewed: now, death: None };
        self.sessions.insert(incarnation, seen);
    }

    /// A heartbeat was taken.
    pub fn renewed(&mut self, now: Duration, incarnation: Incarnation) {
        let here = self.of_here(incarnation);
        match self.sessions.get_mut(&here) {
            Some(seen) if seen.death.is_none() => seen.renewed = now,
            _ => self.fail(format!("I7: a heartbeat revives the dead session {incarnation}")),
        }
    }

    /// Sessions were buried.
    pub fn buried(&mut self, now: Duration, dead: &[Incarnation]) {
        for incarnation in dead {
            let here = self.of_here(*incarnation);
            let Some(seen) = self.sessions.get_mut(&here) else {
                return self.fail(format!("session {incarnation} was buried, and never joined"));
            };
            if seen.death.is_none() && now < seen.renewed + seen.ttl {
                return self.fail(format!("I7: session {incarnation} was buried while it lived"));
            }
            seen.death.get_or_insert(Death::Buried);
        }
    }

    /// A host has left.
    pub fn left(&mut self, incarnation: Incarnation) {
        let incarnation = self.of_here(incarnation);
        if let Some(seen) = self.sessions.get_mut(&incarnation)
            && seen.death.is_none()
        {
            seen.death = Some(Death::Left);
            for agent in self.agents.values_mut().filter(|agent| agent.holder == Some(incarnation)) {
                agent.holder = None;
            }
        }
    }

    fn is_dead(&self, incarnation: Incarnation) -> bool {
        self.sessions.get(&incarnation).is_none_or(|seen| seen.death.is_some())
    }

    /// An agent was granted, or its lease was shown to its holder.
    pub fn acquired(&mut self, incarnation: Incarnation, lease: &Lease) {
        let (agent, token) = (&lease.agent, lease.token);
        let is_own = lease.incarnation == incarnation;
        let incarnation = self.of_here(incarnation);
        if !is_own || self.is_dead(incarnation) {
            return self.fail(format!("I7: {agent} was granted to {incarnation}, which is dead or another"));
        }
        let known = self.agent(agent);
        let (before, highest) = (known.holder, known.token);
        if before == Some(incarnation) && token == highest {
            return;
        }
        if token <= highest {
            return self.fail(format!("I4: {agent} was granted under token {token} after {highest}"));
        }
        if let Some(holder) = before {
            if !self.is_dead(holder) {
                return self.fail(format!("I7: {agent} was taken from {holder}, whose session lives"));
            }
            if self.sessions.get(&holder).and_then(|seen| seen.death) == Some(Death::Buried) {
                self.counts.takeovers += 1;
            }
        }
        self.grant(agent, token, Some(incarnation));
    }

    /// A target has taken an agent up under the token that its source granted, or above it.
    pub fn adopted(&mut self, incarnation: Incarnation, lease: &Lease) {
        let (holder, agent, token) = (self.of_here(incarnation), &lease.agent, lease.token);
        let known = self.agent(agent);
        let (before, highest) = (known.holder, known.token);
        if (before, highest) == (Some(holder), token) {
            return;
        }
        if before.is_some_and(|before| !self.is_dead(before)) {
            return self.fail(format!("I7: {agent} was adopted under {token}, and {before:?} has it"));
        }
        if token < highest || !self.agent(agent).is_let_go {
            return self.fail(format!(
                "I7: {agent} was adopted under {token}, and was not let go, or is under {highest}"
            ));
        }
        self.agent(agent).is_let_go = false;
        self.grant(agent, token, Some(holder));
        self.count_move();
    }

    /// A source has let go of an agent: its commit point.
    pub fn let_go(&mut self, agent: &AgentId) {
        self.agent(agent).is_let_go = true;
    }

    /// The token was raised; `holder` has the agent from here on.
    pub(super) fn grant(&mut self, agent: &AgentId, token: FencingToken, holder: Option<Incarnation>) {
        let agent = self.agent(agent);
        agent.token = token;
        agent.holder = holder;
        if let Some(holder) = holder {
            agent.grants.insert(token, holder);
        }
    }

    /// The token was raised by a commit of its owner, which may have been made before.
    pub fn moved_on(&mut self, owner: &Owner, token: FencingToken, holder: Option<Incarnation>) {
        let holder = holder.map(|holder| self.of_here(holder));
        let known = self.agent(&owner.agent);
        if (known.token, known.holder) == (token, holder) {
            return;
        }
        self.passes(owner, "commit a state or a move");
        let highest = self.agent(&owner.agent).token;
        if token < highest {
            self.fail(format!("I4: the token of {} went from {highest} to {token}", owner.agent));
        }
        self.grant(&owner.agent, token, holder);
    }

    /// A fenced write was taken.
    pub(super) fn passes(&mut self, owner: &Owner, what: &str) {
        let Owner { agent, token, .. } = owner;
        let incarnation = self.of_here(owner.incarnation);
        let known = self.agent(agent);
        let (current, holder) = (known.token, known.holder);
        if current != *token || holder != Some(incarnation) {
            let has = holder.map_or("nobody".to_owned(), |holder| holder.to_string());
            self.fail(format!(
                "I4, I7: {incarnation} could {what} for {agent} under token {token}: {has} has it under {current}"
            ));
        } else if self.is_dead(incarnation) {
            self.fail(format!("I7: {incarnation} could {what} for {agent}, and its session is dead"));
        }
    }

    /// A fenced write that leaves everything else as it is was taken.
    pub fn passed(&mut self, owner: &Owner, what: &str) {
        self.passes(owner, what);
    }

    /// A guest has run a turn under a token, and its guard let it.
    pub fn guest_ran(&mut self, agent: &AgentId, token: FencingToken) {
        let incarnation = self.agent(agent).grants.get(&token).copied();
        let death =
            incarnation.and_then(|incarnation| self.sessions.get(&incarnation)).and_then(|seen| seen.death);
        // A session that was replaced or left may be unknown as dead to its host for a while; one that expired may not.
        if death == Some(Death::Buried) {
            self.fail(format!("I7: a guest of {agent} ran under token {token} after its session was buried"));
        }
    }

    /// Whether a session that lives and is renewed holds an agent.
    pub fn is_owned(&self, now: Duration, agent: &AgentId) -> bool {
        let holder = self.agents.get(agent).and_then(|agent| agent.holder);
        let holder = holder.and_then(|holder| self.sessions.get(&holder));
        holder.is_some_and(|seen| seen.death.is_none() && now < seen.renewed + seen.ttl)
    }
}
