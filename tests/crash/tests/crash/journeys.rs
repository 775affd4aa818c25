//! Which way leads to a failpoint. The names come from the program: one that no row here covers fails the suite.

use crate::jobs::Job;
use crate::jobs::Job::{
    Apply, BackUp, Break, Bulk, Change, Checkpoint, Count, Create, Crowd, Fail, Fetch, Interrupt, Large, Pay,
    Peers, Relay, Request, Stumble, Tick, Upload, Verbs,
};

/// How a run reaches its failpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Journey {
    pub(crate) way: Way,
    /// The hit at which the host dies is one of 1 to this.
    pub(crate) hits: u64,
}

/// What happens around it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Clients work until the host dies.
    Work(&'static [Job]),
    /// The host dies in its first start in an empty directory.
    FirstStart,
    /// The host is killed at work, and dies in the start after it.
    Restart,
    /// The host dies while it loads an agent, and again in the life after that.
    Reload,
    /// The host is told to end, and dies on the way.
    End,
    /// Another host on the same file is killed; this one dies when it takes over.
    TakeOver,
    /// A host is stopped until another one on its file has taken over; it goes on, and dies when it has joined again.
    Outlive,
    /// Agents move to another host; source or target dies, as the name says.
    Move(Stores),
    /// Another host keeps a copy of an agent, and takes it up; one of the two dies, as the name says.
    StandBy,
    /// Agents leave in files, and the host that takes them in dies.
    Import,
    /// Somebody signs in for a secret, or it is refreshed, and the host dies.
    SignIn,
    /// An agent's newest snapshot is damaged while nobody looks, and the host dies while it recovers from the older one.
    Recover,
}

/// Between which hosts an agent moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stores {
    /// Each has its own.
    Separate,
    /// Both share a file.
    Shared,
    /// The seed decides.
    Either,
}

const TURNS: &[Job] = &[Count, Crowd, Crowd, Crowd, Pay, Relay, Request];

/// Names that begin so, and the way to them; the longest beginning counts.
const JOURNEYS: &[(&str, Way, u64)] = &[
    ("agent.after-broken", Way::Work(&[Break, Count]), 2),
    ("agent.after-claim", Way::Work(&[Create, Count]), 5),
    ("agent.after-create", Way::Work(&[Create, Count]), 5),
    ("auth.", Way::SignIn, 1),
    ("boot.", Way::Restart, 1),
    ("edge.", Way::Work(&[Apply, Count]), 8),
    ("reconcile.", Way::Work(&[Apply, Count]), 8),
    ("roster.", Way::Work(&[Apply, Count]), 5),
    ("bootstrap.", Way::Restart, 1),
    ("bootstrap.after-key", Way::FirstStart, 1),
    ("backup.", Way::Work(&[BackUp, Count, Pay]), 2),
    ("checkpoint.", Way::Work(&[Checkpoint, Crowd, Pay]), 10),
    ("head.", Way::Restart, 1),
    ("import.", Way::Import, 1),
    ("init.", Way::Work(&[Stumble, Count]), 5),
    ("input.", Way::Work(TURNS), 20),
    ("input.after-attempt", Way::Work(&[Fail, Fail, Count]), 3),
    ("input.after-redrive", Way::Work(&[Fail, Fail, Count]), 3),
    ("input.after-stage", Way::Work(&[Fail, Fail, Count]), 3),
    ("key.", Way::FirstStart, 1),
    ("lease.", Way::Work(TURNS), 5),
    ("lifecycle.", Way::Work(&[Verbs, Count]), 2),
    ("lifecycle.after-commit", Way::Work(&[Verbs, Count]), 10),
    ("lifecycle.before-commit", Way::Work(&[Verbs, Count]), 10),
    ("lifecycle.before-interrupted", Way::Work(&[Interrupt, Count]), 1),
    ("load.", Way::Reload, 1),
    ("load.after-noted", Way::Work(TURNS), 5),
    ("migration.", Way::Move(Stores::Either), 1),
    ("migration.source.after-handing-off", Way::Move(Stores::Separate), 1),
    ("migration.source.after-moved", Way::Move(Stores::Separate), 1),
    ("migration.source.after-prepared", Way::Move(Stores::Separate), 1),
    ("migration.source.after-transferred", Way::Move(Stores::Shared), 1),
    ("migration.source.before-forgotten", Way::Move(Stores::Separate), 1),
    ("migration.target.after-prepared", Way::Move(Stores::Separate), 1),
    ("migration.target.after-transfer", Way::Move(Stores::Separate), 1),
    ("operation.", Way::Work(&[Fetch, Count]), 12),
    ("outbox.", Way::Work(&[Pay, Pay, Relay, Request]), 40),
    ("peers.", Way::Work(&[Peers, Count]), 10),
    ("plugin.", Way::Work(&[Upload, Count]), 1),
    ("recover.", Way::Recover, 1),
    ("respec.", Way::Work(&[Change, Count]), 4),
    ("session.after-bury", Way::TakeOver, 1),
    ("session.after-join", Way::Restart, 1),
    ("session.before-lost", Way::Outlive, 1),
    ("session.before-leave", Way::End, 1),
    ("session.after-leave", Way::End, 1),
    ("shutdown.", Way::End, 1),
    ("standby.", Way::StandBy, 1),
    ("standby.after-round", Way::StandBy, 4),
    ("standby.source.after-round", Way::StandBy, 4),
    ("store.after-checkpoint", Way::Work(&[Bulk, Bulk, Count]), 1),
    ("store.after-piece", Way::Work(&[Large, Count]), 6),
    ("store.before-checkpoint", Way::Work(&[Bulk, Bulk, Count]), 1),
    ("store.after-commit", Way::Work(TURNS), 60),
    ("store.before-commit", Way::Work(TURNS), 60),
    ("store.open.", Way::Restart, 1),
    ("store.open.after-schema", Way::FirstStart, 1),
    ("store.open.before-schema", Way::FirstStart, 1),
    ("timer.", Way::Work(&[Tick, Count]), 10),
    ("turn.", Way::Work(TURNS), 60),
];

/// The way to a failpoint; none when nobody has thought of one.
pub(crate) fn to(name: &str) -> Option<Journey> {
    let rows = JOURNEYS.iter().filter(|(beginning, ..)| name.starts_with(beginning));
    let (_, way, hits) = rows.max_by_key(|(beginning, ..)| beginning.len())?;
    Some(Journey { way: *way, hits: *hits })
}
