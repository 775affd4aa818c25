//! Whole hosts on one shared store, in one thread, on a clock and a store that a seed rules.
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
