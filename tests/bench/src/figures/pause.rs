//! How long an agent stands still when it moves, whatever its size: 200 inputs a second come in meanwhile, through one door,
//! wherever it is. The pause is what the record says; beside it the worst that a caller has waited.
//!
//! And once, what both hosts take of memory for an agent that is larger than that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::client::Client;
use godwit_support::events::{Event, find_after};
use godwit_support::host::Host;
use godwit_support::memory::Mark;
use godwit_support::random::Random;
use godwit_support::wait::until;
use rusqlite::{Connection, OpenFlags};

use crate::bench::{Bench, guest_file, note};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::quic::BareQuic;
use crate::report::{Findings, Measure, Target, nanos};
use crate::samples::Samples;

/// Moves of each size, there and back.
const MOVES: u64 = 50;
const MOVE_MAX: Duration = Duration::from_secs(60);
/// Connections, and the pause of each between two asks: about 200 asks a second in all, with what an ask itself takes.
const LANES: usize = 3;
const LOAD_PAUSE_MS: u64 = 12;
/// Asks between two looks whether the load is over.
const LOAD_BATCH: u64 = 20;
/// Between two moves: a move is timed by itself, and both stores have put work off for the one before. The load goes on, and
/// each move takes the history of all before it along.
const CALM: Duration = Duration::from_millis(300);
/// From here on the bytes count, and not the steps.
const LARGE_BYTES: usize = 16 << 20;
const TOTAL_RATIO_MAX: f64 = 3.0;
/// One row: a quarter of what one may hold; and how many the guest writes in a turn.
const ROW_BYTES: usize = 64 << 10;
const ROWS: usize = 32;
/// Bytes of a word that a snapshot is filled with: hex digits, of which packing leaves half.
const WORD_BYTES: usize = 400 << 10;

/// The agent whose memory is measured, and what its move may take at each end.
const HEAVY: Kind = Kind { name: "256 MiB of rows", rows: 256 << 20, snapshot: 0, moves: 1, pause_max: 25e6 };
const EXTRA_BYTES_MAX: f64 = (32 << 20) as f64;

/// Connections of the floor that may break.
const BROKEN_MAX: u32 = 5;

/// One kind of agent.
struct Kind {
    name: &'static str,
    /// Bytes in its rows.
    rows: usize,
    /// Bytes in its snapshot, beside a kibibyte.
    snapshot: usize,
    moves: u64,
    /// What its pause may be at the 99th percentile, in nanoseconds.
    pause_max: f64,
}

const KINDS: [Kind; 4] = [
    Kind { name: "1 KiB", rows: 0, snapshot: 0, moves: MOVES, pause_max: 10e6 },
    Kind { name: "1 MiB of rows", rows: 1 << 20, snapshot: 0, moves: MOVES, pause_max: 10e6 },
    Kind { name: "16 MiB of snapshot", rows: 0, snapshot: 15 << 20, moves: 2 * MOVES, pause_max: 25e6 },
    Kind { name: "64 MiB of rows", rows: 64 << 20, snapshot: 0, moves: MOVES, pause_max: 25e6 },
];

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let (mut a, mut b) = pair(bench, scratch.path()).await?;
    let mut findings = Findings::default();
    for (number, kind) in KINDS.iter().enumerate() {
        let (name, agent) = (kind.name, format!("traveller-{number}"));
        fill(&a.client(), &agent, kind).await?;
        // The first move compiles the plugin at the target.
        go_round(&a, &b, &agent, 2).await?;
        let load = Load::start(&a, &agent)?;
        let moves = bench.scaled(kind.moves).next_multiple_of(2);
        let Round { pauses, times, bytes: sent } = go_round(&a, &b, &agent, moves).await?;
        let bare = floor(sent, moves).await?;
        let (asks, per_second) = load.end().await?;
        println!("  {name}: pause p50 {}, p99 {}", nanos(pauses.p50()), nanos(pauses.p99()));
        findings.note(format!(
            "{name}: {moves} moves, each {:.1} MiB and {} in all (p50); {per_second:.0} asks/s, p50 {}, worst {}",
            sent / f64::from(1 << 20),
            nanos(times.p50()),
            nanos(asks.p50()),
            nanos(asks.max())
        ));
        let row = format!("pause, {name}, 200 inputs/s");
        findings.row(row, None, Measure::Tail(pauses), Some(Target::Max(kind.pause_max)));
        if kind.rows >= LARGE_BYTES {
            let row = format!("whole move, {name} (floor: the same bytes over bare QUIC)");
            let target = Some(Target::RatioMax(TOTAL_RATIO_MAX));
            findings.row(row, Some(Measure::Time(bare)), Measure::Time(times), target);
        }
    }
    a.terminate().await?;
    b.terminate().await?;
    let scratch = bench.scratch()?;
    memory(bench, scratch.path(), &mut findings).await?;
    Ok(findings)
}

/// What a move of a large agent takes of memory, between hosts that have nothing of it in memory and have moved another before.
async fn memory(bench: &Bench, scratch: &Path, findings: &mut Findings) -> Result<()> {
    let (mut a, mut b) = pair(bench, scratch).await?;
    fill(&a.client(), "heavy", &HEAVY).await?;
    a.terminate().await?;
    a.start(&[]).await?;
    fill(&a.client(), "light", &KINDS[0]).await?;
    a.client().move_to("light", b.key(), MOVE_MAX).await?;
    let marks = [Mark::of(&a)?, Mark::of(&b)?];
    go_round(&a, &b, "heavy", 1).await?;
    all_dropped(&a).await?;
    for (side, mark) in ["source", "target"].into_iter().zip(marks) {
        let extra = (mark.extra_kib()? << 10) as f64;
        let row = format!("memory of a move at its {side}, {}", HEAVY.name);
        findings.row(row, None, Measure::Bytes(extra), Some(Target::Max(EXTRA_BYTES_MAX)));
    }
    a.terminate().await?;
    b.terminate().await
}

/// Waits until a host has dropped the rows of what has left it: that is done in the background, and belongs to no move.
async fn all_dropped(host: &Host) -> Result<()> {
    let file = Connection::open_with_flags(host.ready().store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    file.busy_timeout(MOVE_MAX)?;
    let look = || async {
        let sql = "SELECT count(*) FROM state WHERE agent IN (SELECT key FROM agent WHERE home <> 0)";
        let rows: i64 = file.query_row(sql, [], |row| row.get(0))?;
        Ok((rows == 0).then_some(()))
    };
    until("a source to drop what it has sent", MOVE_MAX, look).await
}

/// The bytes of one move, as often as there were moves. A connection that breaks is made anew, and said.
async fn floor(bytes: f64, moves: u64) -> Result<Samples> {
    let mut quic = BareQuic::start().await?;
    let (mut times, mut broken) = (Samples::new(), 0);
    while times.count() < moves as usize {
        match quic.send(bytes as usize).await {
            Ok(time) => times.push(time),
            Err(error) => {
                broken += 1;
                println!("  bare QUIC broke after {} transfers: {error:#}", times.count());
                ensure!(broken < BROKEN_MAX, "bare QUIC breaks again and again: {error:#}");
                quic = BareQuic::start().await?;
            }
        }
    }
    Ok(times)
}

/// Two hosts that know each other and the plugin.
pub(super) async fn pair(bench: &Bench, scratch: &Path) -> Result<(Host, Host)> {
    let mut a = bench.host(scratch, "a").await?;
    let mut b = bench.host(scratch, "b").await?;
    let (a_peer, b_peer) = (a.peer(), b.peer());
    a.add_peer(b_peer).await?;
    b.add_peer(a_peer).await?;
    for host in [&a, &b] {
        host.client().load_plugin(&guest_file("hostile")?).await?;
    }
    Ok((a, b))
}

/// Makes an agent of a kind.
async fn fill(api: &Client, agent: &str, kind: &Kind) -> Result<()> {
    api.create(agent, "hostile").await?;
    api.reply(agent, &note()).await?;
    let rows = kind.rows.div_ceil(ROW_BYTES);
    for from in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - from);
        let set = api.reply(agent, &format!("noise-state {count} {ROW_BYTES} {from}")).await?;
        ensure!(set == format!("ok {count}"), "rows from {from}: {set}");
    }
    let mut random = Random::from_seed(1);
    for _ in 0..kind.snapshot.div_ceil(WORD_BYTES) {
        let word: String = (0..WORD_BYTES / 16).map(|_| format!("{:016x}", random.draw())).collect();
        api.ask(agent, format!("word {word}"), None).await.answer().context("a word")?;
    }
    Ok(())
}

/// What a number of moves gave.
struct Round {
    pauses: Samples,
    /// From the request to the end.
    times: Samples,
    /// That one move sent.
    bytes: f64,
}

/// Moves the agent back and forth, an even number of times.
async fn go_round(a: &Host, b: &Host, agent: &str, moves: u64) -> Result<Round> {
    let mut round = Round { pauses: Samples::new(), times: Samples::new(), bytes: 0.0 };
    // Seqs of the events that were read last.
    let mut seen = [0, 0];
    for number in 0..moves {
        let (source, target) = if number % 2 == 0 { (a, b) } else { (b, a) };
        let (api, seen) = (source.client(), &mut seen[number as usize % 2]);
        let started = std::time::Instant::now();
        let id = api.migrate(agent, target.key()).await?;
        *seen = end_of(&api, *seen, &id).await?;
        round.times.push(started.elapsed());
        let migration = api.migration(&id).await?;
        ensure!(migration.phase == "complete", "a move ended: {}", migration.body);
        let pause_ms = migration.pause_ms.context("a complete migration has a pause")?;
        round.pauses.push(Duration::from_secs_f64(pause_ms / 1e3));
        round.bytes += migration.bytes as f64 / moves as f64;
        all_dropped(source).await?;
        tokio::time::sleep(CALM).await;
    }
    Ok(round)
}

/// Waits for the event that says that a migration is over: nobody asks again and again meanwhile. Answers its seq.
async fn end_of(source: &Client, after: u64, id: &str) -> Result<u64> {
    let is_end = |event: &Event| {
        event.detail("migration") == id && ["complete", "failed", "aborted"].contains(&event.detail("phase"))
    };
    Ok(find_after(source, after, "a move to end", MOVE_MAX, is_end).await?.seq())
}

/// Clients that ask one agent through one host.
struct Load {
    is_over: Arc<AtomicBool>,
    client: tokio::task::JoinHandle<Result<(Samples, f64)>>,
}

impl Load {
    fn start(door: &Host, agent: &str) -> Result<Self> {
        let mut client = LoadClient::start(door.ready().api)?;
        let order = Order {
            lanes: vec![vec![agent.to_owned()]; LANES],
            door: Door::Ask,
            payload: "echo moved".to_owned(),
            expected: Expected::Text("moved".to_owned()),
            until: Until::Asks(LOAD_BATCH),
            pause_ms: LOAD_PAUSE_MS,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = is_over.clone();
        let client = tokio::task::spawn_blocking(move || {
            let (mut asks, mut elapsed) = (Samples::new(), Duration::ZERO);
            while !ended.load(Ordering::Relaxed) {
                let done = client.run(&order)?;
                elapsed += done.elapsed;
                asks.extend(done.nanos);
            }
            let per_second = asks.count() as f64 / elapsed.as_secs_f64();
            Ok((asks, per_second))
        });
        Ok(Self { is_over, client })
    }

    /// Ends it. Answers the time of each ask, and how many there were in a second.
    async fn end(self) -> Result<(Samples, f64)> {
        self.is_over.store(true, Ordering::Relaxed);
        self.client.await?
    }
}
