//! What hosts show about agents, hosts and migrations, typed as far as tests look at it.

use std::time::Duration;

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::json::{number, optional_number, text};
use crate::wait::until;

/// A receipt as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// In which generation.
    pub generation: u64,
    /// The boundary's revision, 1...
    pub revision: u64,
    /// Kind of the boundary.
    pub kind: String,
    /// Token of the committing owner.
    pub token: u64,
    /// Ids of the inputs that ended here.
    pub inputs: Vec<String>,
    /// Its digest.
    pub digest: String,
    /// Digest of the receipt before.
    pub parent: String,
}

/// An input as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its id.
    pub id: String,
    /// Its place, 1...
    pub seq: u64,
    /// `queued`, `staged`, `consumed`, `dead-lettered`, ...
    pub state: String,
    /// The client's key.
    pub key: Option<String>,
    /// What was submitted, if it is text.
    pub payload: String,
    /// The agent's reply, if there is one and it is text.
    pub reply: Option<String>,
    /// All members.
    pub body: Value,
}

/// An agent's row as the API shows it.
#[derive(Debug, Clone)]
pub struct Agent {
    /// `active`, `broken`, ...
    pub state: String,
    /// Key of the host that is home.
    pub home: String,
    /// Key of the host that holds the lease.
    pub host: Option<String>,
    /// The current token.
    pub token: u64,
    /// Boundaries so far.
    pub revision: u64,
    /// Inputs that wait.
    pub queue_depth: u64,
    /// Digest of the last receipt.
    pub last_receipt: String,
    /// All members.
    pub body: Value,
}

/// A migration as the API shows it.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Phase.
    pub phase: String,
    /// Rounds of rows.
    pub rounds: u64,
    /// Bytes that travelled.
    pub bytes: u64,
    /// From the last turn on the source to the first possible one on the target.
    pub pause_ms: Option<f64>,
    /// All members.
    pub body: Value,
}

impl Client {
    /// The agent's row.
    ///
    /// # Errors
    /// When it can't be had.
    pub async fn agent(&self, agent: &str) -> Result<Agent> {
        let body = self.get(&format!("/v1/agents/{agent}")).await?;
        Ok(Agent {
            state: text(&body, "state")?.to_owned(),
            home: text(&body, "home")?.to_owned(),
            host: body["host"].as_str().map(str::to_owned),
            token: number(&body, "token")?,
            revision: number(&body, "revision")?,
            queue_depth: number(&body, "queue_depth")?,
            last_receipt: body["last_receipt"].as_str().unwrap_or_default().to_owned(),
            body,
        })
    }

    /// All receipts of the agent.
    ///
    /// # Errors
    /// When they can't be had.
    pub async fn receipts(&self, agent: &str) -> Result<Vec<Receipt>> {
        let items = self.list(&format!("/v1/agents/{agent}/receipts")).await?;
        items.iter().map(receipt).collect()
    }

    /// All inputs of the agent.
    ///
    /// # Errors
    /// When they can't be had.
    pub async fn inputs(&self, agent: &str) -> Result<Vec<Input>> {
        let items = self.list(&format!("/v1/agents/{agent}/inputs")).await?;
        items.into_iter().map(input).collect()
    }

    /// Waits until nothing waits in the agent's inbox.
    ///
    /// # Errors
    /// When something still does after `limit`.
    pub async fn settled(&self, agent: &str, limit: Duration) -> Result<()> {
        let look = || async { Ok((self.agent(agent).await?.queue_depth == 0).then_some(())) };
        until(&format!("{agent}'s inbox to be empty"), limit, look).await
    }

    /// Waits until the agent has no output on its way.
    ///
    /// # Errors
    /// When it still has after `limit`.
    pub async fn delivered(&self, agent: &str, limit: Duration) -> Result<()> {
        let path = format!("/v1/agents/{agent}/outputs");
        let look = || async { Ok(self.list(&path).await?.is_empty().then_some(())) };
        until(&format!("{agent}'s outbox to be empty"), limit, look).await
    }

    /// Starts a migration. Answers its id.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn migrate(&self, agent: &str, to: &str) -> Result<String> {
        let path = format!("/v1/agents/{agent}/migrate");
        let reply = self.call(Method::POST, &path, Some(json!({ "to": to }))).await?;
        if reply.status != 202 {
            bail!("migration of {agent} to {to}: {} {}", reply.status, reply.body);
        }
        Ok(text(&reply.body, "migration_id")?.to_owned())
    }

    /// A migration, as this host knows it.
    ///
    /// # Errors
    /// When it does not.
    pub async fn migration(&self, id: &str) -> Result<Migration> {
        let body = self.get(&format!("/v1/migrations/{id}")).await?;
        Ok(Migration {
            phase: text(&body, "phase")?.to_owned(),
            rounds: optional_number(&body, "rounds").unwrap_or(0),
            bytes: optional_number(&body, "bytes").unwrap_or(0),
            pause_ms: body["pause_ms"].as_f64(),
            body,
        })
    }

    /// Waits until a migration is over, whichever way.
    ///
    /// # Errors
    /// When it is not after `limit`.
    pub async fn migration_over(&self, id: &str, limit: Duration) -> Result<Migration> {
        let look = || async {
            let migration = self.migration(id).await?;
            let is_over = matches!(migration.phase.as_str(), "complete" | "failed" | "aborted");
            Ok(is_over.then_some(migration))
        };
        until(&format!("migration {id} to be over"), limit, look).await
    }

    /// Moves an agent and waits until it runs there.
    ///
    /// # Errors
    /// When it does not arrive.
    pub async fn move_to(&self, agent: &str, to: &str, limit: Duration) -> Result<Migration> {
        let id = self.migrate(agent, to).await?;
        let migration = self.migration_over(&id, limit).await?;
        if migration.phase != "complete" {
            bail!("migration of {agent} to {to} ended: {}", migration.body);
        }
        Ok(migration)
    }
}

fn receipt(value: &Value) -> Result<Receipt> {
    let inputs = value["inputs"].as_array().cloned().unwrap_or_default();
    let ids = inputs.iter().map(|id| id.as_str().unwrap_or_default().to_owned());
    Ok(Receipt {
        generation: number(value, "generation")?,
        revision: number(value, "revision")?,
        kind: text(value, "kind")?.to_owned(),
        token: number(value, "token")?,
        inputs: ids.collect(),
        digest: text(value, "digest")?.to_owned(),
        parent: text(value, "parent")?.to_owned(),
    })
}

fn input(value: Value) -> Result<Input> {
    Ok(Input {
        id: text(&value, "id")?.to_owned(),
        seq: number(&value, "seq")?,
        state: text(&value, "state")?.to_owned(),
        key: value["idempotency_key"].as_str().map(str::to_owned),
        payload: value["payload"].as_str().unwrap_or_default().to_owned(),
        reply: value["reply"]["body"].as_str().map(str::to_owned),
        body: value,
    })
}
