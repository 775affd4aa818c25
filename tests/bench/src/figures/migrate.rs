//! The pause of a migration: from the last turn on the source to the first possible one on the target, as the record says.
//!
//! The floor is what has to happen in between with the simplest parts: the state goes over a loopback connection and is
//! committed at the other side, and three small commits hand the home over. An idle agent's state has gone ahead, so its
//! pause may be shorter than that. Under load the state has changed by the time the agent is frozen: the floor then also
//! restores it, in bare wasmtime.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use godwit_support::client::Client;
use godwit_support::host::Host;
use godwit_support::random::Random;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::bare::{self, BarePlugin};
use crate::bench::{Bench, component, guest_file, populate};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::product;
use crate::report::{Findings, Measure, Target, nanos};
use crate::samples::Samples;

/// Moves, idle and under load each; the agent ends where it began.
const MOVES: u64 = 30;
const STATE_BYTES_MIN: i64 = 1 << 20;
const PAUSE_NANOS_MAX: f64 = 50e6;
const MOVE_MAX: Duration = Duration::from_secs(30);
const AGENT: &str = "traveller";
/// Text of one document: several of them make a mebibyte of index.
const DOCUMENT_BYTES: usize = 256 << 10;
const DOCUMENTS_MAX: usize = 32;
/// Pause between two asks of the light load.
const LOAD_PAUSE_MS: u64 = 20;
/// Asks between two looks whether the load is over.
const LOAD_BATCH: u64 = 10;

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut a = bench.host(scratch.path(), "a").await?;
    let mut b = bench.host(scratch.path(), "b").await?;
    let (a_peer, b_peer) = (a.peer(), b.peer());
    a.add_peer(b_peer).await?;
    b.add_peer(a_peer).await?;
    for host in [&a, &b] {
        host.client().load_plugin(&guest_file("index")?).await?;
    }
    let documents = feed(&a).await?;
    let mut floor = Floor::new(scratch.path(), &documents)?;
    let state_bytes = state_bytes(&a.ready().store_path())?;
    ensure!(floor.state.len() as i64 == state_bytes, "the bare guest has another state");
    let moves = bench.scaled(MOVES).next_multiple_of(2);
    // The first move carries the whole history and compiles the plugin at the target.
    go_round(&a, &b, 2, &mut Samples::new(), None).await?;

    let [mut idle, mut idle_floor, mut busy, mut busy_floor] = [const { Samples::new() }; 4];
    let mut hand_over = || idle_floor.time(|| floor.hand_over());
    let bytes = go_round(&a, &b, moves, &mut idle, Some(&mut hand_over)).await?;
    let load = Load::start(&a, &documents)?;
    let mut hand_over = || busy_floor.time(|| floor.hand_over().and_then(|()| floor.restore()));
    go_round(&a, &b, moves, &mut busy, Some(&mut hand_over)).await?;
    let asks = load.end().await?;
    a.terminate().await?;
    b.terminate().await?;

    let mut findings = Findings::default();
    findings
        .note(format!("state {state_bytes} B, {bytes:.0} B sent per move, {} documents", documents.len()));
    findings.note(format!(
        "light load: {} asks, p50 {}, p99 {}",
        asks.count(),
        nanos(asks.p50()),
        nanos(asks.p99())
    ));
    let target = Some(Target::Max(PAUSE_NANOS_MAX));
    findings.row(
        "pause of a migration, 1 MiB, idle",
        Some(Measure::Time(idle_floor)),
        Measure::Time(idle),
        target,
    );
    findings.row(
        "pause of a migration, 1 MiB, light load",
        Some(Measure::Time(busy_floor)),
        Measure::Time(busy),
        target,
    );
    Ok(findings)
}

/// A document that the agent was given.
struct Document {
    name: String,
    /// The payload that puts it into the index.
    put: String,
}

/// Feeds the agent until its state is large enough. All documents hold the word `gap`.
async fn feed(host: &Host) -> Result<Vec<Document>> {
    let api = host.client();
    populate(&api, "index", &[AGENT.to_owned()], None).await?;
    let mut random = Random::from_seed(7);
    let mut documents = Vec::new();
    for number in 1..=DOCUMENTS_MAX {
        let name = format!("doc-{number:02}");
        let put = json!({ "put": { "doc": name, "text": text(&mut random) } }).to_string();
        let reply = api.reply(AGENT, &put).await?;
        let expected = json!({ "docs": number }).to_string();
        ensure!(reply == expected, "the index answered {reply}, not {expected}");
        documents.push(Document { name, put });
        if state_bytes(&host.ready().store_path())? >= STATE_BYTES_MIN {
            return Ok(documents);
        }
    }
    bail!("{DOCUMENTS_MAX} documents did not make {STATE_BYTES_MIN} bytes of state")
}

/// Words that no two documents are likely to share, and one that all do.
fn text(random: &mut Random) -> String {
    let mut text = String::from("gap");
    while text.len() < DOCUMENT_BYTES {
        text.push(' ');
        let letters = 4 + random.below(8);
        text.extend((0..letters).map(|_| char::from(b'a' + (random.below(26) as u8))));
    }
    text
}

/// Size of the agent's stored state.
fn state_bytes(database: &Path) -> Result<i64> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT s.bytes FROM snapshot s JOIN agent a ON a.key = s.agent WHERE a.id = ?1";
    connection.query_row(sql, [AGENT], |row| row.get(0)).context("the agent has no snapshot")
}

/// Moves the agent back and forth, an even number of times. Answers the bytes that one move sent.
async fn go_round(
    a: &Host,
    b: &Host,
    moves: u64,
    pauses: &mut Samples,
    mut floor: Option<&mut dyn FnMut() -> Result<()>>,
) -> Result<f64> {
    let mut bytes = 0;
    for number in 0..moves {
        let (source, target) = if number % 2 == 0 { (a, b) } else { (b, a) };
        if let Some(hand_over) = &mut floor {
            hand_over()?;
        }
        let api: Client = source.client();
        let migration = api.move_to(AGENT, target.key(), MOVE_MAX).await?;
        let pause_ms = migration.pause_ms.context("a complete migration has a pause")?;
        pauses.push(Duration::from_secs_f64(pause_ms / 1e3));
        bytes += migration.bytes;
    }
    Ok(bytes as f64 / moves as f64)
}

/// A client that asks through one host, wherever the agent is.
struct Load {
    is_over: Arc<AtomicBool>,
    client: tokio::task::JoinHandle<Result<Samples>>,
}

impl Load {
    fn start(door: &Host, documents: &[Document]) -> Result<Self> {
        let mut client = LoadClient::start(door.ready().api)?;
        let names: Vec<_> = documents.iter().map(|document| &document.name).collect();
        let order = Order {
            lanes: vec![vec![AGENT.into()]],
            door: Door::Ask,
            payload: json!({ "query": "gap" }).to_string(),
            expected: Expected::Text(json!({ "docs": names }).to_string()),
            until: Until::Asks(LOAD_BATCH),
            pause_ms: LOAD_PAUSE_MS,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = is_over.clone();
        let client = tokio::task::spawn_blocking(move || {
            let mut asks = Samples::new();
            while !ended.load(Ordering::Relaxed) {
                asks.extend(client.run(&order)?.nanos);
            }
            Ok(asks)
        });
        Ok(Self { is_over, client })
    }

    /// Ends it. Answers the time of each ask.
    async fn end(self) -> Result<Samples> {
        self.is_over.store(true, Ordering::Relaxed);
        self.client.await?
    }
}

/// Two databases, with a connection between them.
struct Floor {
    source: Connection,
    stream: TcpStream,
    plugin: BarePlugin,
    state: Vec<u8>,
    /// Ends when the stream does.
    _target: JoinHandle<Result<()>>,
}

impl Floor {
    /// Databases in `directory`, and the state that the documents lead to.
    fn new(directory: &Path, documents: &[Document]) -> Result<Self> {
        let plugin = BarePlugin::compile(&component("index")?)?;
        let mut guest = plugin.start(AGENT, None)?;
        guest.init()?;
        for document in documents {
            guest.handle(&[bare::input(&document.put)])?;
        }
        let state = guest.snapshot()?;
        let state_bytes = state.len();
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (peer, _) = listener.accept()?;
        peer.set_nodelay(true)?;
        let target = handover_database(&directory.join("floor-target.db"))?;
        Ok(Self {
            source: handover_database(&directory.join("floor-source.db"))?,
            stream,
            plugin,
            state,
            _target: std::thread::spawn(move || take_over(peer, &target, state_bytes)),
        })
    }

    /// Builds a guest from the state.
    fn restore(&self) -> Result<()> {
        self.plugin.start(AGENT, None)?.restore(&self.state, product::VERSION)
    }

    /// Lets go at the source, sends the state, moves the home, and hears that the target has taken it up.
    fn hand_over(&mut self) -> Result<()> {
        let mut answer = [0];
        self.source.execute("UPDATE home SET step = step + 1", [])?;
        self.stream.write_all(&self.state)?;
        self.stream.read_exact(&mut answer)?;
        self.source.execute("UPDATE home SET step = step + 1", [])?;
        self.stream.write_all(&answer)?;
        self.stream.read_exact(&mut answer)?;
        Ok(())
    }
}

/// The other side: commits what arrives, then takes it up when it is told.
fn take_over(mut stream: TcpStream, database: &Connection, state_bytes: usize) -> Result<()> {
    let mut state = vec![0; state_bytes];
    let mut go = [0];
    // An error is the end of the stream: the floor has been measured.
    while stream.read_exact(&mut state).is_ok() {
        database.execute("UPDATE home SET step = step + 1, state = ?1", [&state])?;
        stream.write_all(&go)?;
        stream.read_exact(&mut go)?;
        database.execute("UPDATE home SET step = step + 1", [])?;
        stream.write_all(&go)?;
    }
    Ok(())
}

fn handover_database(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE home (step INTEGER NOT NULL, state BLOB); INSERT INTO home VALUES (0, NULL)",
    )?;
    Ok(connection)
}
