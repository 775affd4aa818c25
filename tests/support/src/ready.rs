//! The ready line: the one line that a host prints on standard output when it serves.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What the ready line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The host's name.
    pub name: String,
    /// The host's key: 64 hex digits.
    pub id: String,
    /// Where the HTTP API listens.
    pub api: SocketAddr,
    /// Where the mesh listens.
    pub mesh: SocketAddr,
    /// The store's URL, `?shared` included.
    pub store: String,
}

impl Ready {
    /// Reads `godwit ready name=N id=KEY api=http://IP:PORT mesh=IP:PORT store=sqlite:/abs/path`.
    ///
    /// # Errors
    /// When the line says something else.
    pub fn parse(line: &str) -> Result<Self> {
        let Some(rest) = line.trim().strip_prefix("godwit ready ") else {
            bail!("not a ready line: {line:?}");
        };
        let field = |name: &str| {
            let mut words = rest.split(' ');
            let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.with_context(|| format!("the ready line has no {name}: {line:?}"))
        };
        let api = field("api")?;
        let address =
            api.strip_prefix("http://").with_context(|| format!("the API is not at http://: {api}"))?;
        let id = field("id")?;
        if id.len() != 64 || id.contains(|c: char| !matches!(c, '0'..='9' | 'a'..='f')) {
            bail!("the id is not 64 lower-case hex digits: {id:?}");
        }
        Ok(Self {
            name: field("name")?.to_owned(),
            id: id.to_owned(),
            api: address.parse().context("the API's address")?,
            mesh: field("mesh")?.parse().context("the mesh's address")?,
            store: field("store")?.to_owned(),
        })
    }

    /// The store's file.
    pub fn store_path(&self) -> PathBuf {
        let path = self.store.strip_prefix("sqlite:").unwrap_or(&self.store);
        PathBuf::from(path.strip_suffix("?shared").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests;
