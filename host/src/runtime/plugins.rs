//! Loading plugins while the host runs, and finding them by name.

use bytes::Bytes;
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::guest::{LoadError, LoadedPlugin};
use godwit_core::limits::{PLUGIN_BYTES_MAX, TEXT_BYTES_MAX};
use godwit_core::spec::PluginInfo;

use super::Runtime;
use super::call::CallError;
use super::routing::store_error;

/// What an upload says about a component, over what the component says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginLabel {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// A manifest in TOML; its name and version count where the two above are missing.
    pub manifest: Option<String>,
}

/// Why a plugin was not loaded. Nothing was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The component can't run here.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Neither the component nor the upload says what it is called.
    #[error("the component has no manifest section: give it a name")]
    Unnamed,
    /// The upload's manifest can't be read.
    #[error("manifest: {reason}")]
    Manifest {
        /// What is wrong.
        reason: String,
    },
    /// Name or version can't be used.
    #[error("{what} {text:?} must be 1..=256 bytes of letters, digits and ._+-")]
    Name {
        /// `name` or `version`.
        what: &'static str,
        /// What was given.
        text: String,
    },
    /// Larger than a plugin may be.
    #[error("component of {size} bytes is over the limit of {PLUGIN_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The store refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

#[derive(serde::Deserialize)]
struct ManifestNames {
    name: Option<String>,
    version: Option<String>,
}

impl Runtime {
    /// Checks, compiles and stores a component. Answers whether it is new.
    ///
    /// # Errors
    /// `PluginError`; nothing was kept.
    pub async fn load_plugin(
        &self,
        component: Bytes,
        label: PluginLabel,
    ) -> Result<(PluginInfo, bool), PluginError> {
        let _inside = self.admit()?;
        if component.len() > PLUGIN_BYTES_MAX {
            return Err(PluginError::TooLarge { size: component.len() });
        }
        let loaded = self.compile(component.clone()).await?;
        let info = named(loaded, label, component.len() as u64, self.now_ms())?;
        if let Some(known) = self.plugin_info(info.digest).await?
            && (&known.name, &known.version) == (&info.name, &info.version)
        {
            return Ok((known, false));
        }
        failpoint::hit("plugin.before-put");
        let is_new = self.inner().store.put_plugin(info.clone(), component).await.map_err(store_error)?;
        failpoint::hit("plugin.after-put");
        Ok((info, is_new))
    }

    /// Compiles a component on the guest threads.
    pub(crate) async fn compile(&self, component: Bytes) -> Result<LoadedPlugin, PluginError> {
        let loader = self.inner().env.loader.clone();
        let digest = Digest::of(&component);
        let compiled = self.inner().env.pool.run(digest, move || loader.load(&component)).await;
        match compiled {
            Ok(loaded) => Ok(loaded?),
            Err(error) => Err(CallError::Unavailable { reason: error.to_string() }.into()),
        }
    }

    /// All plugins of this host's store.
    ///
    /// # Errors
    /// As the store's.
    pub async fn plugins(&self) -> Result<Vec<PluginInfo>, CallError> {
        self.inner().store.plugins().await.map_err(store_error)
    }

    pub(crate) async fn plugin_info(&self, digest: Digest) -> Result<Option<PluginInfo>, CallError> {
        Ok(self.plugins().await?.into_iter().find(|plugin| plugin.digest == digest))
    }

    /// Finds a plugin by digest, `NAME@VERSION`, or `NAME` (then the one loaded last).
    ///
    /// # Errors
    /// `NoSuch`.
    pub async fn plugin(&self, selector: &str) -> Result<PluginInfo, CallError> {
        let plugins = self.plugins().await?.into_iter();
        let found = match (selector.parse::<Digest>(), selector.split_once('@')) {
            (Ok(digest), _) => plugins.into_iter().find(|plugin| plugin.digest == digest),
            (Err(_), Some((name, version))) => {
                plugins.into_iter().find(|plugin| plugin.name == name && plugin.version == version)
            }
            (Err(_), None) => {
                plugins.filter(|plugin| plugin.name == selector).max_by_key(|plugin| plugin.loaded_at_ms)
            }
        };
        found.ok_or_else(|| CallError::NoSuch { what: format!("plugin {selector}") })
    }

    /// Removes a plugin that no agent names. Answers whether it was there.
    ///
    /// # Errors
    /// `PluginInUse` while an agent needs it.
    pub async fn remove_plugin(&self, digest: Digest) -> Result<bool, CallError> {
        let _inside = self.admit()?;
        let removed = self.inner().store.remove_plugin(digest).await.map_err(store_error);
        failpoint::hit("plugin.after-remove");
        removed
    }
}

fn named(
    loaded: LoadedPlugin,
    label: PluginLabel,
    size: u64,
    now_ms: u64,
) -> Result<PluginInfo, PluginError> {
    let manifest = match &label.manifest {
        None => ManifestNames { name: None, version: None },
        Some(text) => {
            toml::from_str(text).map_err(|error| PluginError::Manifest { reason: error.to_string() })?
        }
    };
    let name = label.name.or(manifest.name).or(loaded.name).ok_or(PluginError::Unnamed)?;
    let version = label.version.or(manifest.version).or(loaded.version).unwrap_or_else(|| "0.0.0".into());
    for (what, text) in [("name", &name), ("version", &version)] {
        let alphabet = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.bytes().all(alphabet) {
            return Err(PluginError::Name { what, text: text.clone() });
        }
    }
    let LoadedPlugin { digest, imports, grants, .. } = loaded;
    Ok(PluginInfo { digest, name, version, imports, grants, size, loaded_at_ms: now_ms, killed_hosts: 0 })
}
