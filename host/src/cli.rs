//! The command line: one program that is the host (`serve`) and talks to running hosts (everything else).
//!
//! Verbs live in `cli/`, one file per group. They know a running host by its public HTTP API only (`client.rs`), so that
//! whatever they can do, a script can. Exit codes are in `error.rs`, the ways of printing in `output.rs`.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::client::Client;
use self::error::{CliError, Exit};
use self::output::{Format, Output};

mod agents;
mod archive;
mod backup;
mod client;
mod error;
mod events;
mod groups;
mod history;
mod host;
mod hosts;
mod inputs;
mod migrations;
mod output;
mod peers;
mod plugins;
mod roster;
mod secrets;
mod verify;

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused or fenced, 5 unreachable, \
                          6 timed out or unknown.";

/// Durable WebAssembly agents that survive crashes and move between hosts.
#[derive(Debug, Parser)]
#[command(name = "godwit", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    client: ClientFlags,
    #[command(subcommand)]
    verb: Verb,
}

/// How to reach the host and how to print.
#[derive(Debug, Args)]
struct ClientFlags {
    /// Where the host's API listens.
    #[arg(
        long,
        global = true,
        env = "GODWIT_URL",
        default_value = "http://127.0.0.1:7700",
        help_heading = "Client"
    )]
    url: String,
    /// The bearer token of a host that listens beyond loopback.
    #[arg(
        long,
        global = true,
        env = "GODWIT_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Client"
    )]
    api_token: Option<String>,
    /// How to print.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Client"
    )]
    output: Format,
    /// Print results only.
    #[arg(long, global = true, help_heading = "Client")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a host in the foreground.
    Serve(host::Serve),
    /// Print the host's key; makes it if it is missing.
    Key(host::Key),
    /// Print the version of this program.
    Version,
    /// Load plugins into the running host and look at them.
    #[command(subcommand)]
    Plugin(plugins::Plugin),
    /// Create agents and look at them.
    #[command(subcommand)]
    Agent(agents::Agent),
    /// Create groups of agents behind one name, and let one of their members take an input.
    #[command(subcommand)]
    Group(groups::Group),
    /// Send an input and print the reply.
    Ask(inputs::Ask),
    /// Send an input and return once it is durable.
    Send(inputs::Send),
    /// Send an input that wakes nobody: it runs with the agent's next turn.
    Enqueue(inputs::Send),
    /// Ask about an agent's committed state and print the reply: no turn is taken, nothing changes.
    Query(inputs::Query),
    /// List an agent's inputs.
    Inputs(inputs::Inputs),
    /// List inputs that were given up, or give them another chance.
    DeadLetters(inputs::DeadLetters),
    /// List an agent's receipts.
    Receipts(history::History),
    /// List outputs that wait or will never arrive.
    Outputs(history::History),
    /// List timers that an agent has set and that have not fired.
    Timers(history::Waits),
    /// List an agent's channels, or who subscribes to one of them.
    Channels(history::Channels),
    /// List what an agent subscribes to, and how each subscription stands.
    Subscriptions(history::Waits),
    /// List operations that have not ended: of an agent, or of all.
    Operations(history::Operations),
    /// Recompute the history of an agent, or of all agents of a store that no host uses.
    Verify(verify::Verify),
    /// Run an agent's kept history again, beside the agent, and compare.
    Replay(verify::Replay),
    /// Move an agent to another host.
    Migrate(migrations::Migrate),
    /// List migrations.
    Migrations,
    /// Look at a migration, or end it.
    #[command(subcommand)]
    Migration(migrations::Migration),
    /// Make the agents and edges those of a roster: what it names is there afterwards, and what it names no more rests.
    Apply(roster::Apply),
    /// Do that again for the roster that the host has, its file included.
    Reconcile(roster::Reconcile),
    /// Print the roster that the host has.
    Roster,
    /// Say which agents are neighbours.
    #[command(subcommand)]
    Edge(roster::Edge),
    /// Send an input to any agent, in the name of something that may repeat itself.
    Dispatch(inputs::Dispatch),
    /// List the copies of other hosts' agents that stand by on this one.
    Standbys,
    /// List the hosts that this one knows.
    Hosts,
    /// Look at one host.
    #[command(subcommand)]
    Host(hosts::Host),
    /// Let a host take no more agents, until it is uncordoned or started again.
    Cordon(hosts::Which),
    /// Let a host take agents again.
    Uncordon(hosts::Which),
    /// Cordon a host and move its agents to others, a few at a time.
    Drain(hosts::Exodus),
    /// Move agents of a host to hosts that have fewer.
    Rebalance(hosts::Exodus),
    /// Tell the running host whom to talk to.
    #[command(subcommand)]
    Peer(peers::Peer),
    /// Write an agent into a file, without the right to run it.
    Export(archive::Export),
    /// Take an agent in from a file.
    Import(archive::Import),
    /// Copy the running host's store into a file, which opens with `serve --restored`.
    Backup(backup::Backup),
    /// Look at what the host fills into agents' requests.
    #[command(subcommand)]
    Secret(secrets::Secret),
    /// Sign in, so that the host obtains a secret and refreshes it.
    #[command(subcommand)]
    Auth(secrets::Auth),
    /// Print what happened.
    Events(events::Events),
}

/// What a client verb works with.
struct Session {
    client: Client,
    output: Output,
}

/// Runs the program with this process's arguments.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let ended = match cli.verb {
        Verb::Serve(serve) => serve.run(),
        verb => run_verb(cli.client, verb).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        error.report();
        error.exit().into()
    })
}

fn run_verb(flags: ClientFlags, verb: Verb) -> Result<(), CliError> {
    let output = Output::new(flags.output, flags.quiet);
    match verb {
        Verb::Key(key) => return key.run(&output),
        Verb::Version => return host::version(&output),
        _ => {}
    }
    let client = Client::new(&flags.url, flags.api_token)?;
    let session = Session { client, output };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(session.run(verb))
}

impl Session {
    async fn run(&self, verb: Verb) -> Result<(), CliError> {
        match verb {
            Verb::Serve(_) | Verb::Key(_) | Verb::Version => Ok(()),
            Verb::Plugin(verb) => verb.run(self).await,
            Verb::Agent(verb) => verb.run(self).await,
            Verb::Group(verb) => verb.run(self).await,
            Verb::Ask(ask) => ask.run(self).await,
            Verb::Send(send) => send.run(self, "send").await,
            Verb::Enqueue(send) => send.run(self, "enqueue").await,
            Verb::Query(query) => query.run(self).await,
            Verb::Inputs(inputs) => inputs.run(self).await,
            Verb::DeadLetters(verb) => verb.run(self).await,
            Verb::Receipts(history) => history.receipts(self).await,
            Verb::Outputs(history) => history.outputs(self).await,
            Verb::Timers(waits) => waits.timers(self).await,
            Verb::Channels(channels) => channels.run(self).await,
            Verb::Subscriptions(waits) => waits.subscriptions(self).await,
            Verb::Operations(operations) => operations.run(self).await,
            Verb::Verify(verify) => verify.run(self).await,
            Verb::Replay(replay) => replay.run(self).await,
            Verb::Migrate(migrate) => migrate.run(self).await,
            Verb::Migrations => migrations::list(self).await,
            Verb::Migration(verb) => verb.run(self).await,
            Verb::Apply(apply) => apply.run(self).await,
            Verb::Reconcile(reconcile) => reconcile.run(self).await,
            Verb::Roster => roster::show(self).await,
            Verb::Edge(edge) => edge.run(self).await,
            Verb::Dispatch(dispatch) => dispatch.run(self).await,
            Verb::Standbys => hosts::standbys(self).await,
            Verb::Hosts => hosts::list(self).await,
            Verb::Host(verb) => verb.run(self).await,
            Verb::Cordon(which) => which.cordon(self, "cordon").await,
            Verb::Uncordon(which) => which.cordon(self, "uncordon").await,
            Verb::Drain(exodus) => exodus.run(self, "drain").await,
            Verb::Rebalance(exodus) => exodus.run(self, "rebalance").await,
            Verb::Peer(verb) => verb.run(self).await,
            Verb::Export(export) => export.run(self).await,
            Verb::Import(import) => import.run(self).await,
            Verb::Backup(backup) => backup.run(self).await,
            Verb::Secret(verb) => verb.run(self).await,
            Verb::Auth(verb) => verb.run(self).await,
            Verb::Events(events) => events.run(self).await,
        }
    }
}

#[cfg(test)]
mod tests;
