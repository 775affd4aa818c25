//! `godwit export` and `godwit import`: an agent as a file.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use godwit_core::id::AgentId;
use reqwest::{Body, Method};
use serde_json::json;

use super::Session;
use super::backup::save;
use super::error::CliError;

/// How long an archive may be on its way.
const ARCHIVE_MAX: Duration = Duration::from_secs(3600);
/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Which agent.
    id: AgentId,
    /// The file to make [default: ID.godwit].
    file: Option<PathBuf>,
    /// Leave the plugin out: it must be there where the agent is imported.
    #[arg(long)]
    no_plugin: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// An archive that `godwit export` made.
    file: PathBuf,
    /// Let it run at once; without it the agent waits to be resumed.
    #[arg(long)]
    activate: bool,
    /// It is the real one, though it has moved away from here, or a peer has it or does not answer.
    #[arg(long)]
    force: bool,
    /// Refuse it unless the archive was made of this agent: 64 hex digits of its public key, or 16 of its origin hash.
    #[arg(long, value_name = "HEX")]
    expect_identity: Option<String>,
}

impl Export {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let path = self.file.clone().unwrap_or_else(|| PathBuf::from(format!("{}.godwit", self.id)));
        let url = format!("/v1/agents/{}/export?plugin={}", self.id, !self.no_plugin);
        let request = session.client.request(Method::GET, &url).timeout(ARCHIVE_MAX);
        let answer = session.client.send(request).await?;
        let digest = answer.headers().get("godwit-digest").and_then(|value| value.to_str().ok());
        let digest = digest.context("the host's answer has no godwit-digest")?.to_owned();
        let bytes = save(answer, &path, &digest).await?;
        let shown = json!({
            "agent": self.id.as_str(),
            "path": path.display().to_string(),
            "bytes": bytes,
            "digest": digest,
        });
        let sentence = format!("agent {} in {}: {bytes} bytes", self.id, path.display());
        session.output.done(&shown, "/path", &sentence)
    }
}

impl Import {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let file = File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let chunks = futures::stream::unfold(file, |mut file| async {
            let mut chunk = vec![0; CHUNK_BYTES];
            match file.read(&mut chunk) {
                Ok(0) => None,
                Ok(count) => {
                    chunk.truncate(count);
                    Some((Ok(Bytes::from(chunk)), file))
                }
                Err(error) => Some((Err(error), file)),
            }
        });
        let expected = self.expect_identity.as_ref().map(|expected| format!("&expect_identity={expected}"));
        let url = format!(
            "/v1/import?activate={}&force={}{}",
            self.activate,
            self.force,
            expected.unwrap_or_default()
        );
        let request = session.client.request(Method::POST, &url).timeout(ARCHIVE_MAX);
        let agent = session.client.json(request.body(Body::wrap_stream(chunks))).await?;
        let id = agent["id"].as_str().unwrap_or_default();
        let state = agent["state"].as_str().unwrap_or_default();
        session.output.done(&agent, "/id", &format!("agent {id} imported, {state}"))
    }
}
