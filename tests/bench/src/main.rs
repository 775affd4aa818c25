//! `cargo xtask bench`: how fast the product is, and how much of that is its own doing.
//!
//! Each figure is measured in turns with its **floor**: the same work by the parts underneath, without the product, in
//! the same run on the same disk. What is promised is mostly the ratio of the two; times alone say more about the machine.
//! Nothing fails for being slow: a missed target is shown and the exit code stays 0. A wrong answer is no figure, and the
//! exit code 1.
//!
//! ```text
//! figures/*.rs --> product: a host process asked by a client process (client.rs, http.rs), or its parts in here (product.rs)
//!              --> floor:   plain SQLite (floor.rs), bare wasmtime (bare.rs)
//!              --> Findings (samples.rs) --> one table (report.rs)
//! ```
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;

use crate::bench::Bench;
use crate::figures::FIGURES;
use crate::report::{Row, table};

mod bare;
mod bench;
mod client;
mod desk;
mod figures;
mod floor;
mod http;
mod inside;
mod machine;
mod product;
mod quic;
mod report;
mod samples;
mod statements;

/// Measures the product against its floors.
#[derive(Debug, Parser)]
#[command(name = "godwit-bench")]
struct Arguments {
    /// Only the figures whose name holds this text
    #[arg(long)]
    filter: Option<String>,
    /// Print the figures' names and what they are, and measure nothing
    #[arg(long)]
    list: bool,
    /// A tenth of the measurements: shows that the figures work, not what they are
    #[arg(long)]
    quick: bool,
    /// Where the data goes: on the disk that is to be measured
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// The load client of a figure; started by the program itself
    #[command(hide = true)]
    Client {
        /// The host's API.
        address: SocketAddr,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // As the host does: the parts that are linked in here leave it to the program, and fail without it.
    drop(rustls::crypto::ring::default_provider().install_default());
    match arguments.role {
        Some(Role::Client { address }) => single_threaded()?.block_on(client::serve(address)),
        None if arguments.list => {
            for figure in FIGURES {
                println!("{:<10} {}", figure.name, figure.about);
            }
            Ok(())
        }
        None => tokio::runtime::Runtime::new()?.block_on(measure(&arguments)),
    }
}

/// The client leaves the processors to the host.
fn single_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let bench = Bench::new(&arguments.directory, arguments.quick)?;
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let wanted: Vec<_> = FIGURES.iter().filter(|figure| figure.name.contains(filter)).collect();
    if wanted.is_empty() {
        bail!("no figure's name holds {filter:?}; `--list` shows them");
    }
    machine::describe(bench.directory())?;
    let (mut rows, mut failed): (Vec<Row>, Vec<&str>) = (Vec::new(), Vec::new());
    for figure in wanted {
        println!("\n{}: {}", figure.name, figure.about);
        let started = Instant::now();
        match (figure.measure)(&bench).await {
            Ok(findings) => {
                for note in &findings.notes {
                    println!("  {note}");
                }
                rows.extend(findings.rows);
            }
            // The other figures are worth having all the same.
            Err(error) => {
                println!("  FAILED: {error:#}");
                failed.push(figure.name);
            }
        }
        println!("  measured in {:.1} s", started.elapsed().as_secs_f64());
    }
    println!("\n{}", table(&rows));
    let missed = rows.iter().filter(|row| row.is_met() == Some(false)).count();
    let promised = rows.iter().filter(|row| row.is_met().is_some()).count();
    println!("{} of {promised} targets met", promised - missed);
    if !failed.is_empty() {
        bail!("no figure for {}: see above", failed.join(", "));
    }
    Ok(())
}
