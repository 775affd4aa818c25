//! `godwit group`: agents behind one name.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use godwit_core::group::{GroupName, LABEL};
use godwit_core::id::{AgentId, HostId};
use godwit_core::limits::GROUP_MEMBERS_MAX;
use godwit_core::placement::{self, Candidate, Offer, Place};
use serde_json::{Value, json};

use super::Session;
use super::agents::Make;
use super::error::CliError;
use super::inputs::{Question, What};
use super::output::Column;

const COLUMNS: [Column; 4] = [
    Column::text("AGENT", "/agent"),
    Column::short("HOST", "/host"),
    Column::text("STATE", "/state"),
    Column::text("LOAD", "/load"),
];

const CREATED_COLUMNS: [Column; 3] =
    [Column::text("AGENT", "/agent"), Column::short("HOST", "/host"), Column::text("NEW", "/new")];

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// Create the members NAME-0, NAME-1, ..., each on the host that has the fewest agents then. Those that are there stay.
    Create(Create),
    /// List the members, with host, state, and what waits at each.
    Show {
        /// Which group.
        group: GroupName,
    },
    /// Ask the member that has least to do, or the one that the key picks, and print its reply.
    Ask {
        /// Which group.
        group: GroupName,
        #[command(flatten)]
        question: Question,
    },
    /// Send to the member that has least to do, or the one that the key picks; return once it is durable.
    Send {
        /// Which group.
        group: GroupName,
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The group's name: letters a-z, digits, and ._:-
    group: GroupName,
    /// How many members it shall have.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=GROUP_MEMBERS_MAX as u64))]
    replicas: u64,
    #[command(flatten)]
    make: Make,
}

impl Group {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(session).await,
            Self::Show { group } => {
                let items = session.client.list(&format!("/v1/groups/{group}")).await?;
                session.output.list(items, &COLUMNS, "/agent")
            }
            Self::Ask { group, question } => {
                question.ask_at(session, &format!("/v1/groups/{group}/ask")).await
            }
            Self::Send { group, what } => what.send_to(session, &format!("/v1/groups/{group}/send")).await,
        }
    }
}

impl Create {
    async fn run(&self, session: &Session) -> Result<(), CliError> {
        let agents = (0..self.replicas).map(|number| AgentId::parse(&format!("{}-{number}", self.group)));
        let agents: Vec<_> =
            agents.collect::<Result<_, _>>().map_err(|error| CliError::Usage(error.to_string()))?;
        let known = self.known(session).await?;
        let wants = self.make.wants();
        let missing = agents.iter().filter(|agent| !known.contains_key(*agent));
        let candidates =
            missing.map(|agent| Candidate { agent: agent.clone(), wants: wants.clone(), bytes: 0 });
        let places = placement::empty(candidates.collect(), &offers(session).await?);
        let mut items: BTreeMap<AgentId, Value> = BTreeMap::new();
        for agent in &agents {
            if let Some(host) = known.get(agent) {
                items.insert(agent.clone(), json!({"agent": agent, "host": host, "new": false}));
            }
        }
        for Place { agent, to } in places {
            let host = to.map_err(|why| CliError::Usage(format!("agent {agent} can't be placed: {why}")))?;
            let path = format!("/v1/agents/{agent}?host={host}");
            let label = (LABEL.to_owned(), self.group.as_str().to_owned());
            let (made, is_new) = self.make.create(session, &path, [label]).await?;
            items.insert(agent.clone(), json!({"agent": agent, "host": made["home"], "new": is_new}));
        }
        session.output.list(items.into_values().collect(), &CREATED_COLUMNS, "/agent")
    }

    /// The members that are there already, and where.
    async fn known(&self, session: &Session) -> Result<BTreeMap<AgentId, String>, CliError> {
        let members = match session.client.list(&format!("/v1/groups/{}", self.group)).await {
            Err(error) if error.is_not_found() => Vec::new(),
            members => members?,
        };
        let text = |member: &Value, name: &str| member[name].as_str().unwrap_or_default().to_owned();
        let known = members
            .iter()
            .filter_map(|member| Some((AgentId::parse(&text(member, "agent")).ok()?, text(member, "host"))));
        Ok(known.collect())
    }
}

/// What the hosts offer that answer.
async fn offers(session: &Session) -> Result<BTreeMap<HostId, Offer>, CliError> {
    let hosts = session.client.list("/v1/hosts").await?;
    let offer = |host: &Value| -> Option<(HostId, Offer)> {
        let capabilities = host["capabilities"].as_object()?.iter();
        let capabilities =
            capabilities.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let offer = Offer {
            capabilities: capabilities.collect(),
            is_cordoned: host["cordoned"].as_bool()?,
            agents: host["agents"].as_u64()?,
        };
        Some((host["id"].as_str()?.parse().ok()?, offer))
    };
    Ok(hosts.iter().filter_map(offer).collect())
}
