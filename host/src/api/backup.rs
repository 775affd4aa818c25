//! A backup of the store over HTTP: the answer is the file.

use std::fs::File;
use std::io::Read;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::extract::{NoBody, Nothing, QueryOf};
use super::problem::Problem;
use crate::runtime::Runtime;
use crate::runtime::backup::Staged;

/// Bytes that are read from the file at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// `POST /v1/backup`: a SQLite file; headers name the store, how far it had come, and the file's BLAKE3.
pub(super) async fn backup(
    State(runtime): State<Runtime>,
    _: QueryOf<Nothing>,
    _: NoBody,
) -> Result<Response, Problem> {
    let (backup, mark) = runtime.backup().await?;
    let headers = vec![
        ("godwit-store", mark.store.to_string()),
        ("godwit-epoch", mark.epoch.to_string()),
        ("godwit-event", mark.event.to_string()),
    ];
    Ok(file_response(backup, "application/vnd.sqlite3", headers))
}

/// A file as an answer, with its digest.
pub(super) fn file_response(
    staged: Staged,
    content_type: &str,
    mut headers: Vec<(&'static str, String)>,
) -> Response {
    headers.extend([
        (header::CONTENT_TYPE.as_str(), content_type.to_owned()),
        (header::CONTENT_LENGTH.as_str(), staged.bytes.to_string()),
        ("godwit-digest", staged.digest.to_string()),
    ]);
    let chunks = futures::stream::unfold(Some(staged.file), |file| async {
        let (chunk, file) = next_chunk(file?).await;
        match chunk {
            Ok(chunk) if chunk.is_empty() => None,
            chunk => Some((chunk, file)),
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
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
