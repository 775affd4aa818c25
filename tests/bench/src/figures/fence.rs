//! What the fence costs where it is asked most: at each import.
//!
//! The engine can't be built without it, so it is measured three ways: the check alone; a bare guest's import with the
//! check in the call hook and without, which is what the check adds; the engine's import as a whole beside the bare one.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use godwit_core::id::FencingToken;
use godwit_core::lease::{LeaseGuard, LeaseProfile, SessionLease};
use godwit_core::time::{SystemClock, boot_now};

use crate::bare::{self, BareGuest, BarePlugin, types};
use crate::bench::{Bench, component};
use crate::product::{self, Product};
use crate::report::{Findings, Measure, Target, nanos};
use crate::samples::Samples;

const ROUNDS: u64 = 300;
/// Imports of one guest call, which is one measurement.
const IMPORTS: u32 = 2_000;
const CHECK_NANOS_MAX: f64 = 50.0;

/// Measures it.
pub(super) fn measure(bench: &Bench) -> Result<Findings> {
    let (component, scratch) = (component("hostile")?, bench.scratch()?);
    let plugin = BarePlugin::compile(&component)?;
    let guard = guard();
    let mut unfenced = plugin.start(product::AGENT, None)?;
    let mut fenced = plugin.start(product::AGENT, Some(guard.clone()))?;
    let mut guest = Product::compile(&component, scratch.path())?.start()?;
    let context = product::context();
    unfenced.init()?;
    fenced.init()?;
    guest.init(&context)?;

    let spin = format!("spin-import {IMPORTS}");
    let (bare_spin, inputs) = ([bare::input(&spin)], [product::input(&spin)]);
    let [mut check, mut bare, mut hooked, mut engine, mut added] = [const { Samples::new() }; 5];
    for _ in 0..bench.scaled(ROUNDS) {
        check.push_each(time_of(|| checks(&guard)), IMPORTS);
        let without = spin_bare(&mut unfenced, &bare_spin)?;
        let with = spin_bare(&mut fenced, &bare_spin)?;
        bare.push_each(without, IMPORTS);
        hooked.push_each(with, IMPORTS);
        added.push_each(with.saturating_sub(without), IMPORTS);
        let started = Instant::now();
        let effects = guest.handle(&context, &inputs)?;
        engine.push_each(started.elapsed(), IMPORTS);
        ensure!(product::text(&effects.replies[0])? == "spun", "the guest did not spin");
    }
    let mut findings = Findings::default();
    findings.note(format!(
        "an import: bare {}, with the check in a call hook {}, in the engine {}",
        nanos(bare.p50()),
        nanos(hooked.p50()),
        nanos(engine.p50())
    ));
    let target = Some(Target::Max(CHECK_NANOS_MAX));
    findings.row("fence check, alone", None, Measure::Time(check), target);
    findings.row("fence check, added to an import", None, Measure::Time(added), target);
    findings.row("import, as a whole", Some(Measure::Time(bare)), Measure::Time(engine), None);
    Ok(findings)
}

/// A guard of a lease that expires, and does not while this runs.
fn guard() -> LeaseGuard {
    let profile = LeaseProfile { ttl: Duration::from_secs(3_600), ..LeaseProfile::NORMAL };
    LeaseGuard::new(SessionLease::started(boot_now(), &profile, Arc::new(SystemClock)), FencingToken(1))
}

fn checks(guard: &LeaseGuard) {
    for _ in 0..IMPORTS {
        black_box(black_box(guard).is_held());
    }
}

fn time_of(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn spin_bare(guest: &mut BareGuest, inputs: &[types::Input]) -> Result<Duration> {
    let started = Instant::now();
    let replies = guest.handle(inputs)?;
    let elapsed = started.elapsed();
    let is_right = matches!(&replies[0].outcome, types::Outcome::Ok(bytes) if bytes == b"spun");
    ensure!(is_right, "the bare guest did not spin");
    Ok(elapsed)
}
