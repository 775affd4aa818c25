//! Pure: warm copies of agents on other hosts, and who may take one up.
//!
//! A label of the agent's own (`LABEL`) names the host that keeps a copy of its rows. The copy is fed in rounds: after each it
//! is the agent as of one change number. It is no agent until it is promoted, and then it has a token above all that its source could
//! still give. What the source did behind the last round is lost then; the source, when it comes back, finds the token and runs nothing.
//!
//! ```text
//!  source: label set -> whole copy -> rounds of what changed ... -> label gone: the copy goes
//!  standby:             copy, as of change n ............. promote: the agent, token raised by an epoch
//!  source again: what do you have?  -> a token above mine: broken as forked;  the copy: it runs;  no answer: it stays held
//! ```

use std::collections::BTreeMap;

use crate::id::{FencingToken, Generation, HostId, IdError, MigrationId, Revision};
use crate::store::Home;

/// The label that gives its agent a standby; its value is the key of the host that keeps the copy.
pub const LABEL: &str = "standby";

/// The host that keeps a copy of an agent with these labels.
///
/// # Errors
/// When the label names no host.
pub fn of(labels: &BTreeMap<String, String>) -> Result<Option<HostId>, IdError> {
    labels.get(LABEL).map(|key| key.parse()).transpose()
}

/// A copy as its standby has it: the agent as of one change number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The session that feeds it.
    pub session: MigrationId,
    /// By which host.
    pub source: HostId,
    /// The source's token at the last round.
    pub token: FencingToken,
    /// The agent's generation then.
    pub generation: Generation,
    /// The head's revision then.
    pub revision: Revision,
    /// The change number that it is as of.
    pub change: u64,
}

/// What a round brings a copy to, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The session.
    pub session: MigrationId,
    /// From which host.
    pub source: HostId,
    /// The source's token.
    pub token: FencingToken,
    /// The change number that it builds on: what has arrived of the session.
    pub builds_on: u64,
    /// The change number that it leads to.
    pub change: u64,
}

/// What becomes of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is applied.
    Applies,
    /// It was applied before.
    Known,
    /// It builds on something else than what is here: a whole copy is needed.
    Behind,
    /// The agent lives on here, or went on from here, under a higher token: there is nothing to copy.
    Superseded(FencingToken),
    /// Another host feeds a copy that is no older.
    Another(HostId),
}

/// Judges a round. `row` is what the standby's store has of the agent itself, `copy` the copy that is complete, and `arrived` what has
/// come of the round's session.
pub fn judge(
    step: &Step,
    row: Option<(&Home, FencingToken)>,
    copy: Option<&Standing>,
    arrived: u64,
) -> Verdict {
    if let Some(token) = superseded(step.token, row) {
        return Verdict::Superseded(token);
    }
    if let Some(other) = another(step.source, step.token, copy) {
        return Verdict::Another(other);
    }
    match copy.filter(|copy| copy.session == step.session) {
        Some(copy) if copy.change >= step.change => Verdict::Known,
        _ if arrived == step.builds_on => Verdict::Applies,
        _ => Verdict::Behind,
    }
}

/// The token that tells a host, which has an agent under `token`, that the agent lives on elsewhere: only where the agent itself is
/// or was later, since what a copy says is a peer's word.
pub fn superseded(token: FencingToken, row: Option<(&Home, FencingToken)>) -> Option<FencingToken> {
    // A bound copy of a migration is not decided: its source's own row says what comes of it.
    let decided = row.filter(|(home, _)| !matches!(home, Home::Prepared { .. }));
    decided.map(|(_, known)| known).filter(|known| *known > token)
}

/// The host that feeds a copy here, if that is another one than asks, and not an earlier home.
pub fn another(asker: HostId, token: FencingToken, copy: Option<&Standing>) -> Option<HostId> {
    copy.filter(|copy| copy.source != asker && copy.token >= token).map(|copy| copy.source)
}

/// Whether a copy is of no use any more: the agent is here, or was later than it.
pub fn is_stale(copy: &Standing, row: Option<(&Home, FencingToken)>) -> bool {
    match row {
        None | Some((Home::Prepared { .. }, _)) => false,
        Some((Home::Moved(tombstone), _)) => tombstone.token > copy.token,
        Some((Home::Here | Home::HandingOff { .. }, _)) => true,
    }
}

/// What one peer says of where an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is at home there, under this token.
    Here(HostId, FencingToken),
    /// It is not there.
    Nothing,
    /// It went from there to a host, or comes there from it, under this token.
    Moved(HostId, FencingToken),
    /// No answer, or it is no peer that could be asked.
    Silent(HostId),
}

/// How a copy becomes the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promotion {
    /// The agent lives: it moves here, and nothing is lost.
    Move(HostId),
    /// The copy is taken up.
    TakeUp,
    /// These hosts may have it, and do not say so.
    InDoubt(Vec<HostId>),
}

/// What is to be done when a copy is to be promoted, by what all peers say. A host that runs the agent is believed also when the
/// copy's source is forced out: nobody takes up a copy of an agent that is seen to live. One that has moved since the copy, and is seen
/// nowhere, is on its way.
pub fn promotion(copy: &Standing, said: &[Said], is_forced: bool) -> Promotion {
    let living = said.iter().filter_map(|said| match said {
        Said::Here(host, token) if *token >= copy.token => Some((*token, *host)),
        _ => None,
    });
    if let Some((_, host)) = living.max() {
        return Promotion::Move(host);
    }
    let mut silent: Vec<_> = said
        .iter()
        .filter_map(|said| match said {
            Said::Silent(host) => Some(*host),
            Said::Moved(host, token) if *token > copy.token => Some(*host),
            _ => None,
        })
        .collect();
    silent.sort_unstable();
    silent.dedup();
    if silent.is_empty() || is_forced { Promotion::TakeUp } else { Promotion::InDoubt(silent) }
}

#[cfg(test)]
mod tests;
