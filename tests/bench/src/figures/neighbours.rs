//! What a thousand agents notice of three that misbehave: one computes for ever in each of its turns, one has operations
//! that hang, and the snapshot of one is damaged.
//!
//! The load is light, so that what is measured is waiting and not a full machine. It is the same before the three begin
//! and while they are at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::host::{Host, HostOptions};
use godwit_support::web::Web;
use rusqlite::Connection;

use crate::bench::{Bench, guest_file, note, populate};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

const AGENTS: usize = 1_000;
const CLIENTS: usize = 8;
/// Between two asks of a client.
const PAUSE_MS: u64 = 5;
const ROUND_MS: u64 = 2_000;
const ROUNDS: u64 = 8;
const RATIO_MAX: f64 = 2.0;
const LOOPING: &str = "looping";
const WAITING: &str = "waiting";
const DAMAGED: &str = "damaged";
/// As many operations as an agent may have.
const OPERATIONS: usize = 16;
/// Between two asks of the damaged agent.
const DAMAGED_PAUSE: Duration = Duration::from_millis(100);

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut host = HostOptions::new(&binaries::product()?, &scratch.path().join("host"), "host")
        .variable("GODWIT_OPERATIONS_HTTP", "127.0.0.1:*")
        .variable("GODWIT_OPERATIONS_NETWORKS", "127.0.0.1")
        .start()
        .await?;
    let agents: Vec<String> = (0..AGENTS).map(|number| format!("quiet-{number}")).collect();
    prepare(&mut host, &agents).await?;
    let lanes = (0..CLIENTS).map(|client| agents.iter().skip(client).step_by(CLIENTS).cloned().collect());
    let order = Order {
        lanes: lanes.collect(),
        door: Door::Ask,
        payload: "turns".into(),
        expected: Expected::NextNumber,
        until: Until::Milliseconds(ROUND_MS),
        pause_ms: PAUSE_MS,
    };
    let mut client = LoadClient::start(host.ready().api)?;
    // Everybody is resident before it is measured.
    for _ in 0..bench.scaled(ROUNDS / 2) {
        client.run(&order)?;
    }
    let (mut before, mut during) = (Samples::new(), Samples::new());
    for _ in 0..bench.scaled(ROUNDS) {
        before.extend(client.run(&order)?.nanos);
    }
    let trouble = Trouble::start(host.client()).await?;
    for _ in 0..bench.scaled(ROUNDS) {
        during.extend(client.run(&order)?.nanos);
    }
    let told = trouble.end().await?;
    host.terminate().await?;

    let mut findings = Findings::default();
    findings.note(told);
    findings.row(
        "p99 of 1,000 agents beside three that misbehave (floor: before)",
        Some(Measure::Tail(before)),
        Measure::Tail(during),
        Some(Target::RatioMax(RATIO_MAX)),
    );
    Ok(findings)
}

/// Makes all agents, and damages the snapshot of one while the host is down.
async fn prepare(host: &mut Host, agents: &[String]) -> Result<()> {
    let api = host.client();
    for plugin in ["hostile", "fetcher"] {
        api.load_plugin(&guest_file(plugin)?).await?;
    }
    populate(&api, "hostile", agents, Some(&note())).await?;
    let troubled = [LOOPING.to_owned(), DAMAGED.to_owned()];
    populate(&api, "hostile", &troubled, Some(&note())).await?;
    api.create(WAITING, "fetcher").await?;
    host.terminate().await?;
    let file = Connection::open(host.ready().store_path())?;
    let damaged = file.execute(
        "UPDATE snapshot SET state = zeroblob(length(state)) WHERE agent = (SELECT key FROM agent WHERE id = ?1)",
        [DAMAGED],
    )?;
    ensure!(damaged == 1, "one snapshot is damaged");
    drop(file);
    host.start(&[]).await
}

/// The three, at it.
struct Trouble {
    is_over: Arc<AtomicBool>,
    looping: tokio::task::JoinHandle<usize>,
    damaged: tokio::task::JoinHandle<Result<usize>>,
    web: Web,
}

impl Trouble {
    async fn start(api: Client) -> Result<Self> {
        let web = Web::start().await?;
        for _ in 0..OPERATIONS {
            api.reply(WAITING, &format!("fetch {}", web.url("/never"))).await?;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let (ended, door) = (is_over.clone(), api.clone());
        let looping = tokio::spawn(async move {
            let mut given_up = 0;
            while !ended.load(Ordering::Relaxed) {
                // Each is tried until its attempts are used up.
                door.ask(LOOPING, "loop", None).await;
                given_up += 1;
            }
            given_up
        });
        let (ended, door) = (is_over.clone(), api);
        let damaged = tokio::spawn(async move {
            let mut refused = 0;
            while !ended.load(Ordering::Relaxed) {
                let fate = door.ask(DAMAGED, "turns", None).await;
                fate.problem().context("the damaged agent answered")?;
                refused += 1;
                tokio::time::sleep(DAMAGED_PAUSE).await;
            }
            Ok(refused)
        });
        Ok(Self { is_over, looping, damaged, web })
    }

    /// Ends it; says what they did.
    async fn end(self) -> Result<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let (given_up, refused) = (self.looping.await?, self.damaged.await??);
        let hanging = self.web.asked().len();
        ensure!(
            given_up > 0 && refused > 0 && hanging == OPERATIONS,
            "{given_up} loops, {refused} refusals, {hanging} operations"
        );
        Ok(format!(
            "meanwhile {given_up} endless inputs were given up, {hanging} operations hung, and {refused} asks of the damaged agent were refused"
        ))
    }
}
