//! Specs: what an agent is made of. Immutable; a change makes a new spec revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
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
}
