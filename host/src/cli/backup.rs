//! `godwit backup`: a copy of the running host's store, in a file here.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Method, Response};
use serde_json::json;

use super::Session;
use super::error::CliError;

/// How long a backup may take.
const BACKUP_MAX: Duration = Duration::from_secs(4 * 3600);

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file to make; in a directory, one that is named after the store and how far it had come.
    path: PathBuf,
}

impl Backup {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let request = session.client.request(Method::POST, "/v1/backup").timeout(BACKUP_MAX);
        let answer = session.client.send(request).await?;
        let header = |name: &str| -> anyhow::Result<String> {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            Ok(value.with_context(|| format!("the host's answer has no {name}"))?.to_owned())
        };
        let (store, epoch, event) =
            (header("godwit-store")?, header("godwit-epoch")?, header("godwit-event")?);
        let digest = header("godwit-digest")?;
        let path = match self.path.is_dir() {
            true => self.path.join(format!("godwit-{store}-{epoch}-{event}.db")),
            false => self.path.clone(),
        };
        let bytes = save(answer, &path, &digest).await?;
        let shown = json!({
            "path": path.display().to_string(),
            "bytes": bytes,
            "digest": digest,
            "store": store,
            "epoch": epoch,
            "event": event,
        });
        let sentence = format!(
            "{} bytes in {}; put back without the -wal and -shm of the file before, it opens with `serve --restored`",
            bytes,
            path.display()
        );
        session.output.done(&shown, "/path", &sentence)
    }
}

/// Writes the body of an answer to a new file, durably, if it has this digest. After an error there is no such file.
pub(super) async fn save(answer: Response, path: &Path, digest: &str) -> anyhow::Result<u64> {
    if path.exists() {
        bail!("{} is there already", path.display());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let saved = save_partial(answer, &partial, digest).await;
    if saved.is_err() {
        // What is left of it is worth nothing.
        drop(std::fs::remove_file(&partial));
    }
    let bytes = saved?;
    std::fs::rename(&partial, path).with_context(|| format!("cannot make {}", path.display()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).context("cannot sync the directory")?;
    Ok(bytes)
}

async fn save_partial(mut answer: Response, partial: &Path, digest: &str) -> anyhow::Result<u64> {
    let cannot = || format!("cannot write {}", partial.display());
    let mut file = File::create(partial).with_context(cannot)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await.context("the host broke off")? {
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
        file.write_all(&chunk).with_context(cannot)?;
    }
    if hasher.finalize().to_hex().as_str() != digest {
        bail!("what arrived is not what the host sent: {bytes} bytes with another digest");
    }
    file.sync_all().with_context(cannot)?;
    Ok(bytes)
}
