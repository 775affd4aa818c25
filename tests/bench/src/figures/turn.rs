//! What a turn costs without its commit, beside the same `handle` and `snapshot` in bare wasmtime.
//!
//! Two rows per agent: the two calls through the engine (fence, deadline, limits, conversion, effects); and what the driver
//! does for a turn of a busy agent with a small state, which is the two calls and the proof that the snapshot can be restored.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use godwit_core::guest::{Guest, TurnContext};
use godwit_core::input::Input;
use godwit_core::time::boot_now;

use crate::bare::{self, BareGuest, BarePlugin, types};
use crate::bench::{Bench, component, note};
use crate::product::{self, Product};
use crate::report::{Findings, Measure, Target};
use crate::samples::Samples;

/// Rounds; each measures a batch of each side.
const ROUNDS: u64 = 400;
const TURNS_PER_BATCH: u32 = 100;
const RATIO_MAX: f64 = 3.0;

/// Measures it for the smallest agent and for one with a state.
pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    compare(bench, &mut findings, "counter", ["add 1", "add 2"])?;
    compare(bench, &mut findings, "hostile", [&note(), "turns"])?;
    Ok(findings)
}

/// Measures one agent, which is asked the first payload once and the second ever after.
fn compare(bench: &Bench, findings: &mut Findings, name: &str, payloads: [&str; 2]) -> Result<()> {
    let (component, scratch) = (component(name)?, bench.scratch()?);
    let floor = BarePlugin::compile(&component)?;
    let product = Product::compile(&component, scratch.path())?;
    let context = product::context();
    let (mut bare, mut guest) = (floor.start(product::AGENT, None)?, product.start()?);
    bare.init()?;
    guest.init(&context)?;
    let mut prover = product.prover();
    let [first, inputs] = payloads.map(|payload| [product::input(payload)]);
    let [bare_first, bare_inputs] = payloads.map(|payload| [bare::input(payload)]);
    bare.handle(&bare_first)?;
    guest.handle(&context, &first)?;

    let [mut floor_times, mut times, mut proved_times] = [const { Samples::new() }; 3];
    for _ in 0..bench.scaled(ROUNDS) {
        let started = Instant::now();
        let bare_state = bare_turns(&mut bare, &bare_inputs)?;
        floor_times.push_each(started.elapsed(), TURNS_PER_BATCH);

        let started = Instant::now();
        let state = turns(guest.as_mut(), &context, &inputs, |_| Ok(()))?;
        times.push_each(started.elapsed(), TURNS_PER_BATCH);
        ensure!(bare_state == state, "the same turns led to different states");

        let started = Instant::now();
        let prove = |state: &Bytes| Ok(prover.prove(boot_now(), &context, state, product::VERSION)?);
        turns(guest.as_mut(), &context, &inputs, prove)?;
        proved_times.push_each(started.elapsed(), TURNS_PER_BATCH);
        // Not measured: keeps the two guests at the same state.
        bare_turns(&mut bare, &bare_inputs)?;
    }
    let target = Some(Target::RatioMax(RATIO_MAX));
    let floor = Some(Measure::Time(floor_times));
    findings.row(format!("turn, {name}: handle, snapshot"), floor.clone(), Measure::Time(times), target);
    findings.row(format!("turn, {name}: as driven, with proof"), floor, Measure::Time(proved_times), target);
    Ok(())
}

/// A batch of turns in bare wasmtime. Answers the last state.
fn bare_turns(bare: &mut BareGuest, inputs: &[types::Input]) -> Result<Vec<u8>> {
    let mut state = Vec::new();
    for _ in 0..TURNS_PER_BATCH {
        bare.handle(inputs)?;
        state = bare.snapshot()?;
    }
    Ok(state)
}

/// A batch of turns in the engine; each state is shown to `prove`. Answers the last state.
fn turns(
    guest: &mut dyn Guest,
    context: &TurnContext,
    inputs: &[Input],
    mut prove: impl FnMut(&Bytes) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut state = Vec::new();
    for _ in 0..TURNS_PER_BATCH {
        guest.handle(context, inputs)?;
        let taken = guest.snapshot(context)?;
        prove(&taken)?;
        state = taken.into();
    }
    Ok(state)
}
