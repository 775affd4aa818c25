//! A program that brings its own host: it loads a plugin, says which agents there are and what each is made of, hears of them
//! through hooks and events, asks them, and takes the host down. It runs to its end by itself.
//!
//! ```text
//! cargo run -p godwit-host --example embed -- target/guests/counter.wasm
//! ```
//! The component is that of `plugins/counter`; without an argument it is looked for in the directory `GODWIT_GUESTS`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use godwit::agent_doc::AgentDoc;
use godwit::config::HostConfig;
use godwit::hooks::{ErrorEvent, Hooks};
use godwit::host::HostBuilder;
use godwit::roster::{AgentCustomizer, Roster, RosterEntry, RosterError, RosterProvider};
use godwit::runtime::Runtime;
use godwit::runtime::call::{AgentCall, AgentReply, CallError, Submission};
use godwit::runtime::reconcile::ReconcileReport;
use godwit::runtime::routing::Forward;
use godwit_core::event::EventKind;
use godwit_core::id::AgentId;
use godwit_core::input::{Kind, Mode, Outcome, ReplyOutcome, Source};
use godwit_core::retry::{Retry, Retryable};

const AGENTS: [&str; 3] = ["anna", "bert", "carl"];
/// How long one ask may take.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Pause between looks at the event log.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Events read at once.
const PAGE: usize = 100;

/// Says which agents there should be: here always the same; another program may ask its database.
struct Names;

#[async_trait]
impl RosterProvider for Names {
    async fn roster(&self) -> Result<Roster, RosterError> {
        let mut roster = Roster::default();
        for name in AGENTS {
            let id = AgentId::parse(name)
                .map_err(|error| RosterError::Unavailable { reason: error.to_string() })?;
            let doc = AgentDoc { plugin: "counter".to_owned(), ..AgentDoc::default() };
            roster.agents.insert(id.clone(), RosterEntry { id, host: None, doc });
        }
        Ok(roster)
    }
}

/// Has the last word on what an agent is made of.
struct Labels;

impl AgentCustomizer for Labels {
    fn customize(&self, agent: &AgentId, doc: &mut AgentDoc) -> Result<(), String> {
        let initial = agent.as_str()[..1].to_owned();
        doc.labels.get_or_insert_default().insert("initial".to_owned(), initial);
        Ok(())
    }
}

/// What this program wants to hear at once. What it must not miss it reads from the event log.
#[derive(Default)]
struct Announcer {
    spawned: AtomicUsize,
}

#[async_trait]
impl Hooks for Announcer {
    async fn post_spawn(&self, agents: &[AgentId]) {
        self.spawned.fetch_add(agents.len(), Ordering::Relaxed);
        for agent in agents {
            println!("hook: {agent} was created");
        }
    }

    async fn post_reconcile(&self, report: &ReconcileReport) {
        let is_complete = report.is_complete();
        println!("hook: {} agents reconciled, complete: {is_complete}", report.agents.len());
    }

    async fn error(&self, event: &ErrorEvent) {
        println!("hook: {event}");
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hooks = Arc::new(Announcer::default());
    let builder = HostBuilder::new(HostConfig::in_directory(folder.path()))
        .plugin_file(component()?)
        .roster(Arc::new(Names))
        .customizer(Arc::new(Labels))
        .hooks(hooks.clone())
        .serves_api(false)
        .after_each_stage(|stage| {
            println!("started: {stage}");
            Ok(())
        });
    let host = builder.start().await?;
    println!("{}", host.ready_line());
    let runtime = host.runtime();
    let following = tokio::spawn(follow(runtime.clone(), AGENTS.len()));

    for (number, agent) in AGENTS.into_iter().enumerate() {
        let agent = AgentId::parse(agent)?;
        ask(runtime, &agent, &format!("add {}", number + 1)).await?;
        let sum = ask(runtime, &agent, "get").await?;
        println!("{agent} says {sum}");
        ensure!(sum == (number + 1).to_string(), "{agent} has lost count");
    }

    tokio::time::timeout(ASK_MAX, following).await.context("the log does not name all agents")???;
    let anna = runtime.agents(None, 1).await?.pop().context("the roster names anna")?;
    ensure!(anna.labels.get("initial").is_some_and(|initial| initial == "a"), "{:?}", anna.labels);
    // Whoever runs until Ctrl-C uses `host.run_until`.
    let report = host.stop().await;
    print!("{report}");
    ensure!(report.troubles().next().is_none() && report.tasks_left == 0, "the host did not end cleanly");
    let too_late = ask(runtime, &AgentId::parse(AGENTS[0])?, "get").await;
    let refusal = too_late.err().and_then(|error| error.downcast::<CallError>().ok());
    ensure!(refusal.is_some_and(|refusal| refusal.retry() == Retry::Later), "a stopped host refuses");
    ensure!(hooks.spawned.load(Ordering::Relaxed) == AGENTS.len(), "a hook was not called");
    Ok(())
}

fn component() -> Result<PathBuf> {
    if let Some(path) = std::env::args_os().nth(1) {
        return Ok(path.into());
    }
    let guests = std::env::var_os("GODWIT_GUESTS");
    let guests = guests.context("name the component of plugins/counter, or set GODWIT_GUESTS")?;
    Ok(PathBuf::from(guests).join("counter.wasm"))
}

/// Asks, and answers the reply's text: it is durable by then.
async fn ask(runtime: &Runtime, agent: &AgentId, text: &str) -> Result<String> {
    let submission = Submission {
        id: runtime.new_input_id(),
        kind: Kind::Message,
        source: Source::Operator,
        content_type: "text/plain".to_owned(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        headers: Vec::new(),
        idempotency_key: None,
        mode: Mode::Default,
        is_silent: false,
        supersedes: None,
        traceparent: None,
        correlation: None,
        is_dispatched: false,
    };
    let timeout_ms = u64::try_from(ASK_MAX.as_millis())?;
    let called = runtime.call(agent, AgentCall::Ask { submission, timeout_ms }, Forward::Yes).await?;
    match called.reply {
        AgentReply::Asked(asked) => match asked.outcome {
            Outcome::Committed { reply, .. } => match reply.outcome {
                ReplyOutcome::Ok(body) => Ok(String::from_utf8(body.to_vec())?),
                other => bail!("{agent} said {other:?}"),
            },
            other => bail!("{agent} did not answer: {other:?}"),
        },
        other => bail!("{agent} was not asked: {other:?}"),
    }
}

/// Follows the event log from its start until it has named so many agents that were taken up.
async fn follow(runtime: Runtime, agents: usize) -> Result<()> {
    let (mut cursor, mut taken_up) = (0, 0);
    while taken_up < agents {
        let page = runtime.events(cursor, None, None, PAGE).await?;
        ensure!(page.gap.is_none(), "events were removed before they were read: {:?}", page.gap);
        for event in &page.events {
            cursor = event.seq;
            let agent = event.event.agent.as_ref().map_or_else(String::new, |agent| format!(" of {agent}"));
            println!("event {cursor}: {:?}{agent}", event.event.kind);
            taken_up += usize::from(event.event.kind == EventKind::LeaseAcquired);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(())
}
