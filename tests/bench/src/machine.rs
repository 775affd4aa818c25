//! What the figures were measured on: without it they mean little.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::report::nanos;
use crate::samples::Samples;

/// How often the disk is asked to make bytes durable.
const SYNCS: u32 = 200;

/// How often threads wake each other.
const HANDOVERS: u32 = 500;
/// What a thread does before it hands over, so that the other one sleeps as it does when it waits for a disk.
const HANDOVER_WORK: Duration = Duration::from_micros(100);

/// Prints the machine's facts, and what two things cost that no ask can do without: making a few bytes durable in
/// `directory`, and waking another thread, which an ask does several times between client, host, guest and disk.
///
/// # Errors
/// When the directory can't be written.
pub(crate) fn describe(directory: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine    {cores} cores, {}, load {}", processor(), first_line("/proc/loadavg"));
    if load() * 4.0 > cores as f64 {
        println!("           NOT QUIET: other work runs here, and either side may wait for a processor");
    }
    println!("kernel     {}", first_line("/proc/sys/kernel/osrelease"));
    println!("disk       {} ({})", directory.display(), file_system(directory));
    let syncs = fdatasync(directory)?;
    println!("fdatasync  4 KiB, p50 {}, p99 {}", nanos(syncs.p50()), nanos(syncs.p99()));
    let wakes = handovers()?;
    println!(
        "hand-over  from thread to sleeping thread, p50 {}, p99 {}",
        nanos(wakes.p50()),
        nanos(wakes.p99())
    );
    Ok(())
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Threads that ran or wanted to run in the last minute, on average.
fn load() -> f64 {
    let line = first_line("/proc/loadavg");
    let first = line.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or_default()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned())
}

/// The file system that holds a directory: that of the longest mount point above it.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        directory.starts_with(point).then(|| (point.len(), format!("{kind} on {device}")))
    });
    above.max().map_or_else(|| "unknown".to_owned(), |(_, name)| name)
}

/// Appends and syncs, as a log does.
fn fdatasync(directory: &Path) -> Result<Samples> {
    let path = directory.join("fdatasync");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let block = [7_u8; 4096];
    let mut samples = Samples::new();
    for _ in 0..SYNCS {
        samples.time(|| file.write_all(&block).and_then(|()| file.sync_data()))?;
    }
    fs::remove_file(&path)?;
    Ok(samples)
}

/// Wakes a thread that sleeps, and takes the time until it runs.
fn handovers() -> Result<Samples> {
    let (wake, woken) = sync_channel::<Instant>(1);
    let (answer, answers) = sync_channel::<Duration>(1);
    let sleeper = std::thread::spawn(move || {
        while let Ok(sent) = woken.recv() {
            if answer.send(sent.elapsed()).is_err() {
                return;
            }
        }
    });
    let mut samples = Samples::new();
    for _ in 0..HANDOVERS {
        let started = Instant::now();
        while started.elapsed() < HANDOVER_WORK {
            std::hint::spin_loop();
        }
        wake.send(Instant::now()).context("the sleeping thread is gone")?;
        samples.push(answers.recv()?);
    }
    drop(wake);
    // It has nothing left to do but to end.
    let _ = sleeper.join();
    Ok(samples)
}
