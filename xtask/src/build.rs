//! `cargo xtask build`: what one installs: `target/release/godwit` and `target/guests/NAME.wasm`.

use anyhow::Result;

use crate::guests::{self, Which};
use crate::hosts;
use crate::workspace::Workspace;

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    guests::build(&workspace, Which::Plugins)?;
    let host = hosts::build_release(&workspace)?;
    eprintln!("host is {}", host.display());
    Ok(())
}
