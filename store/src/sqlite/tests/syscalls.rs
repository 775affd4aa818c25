//! The store under faults of the system. A process runs a script on a store and says what was answered; strace kills it, or
//! fails its N-th write or sync, for every N. Whatever happens, what the process was told must be there afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, InputId, Revision};
use godwit_core::store::{Accepted, Page, RuntimeStore, StoreError, UnitFailure};
use godwit_core::time::SystemClock;

use super::fixture::{Desk, Place, message, noise};
use crate::sqlite::bodies::PIECE_BYTES;
use crate::sqlite::faults::Faults;
use crate::sqlite::{SqliteMode, SqliteStore};

/// Names the store file of a process that runs the script.
const SCRIPT: &str = "GODWIT_STORE_SCRIPT";
/// Which `Play` it is.
const PLAY: &str = "GODWIT_STORE_PLAY";
const AGENT: &str = "a";
/// Faults of one kind at one system call at most: every N where there are fewer.
const POINTS_EACH_MAX: usize = 80;
const POINTS_MIN: usize = 300;
/// So many where a snapshot has pieces.
const LARGE_POINTS_EACH_MAX: usize = 30;
const WORKERS: usize = 2;

/// What the script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Play {
    /// Turns with states of several pages.
    Plain,
    /// The same on a store that acknowledges before it commits.
    Planted,
    /// A few turns, some with states of several pieces.
    Large,
}

impl Play {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Planted => "planted",
            Self::Large => "large",
        }
    }

    fn turns(self) -> usize {
        if self == Self::Large { 4 } else { 10 }
    }

    /// The state after a revision.
    fn state_at(self, revision: Revision) -> Vec<u8> {
        if self == Self::Large && revision.0 > 1 {
            noise(2 * PIECE_BYTES + 1, revision.0)
        } else {
            format!("{revision} ").repeat(2_000).into_bytes()
        }
    }
}

/// Accepts and commits in turn, and says each answer once it has it. A store that is lost ends it.
async fn script(store: &SqliteStore, play: Play, say: impl Fn(String)) {
    let mut desk = Desk::new(store, AGENT).await;
    for _ in 0..play.turns() {
        let waiting = message(&desk.owner.agent, b"waits");
        let id = waiting.input.id;
        match store.accept(waiting, desk.owner.incarnation).await {
            Ok(Accepted::New { seq }) => {
                desk.next_seq = seq.next();
                say(format!("input {id}"));
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => say(format!("not accepted: {error}")),
        }
        let before = (desk.revision, desk.head, desk.next_seq);
        let input = message(&desk.owner.agent, b"asks");
        let id = input.input.id;
        let unit = desk.ask(input, &play.state_at(before.0.next()));
        match store.commit_turns(unit).await.failure {
            None => say(format!("turn {id}")),
            Some(UnitFailure::Store(StoreError::Full)) => {
                (desk.revision, desk.head, desk.next_seq) = before;
                say("full".into());
            }
            Some(failure) => return say(format!("lost: {failure:?}")),
        }
    }
    say("end".into());
}

/// What a process has said.
#[derive(Debug, Default)]
struct Said {
    inputs: Vec<InputId>,
    turns: Vec<InputId>,
    fulls: usize,
    has_ended: bool,
}

fn heard(output: &str) -> Said {
    let mut said = Said::default();
    for line in output.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("input", id) => said.inputs.push(id.parse().unwrap()),
            ("turn", id) => said.turns.push(id.parse().unwrap()),
            ("full", _) => said.fulls += 1,
            ("end", _) => said.has_ended = true,
            _ => {}
        }
    }
    said
}

/// Compares the store with what was said of it.
async fn check(path: &Path, play: Play, said: &Said) -> Result<(), String> {
    let store = SqliteStore::open(path, SqliteMode::Exclusive, Arc::new(SystemClock))
        .map_err(|error| format!("it can't be opened: {error}"))?;
    store.probe().await.map_err(|error| format!("it can't be written: {error}"))?;
    let agent = AgentId::parse(AGENT).unwrap();
    let Some(image) = store.image(&agent, None).await.map_err(|error| error.to_string())? else {
        return if said.inputs.is_empty() { Ok(()) } else { Err("the agent is lost".into()) };
    };
    image.check()?;
    let row = &image.row;
    let turns = said.turns.len() as u64;
    if !(turns..=turns + 1).contains(&row.revision.0) {
        return Err(format!("{turns} turns were acknowledged, and the revision is {}", row.revision));
    }
    if row.revision.0 > 0 {
        let state = image.snapshot.as_ref().map(|snapshot| snapshot.state.to_vec());
        if state != Some(play.state_at(row.revision)) {
            return Err(format!("the state is not that of revision {}", row.revision));
        }
    }
    let receipts = store.receipts(&agent, row.generation, Revision(0), 100).await;
    let receipts = receipts.map_err(|error| error.to_string())?;
    let mut head = Digest::ZERO;
    for receipt in &receipts {
        if receipt.parent != head {
            return Err(format!("the receipt of revision {} does not follow its parent", receipt.revision));
        }
        head = receipt.digest();
    }
    if receipts.len() as u64 != row.revision.0 || (head != row.head && !receipts.is_empty()) {
        return Err(format!("{} receipts for revision {}", receipts.len(), row.revision));
    }
    for (ids, must_have_ended) in [(&said.inputs, false), (&said.turns, true)] {
        for id in ids {
            let stored = store.input(&agent, *id).await.map_err(|error| error.to_string())?;
            let stored = stored.ok_or_else(|| format!("input {id} was acknowledged and is lost"))?;
            if stored.outcome.is_some() != must_have_ended {
                return Err(format!("input {id} has another end than was said"));
            }
        }
    }
    let open = store.open_inputs(&agent, Page { after: 0, limit: 100 }).await.map_err(|e| e.to_string())?;
    let accepted = said.inputs.len();
    if !(accepted..=accepted + 1).contains(&open.len()) {
        return Err(format!("{accepted} inputs were acknowledged, and {} wait", open.len()));
    }
    Ok(())
}

/// This test's own program with the script as its only test, under strace.
fn traced(path: &Path, play: Play, arguments: &[&str]) -> Said {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--seccomp-bpf"]).args(arguments).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "sqlite::tests::syscalls::the_script_runs_whole_without_faults", "--nocapture"]);
    command.env(SCRIPT, path).env(PLAY, play.name()).env_remove("RUST_BACKTRACE").stderr(Stdio::null());
    let output = command.output().expect("strace runs: on Debian, `apt-get install strace`");
    heard(&String::from_utf8_lossy(&output.stdout))
}

/// How often the busiest thread of an undisturbed run makes each system call.
fn calls(play: Play) -> BTreeMap<&'static str, usize> {
    let place = Place::new();
    let trace = place.directory.path().join("trace");
    let arguments = ["-e", "trace=pwrite64,fsync,fdatasync", "-o", trace.to_str().unwrap()];
    let said = traced(&place.path(), play, &arguments);
    assert!(said.has_ended && said.turns.len() == play.turns(), "{said:?}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let counts = ["pwrite64", "fsync", "fdatasync"].map(|call| {
        let mut by_thread = BTreeMap::new();
        for line in trace.lines().filter(|line| line.contains(&format!(" {call}("))) {
            *by_thread.entry(line.split_whitespace().next()).or_insert(0) += 1;
        }
        (call, by_thread.into_values().max().unwrap_or(0))
    });
    counts.into_iter().collect()
}

/// Every fault at every call, thinned out where there are many: (system call, fault, which one).
fn points(
    calls: &BTreeMap<&'static str, usize>,
    each_max: usize,
) -> Vec<(&'static str, &'static str, usize)> {
    let mut points = Vec::new();
    for (call, count) in calls {
        for fault in ["signal=SIGKILL", "error=EIO", "error=ENOSPC"] {
            let chosen = *count.min(&each_max);
            points.extend((0..chosen).map(|place| (*call, fault, 1 + place * count / chosen)));
        }
    }
    points
}

/// Runs the script with one fault each. Answers what was wrong afterwards, and how often the script met a full disk.
fn run(points: &[(&'static str, &'static str, usize)], play: Play) -> (Vec<String>, usize) {
    let (next, fulls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut wrong = Vec::new();
        while let Some((call, fault, which)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let place = Place::new();
            let inject = format!("inject={call}:{fault}:when={which}");
            let arguments = ["-e", &format!("trace={call}"), "-e", &inject, "-o", "/dev/null"];
            let said = traced(&place.path(), play, &arguments);
            fulls.fetch_add(usize::from(said.fulls > 0 && said.has_ended), Ordering::Relaxed);
            if let Err(reason) = runtime.block_on(check(&place.path(), play, &said)) {
                wrong.push(format!("{inject}: {reason}; it said {said:?}"));
            }
        }
        wrong
    };
    let wrong = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    (wrong, fulls.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_script_runs_whole_without_faults() {
    let Some(path) = std::env::var_os(SCRIPT) else {
        for play in [Play::Plain, Play::Large] {
            let place = Place::new();
            let said = std::sync::Mutex::new(String::new());
            let store = place.open(SqliteMode::Exclusive);
            script(&store, play, |line| *said.lock().unwrap() += &format!("{line}\n")).await;
            drop(store);
            let said = heard(&said.into_inner().unwrap());
            assert!(said.has_ended, "{said:?}");
            assert_eq!([said.turns.len(), said.inputs.len()], [play.turns(); 2], "{said:?}");
            check(&place.path(), play, &said).await.unwrap();
        }
        return;
    };
    // As the child of the tests below.
    let mut env = Place::new().env(SqliteMode::Exclusive);
    let play = std::env::var(PLAY).unwrap();
    let play =
        [Play::Plain, Play::Planted, Play::Large].into_iter().find(|known| known.name() == play).unwrap();
    let ack_before_commit = play == Play::Planted;
    env.faults = Faults { ack_before_commit, ..Faults::default() };
    let store = SqliteStore::open_in(Path::new(&path), env).unwrap();
    // One write per line, at once: what was answered is known outside whatever happens next.
    script(&store, play, |line| println!("{line}")).await;
}

#[test]
fn what_was_acknowledged_survives_every_fault_of_the_system() {
    let points = points(&calls(Play::Plain), POINTS_EACH_MAX);
    assert!(points.len() >= POINTS_MIN, "only {} points", points.len());
    let (wrong, fulls) = run(&points, Play::Plain);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), points.len(), wrong.join("\n"));
    assert!(fulls > 0, "no run met a full disk and went on");
    println!("{} points, {fulls} went on after a full disk", points.len());
}

#[test]
fn a_snapshot_in_pieces_survives_every_fault_of_the_system() {
    let points = points(&calls(Play::Large), LARGE_POINTS_EACH_MAX);
    let (wrong, fulls) = run(&points, Play::Large);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), points.len(), wrong.join("\n"));
    assert!(fulls > 0, "no run met a full disk and went on");
    println!("{} points, {fulls} went on after a full disk", points.len());
}

#[test]
fn a_store_that_acknowledges_too_early_is_found_out() {
    let kills = [20, 40, 60, 80].map(|which| ("pwrite64", "signal=SIGKILL", which));
    let (wrong, _) = run(&kills, Play::Planted);
    assert!(!wrong.is_empty(), "acknowledged inputs were lost and nobody noticed");
}
