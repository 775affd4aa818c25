//! The command line's exit codes, and what the product may not carry.

use anyhow::{Result, ensure};
use godwit_support::binaries;
use godwit_support::cli;
use godwit_support::cluster::Folder;
use godwit_support::host::HostOptions;

use crate::room::shared;

#[tokio::test]
async fn exit_codes_say_how_it_went() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host").start().await?;
    let counter = binaries::plugin("counter")?.display().to_string();
    let index = binaries::plugin("index")?.display().to_string();
    let cases: [(&[&str], i32); 17] = [
        (&["plugin", "load", &counter], 0),
        (&["agent", "create", "c", "--plugin", "counter"], 0),
        (&["ask", "c", "add 2"], 0),
        (&["send", "c", "add 3", "--key", "k"], 0),
        (&["agent", "list"], 0),
        (&["verify", "c"], 0),
        (&["plugin", "load", &index], 0),
        (&["agent", "create", "i", "--plugin", "index"], 0),
        (&["query", "i", "{\"query\": \"w\"}"], 4),
        (&["query", "c", "get"], 4),
        (&["no-such-command"], 2),
        (&["ask"], 2),
        (&["agent", "show", "nobody"], 3),
        (&["ask", "nobody", "get"], 3),
        (&["ask", "c", "dance"], 4),
        (&["send", "c", "add 4", "--key", "k"], 4),
        (&["--url", "http://127.0.0.1:9", "agent", "list"], 5),
    ];
    for (arguments, code) in cases {
        let output = match arguments.first() {
            // Its own address, so that the host's is not given as well.
            Some(&"--url") => cli::run(host.program(), arguments).await?,
            _ => host.cli(arguments).await?,
        };
        output.expect_code(code)?;
    }
    let output = host.cli(&["ask", "c", "get"]).await?.ok()?;
    ensure!(output.stdout.trim_end() == "5", "ask prints the reply: {:?}", output.stdout);
    host.cli(&["ask", "i", r#"{"put": {"doc": "d", "text": "w"}}"#]).await?.ok()?;
    let output = host.cli(&["query", "i", r#"{"query": "w"}"#]).await?.ok()?;
    ensure!(output.stdout.trim_end() == r#"{"docs":["d"]}"#, "query prints the reply: {:?}", output.stdout);
    let listed = host.cli(&["agent", "show", "c", "-o", "json"]).await?.ok()?.json()?;
    ensure!(listed["id"] == "c", "{listed}");
    Ok(())
}

#[tokio::test]
async fn an_agent_is_configured_by_who_has_seen_its_spec() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let host = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host").start().await?;
    host.client().load_plugin(&binaries::test_guest("hostile")?).await?;
    let line = ["agent", "create", "a", "--plugin", "hostile", "--config", "k=one", "--label", "tier=gold"];
    host.cli(&line).await?.ok()?;
    let configure = async |arguments: &[&str]| {
        let line = [&["agent", "configure", "a", "-o", "json"], arguments].concat();
        host.cli(&line).await
    };
    let agent = configure(&["--config", "k=two"]).await?.ok()?.json()?;
    ensure!(agent["spec_revision"] == "2" && agent["labels"]["tier"] == "gold", "{agent}");
    ensure!(host.client().reply("a", "config k").await? == "two", "its guest reads the new one");
    let agent = configure(&["--label", "tier=silver", "--policy", "journal"]).await?.ok()?.json()?;
    ensure!(agent["spec_revision"] == "3" && agent["labels"]["tier"] == "silver", "{agent}");
    ensure!(host.client().reply("a", "config k").await? == "two", "what is not named stays");
    let late = configure(&["--no-config", "--spec-revision", "2"]).await?;
    late.expect_code(4)?;
    ensure!(host.client().reply("a", "config k").await? == "two", "somebody else was faster");
    configure(&["--no-config", "--no-labels", "--spec-revision", "3"]).await?.ok()?;
    let fate = host.client().ask("a", "config k", None).await;
    ensure!(fate.answer().is_some() && fate.reply().is_none_or(str::is_empty), "no reply: {fate:?}");
    configure(&[]).await?.expect_code(2)?;
    host.cli(&["agent", "destroy", "a"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_key_is_made_once_and_printed() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let data = folder.path().join("host");
    let program = binaries::product()?;
    let arguments = ["key", "--data", &data.display().to_string()];
    let first = cli::run(&program, &arguments).await?.ok()?.stdout;
    let second = cli::run(&program, &arguments).await?.ok()?.stdout;
    ensure!(first == second, "the key changes");
    let host = HostOptions::new(&program, &data, "host").start().await?;
    ensure!(host.key() == first.trim_end(), "the host has another key");
    Ok(())
}

#[tokio::test]
async fn the_product_names_no_failpoint() -> Result<()> {
    let _room = shared().await;
    let product = cli::run(&binaries::product()?, &["version"]).await?.ok()?;
    ensure!(product.stdout.contains("godwit"), "{:?}", product.stdout);
    ensure!(!product.stdout.contains("failpoint"), "the product carries failpoints: {}", product.stdout);
    ensure!(!product.stdout.contains("before-commit"), "the product carries failpoints: {}", product.stdout);
    let broken = cli::run(&binaries::failpoints()?, &["version", "-o", "json"]).await?.ok()?;
    ensure!(
        broken.stdout.contains("turn.before-commit-queued"),
        "not the failpoints build: {}",
        broken.stdout
    );
    Ok(())
}
