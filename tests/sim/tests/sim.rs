//! The invariants hold under every seed, each seed gives the same trace twice, and every planted bug is found.
//!
//! `GODWIT_SIM_SEEDS=N` runs so many seeds, with `GODWIT_SIM_FIRST=N` from that one on. `GODWIT_SIM_SEED=N` replays one and prints its trace, with `GODWIT_SIM_BUG=NAME` with
//! that bug.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use godwit_sim::bug::Bug;
use godwit_sim::judge::Counts;
use godwit_sim::run::{Report, run};

/// Seeds that are run unless somebody says otherwise.
const SEEDS: u64 = 500;
/// Seeds within which each planted bug must be found.
const BUG_SEEDS_MAX: u64 = 5_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn planted() -> Option<Bug> {
    let name = std::env::var("GODWIT_SIM_BUG").ok()?;
    Some(*Bug::ALL.iter().find(|bug| format!("{bug:?}") == name).expect("the name of a bug"))
}

/// Says something, past the capture of tests.
fn say(what: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    // A closed pipe is no failure of a test.
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Does so many jobs, as many at once as there are processors.
fn side_by_side<T: Send>(jobs: u64, job: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jobs {
                        return;
                    }
                    let result = job(number);
                    done.lock().expect("nobody panics while holding it").push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics while holding it");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn the_invariants_hold_under_every_seed() {
    if let Some(seed) = number("GODWIT_SIM_SEED") {
        let report = run(seed, planted(), true);
        say(format_args!("{report:?}"));
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let (seeds, started) = (number("GODWIT_SIM_SEEDS").unwrap_or(SEEDS), Instant::now());
    let first = number("GODWIT_SIM_FIRST").unwrap_or(0);
    let reports = side_by_side(seeds, |index| {
        let seed = first + index;
        let (report, again) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(report, again, "seed {seed} gives two traces");
        report
    });
    let counts = reports.iter().fold(Counts::default(), |counts, report| counts.with(report.counts));
    say(format_args!("{seeds} seeds, each twice, in {:?}: {counts:?}", started.elapsed()));
    let violated =
        reports.iter().filter_map(|Report { seed, violation, .. }| Some((seed, violation.as_ref()?)));
    let violated: Vec<_> = violated.map(|(seed, violation)| format!("seed {seed}: {violation}")).collect();
    assert!(violated.is_empty(), "replay with GODWIT_SIM_SEED:\n{}", violated.join("\n"));
    assert_ne!(counts.fenced, 0, "no write was ever fenced: nothing was tested");
    assert_ne!(counts.takeovers, 0, "no agent was ever taken over: nothing was tested");
    for (what, count) in [("delivery", counts.deliveries), ("timer", counts.timers), ("move", counts.moves)] {
        assert_ne!(count, 0, "there was no {what}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    if number("GODWIT_SIM_SEED").is_some() {
        return;
    }
    let found = side_by_side(Bug::ALL.len() as u64, |index| {
        let bug = Bug::ALL[usize::try_from(index).unwrap()];
        let found =
            (0..BUG_SEEDS_MAX).find_map(|seed| Some((seed + 1, run(seed, Some(bug), false).violation?)));
        if let Some((seeds, violation)) = &found {
            say(format_args!("{bug:?} is found after {seeds} seeds: {violation}"));
        }
        (bug, found)
    });
    let missed: Vec<_> = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
