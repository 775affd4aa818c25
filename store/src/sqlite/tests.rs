//! The store on real files: opening, grouping, faults of the engine, damaged bytes, sharing.

mod conformance;
mod damage;
mod fixture;
mod floor;
mod grouping;
mod opening;
mod sharing;
mod speed;
mod units;
