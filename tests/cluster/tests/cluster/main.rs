//! Several real hosts, and everything that can go wrong between them. Each module asks one question; all of them look at
//! the hosts from outside only.
#![forbid(unsafe_code)]

mod archive;
mod boot;
mod bulk;
mod channels;
mod commands;
mod components;
mod crash;
mod damage;
mod doors;
mod drain;
mod embedding;
mod entity_keys;
mod events;
mod false_peer;
mod groups;
mod hops;
mod hostile;
mod inputs;
mod journal;
mod leases;
mod lifecycle;
mod migrate;
mod operations;
mod planted;
mod query;
mod quotas;
mod recover;
mod requests;
mod room;
mod secrets;
mod shutdown;
mod stale;
mod standby;
mod timers;
