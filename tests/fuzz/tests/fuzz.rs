//! Each target for its time, side by side; and the fuzzer itself, which must find what is planted.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use godwit_fuzz::fuzzer::{Plan, fuzz};
use godwit_fuzz::memory::Counting;
use godwit_fuzz::targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Without a word from outside: to see that all is in order.
const SECONDS_DEFAULT: u64 = 2;
/// What is planted is found on the same way each time: this one is short, some thousand inputs. Another corpus needs
/// another one.
const PLANTED_SEED: u64 = 5;
/// Within this time on any machine.
const PLANTED_MAX: Duration = Duration::from_secs(300);

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{variable}={text:?} is no number"))?))
}

fn seed() -> Result<u64> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Ok(number("GODWIT_FUZZ_SEED")?.unwrap_or(now.as_nanos() as u64))
}

fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn plan() -> Result<Plan> {
    let seconds = number("GODWIT_FUZZ_SECONDS")?.unwrap_or(SECONDS_DEFAULT);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    Ok(Plan { time: Duration::from_secs(seconds), seed: seed()?, corpus, scratch: scratch() })
}

fn target(name: &str) -> Result<&'static Target> {
    TARGETS.iter().find(|target| target.name == name).with_context(|| format!("no target {name}"))
}

fn run(name: &str) -> Result<()> {
    let plan = plan()?;
    println!("{name}: GODWIT_FUZZ_SEED={}", plan.seed);
    let report = fuzz(target(name)?, &plan)?;
    println!("{name}: {report:?} in {:?}", plan.time);
    Ok(())
}

#[test]
fn frames() -> Result<()> {
    run("frames")
}

#[test]
fn messages() -> Result<()> {
    run("messages")
}

#[test]
fn rows() -> Result<()> {
    run("rows")
}

#[test]
fn snapshot() -> Result<()> {
    run("snapshot")
}

#[test]
fn journal() -> Result<()> {
    run("journal")
}

#[test]
fn manifest() -> Result<()> {
    run("manifest")
}

/// A target that is broken on purpose, in a copy of a real corpus: its failure is found, saved, and run first the next time.
fn finds(name: &'static str, check: fn(&[u8], &mut godwit_fuzz::novelty::Shape) -> Result<()>) -> Result<()> {
    let place = scratch().join(format!("planted-{name}-{}", std::process::id()));
    let of_target = place.join(name);
    std::fs::create_dir_all(&of_target)?;
    for file in std::fs::read_dir(plan()?.corpus.join(name))? {
        let file = file?;
        std::fs::copy(file.path(), of_target.join(file.file_name()))?;
    }
    let broken = Target { check, ..*target(name)? };
    let plan = Plan { time: PLANTED_MAX, seed: PLANTED_SEED, corpus: place.clone(), scratch: place.clone() };
    let found = fuzz(&broken, &plan).err().with_context(|| format!("{name}: nothing was found"))?.to_string();
    println!("{found}");
    let again = fuzz(&broken, &plan).err().context("what had failed was not run again")?.to_string();
    ensure!(again.contains("input 1:"), "what had failed is not the first: {again}");
    std::fs::remove_dir_all(place)?;
    Ok(())
}

#[test]
fn a_planted_panic_is_found() -> Result<()> {
    finds("messages", |bytes, shape| {
        (target("messages")?.check)(bytes, shape)?;
        // Behind a whole message of one kind, with a number of one size.
        let mut is_there = false;
        drop(godwit::fuzzing::request(bytes.get(1..).unwrap_or_default(), &mut |value| {
            let shown = format!("{value:?}");
            is_there = shown.contains("Activate") && shown.contains("FencingToken(922");
        }));
        assert!(!is_there, "planted");
        Ok(())
    })
}

#[test]
fn planted_memory_for_a_length_alone_is_found() -> Result<()> {
    finds("journal", |bytes, shape| {
        (target("journal")?.check)(bytes, shape)?;
        if let Ok((length, _)) = postcard::take_from_bytes::<u64>(bytes)
            && length > 1 << 24
        {
            let claimed: Vec<u8> = Vec::with_capacity(usize::try_from(length.min(1 << 26))?);
            std::hint::black_box(&claimed);
        }
        Ok(())
    })
}
