//! Where the programs and components under test are; `cargo xtask` says so in environment variables.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

const HOST_VARIABLE: &str = "GODWIT_BIN";
const FAILPOINTS_VARIABLE: &str = "GODWIT_FAILPOINTS_BIN";
const EMBED_VARIABLE: &str = "GODWIT_EMBED_BIN";
const GUESTS_VARIABLE: &str = "GODWIT_GUESTS";

/// The product.
///
/// # Errors
/// When it has not been built.
pub fn product() -> Result<PathBuf> {
    existing(
        from_variable(HOST_VARIABLE, "test-bin/godwit"),
        "run `cargo xtask test` or `cargo xtask demo`, or set GODWIT_BIN",
    )
}

/// The host that carries failpoints.
///
/// # Errors
/// When it has not been built.
pub fn failpoints() -> Result<PathBuf> {
    existing(
        from_variable(FAILPOINTS_VARIABLE, "test-bin/godwit-failpoints"),
        "run `cargo xtask test`, or set GODWIT_FAILPOINTS_BIN",
    )
}

/// The example that embeds a host.
///
/// # Errors
/// When it has not been built.
pub fn embed() -> Result<PathBuf> {
    existing(
        from_variable(EMBED_VARIABLE, "test-bin/embed"),
        "run `cargo xtask test`, or set GODWIT_EMBED_BIN",
    )
}

/// A plugin's component, by the name of its folder in `plugins/`.
///
/// # Errors
/// When it has not been built.
pub fn plugin(name: &str) -> Result<PathBuf> {
    existing(guests().join(format!("{name}.wasm")), "run `cargo xtask guests --all`")
}

/// A component that only tests use, by the name of its folder in `tests/guests/`.
///
/// # Errors
/// When it has not been built.
pub fn test_guest(name: &str) -> Result<PathBuf> {
    existing(guests().join("test").join(format!("{name}.wasm")), "run `cargo xtask guests --all`")
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

fn guests() -> PathBuf {
    from_variable(GUESTS_VARIABLE, "guests")
}

fn from_variable(variable: &str, below_target: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| workspace().join("target").join(below_target), PathBuf::from)
}

fn existing(path: PathBuf, help: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is not there: {help}", path.display());
    }
    Ok(path)
}
