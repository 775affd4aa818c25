//! `godwit plugin`: load, list, show, remove.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::Value;

use super::Session;
use super::error::CliError;
use super::output::Column;

/// How long loading may take: a large component compiles for a while.
const LOAD_MAX: Duration = Duration::from_secs(600);

const COLUMNS: [Column; 7] = [
    Column::text("NAME", "/name"),
    Column::text("VERSION", "/version"),
    Column::short("DIGEST", "/digest"),
    Column::size("SIZE", "/size"),
    Column::text("GRANTS", "/grants"),
    Column::time("LOADED", "/loaded_at_ms"),
    Column::text("KILLED HOSTS", "/killed_hosts"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Load a component while the host runs.
    Load(Load),
    /// List the plugins.
    List,
    /// Show one plugin.
    Show {
        /// Its digest, NAME@VERSION, or NAME (then the one loaded last).
        plugin: String,
    },
    /// Remove a plugin that no agent needs: it runs it, keeps a snapshot of it, or turns to be run again in it.
    Remove {
        /// Its digest, NAME@VERSION, or NAME (then the one loaded last).
        plugin: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Load {
    /// The component.
    file: PathBuf,
    /// A manifest for a component that brings none.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What to call it, instead of what it says itself.
    #[arg(long)]
    name: Option<String>,
    /// Its version, instead of what it says itself.
    #[arg(long = "version", value_name = "VERSION")]
    plugin_version: Option<String>,
}

impl Plugin {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Load(load) => load.run(session).await,
            Self::List => {
                let items = session.client.list("/v1/plugins").await?;
                session.output.list(items, &COLUMNS, "/digest")
            }
            Self::Show { plugin } => session.output.one(&find(session, plugin).await?, "/digest"),
            Self::Remove { plugin } => {
                let found = find(session, plugin).await?;
                let digest = found["digest"].as_str().unwrap_or_default();
                session.client.delete(&format!("/v1/plugins/{digest}")).await?;
                let sentence = format!("plugin {} removed", label(&found));
                session.output.done(&found, "/digest", &sentence)
            }
        }
    }
}

impl Load {
    async fn run(&self, session: &Session) -> Result<(), CliError> {
        let component = read(&self.file)?;
        let named = [("name", &self.name), ("version", &self.plugin_version)];
        let query: Vec<_> = named.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).collect();
        let request = session.client.request(Method::POST, "/v1/plugins").query(&query).timeout(LOAD_MAX);
        let request = match &self.manifest {
            None => request.header(header::CONTENT_TYPE, "application/wasm").body(component),
            Some(manifest) => with_parts(request, &component, &read(manifest)?),
        };
        let answer = session.client.send(request).await?;
        let is_new = answer.status() == StatusCode::CREATED;
        let info: Value = answer.json().await.context("the host's answer can't be read")?;
        let did = if is_new { "loaded" } else { "was there already" };
        let digest = info["digest"].as_str().unwrap_or_default();
        let sentence = format!("plugin {} {did}: {digest}", label(&info));
        session.output.done(&info, "/digest", &sentence)
    }
}

async fn find(session: &Session, plugin: &str) -> Result<Value, CliError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-@".contains(&b);
    if plugin.is_empty() || !plugin.bytes().all(is_plain) {
        return Err(CliError::Usage(format!("{plugin:?} is not a digest, NAME or NAME@VERSION")));
    }
    session.client.get(&format!("/v1/plugins/{plugin}")).await
}

fn label(info: &Value) -> String {
    let text = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
    format!("{}@{}", text("name"), text("version"))
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    Ok(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
}

/// Puts component and manifest into one multipart body.
fn with_parts(request: RequestBuilder, component: &[u8], manifest: &[u8]) -> RequestBuilder {
    // A digest of the content is in no content.
    let boundary = blake3::hash(component).to_hex().to_string();
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let body = multipart(&boundary, &[("component", component), ("manifest", manifest)]);
    request.header(header::CONTENT_TYPE, content_type).body(body)
}

/// A multipart/form-data body (RFC 7578).
fn multipart(boundary: &str, parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

#[cfg(test)]
mod tests;
