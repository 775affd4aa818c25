//! Whole hosts on one shared store, in one thread, on clocks and a store that a seed rules.
//!
//! ```text
//!  Client --call--> Process (a Cage of tasks: godwit::runtime::Runtime)       Nemesis: crashes, stops, jumps, moves
//!    |                 |  ^                      \--SimMesh (Network)--> other processes
//!    |                 v  | late, refused, lost: Weather
//!    |             FaultyStore --executes--> World: the planted Bug, MemoryStore
//!    v                                         |
//!  Judge <-------------------------------------+   the invariants, after each call that the store executes
//! ```
//! `run` is one seed: faults, in which the judge looks at each step; then healing, after which everything must come to its
//! end. All time is tokio's paused time, all randomness comes from the seed, and nothing runs on a thread of its own: a seed
//! gives one `Trace`, however often it is run.
//!
//! Not here: SQLite, sockets and wasm (the suites with real processes have them), and every order of a few steps (`tests/model`).

#![forbid(unsafe_code)]

pub mod bug;
pub mod cage;
pub mod client;
pub mod clock;
pub mod guest;
pub mod host;
pub mod judge;
pub mod model;
pub mod nemesis;
pub mod net;
pub mod planted;
pub mod random;
pub mod run;
pub mod store;
pub mod trace;
pub mod weather;
pub mod world;
