//! `godwit secret`, `godwit auth`.

use clap::{Subcommand, ValueEnum};
use godwit_core::id::AuthFlowId;
use serde_json::{Value, json};

use super::Session;
use super::error::CliError;
use super::output::Column;

const SECRET_COLUMNS: [Column; 6] = [
    Column::text("NAME", "/name"),
    Column::text("KIND", "/kind"),
    Column::text("VALUE", "/has_value"),
    Column::text("HOSTS", "/hosts"),
    Column::time("EXPIRES", "/expires_at_ms"),
    Column::text("PROBLEM", "/problem"),
];

const FLOW_COLUMNS: [Column; 7] = [
    Column::text("ID", "/id"),
    Column::text("SECRET", "/secret"),
    Column::text("KIND", "/kind"),
    Column::text("STATE", "/state"),
    Column::text("CODE", "/user_code"),
    Column::time("EXPIRES", "/expires_at_ms"),
    Column::text("REASON", "/reason"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// List the host's secrets: where they may go and whether each has a value, never the value.
    List,
}

/// How a sign-in is done.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// A code is typed on another device; the host asks until it is.
    Device,
    /// A browser signs in and comes back with a code, for `auth complete`.
    Pkce,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Pkce => "pkce",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Auth {
    /// Start a sign-in that obtains a secret, and print what to do.
    Start {
        /// The secret's name.
        secret: String,
        /// How.
        #[arg(long, value_enum)]
        kind: Kind,
        /// Where the browser comes back to, if the authorization server does not know it [pkce].
        #[arg(long, value_name = "URL")]
        redirect_uri: Option<String>,
    },
    /// List sign-ins.
    List,
    /// Look at a sign-in.
    Show {
        /// Which.
        id: AuthFlowId,
    },
    /// Give the host what the browser came back with; both are in the url that it was sent to.
    Complete {
        /// Which.
        id: AuthFlowId,
        /// The parameter `code`.
        #[arg(long)]
        code: String,
        /// The parameter `state`.
        #[arg(long)]
        state: String,
    },
    /// End a sign-in that is open.
    Cancel {
        /// Which.
        id: AuthFlowId,
    },
}

impl Secret {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let Self::List = self;
        session.output.list(session.client.list("/v1/secrets").await?, &SECRET_COLUMNS, "/name")
    }
}

impl Auth {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Start { secret, kind, redirect_uri } => {
                let body = json!({"secret": secret, "kind": kind.name(), "redirect_uri": redirect_uri});
                let flow = session.client.post("/v1/auth-flows", Some(&body)).await?;
                session.output.done(&flow, "/id", &what_to_do(&flow))
            }
            Self::List => {
                session.output.list(session.client.list("/v1/auth-flows").await?, &FLOW_COLUMNS, "/id")
            }
            Self::Show { id } => {
                session.output.one(&session.client.get(&format!("/v1/auth-flows/{id}")).await?, "/id")
            }
            Self::Complete { id, code, state } => {
                let body = json!({"code": code, "state": state});
                let path = format!("/v1/auth-flows/{id}/complete");
                let flow = session.client.post(&path, Some(&body)).await?;
                let text = |name: &str| flow[name].as_str().unwrap_or_default();
                let sentence = format!("sign-in {id} for secret {} is {}", text("secret"), text("state"));
                session.output.done(&flow, "/id", &sentence)
            }
            Self::Cancel { id } => {
                session.client.delete(&format!("/v1/auth-flows/{id}")).await?;
                let answer = json!({"id": id.to_string()});
                session.output.done(&answer, "/id", &format!("sign-in {id} is cancelled"))
            }
        }
    }
}

/// What the user must do now.
fn what_to_do(flow: &Value) -> String {
    let text = |name: &str| flow[name].as_str().unwrap_or_default();
    let id = text("id");
    match flow["user_code"].as_str() {
        Some(code) => format!(
            "open {} and type {code}; the host goes on by itself: godwit auth show {id}",
            text("verification_uri")
        ),
        None => format!(
            "open {}\nthen: godwit auth complete {id} --code CODE --state STATE",
            text("authorize_url")
        ),
    }
}
