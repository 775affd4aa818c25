//! `cargo xtask`: everything that is built, checked, tested or shown goes through here; there are no shell scripts.
//!
//! One file per verb. A verb does its own set-up (targets, guests, hosts) and prints every command it runs, so that a
//! fresh machine with rustup's stable toolchain and a C compiler needs nothing else.
//!
//! Profiles: demo and tests use dev, so that the dependencies are built once for all of them; `build` and `bench` use
//! release.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

mod artifacts;
mod bench;
mod build;
mod demo;
mod guests;
mod hosts;
mod lint;
mod process;
mod suites;
mod test;
mod workspace;

/// Builds, checks, tests and shows Godwit.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the tour: two hosts, live migrations, a kill -9 and the recovery from it
    Demo,
    /// Builds what the suites need and runs them (all of them, or those named)
    Test(test::Arguments),
    /// Builds the plugins into target/guests/NAME.wasm
    Guests(guests::Arguments),
    /// Builds target/release/godwit and the plugins
    Build,
    /// Checks format, clippy, file rules, layers and dependencies
    Lint(lint::Arguments),
    /// Runs the benches on release builds; arguments go to the bench program
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let began = Instant::now();
    let result = match Arguments::parse().verb {
        Verb::Demo => demo::run(),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Guests(arguments) => guests::run(&arguments),
        Verb::Build => build::run(),
        Verb::Lint(arguments) => lint::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
    };
    let seconds = began.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            eprintln!("xtask: done in {seconds:.1} s");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("xtask: failed after {seconds:.1} s: {error:#}");
            ExitCode::FAILURE
        }
    }
}
