//! The store on real files: opening, grouping, faults of the engine, damaged bytes, sharing.

mod bodies;
mod bounds;
mod broken;
mod conformance;
mod damage;
mod entity_keys;
mod fixture;
mod grouping;
mod heads;
mod lazy;
mod opening;
mod quiet;
mod removal;
mod sharing;
mod speed;
mod statements;
mod syscalls;
mod units;
