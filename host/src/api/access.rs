//! Who may use the API.
//!
//! On loopback everybody on this machine may, but no web page: a browser on this machine would send whatever a hostile
//! page tells it to, so requests that come from another site, or under a name that only resolves to here, are refused.
//! Beyond loopback a bearer token is needed, made at the first start in `DATA/api.token`.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, PermissionsExt};
use godwit_core::digest::Digest;
use godwit_core::time::{Clock, SystemClock};

use super::problem::{Code, Problem};
use crate::config::HostConfig;
use crate::data_dir::DataDirError;
use crate::identity::open_data_dir;

const TOKEN_FILE: &str = "api.token";
/// Lets scanners for leaked secrets recognise a token.
const TOKEN_PREFIX: &str = "godwit_";
/// Probes carry no token.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Who may use the API.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// Everybody who reaches the loopback address, but no page of another site.
    Loopback,
    /// Whoever has the token, of which only the hash is kept.
    Token(blake3::Hash),
}

impl Access {
    /// The rule for the address that the API listens at.
    pub(super) fn of(config: &HostConfig) -> Result<Self, DataDirError> {
        if config.listen.ip().is_loopback() {
            return Ok(Self::Loopback);
        }
        let token = load_or_create(&config.data)?;
        tracing::warn!(
            listen = %config.listen,
            token = %config.data.join(TOKEN_FILE).display(),
            "the API listens beyond loopback, unencrypted: clients need the token in this file"
        );
        Ok(Self::Token(blake3::hash(token.as_bytes())))
    }

    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        match self {
            Self::Loopback => check_site(headers),
            Self::Token(_) if OPEN_PATHS.contains(&path) => Ok(()),
            Self::Token(expected) => check_token(expected, headers),
        }
    }
}

/// Lets a request through or answers it.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_token(expected: &blake3::Hash, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let token = given.and_then(|value| {
        let (scheme, token) = value.split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    let detail = match token {
        // Hashes compare in constant time.
        Some(token) if blake3::hash(token) == *expected => return Ok(()),
        Some(_) => "the bearer token is wrong",
        None => "this listener is beyond loopback: send the token of DATA/api.token as a bearer token",
    };
    Err(Problem::new(Code::Unauthorized, detail).with_header(header::WWW_AUTHENTICATE, "Bearer"))
}

fn check_site(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST);
    if host.is_some_and(|host| !is_loopback_name(host)) {
        let detail = "the host header is not a loopback address: this API serves only this machine";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let own_origin = host.map(|host| format!("http://{host}"));
    match text(header::ORIGIN) {
        Some(origin) if own_origin.as_deref() != Some(origin) => {
            let detail = format!("requests from pages of {origin:?} are refused");
            Err(Problem::new(Code::Forbidden, detail))
        }
        _ => Ok(()),
    }
}

/// Whether a host header, with or without port, is `localhost` or a loopback address.
fn is_loopback_name(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = bare.unwrap_or(name).parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Reads the token of a data directory, or makes it, readable by its owner only.
fn load_or_create(data: &Path) -> Result<String, DataDirError> {
    let dir = open_data_dir(data)?;
    let path = data.join(TOKEN_FILE);
    match dir.open(TOKEN_FILE) {
        Ok(file) => {
            let unreadable = || DataDirError::io("read", path.clone());
            let mode = file.metadata().map_err(unreadable())?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(DataDirError::ReadableByOthers { path, mode: mode & 0o777 });
            }
            let token = dir.read_to_string(TOKEN_FILE).map_err(unreadable())?.trim().to_owned();
            if token.is_empty() {
                let what = "it is empty; remove it, and the next start makes a new token".to_owned();
                return Err(DataDirError::Damaged { path, what });
            }
            Ok(token)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            create(&dir).map_err(DataDirError::io("write", path))
        }
        Err(error) => Err(DataDirError::io("read", path)(error)),
    }
}

fn create(dir: &Dir) -> std::io::Result<String> {
    let clock: &dyn Clock = &SystemClock;
    let token = format!("{TOKEN_PREFIX}{}", Digest(clock.random()));
    let temporary = format!("{TOKEN_FILE}.new");
    // A left-over of a crash between the steps below is worth nothing.
    drop(dir.remove_file(&temporary));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = dir.open_with(&temporary, &options)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    dir.rename(&temporary, dir, TOKEN_FILE)?;
    dir.open(".")?.sync_all()?;
    Ok(token)
}

#[cfg(test)]
mod tests;
