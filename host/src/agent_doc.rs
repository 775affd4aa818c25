//! What an agent is to be made of, as it is written down: in a request, or in a roster.

use std::collections::{BTreeMap, BTreeSet};

use godwit_core::spec::{Addressability, Durability, SpecPatch};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is left out is empty in a new agent, and stays as it is in one that is changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentDoc {
    /// `NAME`, `NAME@VERSION`, or a digest.
    pub plugin: String,
    /// What `wasi:config/store` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
    /// For people and selections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Requests of other agents about these are queued as context and wake nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_intents: Option<BTreeSet<String>>,
    /// The durability policy: `auto`, `snapshot` or `journal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// `addressable` or `internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressability: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the agent should know: a text, or anything that JSON can say, which becomes a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// What the agent is told to do, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Vec<String>>,
    /// The first input of each generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_message: Option<String>,
    /// What a host must offer (`host.capabilities`) to be given the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<BTreeMap<String, String>>,
    /// What a host should rather offer when the agent is to move, the most wanted first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefers: Option<Vec<BTreeMap<String, String>>>,
}

/// A word that is none of those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not one of {}", known.join(", "))]
pub struct UnknownWord {
    /// Of what.
    pub what: &'static str,
    /// The word.
    pub text: String,
    /// Those there are.
    pub known: Vec<&'static str>,
}

impl AgentDoc {
    /// What it says of the spec, but for the plugin.
    ///
    /// # Errors
    /// `UnknownWord` for a policy or an addressability that does not exist.
    pub fn patch(&self) -> Result<SpecPatch, UnknownWord> {
        Ok(SpecPatch {
            config: self.config.clone(),
            silent_intents: self.silent_intents.clone(),
            durability: named("policy", self.policy.as_deref(), &Durability::ALL, Durability::name)?,
            addressability: named(
                "addressability",
                self.addressability.as_deref(),
                &Addressability::ALL,
                Addressability::name,
            )?,
            display_name: self.display_name.clone(),
            context: self.context.as_ref().map(|context| match context {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
            instructions: self.instructions.clone(),
            initial_message: self.initial_message.clone(),
            requires: self.requires.clone(),
            prefers: self.prefers.clone(),
        })
    }
}

fn named<T: Copy>(
    what: &'static str,
    text: Option<&str>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<Option<T>, UnknownWord> {
    let Some(text) = text else { return Ok(None) };
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.map(Some).ok_or_else(|| UnknownWord {
        what,
        text: text.to_owned(),
        known: all.iter().map(|one| name(*one)).collect(),
    })
}
