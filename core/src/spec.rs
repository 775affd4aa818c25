//! Specs: what an agent is made of. Immutable; a change makes a new spec revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::SpecRevision;
use crate::limits::{
    CONFIG_BYTES_MAX, GuestLimits, INSTRUCTIONS_MAX, LABELS_MAX, PREFERENCES_MAX, SILENT_INTENTS_MAX,
    TEXT_BYTES_MAX,
};

/// What an agent runs and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The component, by digest of its bytes.
    pub plugin: Digest,
    /// What `wasi:config/store` answers.
    pub config: BTreeMap<String, String>,
    /// What the guest may take.
    pub limits: GuestLimits,
    /// Requests of other agents about these intents are queued as context and wake nobody.
    pub silent_intents: BTreeSet<String>,
    /// What a commit writes of the guest's state.
    pub durability: Durability,
    /// Who may submit inputs.
    pub addressability: Addressability,
    /// For people; empty when it has none.
    pub display_name: String,
    /// What the agent should know of its surroundings: text of the operator's, often JSON; empty when there is none.
    pub context: String,
    /// What the agent is told to do, in order.
    pub instructions: Vec<String>,
    /// The first input of each generation; empty when there is none.
    pub initial_message: String,
    /// What a host must offer to be given the agent: names and values of its capabilities. It is looked at when the agent is
    /// created and when it is to move; who has it keeps it. Hosts of one store take over from each other whatever they offer.
    pub requires: BTreeMap<String, String>,
    /// What a host should rather offer when the agent is to move, the most wanted first: each is met by a host that offers all
    /// of it. None keeps an agent from anywhere.
    pub prefers: Vec<BTreeMap<String, String>>,
}

/// Begins the names of what the host itself puts into an agent's configuration.
pub const RESERVED_CONFIG: &str = "godwit.";

impl Spec {
    /// A spec of a plugin with nothing configured.
    pub fn new(plugin: Digest) -> Self {
        Self {
            plugin,
            config: BTreeMap::new(),
            limits: GuestLimits::default(),
            silent_intents: BTreeSet::new(),
            durability: Durability::default(),
            addressability: Addressability::default(),
            display_name: String::new(),
            context: String::new(),
            instructions: Vec::new(),
            initial_message: String::new(),
            requires: BTreeMap::new(),
            prefers: Vec::new(),
        }
    }

    /// What `wasi:config/store` answers: the configuration, and what else the agent is told, under `godwit.display-name`,
    /// `godwit.context` and `godwit.instructions.N` (N from 0). What is empty is not there.
    pub fn guest_config(&self) -> BTreeMap<String, String> {
        let mut config = self.config.clone();
        for (name, text) in [("display-name", &self.display_name), ("context", &self.context)] {
            if !text.is_empty() {
                config.insert(format!("{RESERVED_CONFIG}{name}"), text.clone());
            }
        }
        for (position, text) in self.instructions.iter().enumerate() {
            config.insert(format!("{RESERVED_CONFIG}instructions.{position}"), text.clone());
        }
        config
    }
}

/// What somebody wants a spec to be, but for the plugin. What is `None` stays as it is; in a new agent it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpecPatch {
    /// What `wasi:config/store` answers.
    pub config: Option<BTreeMap<String, String>>,
    /// Intents of peer requests that wake nobody.
    pub silent_intents: Option<BTreeSet<String>>,
    /// What commits write.
    pub durability: Option<Durability>,
    /// Who may submit inputs.
    pub addressability: Option<Addressability>,
    /// For people.
    pub display_name: Option<String>,
    /// What the agent should know.
    pub context: Option<String>,
    /// What it is told to do.
    pub instructions: Option<Vec<String>>,
    /// The first input of each generation.
    pub initial_message: Option<String>,
    /// What a host must offer.
    pub requires: Option<BTreeMap<String, String>>,
    /// What a host should rather offer.
    pub prefers: Option<Vec<BTreeMap<String, String>>>,
}

impl SpecPatch {
    /// The spec with what the patch says.
    #[must_use]
    pub fn apply(self, spec: &Spec) -> Spec {
        let spec = spec.clone();
        Spec {
            config: self.config.unwrap_or(spec.config),
            silent_intents: self.silent_intents.unwrap_or(spec.silent_intents),
            durability: self.durability.unwrap_or(spec.durability),
            addressability: self.addressability.unwrap_or(spec.addressability),
            display_name: self.display_name.unwrap_or(spec.display_name),
            context: self.context.unwrap_or(spec.context),
            instructions: self.instructions.unwrap_or(spec.instructions),
            initial_message: self.initial_message.unwrap_or(spec.initial_message),
            requires: self.requires.unwrap_or(spec.requires),
            prefers: self.prefers.unwrap_or(spec.prefers),
            plugin: spec.plugin,
            limits: spec.limits,
        }
    }

    /// Refuses what is larger than a spec may be, or not in its form.
    ///
    /// # Errors
    /// `SpecError`: which part, and its bound.
    pub fn check(&self) -> Result<(), SpecError> {
        let nothing = BTreeMap::new();
        let config = self.config.as_ref().unwrap_or(&nothing);
        if let Some(key) = config.keys().find(|key| key.starts_with(RESERVED_CONFIG)) {
            return Err(SpecError::Reserved { key: key.clone() });
        }
        let said: Vec<&String> = [&self.context, &self.initial_message].into_iter().flatten().collect();
        let said = said.into_iter().chain(self.instructions.iter().flatten()).map(String::len).sum::<usize>();
        let config: usize = config.iter().map(|(key, value)| key.len() + value.len()).sum();
        within("config, context, instructions and initial message", config + said, CONFIG_BYTES_MAX)?;
        within("instructions", self.instructions.iter().flatten().count(), INSTRUCTIONS_MAX)?;
        within("display name", self.display_name.iter().map(String::len).sum(), TEXT_BYTES_MAX)?;
        within("silent intents", self.silent_intents.iter().flatten().count(), SILENT_INTENTS_MAX)?;
        for intent in self.silent_intents.iter().flatten() {
            named("silent intent", intent)?;
        }
        within("preferences", self.prefers.iter().flatten().count(), PREFERENCES_MAX)?;
        for preference in self.prefers.iter().flatten() {
            check_pairs("preference", preference)?;
        }
        check_pairs("requirement", self.requires.as_ref().unwrap_or(&nothing))
    }
}

impl From<Spec> for SpecPatch {
    /// The patch that makes any spec this one, but for plugin and limits.
    fn from(spec: Spec) -> Self {
        Self {
            config: Some(spec.config),
            silent_intents: Some(spec.silent_intents),
            durability: Some(spec.durability),
            addressability: Some(spec.addressability),
            display_name: Some(spec.display_name),
            context: Some(spec.context),
            instructions: Some(spec.instructions),
            initial_message: Some(spec.initial_message),
            requires: Some(spec.requires),
            prefers: Some(spec.prefers),
        }
    }
}

/// Refuses labels, or other named texts, that are too many or too long.
///
/// # Errors
/// `SpecError`: which, and its bound.
pub fn check_pairs(what: &'static str, pairs: &BTreeMap<String, String>) -> Result<(), SpecError> {
    within(what, pairs.len(), LABELS_MAX)?;
    for (name, value) in pairs {
        named(what, name)?;
        within(what, value.len(), TEXT_BYTES_MAX)?;
    }
    Ok(())
}

fn within(what: &'static str, is: usize, max: usize) -> Result<(), SpecError> {
    if is <= max { Ok(()) } else { Err(SpecError::TooLarge { what, is, max }) }
}

fn named(what: &'static str, name: &str) -> Result<(), SpecError> {
    if name.is_empty() { Err(SpecError::Nameless { what }) } else { within(what, name.len(), TEXT_BYTES_MAX) }
}

/// What is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Too many, or too long.
    #[error("{what}: {is} is over the limit of {max}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// How many, or how many bytes.
        is: usize,
        /// Its bound.
        max: usize,
    },
    /// A name is needed.
    #[error("a {what} without a name")]
    Nameless {
        /// Which part.
        what: &'static str,
    },
    /// The host gives these itself.
    #[error("config {key}: names that begin with `{RESERVED_CONFIG}` are the host's own")]
    Reserved {
        /// Which.
        key: String,
    },
}

/// Who may submit inputs to an agent. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressability {
    /// Everybody.
    #[default]
    Addressable,
    /// Other agents, and what is dispatched; not who sends or asks from outside.
    Internal,
}

impl Addressability {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Addressable, Self::Internal];

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Addressable => "addressable",
            Self::Internal => "internal",
        }
    }
}

/// What a commit writes of the guest's state. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Durability {
    /// Snapshots while they are small, else the journal.
    #[default]
    Auto,
    /// The whole state at each boundary.
    Snapshot,
    /// What the turn got from outside, so that it can be run again; a snapshot when running the tail again would cost more
    /// than one.
    Journal,
}

impl Durability {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Snapshot, Self::Journal];

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Snapshot => "snapshot",
            Self::Journal => "journal",
        }
    }
}

/// A new spec revision of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecChange {
    /// Its number: the one after the current one.
    pub revision: SpecRevision,
    /// What the agent is made of from here.
    pub spec: Spec,
}

/// A plugin as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// BLAKE3 of the component's bytes.
    pub digest: Digest,
    /// From the manifest or the upload.
    pub name: String,
    /// From the manifest or the upload.
    pub version: String,
    /// Import names of the component, sorted.
    pub imports: Vec<String>,
    /// Capabilities granted beyond what stays in the store, sorted.
    pub grants: Vec<String>,
    /// Size of the component in bytes.
    pub size: u64,
    /// Wall time of loading in Unix milliseconds.
    pub loaded_at_ms: u64,
    /// Inputs of its agents that this store gave up because each time they ran, the host's process died: it is suspected. It
    /// counts from when the plugin was loaded, in this store alone.
    #[serde(skip)]
    pub killed_hosts: u64,
}
