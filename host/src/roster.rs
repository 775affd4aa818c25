//! Rosters: the agents and edges that there should be, as a file, a request, or an embedder says.
//!
//! ```toml
//! [[agents]]
//! id = "triage"
//! plugin = "counter@1.0.0"
//! labels = { team = "support" }
//!
//! [[agents]]
//! id = "ledger"
//! plugin = "ledger"
//! host = "left"                     # another host leaves it alone
//!
//! [[edges]]
//! between = ["triage", "ledger"]
//! ```
//! The members of an agent are those of `AgentDoc`, with `id` and perhaps `host`. As JSON it is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use godwit_core::edge::Pair;
use godwit_core::id::AgentId;
use godwit_core::limits::ROSTER_BYTES_MAX;
use godwit_core::time::sleep;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;

use crate::agent_doc::AgentDoc;

/// Agents of a roster.
pub const ROSTER_AGENTS_MAX: usize = 100_000;
/// How often a file is looked at for a change.
const FILE_POLL: Duration = Duration::from_secs(1);

/// The agents and edges that there should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// By id: each once.
    pub agents: BTreeMap<AgentId, RosterEntry>,
    /// Between agents of the roster, or of others.
    pub edges: BTreeSet<Pair>,
}

/// One agent of a roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RosterEntry {
    /// Its name.
    pub id: AgentId,
    /// Name, key or first digits of the key (8 or more) of the host that places it; whichever reads the roster, when
    /// nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What it is made of.
    #[serde(flatten)]
    pub doc: AgentDoc,
}

impl<'de> Deserialize<'de> for RosterEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::<String, Value>::deserialize(deserializer)?;
        let id = members.remove("id").ok_or_else(|| D::Error::missing_field("id"))?;
        let id: AgentId = serde_json::from_value(id).map_err(D::Error::custom)?;
        let of_agent = |error: serde_json::Error| D::Error::custom(format!("agent {id}: {error}"));
        let host = members.remove("host").map(serde_json::from_value).transpose().map_err(of_agent)?;
        let doc = serde_json::from_value(Value::Object(members)).map_err(of_agent)?;
        Ok(Self { id, host, doc })
    }
}

/// A roster as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RosterDoc {
    #[serde(default)]
    agents: Vec<RosterEntry>,
    #[serde(default)]
    edges: Vec<EdgeDoc>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeDoc {
    between: [AgentId; 2],
}

/// What is wrong with a roster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// It is not in its form.
    #[error("the roster can't be read: {reason}")]
    Malformed {
        /// What, and where.
        reason: String,
    },
    /// One agent is there twice.
    #[error("agent {agent} is in the roster twice: remove one of them")]
    Duplicate {
        /// Which.
        agent: AgentId,
    },
    /// It is larger than a roster may be.
    #[error("the roster has {is} {what}, and may have {max}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many there are.
        is: usize,
        /// How many there may be.
        max: usize,
    },
    /// Whoever should know does not say.
    #[error("the roster can't be had: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl Roster {
    /// Reads a roster from JSON.
    ///
    /// # Errors
    /// `Malformed`, `Duplicate`, `TooLarge`.
    pub fn from_json(text: &[u8]) -> Result<Self, RosterError> {
        check_size(text.len())?;
        let doc = serde_json::from_slice(text).map_err(|error| malformed(&error))?;
        Self::from_doc(doc)
    }

    /// Reads a roster from TOML.
    ///
    /// # Errors
    /// `Malformed`, `Duplicate`, `TooLarge`.
    pub fn from_toml(text: &str) -> Result<Self, RosterError> {
        check_size(text.len())?;
        let doc = toml::from_str(text).map_err(|error| malformed(&error))?;
        Self::from_doc(doc)
    }

    fn from_doc(doc: RosterDoc) -> Result<Self, RosterError> {
        if doc.agents.len() > ROSTER_AGENTS_MAX {
            let (is, max) = (doc.agents.len(), ROSTER_AGENTS_MAX);
            return Err(RosterError::TooLarge { what: "agents", is, max });
        }
        let mut roster = Self::default();
        for entry in doc.agents {
            if let Some(twice) = roster.agents.insert(entry.id.clone(), entry) {
                return Err(RosterError::Duplicate { agent: twice.id });
            }
        }
        for EdgeDoc { between: [one, other] } in doc.edges {
            // The same edge twice, or the other way round, is one edge.
            roster.edges.insert(Pair::new(one, other).map_err(|error| malformed(&error))?);
        }
        Ok(roster)
    }

    /// As JSON: the same roster always gives the same bytes.
    pub fn to_json(&self) -> String {
        let agents = self.agents.values().cloned().collect();
        let edge = |pair: &Pair| EdgeDoc { between: [pair.first().clone(), pair.second().clone()] };
        let doc = RosterDoc { agents, edges: self.edges.iter().map(edge).collect() };
        serde_json::to_string(&doc).expect("maps of texts can be written as JSON")
    }
}

fn check_size(bytes: usize) -> Result<(), RosterError> {
    let (what, max) = ("bytes", ROSTER_BYTES_MAX);
    if bytes <= max { Ok(()) } else { Err(RosterError::TooLarge { what, is: bytes, max }) }
}

fn malformed(error: &impl ToString) -> RosterError {
    RosterError::Malformed { reason: error.to_string() }
}

/// Says which agents there should be. Asked when the host starts, when somebody asks for a reconcile, and after `changed`.
#[async_trait]
pub trait RosterProvider: Send + Sync + 'static {
    /// The roster as it is now.
    ///
    /// # Errors
    /// `RosterError`; nothing is done then, and the agents stay as they are.
    async fn roster(&self) -> Result<Roster, RosterError>;

    /// Resolves when the roster may be another one than `roster` gave last.
    ///
    /// # Cancel safety
    /// Dropped and called again, it misses nothing.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// Says which edges there should be between the agents of a roster, beside those that it names itself.
#[async_trait]
pub trait TopologyProvider: Send + Sync + 'static {
    /// The edges for these agents: those that are meant to be there, whether or not they are yet.
    ///
    /// # Errors
    /// `RosterError`; the edges stay as they are.
    async fn edges(&self, agents: &BTreeSet<AgentId>) -> Result<BTreeSet<Pair>, RosterError>;
}

/// Has the last word on what an agent of a roster is made of, before it is created or compared.
pub trait AgentCustomizer: Send + Sync + 'static {
    /// Changes an agent's doc.
    ///
    /// # Errors
    /// A sentence; this agent stays as it is, and the others go on.
    fn customize(&self, agent: &AgentId, doc: &mut AgentDoc) -> Result<(), String>;
}

/// A roster in a file, TOML or (`.json`) JSON.
#[derive(Debug)]
pub struct RosterFile {
    path: PathBuf,
    /// What the file looked like when it was read last.
    seen: std::sync::Mutex<Option<(SystemTime, u64)>>,
}

impl RosterFile {
    /// A roster in the file of this path; it is read when it is asked for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), seen: std::sync::Mutex::new(None) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn look(&self) -> Option<(SystemTime, u64)> {
        let metadata = tokio::fs::metadata(&self.path).await.ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<(SystemTime, u64)>> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl RosterProvider for RosterFile {
    async fn roster(&self) -> Result<Roster, RosterError> {
        // Looked at before it is read: what changes in between is a change.
        let looks = self.look().await;
        *self.seen() = looks;
        let path = self.path.display();
        let unavailable =
            |error: std::io::Error| RosterError::Unavailable { reason: format!("{path}: {error}") };
        let file = tokio::fs::File::open(&self.path).await.map_err(unavailable)?;
        let mut text = String::new();
        // One byte more than may be is enough to refuse it.
        file.take(ROSTER_BYTES_MAX as u64 + 1).read_to_string(&mut text).await.map_err(unavailable)?;
        let is_json = self.path.extension().is_some_and(|extension| extension == "json");
        let read = if is_json { Roster::from_json(text.as_bytes()) } else { Roster::from_toml(&text) };
        read.map_err(|error| match error {
            RosterError::Malformed { reason } => {
                RosterError::Malformed { reason: format!("{path}: {reason}") }
            }
            other => other,
        })
    }

    async fn changed(&self) {
        loop {
            sleep(FILE_POLL).await;
            if self.look().await != *self.seen() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
