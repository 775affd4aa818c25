//! Why a command did not do what it was asked, and the exit code that scripts see.

use std::process::ExitCode;

use reqwest::StatusCode;
use serde_json::Value;

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unreachable = 5,
    Unknown = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The host answered with a problem.
    #[error("{code}: {detail}")]
    Problem { status: StatusCode, code: String, detail: String },
    /// The arguments can't be used.
    #[error("{0}")]
    Usage(String),
    /// No host answers at the address.
    #[error("{0}")]
    Unreachable(String),
    /// The host got the request, perhaps, and no answer came.
    #[error("{0}")]
    NoAnswer(String),
    /// The outcome is known and not good; the text says what it is.
    #[error("{text}")]
    Ended { exit: Exit, text: String },
    /// Nobody reads the output any more.
    #[error("output closed")]
    OutputClosed,
    /// Something on this machine failed.
    #[error(transparent)]
    Local(#[from] anyhow::Error),
}

impl CliError {
    /// The problem in a host's answer; what is no problem document is shown as it came.
    pub(super) fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name| problem.get(name).and_then(Value::as_str).map(str::to_owned);
        let code = text("code").unwrap_or_else(|| format!("http {}", status.as_u16()));
        let shown = String::from_utf8_lossy(body);
        let mut detail = text("detail").unwrap_or_else(|| shown.trim().to_owned());
        if let Some(problems) = problem.get("problems").and_then(Value::as_array) {
            detail = String::from("the component can't run here");
            for problem in problems.iter().filter_map(Value::as_str) {
                detail.push_str("\n  - ");
                detail.push_str(problem);
            }
        }
        if let (504, Some(input)) = (status.as_u16(), text("input_id")) {
            detail.push_str(&format!("; it was input {input}"));
        }
        Self::Problem { status, code, detail }
    }

    /// What went wrong on the way. A request that changes nothing is not left in doubt.
    pub(super) fn of_transport(error: &reqwest::Error, url: &str, changes: bool) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        if error.is_builder() {
            Self::Usage(format!("cannot use the url {url}: {text}"))
        } else if error.is_connect() {
            Self::Unreachable(format!("no host answers at {url}: {text}"))
        } else if error.is_timeout() {
            Self::NoAnswer(format!("no answer from {url} in time"))
        } else if changes {
            Self::NoAnswer(format!("{url} broke off, and may have done it: {text}"))
        } else {
            Self::Unreachable(format!("{url} broke off: {text}"))
        }
    }

    /// Whether the host says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem { status: StatusCode::NOT_FOUND, .. })
    }

    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Problem { status, code, .. } => exit_of_problem(status.as_u16(), code),
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::NoAnswer(_) => Exit::Unknown,
            Self::Ended { exit, .. } => *exit,
            Self::OutputClosed => Exit::Ok,
            Self::Local(_) => Exit::Failed,
        }
    }

    /// Tells the user, on stderr.
    pub(super) fn report(&self) {
        match self {
            Self::OutputClosed => {}
            Self::Local(error) => eprintln!("godwit: {error:#}"),
            other => eprintln!("godwit: {other}"),
        }
    }
}

fn exit_of_problem(status: u16, code: &str) -> Exit {
    match (status, code) {
        (400, _) => Exit::Usage,
        (404 | 410, _) => Exit::NotFound,
        (401 | 403 | 409 | 412 | 421 | 423, _) => Exit::Refused,
        (422, "agent_error") => Exit::Failed,
        (422, _) => Exit::Refused,
        (503, "agent_broken") => Exit::Failed,
        (503, _) => Exit::Unreachable,
        (504, _) => Exit::Unknown,
        _ => Exit::Failed,
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Local(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
