//! `godwit hosts`, `host`, `cordon`, `uncordon`, `drain`, `rebalance`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::time::sleep;

use super::Session;
use super::error::{CliError, Exit};
use super::output::{Column, Format};

/// Pause between looks at a drain that runs.
const POLL: Duration = Duration::from_millis(200);

const COLUMNS: [Column; 8] = [
    Column::text("NAME", "/name"),
    Column::short("ID", "/id"),
    Column::text("SELF", "/self"),
    Column::text("STATE", "/state"),
    Column::text("CORDONED", "/cordoned"),
    Column::text("AGENTS", "/agents"),
    Column::text("API", "/api"),
    Column::text("MESH", "/mesh"),
];

const PLAN_COLUMNS: [Column; 4] = [
    Column::text("AGENT", "/agent"),
    Column::short("TO", "/to"),
    Column::size("BYTES", "/bytes"),
    Column::text("REASON", "/reason"),
];

const COPY_COLUMNS: [Column; 5] = [
    Column::text("AGENT", "/agent"),
    Column::short("SOURCE", "/source"),
    Column::text("TOKEN", "/token"),
    Column::text("REVISION", "/revision"),
    Column::time("LAST ROUND", "/last_round_ms"),
];

/// Which host.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// A host's name, key, or unique prefix of a key; the one that is asked, when nothing is said.
    #[arg(default_value = "self")]
    host: String,
}

/// `godwit host`
#[derive(Debug, Subcommand)]
pub(super) enum Host {
    /// Count its agents by state, and what waits there.
    Counts(Which),
}

impl Host {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let Self::Counts(which) = self;
        let counts = session.client.get(&format!("/v1/hosts/{}/counts", which.host)).await?;
        session.output.one(&counts, "/agents")
    }
}

/// Which host, and whether it is only said what would be done.
#[derive(Debug, Args)]
pub(super) struct Exodus {
    #[command(flatten)]
    which: Which,
    /// Only print which agents would go where, in which order, and which would not, and why.
    #[arg(long)]
    plan: bool,
}

pub(super) async fn list(session: &Session) -> Result<(), CliError> {
    let items = session.client.list("/v1/hosts").await?;
    session.output.list(items, &COLUMNS, "/id")
}

pub(super) async fn standbys(session: &Session) -> Result<(), CliError> {
    let items = session.client.pages("/v1/standbys", &[]).await?;
    session.output.list(items, &COPY_COLUMNS, "/agent")
}

impl Which {
    pub(super) async fn cordon(&self, session: &Session, verb: &str) -> Result<(), CliError> {
        let answer = session.client.post(&format!("/v1/hosts/{}/{verb}", self.host), None).await?;
        let takes = if verb == "cordon" { "takes no more agents" } else { "takes agents" };
        session.output.done(&answer, "/cordoned", &format!("host {} {takes}", self.host))
    }
}

impl Exodus {
    pub(super) async fn run(&self, session: &Session, verb: &str) -> Result<(), CliError> {
        let host = &self.which.host;
        if self.plan {
            let plan = session.client.post(&format!("/v1/hosts/{host}/{verb}?plan=true"), None).await?;
            if session.output.format == Format::Table {
                let pause = plan["predicted_pause_ms"].as_f64();
                let pause = pause.map_or("not known yet".to_owned(), |pause| format!("{pause:.1} ms"));
                session.output.note(&format!("expected pause of each: {pause}"))?;
            }
            let items = plan["items"].as_array().cloned().unwrap_or_default();
            return session.output.list(items, &PLAN_COLUMNS, "/agent");
        }
        session.client.post(&format!("/v1/hosts/{host}/{verb}"), None).await?;
        let ended = loop {
            let progress = session.client.get(&format!("/v1/hosts/{host}/drain")).await?;
            if progress["over"] == true {
                break progress;
            }
            sleep(POLL).await;
        };
        let text = summary(&ended);
        if ended["left"].as_array().is_some_and(Vec::is_empty) {
            return session.output.done(&ended, "/moved", &text);
        }
        if session.output.format != Format::Table {
            session.output.value(&ended)?;
        }
        Err(CliError::Ended { exit: Exit::Refused, text })
    }
}

fn summary(ended: &Value) -> String {
    let left = ended["left"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = format!(
        "{} of {} agents moved in {} ms; pause {} ms at the median, {} ms at most",
        ended["moved"], ended["total"], ended["elapsed_ms"], ended["pause_median_ms"], ended["pause_max_ms"]
    );
    for stays in left {
        let word = |name: &str| stays[name].as_str().unwrap_or_default();
        text.push_str(&format!("\n{} stays: {}", word("agent"), word("reason")));
    }
    text
}
