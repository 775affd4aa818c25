//! What the engine adds to a turn: fence, deadline, limits, conversion, effects.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bare::{self, BarePlugin};
use crate::bench::{Bench, component, note};
use crate::product::{self, Product};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

/// Rounds; each measures a batch of both sides.
const ROUNDS: u64 = 400;
const TURNS_PER_BATCH: u32 = 200;
const RATIO_MAX: f64 = 3.0;

/// Measures it for the smallest agent and for one with a state.
pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    pair(bench, &mut findings, ("counter", "turn, counter"), "get", "add 1")?;
    pair(
        bench,
        &mut findings,
        ("hostile", "turn, 1 KiB state"),
        &note(),
        "turns",
    )?;
    Ok(findings)
}

fn pair(
    bench: &Bench,
    findings: &mut Findings,
    (guest, name): (&str, &str),
    first: &str,
    payload: &str,
) -> Result<()> {
    let (component, scratch) = (component(guest)?, bench.scratch()?);
    let floor = BarePlugin::compile(&component)?;
    let product = Product::compile(&component, scratch.path())?;
    let (mut bare, mut guest) = (floor.start(product::AGENT, None)?, product.start()?);
    let context = product::context();
    bare.init()?;
    bare.handle(&[bare::input(first)])?;
    guest.init(&context)?;
    guest.handle(&context, &[product::input(first)])?;

    let (bare_inputs, inputs) = ([bare::input(payload)], [product::input(payload)]);
    let (mut floor_times, mut times) = (Samples::new(), Samples::new());
    for _ in 0..bench.scaled(ROUNDS) {
        let started = Instant::now();
        for _ in 0..TURNS_PER_BATCH {
            bare.handle(&bare_inputs)?;
            bare.snapshot()?;
        }
        floor_times.push_each(started.elapsed(), TURNS_PER_BATCH);
        let started = Instant::now();
        for _ in 0..TURNS_PER_BATCH {
            guest.handle(&context, &inputs)?;
            guest.snapshot(&context)?;
        }
        times.push_each(started.elapsed(), TURNS_PER_BATCH);
    }
    let (bare_state, state) = (bare.snapshot()?, guest.snapshot(&context)?);
    ensure!(bare_state == state, "the same turns led to different states");
    findings.row(
        name,
        Some(Measure::Time(floor_times)),
        Measure::Time(times),
        Some(Target::RatioMax(RATIO_MAX)),
    );
    Ok(())
}
