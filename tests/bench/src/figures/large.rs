//! What one turn of an agent with a state of nearly 16 MiB hands to the store under the policy `auto`: a journal entry
//! instead of the state. It is a count of bytes, and a test of the suite `cluster` as well.
//!
//! Beside it the bytes that SQLite wrote for it, which it does in whole pages.

use anyhow::{Context, Result, ensure};
use godwit_support::{large, row_bytes};
use rusqlite::Connection;

use crate::bench::{Bench, guest_file};
use crate::client::{Door, Expected, LoadClient, Order, Until};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

const TURNS: u64 = 500;
const PAYLOAD: &str = "turns";
const BYTES_MAX: f64 = 4_096.0;
/// A page and its header in the write-ahead log.
const FRAME_BYTES: u64 = 4_096 + 24;
const AGENT: &str = "large";

/// Measures it.
pub(super) async fn measure(bench: &Bench) -> Result<Findings> {
    let scratch = bench.scratch()?;
    let mut host = bench.host(scratch.path(), "host").await?;
    let api = host.client();
    api.load_plugin(&guest_file("hostile")?).await?;
    api.create(AGENT, "hostile").await?;
    large::grow(&api, AGENT).await?;
    let file = host.ready().store_path();
    let state_bytes = large::state_bytes(&file, AGENT)?;
    let turns = bench.scaled(TURNS);
    let order = Order {
        lanes: vec![vec![AGENT.into()]],
        door: Door::Ask,
        payload: PAYLOAD.into(),
        expected: Expected::NextNumber,
        until: Until::Asks(turns),
        pause_ms: 0,
    };
    let mut client = LoadClient::start(host.ready().api)?;
    let (mark, frames) = (row_bytes::mark(&file, AGENT)?, log_frames(&file)?);
    let done = client.run(&order)?;
    let mut written = row_bytes::since(&file, AGENT, mark)?;
    let log_bytes =
        log_frames(&file)?.checked_sub(frames).context("the log started over meanwhile")? * FRAME_BYTES;
    host.terminate().await?;

    // Each turn wrote the agent's row; the file shows it once.
    written.entry("agent".into()).and_modify(|bytes| *bytes *= turns);
    let snapshots = written.remove("snapshot").unwrap_or(0) + written.remove("snapshot_beside").unwrap_or(0);
    ensure!(written.get("journal").is_some_and(|bytes| *bytes > 0), "nothing was journaled: {written:?}");
    let each = |bytes: u64| bytes as f64 / turns as f64;
    let mut times = Samples::new();
    times.extend(done.nanos);
    let mut findings = Findings::default();
    let by_table: Vec<String> = written
        .iter()
        .filter(|(_, bytes)| **bytes > 0)
        .map(|(table, bytes)| format!("{table} {:.0}", each(*bytes)))
        .collect();
    findings.note(format!(
        "state {state_bytes} B, input {} B; bytes per turn: {}; snapshots meanwhile: {snapshots} B",
        PAYLOAD.len(),
        by_table.join(", ")
    ));
    let target = Some(Target::Max(BYTES_MAX + PAYLOAD.len() as f64));
    findings.row(
        "rows of a turn, state of 16 MiB",
        None,
        Measure::Bytes(each(written.values().sum())),
        target,
    );
    findings.row("log bytes of a turn, state of 16 MiB", None, Measure::Bytes(each(log_bytes)), None);
    findings.row("ask, state of 16 MiB", None, Measure::Time(times), None);
    Ok(findings)
}

/// Frames in the write-ahead log of a store.
fn log_frames(file: &std::path::Path) -> Result<u64> {
    let connection = Connection::open(file)?;
    let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))?;
    Ok(u64::try_from(frames)?)
}
