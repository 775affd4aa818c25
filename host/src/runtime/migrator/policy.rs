//! Who may come here: the target's policy. It is judged before anything of the agent is here, and before it stops where it is.

use std::fmt;
use std::str::FromStr;

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, HostId};
use godwit_core::identity::{EntityPublicKey, KnownAs};
use godwit_core::migration::Refusal;
use godwit_core::migration::recovery::welcome;
use godwit_core::placement::Wants;
use godwit_core::spec::PluginInfo;

use super::super::Runtime;
use super::super::wire::{MigrationAnswer, Reservation};
use super::target::{not_ready, refused_for, unwelcome};

/// Which agents may come by migration. Where there are such rules, an agent comes that one of them lets in.
///
/// As text `PLUGIN` or `PLUGIN@HOST`: `any`, `stored` or a plugin's digest, from any peer or from the host of this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrivalRule {
    /// By what they run.
    pub plugin: PluginRule,
    /// By the host that they come from; any peer, when nothing is said.
    pub from: Option<HostId>,
}

/// What agents run that may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginRule {
    /// Anything.
    Any,
    /// What has been loaded into the store here already.
    Stored,
    /// This component.
    Digest(Digest),
}

impl ArrivalRule {
    fn lets_in(&self, from: HostId, plugin: Digest, is_stored: bool) -> bool {
        let is_from = self.from.is_none_or(|host| host == from);
        is_from
            && match self.plugin {
                PluginRule::Any => true,
                PluginRule::Stored => is_stored,
                PluginRule::Digest(digest) => digest == plugin,
            }
    }
}

impl FromStr for ArrivalRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (plugin, host) = text.split_once('@').map_or((text, None), |(plugin, host)| (plugin, Some(host)));
        let plugin = match plugin {
            "any" => PluginRule::Any,
            "stored" => PluginRule::Stored,
            digest => PluginRule::Digest(
                digest
                    .parse()
                    .map_err(|_| "is not any, stored or a plugin's digest, each with @KEY or without")?,
            ),
        };
        let from = host.map(str::parse).transpose().map_err(|_| "does not name a host's key behind the @")?;
        Ok(Self { plugin, from })
    }
}

impl fmt::Display for ArrivalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.plugin {
            PluginRule::Any => write!(f, "any"),
            PluginRule::Stored => write!(f, "stored"),
            PluginRule::Digest(digest) => write!(f, "{digest}"),
        }?;
        self.from.map_or(Ok(()), |host| write!(f, "@{host}"))
    }
}

impl Runtime {
    /// # Errors
    /// Why not.
    pub(super) async fn may_take(
        &self,
        from: HostId,
        agent: &AgentId,
        reservation: &Reservation,
        has_plugin: bool,
    ) -> Result<(), MigrationAnswer> {
        let Reservation { spec, residency, plugin, .. } = reservation;
        let wants = Wants { residency: residency.clone(), ..Wants::of(spec, &Default::default()) };
        self.may_come((from, agent), (plugin, has_plugin), &wants)
            .map_err(|(why, reason)| refused_for(why, reason))?;
        self.check_name(agent, reservation).await
    }

    /// Whether an agent of this plugin, or a copy of it, may come here from a host.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::runtime) fn may_come(
        &self,
        (from, agent): (HostId, &AgentId),
        (plugin, has_plugin): (&PluginInfo, bool),
        wants: &Wants,
    ) -> Result<(), (Refusal, String)> {
        if self.inner().takes_only_expected && !self.inner().migrator.expected.has(agent, from) {
            let why = "this host takes only agents that it expects: POST /v1/expected-migrations there";
            return Err((Refusal::Policy, why.to_owned()));
        }
        let (rules, digest) = (&self.inner().arrival_rules, plugin.digest);
        if !rules.is_empty() && !rules.iter().any(|rule| rule.lets_in(from, digest, has_plugin)) {
            let why = format!(
                "no rule of this host (mesh.accept_plugins) lets plugin {digest} in from host {from}"
            );
            return Err((Refusal::Policy, why));
        }
        let grants = self.inner().operations.check_grants(&plugin.grants);
        grants.map_err(|reason| (Refusal::Grants, reason))?;
        let placed = self.inner().placement.may_take(wants);
        placed.map_err(|unfit| (unfit.refusal(), unfit.to_string()))
    }

    /// Whether the id is free for this agent: none lives here, none was here later, and those that were or are known from their
    /// deliveries are no others of its name.
    async fn check_name(&self, agent: &AgentId, reservation: &Reservation) -> Result<(), MigrationAnswer> {
        let store = &self.inner().store;
        let row = store.agent(agent).await.map_err(not_ready)?;
        let Reservation { token, generation, is_shared, .. } = *reservation;
        welcome(row.as_ref().map(|row| row.seat()).as_ref(), token, is_shared).map_err(unwelcome)?;
        if is_shared {
            return Ok(());
        }
        let hash = reservation.public_key.map(EntityPublicKey::origin_hash);
        let given = KnownAs { hash, generation, token };
        let heard = store.heard_of(agent).await.map_err(not_ready)?;
        let mut known =
            row.iter().map(|row| row.known_as()).chain(heard.iter().map(|heard| heard.known_as()));
        match known.find(|known| known.is_namesake(&given)) {
            None => Ok(()),
            Some(KnownAs { hash, .. }) => {
                let other = hash.map(|hash| hash.to_string()).unwrap_or_default();
                let why = format!(
                    "another agent of the name {agent} is known here, whose key has the hash {other}"
                );
                Err(refused_for(Refusal::Exists, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written_and_let_in_what_they_name() {
        let (one, other) = (HostId([1; 32]), HostId([2; 32]));
        let (plugin, foreign) = (Digest([3; 32]), Digest([4; 32]));
        let cases = [
            ("any".to_owned(), [true, true, true]),
            ("stored".to_owned(), [true, false, true]),
            (plugin.to_string(), [true, false, true]),
            (format!("any@{one}"), [true, true, false]),
            (format!("{plugin}@{one}"), [true, false, false]),
        ];
        for (text, expected) in cases {
            let rule: ArrivalRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
            let asked = [(one, plugin, true), (one, foreign, false), (other, plugin, true)];
            assert_eq!(
                asked.map(|(from, plugin, stored)| rule.lets_in(from, plugin, stored)),
                expected,
                "{text}"
            );
        }
        for wrong in ["", "some", "any@", "any@host-a", "0123"] {
            wrong.parse::<ArrivalRule>().unwrap_err();
        }
    }
}
