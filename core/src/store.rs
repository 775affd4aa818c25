//! The runtime store port: everything durable, and the only authority on who may act for an agent.
//!
//! Its methods are in `store/port.rs`. The argument and answer types are in `store/`: `agent.rs` (rows, homes, lifecycle), `commit.rs` (units of turns),
//! `session.rs` (host sessions), `handoff.rs` (moving homes), `rows.rs` (the portable form of every row), `error.rs`.
//! `memory.rs` is the reference implementation, `conformance.rs` the suite that every implementation passes.
//!
//! # Contract
//! 1. `Ok` means durable.
//! 2. Every method is marked **F** fenced, **H** home-checked or **R** read. **F** compares (agent, generation, incarnation,
//!    token) of its `Owner`, and the revision where it takes a `base`, with the row inside the transaction of its write;
//!    otherwise `Fenced` or `Stale` and nothing changes. **H** checks home and lifecycle inside its transaction.
//! 3. Tokens of an agent strictly increase for ever; token and generation survive expiry, release, tombstones, restarts.
//! 4. An agent has one `Home`. All methods but the handoff group answer `NotHome` unless it is `Here`: acquire, accept,
//!    release, commit, create, lifecycle, redrive, outputs, timers, operations,
//!    transfer. This check comes before the fence. A copy being
//!    received is invisible until `prepare` binds it. Reads answer in every home; of a `Moved` agent only name, home,
//!    token and generation mean anything, and its image is `None`.
//! 5. Each grant records its cause and appends `LeaseAcquired`. Every raise of the token but the migration's own closes the
//!    agent's open migrations as `Aborted` with `Failure::Fenced` in the same transaction.
//! 6. Expiry is judged by the store's clock. A session of another boot counts as expired. Expired is not dead: a heartbeat
//!    revives an expired session until `bury_expired` makes it dead. A dead session holds nothing: its writes are `Fenced`.
//! 7. Every method may be repeated with the same arguments: same content is success, other content under the same key is
//!    `Conflict`. (Joins and appended events have no key: each call counts.)
//! 8. `seq` is given inside the accepting transaction from the agent's row: 1.., no gaps, admission order.
//! 9. A write may end in `Unknown`: it happened or it did not. Nobody guesses; the caller reads back.
//! 10. Loads of something unknown return empty. Corruption is `Corrupt`, never a fresh start and never served as state.
//! 11. Nothing of one agent is visible under another.
//! 12. An event about an agent that is `Here` takes the next number of the agent's row and a copy of its labels, in the
//!     transaction that appends it. The count moves with the agent; nobody else gives its numbers. Of the newest events
//!     `Quotas::events_kept` at least are kept, the newest of all always.
//!
//! One method is one transaction; no transaction object is ever handed out.

pub mod agent;
pub mod auth;
mod channels;
pub mod commit;
#[cfg(feature = "test-util")]
#[expect(
    clippy::unwrap_used,
    reason = "a case is a test that lives outside cfg(test), so that every store can run it"
)]
pub mod conformance;
mod documents;
pub mod error;
mod groups;
pub mod handoff;
pub mod mark;
pub mod memory;
pub mod outbox;
mod port;
pub mod retention;
pub mod rows;
pub mod session;
pub mod standby;

pub use agent::{AgentImage, AgentRow, Home, KeptSnapshot, NewAgent, StoredInput};
pub use auth::{AuthFlowError, AuthFlowUpdate};
pub use channels::StoreChannels;
pub use commit::{
    AcceptError, Accepted, Attempt, Boundary, InputEnd, Owner, Repair, Standing, Step, Unit, UnitFailure,
    UnitOutcome, Upgrade,
};
pub use documents::StoreDocuments;
pub use error::{Pin, StoreError};
pub use groups::StoreGroups;
pub use handoff::{Adoption, Handoff, ImportRequest, MigrationRecord, PrepareRequest, RowSink};
pub use mark::{Relation, Restored, StoreMark};
pub use outbox::{OutputEnd, OutputKey, Page};
pub use port::RuntimeStore;
pub use retention::{Pruned, Retention};
pub use rows::{Receiver, Row, RowFrame, RowKey, Slot};
pub use session::{Session, SessionRequest, SessionRow, Sharing};
pub use standby::StoreStandbys;

pub use crate::lifecycle::{BrokenReason, Lifecycle, LifecycleCommit};
