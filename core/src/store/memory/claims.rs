//! Claims of ids, by hosts that are about to make agents of them.

use std::collections::BTreeMap;

use crate::id::{AgentId, ClaimId, HostId};
use crate::limits::CLAIM_MAX;
use crate::store::error::StoreError;

/// Each claim, and when it runs out, wall clock.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<(AgentId, HostId), (ClaimId, u64)>);

impl Claims {
    pub(super) fn claim(&mut self, agent: &AgentId, host: HostId, claim: ClaimId, wall_ms: u64) {
        self.0.retain(|_, (_, until)| *until > wall_ms);
        self.0.insert((agent.clone(), host), (claim, wall_ms + CLAIM_MAX.as_millis() as u64));
    }

    pub(super) fn yield_to(&mut self, agent: &AgentId, to: HostId, wall_ms: u64) -> Option<HostId> {
        let of_agent = (agent.clone(), HostId([0; 32]))..=(agent.clone(), HostId([0xff; 32]));
        let standing = self.0.range(of_agent).find(|(_, (_, until))| *until > wall_ms);
        let lowest = standing.map(|((_, host), _)| *host).filter(|host| *host < to);
        if lowest.is_none() {
            self.0.retain(|(claimed, host), _| claimed != agent || *host == to);
        }
        lowest
    }

    /// Uses a claim up, if one is asked for.
    pub(super) fn take(
        &mut self,
        agent: &AgentId,
        claim: Option<ClaimId>,
        wall_ms: u64,
    ) -> Result<(), StoreError> {
        let Some(claim) = claim else { return Ok(()) };
        let found = self.0.iter().find(|((claimed, _), (id, _))| claimed == agent && *id == claim);
        let found = found.filter(|(_, (_, until))| *until > wall_ms).map(|(key, _)| key.clone());
        self.0.remove(&found.ok_or(StoreError::Unclaimed)?);
        Ok(())
    }
}
