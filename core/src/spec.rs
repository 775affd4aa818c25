//! Specs: what an agent is made of. Immutable; a change makes a new spec revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::SpecRevision;
use crate::limits::GuestLimits;

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
}

impl Spec {
    /// A spec of a plugin with nothing configured.
    pub fn new(plugin: Digest) -> Self {
        Self {
            plugin,
            config: BTreeMap::new(),
            limits: GuestLimits::default(),
            silent_intents: BTreeSet::new(),
            durability: Durability::default(),
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
