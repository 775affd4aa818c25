//! Components that can't run are refused when they are loaded, with everything that is wrong.

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Folder;
use godwit_support::host::HostOptions;

use crate::room::shared;

/// The smallest core module: it is valid WebAssembly, and no component.
const CORE_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

#[tokio::test]
async fn bad_components_are_refused_with_all_that_is_wrong() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host").start().await?;
    let door = host.client();
    let counter = std::fs::read(binaries::plugin("counter")?)?;
    let cases = [
        ("truncated", counter[..counter.len() / 2].to_vec(), ""),
        ("text", b"hello".to_vec(), ""),
        ("core-module", CORE_MODULE.to_vec(), "component"),
        ("other-world", std::fs::read(binaries::test_guest("other-world")?)?, "godwit:agent/guest"),
        ("fs", std::fs::read(binaries::test_guest("fs")?)?, "wasi:filesystem"),
    ];
    for (name, bytes, says) in cases {
        let Err(problem) = door.upload(bytes, Some(name)).await? else {
            anyhow::bail!("{name} was loaded");
        };
        println!("{name}: {}", problem.body);
        ensure!(problem.status == 422, "{name}: status {}", problem.status);
        ensure!(problem.code == "plugin_refused", "{name}: {}", problem.body);
        let problems = problem.body["problems"].as_array().context("a list of problems")?;
        ensure!(!problems.is_empty(), "{name}: no problem is named");
        ensure!(problem.body.to_string().contains(says), "{name}: {says:?} is not in {}", problem.body);
    }
    ensure!(door.list("/v1/plugins").await?.is_empty(), "a refused component is listed");
    door.load_plugin(&binaries::plugin("counter")?).await?;
    Ok(())
}
