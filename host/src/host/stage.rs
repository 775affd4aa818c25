//! The stages of a start, and why one failed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use godwit_core::retry::{Retry, Retryable};
use godwit_core::store::StoreError;
use godwit_engine::EngineError;
use godwit_mesh::MeshStartError;
use godwit_store::{OpenError, UrlError};

use crate::data_dir::DataDirError;
use crate::head::HeadError;
use crate::runtime::call::CallError;
use crate::runtime::plugins::PluginError;

/// A stage of a start, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The data directory is this host's alone.
    DataDirectory,
    /// The host has its key.
    Key,
    /// The store is open.
    Store,
    /// The store is the one that this host knows; or it was restored, when that was asked for.
    Admission,
    /// Guests can be run.
    Engine,
    /// The API's address is taken; nobody is served yet.
    Listener,
    /// The mesh listens; peers hear that the host is starting.
    Mesh,
    /// Hooks can be called.
    Hooks,
    /// The host has a session with the store.
    Join,
    /// What a former process left undone is known.
    Recovery,
    /// Plugins that were given are loaded.
    Plugins,
    /// The session is kept, agents with work run, peers are answered.
    Services,
    /// Agents and edges are those of the roster, if there is one, and agents are up as the boot mode says.
    Agents,
    /// The API is served.
    Serving,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 14] = [
        Self::DataDirectory,
        Self::Key,
        Self::Store,
        Self::Admission,
        Self::Engine,
        Self::Listener,
        Self::Mesh,
        Self::Hooks,
        Self::Join,
        Self::Recovery,
        Self::Plugins,
        Self::Services,
        Self::Agents,
        Self::Serving,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataDirectory => "data directory",
            Self::Key => "key",
            Self::Store => "store",
            Self::Admission => "admission",
            Self::Engine => "engine",
            Self::Listener => "listener",
            Self::Mesh => "mesh",
            Self::Hooks => "hooks",
            Self::Join => "join",
            Self::Recovery => "recovery",
            Self::Plugins => "plugins",
            Self::Services => "services",
            Self::Agents => "agents",
            Self::Serving => "serving",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A host that did not start. Nothing of it runs any more, but for what is listed; files that a start makes in the data
/// directory stay.
#[derive(Debug, thiserror::Error)]
#[error("host did not start (stage {stage}){}", listed(left))]
pub struct StartError {
    /// The stage that failed.
    pub stage: Stage,
    /// Why.
    #[source]
    pub cause: StartCause,
    /// Stages that were undone, in the order in which that was done: the reverse of theirs.
    pub undone: Vec<Stage>,
    /// What could not be undone.
    pub left: Vec<Left>,
}

/// Something that a failed start has left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The stage that made it.
    pub stage: Stage,
    /// What it is, and why it is still there.
    pub what: String,
}

fn listed(left: &[Left]) -> String {
    let items: Vec<_> = left.iter().map(|left| format!("{}: {}", left.stage, left.what)).collect();
    if items.is_empty() { String::new() } else { format!("; not undone: {}", items.join("; ")) }
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartCause {
    /// The data directory or a file in it.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The configuration names no store that this build knows.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The store can't be opened.
    #[error("cannot open the store {url}")]
    Open {
        /// Which.
        url: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The store is not the one that the host knows.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The store refused.
    #[error("cannot {action} the store")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// Guests can't be run here.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The API's address can't be had.
    #[error("cannot listen at {address} for the API")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mesh's address can't be had.
    #[error("cannot listen at {address} for the mesh")]
    Mesh {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: MeshStartError,
    },
    /// There is no thread for the hooks.
    #[error("cannot start the thread that calls hooks")]
    Hooks(#[source] io::Error),
    /// A plugin's file can't be read.
    #[error("cannot read the plugin {}", path.display())]
    PluginFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A plugin can't be loaded.
    #[error("cannot load the plugin {what}")]
    Plugin {
        /// Which: its file or its place among those given.
        what: String,
        /// Why.
        #[source]
        source: PluginError,
    },
    /// The agents that are here can't be read.
    #[error("cannot bring the agents up")]
    Agents(#[source] CallError),
    /// The stage check that the embedder gave said no.
    #[error("{reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// Something panicked; what and where is on stderr.
    #[error("it panicked")]
    Panicked,
}

impl Retryable for StartError {
    fn retry(&self) -> Retry {
        let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        match &self.cause {
            StartCause::DataDir(DataDirError::InUse { .. }) | StartCause::Mesh { .. } => Retry::Later,
            StartCause::Listen { source, .. } if is_taken(source) => Retry::Later,
            StartCause::Open { source: OpenError::Locked { .. }, .. } => Retry::Later,
            // Nothing of a start needs to be read back: the next one finds what there is.
            StartCause::Store { source, .. } if source.retry() != Retry::Never => Retry::Later,
            StartCause::Agents(source) if source.retry() != Retry::Never => Retry::Later,
            _ => Retry::Never,
        }
    }
}
