//! A backup of the store over HTTP: the answer is the file.

use std::fs::File;
use std::io::Read;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::problem::Problem;
use crate::runtime::Runtime;

/// Bytes that are read from the file at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// `POST /v1/backup`: a SQLite file; headers name the store, how far it had come, and the file's BLAKE3.
pub(super) async fn backup(State(runtime): State<Runtime>) -> Result<Response, Problem> {
    let backup = runtime.backup().await?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/vnd.sqlite3".to_owned()),
        (header::CONTENT_LENGTH.as_str(), backup.bytes.to_string()),
        ("godwit-digest", backup.digest.to_string()),
        ("godwit-store", backup.mark.store.to_string()),
        ("godwit-epoch", backup.mark.epoch.to_string()),
        ("godwit-event", backup.mark.event.to_string()),
    ];
    let chunks = futures::stream::unfold(Some(backup.file), |file| async {
        let (chunk, file) = next_chunk(file?).await;
        match chunk {
            Ok(chunk) if chunk.is_empty() => None,
            chunk => Some((chunk, file)),
        }
    });
    Ok((headers, Body::from_stream(chunks)).into_response())
}

async fn next_chunk(mut file: File) -> (std::io::Result<Bytes>, Option<File>) {
    let read = tokio::task::spawn_blocking(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = file.read(&mut chunk)?;
        chunk.truncate(count);
        Ok((Bytes::from(chunk), file))
    });
    match read.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok((chunk, file)) => (Ok(chunk), Some(file)),
        Err(error) => (Err(error), None),
    }
}
