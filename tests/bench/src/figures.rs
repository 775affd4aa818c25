//! The figures: each is one file that measures the product and its floor in turns.

use std::pin::Pin;

use anyhow::Result;

use crate::bench::Bench;
use crate::report::Findings;

mod activate;
mod ask_inside;
mod ask_many;
mod ask_one;
mod boot;
mod channels;
mod drain;
mod fence;
mod heartbeat;
mod history;
mod large;
mod migrate;
mod neighbours;
mod parked;
mod pause;
mod send_hot;
mod shutdown;
mod store_alone;
mod turn;
mod wake;

/// A figure.
pub(crate) struct Figure {
    /// What `--filter` looks at.
    pub(crate) name: &'static str,
    /// What is measured.
    pub(crate) about: &'static str,
    /// Measures it.
    pub(crate) measure: for<'a> fn(&'a Bench) -> Measuring<'a>,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Findings>> + 'a>>;

/// All figures, in the order in which they are measured: those that a quiet machine matters to most come first.
pub(crate) const FIGURES: &[Figure] = &[
    Figure {
        name: "turn",
        about: "a guest's turn without its commit, against the same calls in bare wasmtime",
        measure: |bench| Box::pin(async move { turn::measure(bench) }),
    },
    Figure {
        name: "fence",
        about: "the lease check, alone and as part of an import",
        measure: |bench| Box::pin(async move { fence::measure(bench) }),
    },
    Figure {
        name: "wake",
        about: "from a parked agent to its reply, against the same calls in bare wasmtime",
        measure: |bench| Box::pin(wake::measure(bench)),
    },
    Figure {
        name: "ask-one",
        about: "one client asks one agent over HTTP, against a plain SQLite commit of the same rows",
        measure: |bench| Box::pin(ask_one::measure(bench)),
    },
    Figure {
        name: "ask-many",
        about: "64 clients ask 1,000 agents over HTTP, against plain SQLite in groups of 64",
        measure: |bench| Box::pin(ask_many::measure(bench)),
    },
    Figure {
        name: "ask-inside",
        about: "64 tasks ask 1,000 agents of a runtime in this process, against plain SQLite in groups of 64",
        measure: |bench| Box::pin(ask_inside::measure(bench)),
    },
    Figure {
        name: "send-hot",
        about: "64 clients send to one agent over HTTP, against plain SQLite in groups of 64",
        measure: |bench| Box::pin(send_hot::measure(bench)),
    },
    Figure {
        name: "store",
        about: "the store alone: units of 64 agents, against the same statements in plain SQLite",
        measure: |bench| Box::pin(store_alone::measure(bench)),
    },
    Figure {
        name: "migrate",
        about: "an agent of 1 MiB goes back and forth between two hosts with stores of their own",
        measure: |bench| Box::pin(migrate::measure(bench)),
    },
    Figure {
        name: "pause",
        about: "agents of 1 KiB to 64 MiB go back and forth between two hosts under 200 inputs a second",
        measure: |bench| Box::pin(pause::measure(bench)),
    },
    Figure {
        name: "drain",
        about: "a host with 1,000 small agents is emptied to another one",
        measure: |bench| Box::pin(drain::measure(bench)),
    },
    Figure {
        name: "channels",
        about: "one publisher, 100 subscribers on two hosts, against plain inputs in one store",
        measure: |bench| Box::pin(channels::measure(bench)),
    },
    Figure {
        name: "parked",
        about: "memory of a host per agent that is created and not running",
        measure: |bench| Box::pin(parked::measure(bench)),
    },
    Figure {
        name: "large",
        about: "bytes that a turn of an agent of 16 MiB hands to the store",
        measure: |bench| Box::pin(large::measure(bench)),
    },
    Figure {
        name: "neighbours",
        about: "1,000 agents beside three that misbehave, against the same load before them",
        measure: |bench| Box::pin(neighbours::measure(bench)),
    },
    Figure {
        name: "boot",
        about: "start of a host with 100,000 agents in its store",
        measure: |bench| Box::pin(boot::measure(bench)),
    },
    Figure {
        name: "activate",
        about: "start of a host whose roster names 10,000 agents, lazy and eager",
        measure: |bench| Box::pin(activate::measure(bench)),
    },
    Figure {
        name: "heartbeat",
        about: "a session's heartbeat, with 1 to 100,000 agents under it",
        measure: |bench| Box::pin(heartbeat::measure(bench)),
    },
    Figure {
        name: "shutdown",
        about: "ordered end of a host in this process, 1,000 agents resident and 64 tasks asking",
        measure: |bench| Box::pin(shutdown::measure(bench)),
    },
    Figure {
        name: "history",
        about: "restart of an agent with 1,000,000 committed turns, against one with 1,000",
        measure: |bench| Box::pin(history::measure(bench)),
    },
];
