//! Tools for demo and suites: real `godwit` processes, their HTTP API and command line, and independent checkers.
//!
//! Nothing here links a crate of the product, so a mistake there can't hide itself here. Hosts are `host::Host`, two
//! that know each other `cluster::Cluster`; clients talk through `client::Client`, whose answers are one of three
//! fates; `journal` keeps what clients did, `load` makes them do it, and `check` (pure) and `verdict` (which asks
//! the hosts) compare both afterwards.
#![forbid(unsafe_code)]

pub mod api;
pub mod authority;
pub mod bank;
pub mod binaries;
pub mod check;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod events;
pub mod fate;
pub mod host;
pub mod journal;
pub mod json;
pub mod judge;
pub mod large;
pub mod line;
pub mod load;
pub mod machine;
pub mod memory;
pub mod model;
pub mod port;
pub mod process;
pub mod random;
pub mod ready;
pub mod row_bytes;
pub mod signal;
pub mod stats;
pub mod store_file;
pub mod verdict;
pub mod wait;
pub mod web;
