//! A fuzzer for stable Rust: seeded mutation of a saved corpus, led by what is new.
//!
//! The corpus in `corpus/TARGET` is real bytes of real hosts, and every input that has ever failed (`failed-*`): those run first.
//! Then, until its time is over, a target gets inputs mutated from the corpus and from earlier mutations that it took in a
//! new way: read to another shape, refused for another reason, with another number of allocations. When the program was
//! compiled with counters (`RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3
//! -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"`, which stable takes), new code counts as new, too.
//!
//! `fuzzer` is the loop, `mutate` makes inputs, `novelty` says what is new, `memory` counts what a target allocates, `targets`
//! are the things under test, each with what must hold. `GODWIT_FUZZ_SECONDS` is the time for each target, `GODWIT_FUZZ_SEED`
//! replays a run.
#![deny(unsafe_code)]

pub mod fuzzer;
pub mod memory;
pub mod mutate;
pub mod novelty;
pub mod targets;
