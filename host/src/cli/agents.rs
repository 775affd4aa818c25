//! `godwit agent`: create, list, show, and the verbs of the life cycle.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use godwit_core::id::AgentId;
use godwit_core::placement::{RESIDENCY_LABEL, Wants};
use godwit_core::spec::{Addressability, Durability};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::Session;
use super::client::REQUEST_MAX;
use super::error::CliError;
use super::events::AgentEvents;
use super::inputs::WaitOutput;
use super::output::Column;

const COLUMNS: [Column; 8] = [
    Column::text("ID", "/id"),
    Column::text("STATE", "/state"),
    Column::text("PLUGIN", "/plugin/name"),
    Column::text("VERSION", "/plugin/version"),
    Column::short("HOST", "/host"),
    Column::text("TOKEN", "/token"),
    Column::text("REVISION", "/revision"),
    Column::text("QUEUED", "/queue_depth"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Agent {
    /// Create an agent at home on this host. The same again is no error.
    Create(Create),
    /// List the agents at home on this host.
    List(List),
    /// Show one agent, wherever it is at home.
    Show {
        /// Which agent.
        id: AgentId,
    },
    /// Show everything about one agent: what it is made of, who holds it, what waits, what it did last, what is wrong.
    Inspect {
        /// Which agent.
        id: AgentId,
        /// So many of its last events.
        #[arg(long, default_value_t = 10)]
        events: usize,
    },
    /// List what happened to one agent, in its own count, or follow it wherever it goes.
    Events(AgentEvents),
    /// Wait for what an agent says next in a committed turn, and print it.
    WaitOutput(WaitOutput),
    /// Store a snapshot now.
    Checkpoint {
        /// Which agent.
        id: AgentId,
    },
    /// Go on accepting inputs, run nothing.
    Pause {
        /// Which agent.
        id: AgentId,
    },
    /// Run again: after a pause, a stop, or a retirement.
    Resume {
        /// Which agent.
        id: AgentId,
    },
    /// Accept nothing more, run what waits, then rest.
    Retire {
        /// Which agent.
        id: AgentId,
    },
    /// Rebuild the instance from what is stored.
    Recycle {
        /// Which agent.
        id: AgentId,
    },
    /// Bring an agent up, and say what became of it: new, going on, at rest, or broken and why.
    Materialize {
        /// Which agent.
        id: AgentId,
    },
    /// Rebuild the instance under a new fencing token.
    Respawn {
        /// Which agent.
        id: AgentId,
    },
    /// Start anew: what waits is given up, the state is gone, the generation rises.
    Reset {
        /// Which agent.
        id: AgentId,
    },
    /// End the turn that runs now and give its input up; the agent goes on with the next.
    Interrupt {
        /// Which agent.
        id: AgentId,
    },
    /// End the turn that runs now, and pause.
    Stop {
        /// Which agent.
        id: AgentId,
        /// Give up the inputs that wait.
        #[arg(long)]
        abandon: bool,
    },
    /// Give an agent another configuration, labels, silent intents or policy. What is not named stays.
    ///
    /// It happens only while the spec is the one that was looked at; run it again when somebody else was faster.
    Configure(Configure),
    /// Run another plugin on the same state. Whatever fails leaves the agent with the one it has.
    Upgrade {
        /// Which agent.
        id: AgentId,
        /// NAME, NAME@VERSION, or a digest.
        #[arg(long)]
        plugin: String,
    },
    /// Settle an agent that a broken-off move has left in doubt at the host that is asked.
    Adopt {
        /// Which agent.
        id: AgentId,
        /// The source is lost for good: let the agent go on here, whatever the source may have.
        #[arg(long)]
        force: bool,
    },
    /// Keep a warm copy of an agent on another host with a store of its own, or none; or show how it is.
    #[command(group = ArgGroup::new("how").multiple(false))]
    Standby {
        /// Which agent.
        id: AgentId,
        /// On this host: its name, key, or unique prefix of a key.
        #[arg(long, group = "how", value_name = "HOST")]
        on: Option<String>,
        /// Keep none.
        #[arg(long, group = "how")]
        off: bool,
        /// The standby is lost for good: do without its answer, and let a held agent run, whatever it may have made of its copy.
        #[arg(long, requires = "off")]
        force: bool,
    },
    /// Make the copy that stands by on the host that is asked the agent. If another host has the agent and answers, it moves here instead.
    Promote {
        /// Which agent.
        id: AgentId,
        /// Hosts that do not answer are stopped for good: go on with the copy. What was done since its last round is lost.
        #[arg(long)]
        force: bool,
    },
    /// Run a broken agent's history again, and let it run on if that gives what is recorded.
    ///
    /// If not, the answer says what does not fit, and which of the options works.
    Recover {
        /// Which agent.
        id: AgentId,
        /// Begin with the older kept snapshot of this revision; what is damaged behind it is made anew.
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
        /// Go on with the state that comes out, though the history names another one. This goes on the record as a boundary
        /// of its own, and can't be taken back.
        #[arg(long)]
        accept_state: bool,
    },
    /// Delete an agent for good.
    #[command(visible_alias = "destroy")]
    Delete {
        /// Which agent.
        id: AgentId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name: letters a-z, digits, and ._:-
    id: AgentId,
    /// Make one anew whose id was deleted.
    #[arg(long)]
    recreate: bool,
    /// Make it though peers that may have one of this id do not answer.
    #[arg(long)]
    force: bool,
    /// At home on this host: its name, key, or unique prefix of a key; the one that is asked, when nothing is said.
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    #[command(flatten)]
    make: Make,
}

/// What a new agent is made of.
#[derive(Debug, Args)]
pub(super) struct Make {
    /// NAME, NAME@VERSION, or a digest.
    #[arg(long)]
    plugin: String,
    /// What the guest reads as its configuration; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    config: Vec<(String, String)>,
    /// For people and selections; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// What a host must offer to be given the agent; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    require: Vec<(String, String)>,
    /// What a host should rather offer; may be given several times, the most wanted first.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    prefer: Vec<(String, String)>,
    /// Who may send to it: everybody (addressable), or other agents and what is dispatched (internal).
    #[arg(long, value_parser = Addressability::ALL.map(Addressability::name))]
    addressability: Option<String>,
    /// For people.
    #[arg(long)]
    display_name: Option<String>,
    /// What it should know, as it is or as JSON.
    #[arg(long)]
    context: Option<String>,
    /// What it is told to do; may be given several times.
    #[arg(long, value_name = "TEXT")]
    instruction: Vec<String>,
    /// Its first input, in each generation.
    #[arg(long)]
    initial_message: Option<String>,
    /// Requests of other agents about this are queued as context and wake nobody; may be given several times.
    #[arg(long, value_name = "INTENT")]
    silent_intent: Vec<String>,
    /// What a commit writes of the state: the whole, a journal, or the smaller of the two.
    #[arg(long, value_parser = Durability::ALL.map(Durability::name))]
    policy: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(super) struct Configure {
    /// Which agent.
    id: AgentId,
    /// The whole of what the guest reads as its configuration; may be given several times.
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = parse_pair)]
    config: Vec<(String, String)>,
    /// No configuration.
    #[arg(long, group = "change", conflicts_with = "config")]
    no_config: bool,
    /// All its labels; may be given several times.
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// No labels.
    #[arg(long, group = "change", conflicts_with = "label")]
    no_labels: bool,
    /// All requests of other agents that are queued as context and wake nobody; may be given several times.
    #[arg(long, group = "change", value_name = "INTENT")]
    silent_intent: Vec<String>,
    /// Every request wakes it.
    #[arg(long, group = "change", conflicts_with = "silent_intent")]
    no_silent_intents: bool,
    /// What a commit writes of the state.
    #[arg(long, group = "change", value_parser = Durability::ALL.map(Durability::name))]
    policy: Option<String>,
    /// Only if the spec is still this one; the present one, unless it is given.
    #[arg(long, value_name = "REVISION")]
    spec_revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those with this label.
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Option<String>,
    /// Only those in this state.
    #[arg(long)]
    state: Option<String>,
}

impl Agent {
    pub(super) async fn run(&self, session: &Session) -> Result<(), CliError> {
        let (client, output) = (&session.client, &session.output);
        match self {
            Self::Create(create) => create.run(session).await,
            Self::Configure(configure) => configure.run(session).await,
            Self::List(list) => {
                let filters = [("label", &list.label), ("state", &list.state)];
                let query: Vec<_> =
                    filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
                output.list(client.pages("/v1/agents", &query).await?, &COLUMNS, "/id")
            }
            Self::Show { id } => output.one(&client.get(&format!("/v1/agents/{id}")).await?, "/id"),
            Self::Inspect { id, events } => {
                let seen = client.get(&format!("/v1/agents/{id}/inspect?events={events}")).await?;
                output.one(&seen, "/agent/id")
            }
            Self::Events(events) => events.run(session).await,
            Self::WaitOutput(wait) => wait.run(session).await,
            Self::Checkpoint { id } => {
                let answer = client.post(&format!("/v1/agents/{id}/checkpoint"), None).await?;
                let revision = answer["revision"].as_str().unwrap_or_default();
                let sentence = format!("agent {id} stored at revision {revision}");
                output.done(&answer, "/revision", &sentence)
            }
            Self::Delete { id } => {
                let request = client.request(Method::DELETE, &format!("/v1/agents/{id}"));
                let answer = client.send(request.timeout(REQUEST_MAX)).await?;
                report(session, id, &answer.json().await.context("the host's answer can't be read")?)
            }
            Self::Upgrade { id, plugin } => {
                let body = json!({"plugin": plugin});
                let answer = client.post(&format!("/v1/agents/{id}/upgrade"), Some(&body)).await?;
                let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
                let sentence =
                    format!("agent {id} runs plugin {} from revision {}", text("plugin"), text("revision"));
                output.done(&answer, "/spec_revision", &sentence)
            }
            Self::Stop { id, abandon: true } => act(session, id, "stop?abandon=true").await,
            Self::Stop { id, abandon: false } => act(session, id, "stop").await,
            Self::Pause { id } => act(session, id, "pause").await,
            Self::Resume { id } => act(session, id, "resume").await,
            Self::Retire { id } => act(session, id, "retire").await,
            Self::Recycle { id } => act(session, id, "recycle").await,
            Self::Materialize { id } => {
                let answer = client.post(&format!("/v1/agents/{id}/materialize"), None).await?;
                let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
                let why = [text("state"), text("reason"), text("message")].join(" ");
                let sentence = format!("agent {id}: {} {}", text("outcome"), why.trim());
                output.done(&answer, "/outcome", sentence.trim_end())
            }
            Self::Adopt { id, force } => {
                let answer = client.post(&format!("/v1/agents/{id}/adopt?force={force}"), None).await?;
                let token = answer["token"].as_str().unwrap_or_default();
                output.done(&answer, "/token", &format!("agent {id} goes on here, token {token}"))
            }
            Self::Standby { id, on, off, force } => standby(session, id, on.as_deref(), *off, *force).await,
            Self::Promote { id, force } => promote(session, id, *force).await,
            Self::Respawn { id } => act(session, id, "respawn").await,
            Self::Reset { id } => act(session, id, "reset").await,
            Self::Interrupt { id } => act(session, id, "interrupt").await,
            Self::Recover { id, from, accept_state } => {
                let from = from.map_or(String::new(), |from| format!("&from={from}"));
                act(session, id, &format!("recover?accept_state={accept_state}{from}")).await
            }
        }
    }
}

async fn promote(session: &Session, id: &AgentId, is_forced: bool) -> Result<(), CliError> {
    let answer = session.client.post(&format!("/v1/agents/{id}/promote?force={is_forced}"), None).await?;
    let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
    let (source, revision, token) = (text("source"), text("revision"), text("token"));
    let sentence = match answer["migration_id"].as_str() {
        Some(migration) => format!("agent {id} moves here from host {source} (migration {migration})"),
        None => format!(
            "agent {id} goes on here from revision {revision}, token {token}: what host {source} did since is lost"
        ),
    };
    session.output.done(&answer, "/agent", &sentence)
}

async fn standby(
    session: &Session,
    id: &AgentId,
    on: Option<&str>,
    is_off: bool,
    is_forced: bool,
) -> Result<(), CliError> {
    let path = format!("/v1/agents/{id}/standby");
    let (answer, sentence) = match on {
        Some(host) => {
            let answer = session.client.post(&format!("{path}?on={host}"), None).await?;
            (answer, format!("host {host} keeps a warm copy of agent {id}"))
        }
        None if is_off => {
            let answer = session.client.post(&format!("{path}?force={is_forced}"), None).await?;
            (answer, format!("no host keeps a copy of agent {id}"))
        }
        None => return session.output.one(&session.client.get(&path).await?, "/standby"),
    };
    session.output.done(&answer, "/standby", &sentence)
}

async fn act(session: &Session, id: &AgentId, verb: &str) -> Result<(), CliError> {
    let answer = session.client.post(&format!("/v1/agents/{id}/{verb}"), None).await?;
    report(session, id, &answer)
}

/// Says what a verb did.
fn report(session: &Session, id: &AgentId, answer: &Value) -> Result<(), CliError> {
    let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
    let count = |member: &str| answer[member].as_u64().unwrap_or_default();
    let mut sentence = format!("agent {id} is {}", text("state"));
    if answer["token_before"].is_string() {
        sentence += &format!(", generation {}, token {}", text("generation"), text("token"));
    }
    if let Some(end) = answer["turn"]["end"].as_str() {
        sentence += &format!("; running turn: {}", end.replace('_', " "));
    }
    if let Some(outcome) = answer["recovery"]["outcome"].as_str() {
        let of = |member: &str| answer["recovery"][member].to_string().replace('"', "");
        sentence +=
            &format!("; {outcome} from snapshot {}, {} turns ran again", of("from_snapshot"), of("turns"));
        if let Some(left_out) = answer["recovery"]["repair"]["turns_left_out"].as_u64() {
            sentence += &format!(", {left_out} are left out of the accepted state");
        }
    }
    for (member, what) in [("inputs_abandoned", "given up"), ("inputs_pending", "waiting")] {
        if count(member) > 0 {
            sentence += &format!("; {} inputs {what}", count(member));
        }
    }
    session.output.done(answer, "/state", &sentence)
}

impl Configure {
    async fn run(&self, session: &Session) -> Result<(), CliError> {
        let (client, id) = (&session.client, &self.id);
        let path = format!("/v1/agents/{id}");
        let known = client.get(&path).await?;
        let base = match self.spec_revision {
            Some(revision) => revision.to_string(),
            None => known["spec_revision"].as_str().unwrap_or_default().to_owned(),
        };
        let pairs = |pairs: &[(String, String)], none| (none || !pairs.is_empty()).then(|| map(pairs));
        let names_intents = self.no_silent_intents || !self.silent_intent.is_empty();
        let body = json!({
            "plugin": known["plugin"]["digest"],
            "config": pairs(&self.config, self.no_config),
            "labels": pairs(&self.label, self.no_labels),
            "silent_intents": names_intents.then_some(&self.silent_intent),
            "policy": self.policy,
        });
        let request = client.request(Method::PUT, &path).header(header::IF_MATCH, base).json(&body);
        let agent = client.json(request.timeout(REQUEST_MAX)).await?;
        let revision = agent["spec_revision"].as_str().unwrap_or_default();
        session.output.done(&agent, "/spec_revision", &format!("agent {id} has spec revision {revision}"))
    }
}

fn map(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

impl Make {
    /// What it wants of its host.
    pub(super) fn wants(&self) -> Wants {
        let residency = map(&self.label).remove(RESIDENCY_LABEL);
        Wants { requires: map(&self.require), prefers: self.prefers(), residency }
    }

    fn prefers(&self) -> Vec<BTreeMap<String, String>> {
        self.prefer.iter().map(|pair| map(std::slice::from_ref(pair))).collect()
    }

    /// Creates an agent of it, with these labels beside those that are given. Answers it, and whether it is new.
    pub(super) async fn create(
        &self,
        session: &Session,
        path_and_query: &str,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Value, bool), CliError> {
        let body = json!({
            "plugin": self.plugin,
            "config": map(&self.config),
            "labels": map(&self.label).into_iter().chain(labels).collect::<BTreeMap<_, _>>(),
            "silent_intents": self.silent_intent,
            "policy": self.policy,
            "addressability": self.addressability,
            "display_name": self.display_name,
            "context": self.context,
            "instructions": self.instruction,
            "initial_message": self.initial_message,
            "requires": map(&self.require),
            "prefers": self.prefers(),
        });
        let client = &session.client;
        let request = client.request(Method::PUT, path_and_query).json(&body);
        let answer = client.send(request.timeout(REQUEST_MAX)).await?;
        let is_new = answer.status() == StatusCode::CREATED;
        Ok((answer.json().await.context("the host's answer can't be read")?, is_new))
    }
}

impl Create {
    async fn run(&self, session: &Session) -> Result<(), CliError> {
        let host = self.on.as_deref().unwrap_or("self");
        let (recreate, force) = (self.recreate, self.force);
        let path = format!("/v1/agents/{}?recreate={recreate}&force={force}&host={host}", self.id);
        let (agent, is_new) = self.make.create(session, &path, []).await?;
        let did = if is_new { "created" } else { "is there already" };
        session.output.done(&agent, "/id", &format!("agent {} {did}", self.id))
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not KEY=VALUE".into()),
    }
}
