//! A model of migration: a few hosts, one agent, both commit points, and everything that can happen between them, in every order.
//! What is decided is decided by the product's own rules, `core::migration::{handoff, recovery}`, which both stores and the
//! hosts use; written here is only what carries their decisions out.
//!
//! ```text
//!  host: tasks (a migration as its source), arrivals, guest     store: seat, rows, copies, records, sessions
//!    Step: the task's next step; a message is handled, its answer received, or either is lost
//!    Crash, Restart, Settle: what an open record that nobody acts on comes to
//! ```
//! A message that was given up, or repeated, may arrive at any later moment, once. With stores of their own, hosts hand homes
//! off; on one store, they transfer leases. What is not here: time (a deadline is an abort at any moment), and guests.

pub mod host;
pub mod properties;
pub mod rows;
pub mod rules;
pub mod store;
pub mod system;
