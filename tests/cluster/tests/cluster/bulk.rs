//! Agents with many rows on the move: what that takes of memory at both ends, and over a line that breaks.

use std::time::Duration;

use anyhow::{Result, ensure};
use godwit_support::binaries;
use godwit_support::client::Client;
use godwit_support::cluster::{Cluster, Folder};
use godwit_support::host::{Host, HostOptions};
use godwit_support::line::{Line, Noise};
use godwit_support::machine::{self, Machine};
use godwit_support::memory::Mark;
use godwit_support::wait::until;
use rusqlite::{Connection, OpenFlags};

use crate::room::{SOON, shared};

const AGENT: &str = "heavy";
const ROW_BYTES: usize = 64 << 10;
/// What one turn writes.
const ROWS_PER_TURN: usize = 32;
/// Rows of the agent whose memory is watched: twice what a move may take.
const ROWS: usize = 1_024;
/// What a move may take at each end, beside what the host has already.
const EXTRA_KIB_MAX: u64 = 32 << 10;

/// Makes an agent with so many rows, which no packing makes smaller.
async fn fill(api: &Client, agent: &str, rows: usize) -> Result<()> {
    api.create(agent, "hostile").await?;
    for from in (0..rows).step_by(ROWS_PER_TURN) {
        let count = ROWS_PER_TURN.min(rows - from);
        let set = api.reply(agent, &format!("noise-state {count} {ROW_BYTES} {from}")).await?;
        ensure!(set == format!("ok {count}"), "rows from {from}: {set}");
    }
    Ok(())
}

/// `state` rows in a host's store.
fn rows(host: &Host) -> Result<u64> {
    let file = Connection::open_with_flags(host.ready().store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    file.busy_timeout(SOON)?;
    let rows: i64 = file.query_row("SELECT count(*) FROM state", [], |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

#[tokio::test]
async fn an_agent_larger_than_the_memory_for_its_move_moves() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    for host in [&pair.a, &pair.b] {
        host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    }
    fill(&pair.a.client(), AGENT, ROWS).await?;
    // Neither has anything of it in memory, and both have moved something before.
    pair.a.terminate().await?;
    pair.a.start(&[]).await?;
    fill(&pair.a.client(), "light", 1).await?;
    pair.a.client().reply(AGENT, "echo here").await?;
    pair.a.client().move_to("light", "b", SOON).await?;
    let marks = [Mark::of(&pair.a)?, Mark::of(&pair.b)?];
    let migration = pair.a.client().move_to(AGENT, "b", SOON).await?;
    ensure!(migration.bytes > (ROWS * ROW_BYTES) as u64, "only {} bytes were sent", migration.bytes);
    until("the source to drop what it has sent", SOON, || async { Ok((rows(&pair.a)? == 0).then_some(())) })
        .await?;
    let extra = [marks[0].extra_kib()?, marks[1].extra_kib()?];
    println!("{} bytes; extra KiB at source and target: {extra:?}", migration.bytes);
    ensure!(extra.iter().all(|kib| *kib <= EXTRA_KIB_MAX), "{extra:?} KiB are more than {EXTRA_KIB_MAX}");
    ensure!(rows(&pair.b)? == ROWS as u64 + 1, "rows are missing");
    ensure!(pair.b.client().reply(AGENT, "echo there").await? == "there");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_host_without_room_refuses_what_comes_and_goes_on() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    for host in [&pair.a, &pair.b] {
        host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    }
    fill(&pair.a.client(), AGENT, 512).await?;
    fill(&pair.a.client(), "light", 1).await?;
    pair.b.terminate().await?;
    pair.b.start(&[("GODWIT_LIMITS_STORE_BYTES_MAX", "16777216")]).await?;
    let id = pair.a.client().migrate(AGENT, pair.b.key()).await?;
    let over = pair.a.client().migration_over(&id, SOON).await?;
    let failure = over.body["failure"].to_string();
    ensure!(over.phase == "failed" && failure.contains("capacity"), "{}", over.body);
    ensure!(pair.a.client().reply(AGENT, "echo here").await? == "here");
    let gone = || async { Ok((rows(&pair.b)? == 0).then_some(())) };
    until("the target to drop what has come", SOON, gone).await?;
    pair.a.client().move_to("light", "b", SOON).await?;
    ensure!(pair.b.client().reply("light", "echo there").await? == "there");
    pair.end_and_verify().await?;
    Ok(())
}

/// Two hosts on machines of their own, with lines between them.
struct Apart {
    a: Host,
    b: Host,
    lines: [Line; 2],
    _machines: [Machine; 2],
    _folder: Folder,
}

impl Apart {
    async fn new() -> Result<Self> {
        let (folder, program) = (Folder::new()?, binaries::product()?);
        let machines = [Machine::new(1)?, Machine::new(2)?];
        let start = |name: &str, machine: &Machine| {
            HostOptions::new(&program, &folder.path().join(name), name).on(machine).start()
        };
        let (mut a, mut b) = tokio::try_join!(start("a", &machines[0]), start("b", &machines[1]))?;
        let ends = [machines[0].here(), machines[1].here()];
        let there = Line::open(ends[0], ends[1], b.ready().mesh, 1).await?;
        let back = Line::open(ends[1], ends[0], a.ready().mesh, 2).await?;
        a.know(format!("{}@{}", b.key(), there.address)).await?;
        b.know(format!("{}@{}", a.key(), back.address)).await?;
        Ok(Self { a, b, lines: [there, back], _machines: machines, _folder: folder })
    }

    fn set_cut(&self, is_cut: bool) {
        self.lines.iter().for_each(|line| line.set(Noise { is_cut, ..Noise::default() }));
    }

    fn datagrams(&self) -> u64 {
        self.lines.iter().map(|line| line.passed().datagrams).sum()
    }
}

#[test]
fn a_move_goes_on_when_its_line_breaks() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let _room = runtime.block_on(shared());
    machine::inside("bulk::a_move_goes_on_when_its_line_breaks", || {
        runtime.block_on(move_over_a_line_that_breaks())
    })
}

async fn move_over_a_line_that_breaks() -> Result<()> {
    const ROWS: usize = 512;
    const CUTS: u64 = 3;
    // Longer than a silent connection is believed in.
    const CUT: Duration = Duration::from_secs(4);
    let mut apart = Apart::new().await?;
    let (a, b) = (apart.a.client(), apart.b.client());
    for host in [&a, &b] {
        host.load_plugin(&binaries::test_guest("hostile")?).await?;
    }
    fill(&a, AGENT, ROWS).await?;
    let before = apart.datagrams();
    a.move_to(AGENT, apart.b.key(), SOON).await?;
    let undisturbed = apart.datagrams() - before;
    let before = apart.datagrams();
    let id = b.migrate(AGENT, apart.a.key()).await?;
    for cut in 1..=CUTS {
        let share = before + undisturbed * cut / (CUTS + 2);
        until("a share of it to have passed", SOON, || async {
            Ok((apart.datagrams() > share).then_some(()))
        })
        .await?;
        apart.set_cut(true);
        tokio::time::sleep(CUT).await;
        let under_way = b.migration(&id).await?;
        ensure!(under_way.phase == "transfer", "it was not under way: {}", under_way.body);
        apart.set_cut(false);
    }
    let over = b.migration_over(&id, SOON).await?;
    ensure!(over.phase == "complete", "{}", over.body);
    let passed = apart.datagrams() - before;
    println!("{passed} datagrams, {undisturbed} without cuts");
    // Had any cut made it begin again, there would be nearly as many once more.
    ensure!(passed < undisturbed + undisturbed / 2, "{passed} datagrams instead of {undisturbed}");
    ensure!(rows(&apart.a)? == ROWS as u64, "rows are missing");
    ensure!(a.reply(AGENT, "echo here").await? == "here");
    for host in [&mut apart.a, &mut apart.b] {
        host.terminate().await?;
    }
    Ok(())
}
