//! `godwit receipts`, `outputs`, `timers`, `operations`, `channels`, `subscriptions`.

use clap::Args;
use godwit_core::id::AgentId;

use super::Session;
use super::error::CliError;
use super::output::Column;

const RECEIPT_COLUMNS: [Column; 7] = [
    Column::text("REVISION", "/revision"),
    Column::text("KIND", "/kind"),
    Column::text("TOKEN", "/token"),
    Column::short("HOST", "/host"),
    Column::short("DIGEST", "/digest"),
    Column::text("US", "/elapsed_us"),
    Column::time("COMMITTED", "/committed_at_ms"),
];

const OUTPUT_COLUMNS: [Column; 6] = [
    Column::text("POSITION", "/position"),
    Column::text("DESTINATION", "/destination"),
    Column::text("NUMBER", "/number"),
    Column::text("STATE", "/state"),
    Column::text("REASON", "/reason"),
    Column::time("COMMITTED", "/committed_at_ms"),
];

const TIMER_COLUMNS: [Column; 3] =
    [Column::text("NAME", "/name"), Column::time("DUE", "/at_ms"), Column::text("REVISION", "/revision")];

const OPERATION_COLUMNS: [Column; 7] = [
    Column::text("ID", "/id"),
    Column::text("AGENT", "/agent"),
    Column::text("STATE", "/state"),
    Column::time("SINCE", "/since_ms"),
    Column::text("CLASS", "/class"),
    Column::text("METHOD", "/method"),
    Column::text("TARGET", "/target"),
];

/// What an agent waits for.
#[derive(Debug, Args)]
pub(super) struct Waits {
    /// Which agent.
    id: AgentId,
}

impl Waits {
    pub(super) async fn timers(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/timers", self.id);
        session.output.list(session.client.list(&path).await?, &TIMER_COLUMNS, "/name")
    }

    pub(super) async fn subscriptions(&self, session: &Session) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/subscriptions", self.id);
        session.output.list(session.client.list(&path).await?, &SUBSCRIPTION_COLUMNS, "/channel")
    }
}

const CHANNEL_COLUMNS: [Column; 6] = [
    Column::text("NAME", "/name"),
    Column::text("ACCESS", "/access"),
    Column::text("SUBSCRIBERS", "/subscribers"),
    Column::text("BACKLOG", "/backlog"),
    Column::text("NEXT", "/next_publication"),
    Column::time("OPENED", "/opened_at_ms"),
];

const SUBSCRIBER_COLUMNS: [Column; 4] = [
    Column::text("AGENT", "/agent"),
    Column::text("BY TOKEN", "/by_token"),
    Column::time("UNTIL", "/until_ms"),
    Column::time("SINCE", "/since_ms"),
];

const SUBSCRIPTION_COLUMNS: [Column; 5] = [
    Column::text("OWNER", "/owner"),
    Column::text("CHANNEL", "/channel"),
    Column::text("STATE", "/state"),
    Column::text("REASON", "/reason"),
    Column::time("SINCE", "/since_ms"),
];

#[derive(Debug, Args)]
pub(super) struct Channels {
    /// Which agent.
    id: AgentId,
    /// List who subscribes to this channel, not the channels.
    channel: Option<String>,
}

impl Channels {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let id = &self.id;
        let Some(channel) = &self.channel else {
            let items = session.client.list(&format!("/v1/agents/{id}/channels")).await?;
            return session.output.list(items, &CHANNEL_COLUMNS, "/name");
        };
        let path = format!("/v1/agents/{id}/subscribers");
        let items = session.client.pages(&path, &[("channel", channel)]).await?;
        session.output.list(items, &SUBSCRIBER_COLUMNS, "/agent")
    }
}

#[derive(Debug, Args)]
pub(super) struct Operations {
    /// Of this agent, wherever it is; without it of all that are at home on the host.
    id: Option<AgentId>,
}

impl Operations {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let items = match &self.id {
            Some(id) => session.client.list(&format!("/v1/agents/{id}/operations")).await?,
            None => session.client.pages("/v1/operations", &[]).await?,
        };
        session.output.list(items, &OPERATION_COLUMNS, "/id")
    }
}

#[derive(Debug, Args)]
pub(super) struct History {
    /// Which agent.
    id: AgentId,
    /// Only those after this revision, or position of an output.
    #[arg(long, default_value_t = 0)]
    after: u64,
}

impl History {
    pub(super) async fn receipts(&self, session: &Session) -> Result<(), CliError> {
        self.list(session, "receipts", &RECEIPT_COLUMNS, "/revision").await
    }

    pub(super) async fn outputs(&self, session: &Session) -> Result<(), CliError> {
        self.list(session, "outputs", &OUTPUT_COLUMNS, "/position").await
    }

    async fn list(
        &self,
        session: &Session,
        what: &str,
        columns: &[Column],
        name: &str,
    ) -> Result<(), CliError> {
        let path = format!("/v1/agents/{}/{what}", self.id);
        let after = self.after.to_string();
        let items = session.client.pages(&path, &[("after", &after)]).await?;
        session.output.list(items, columns, name)
    }
}
