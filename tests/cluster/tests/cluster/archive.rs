//! Backups put back: refused without a word, suspended with one, and never above what is new. What retention leaves behind
//! can still be verified.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cli;
use godwit_support::cluster::{Cluster, Folder, Side};
use godwit_support::host::{Host, HostOptions};
use godwit_support::wait::until;

use crate::room::{SOON, shared};

/// Gaps of the note beside the store, and of a backup.
const GAPS: &[&str] =
    &["head.before-rename", "head.after-rename", "backup.before-rename", "import.before-bound"];

const MOVER: &str = "mover";
const STAYS: &str = "stays";
/// Tokens of the first epoch.
const EPOCH: u64 = 1 << 48;

/// Puts another file in the place of a stopped host's store.
fn put_back(backup: &Path, host: &Host) -> Result<()> {
    let store = host.ready().store_path();
    for suffix in ["-wal", "-shm"] {
        let mut beside = store.clone().into_os_string();
        beside.push(suffix);
        drop(std::fs::remove_file(beside));
    }
    std::fs::copy(backup, &store).context("the backup is put back")?;
    Ok(())
}

/// Starting the host fails, and says what to do.
async fn refused(host: &Host, arguments: &[&str], reason: &str) -> Result<()> {
    let data = host.data().display().to_string();
    let serve = ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--mesh", "127.0.0.1:0"];
    let ended = cli::run(host.program(), &[&serve[..], arguments].concat()).await?.expect_code(1)?;
    ensure!(ended.stderr.contains(reason), "{reason:?} is not said: {}", ended.stderr);
    Ok(())
}

/// Two hosts; on the first an agent that will move away and one that stays.
async fn pair() -> Result<Cluster> {
    let cluster = Cluster::separate(&binaries::product()?, &[]).await?;
    cluster.load(&["counter"]).await?;
    let door = cluster.a.client();
    for agent in [MOVER, STAYS] {
        door.create(agent, "counter").await?;
        ensure!(door.reply(agent, "add 2").await? == "2");
    }
    Ok(cluster)
}

/// The agent moves from a to b and works there.
async fn move_away(cluster: &Cluster) -> Result<u64> {
    cluster.a.client().move_to(MOVER, "b", SOON).await?;
    ensure!(cluster.b.client().reply(MOVER, "add 1").await? == "3");
    Ok(cluster.b.client().agent(MOVER).await?.token)
}

/// The restored host holds both agents still, under tokens above all that were given.
async fn suspended(cluster: &Cluster, epochs: u64) -> Result<()> {
    for agent in [MOVER, STAYS] {
        // Not forwarded: what this host has.
        let shown = cluster.a.client().agent(agent).await?;
        ensure!(shown.state == "suspended", "{agent}: {}", shown.body);
        let token = shown.token;
        ensure!((epochs * EPOCH..(epochs + 1) * EPOCH).contains(&token), "{agent} has token {token}");
        let fate = cluster.a.client().ask_within(agent, "get", None, Duration::from_secs(2)).await;
        ensure!(fate.answer().is_none(), "{agent} answers: {fate:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_restored_backup_does_not_resurrect_what_moved_away() -> Result<()> {
    let _room = shared().await;
    let mut cluster = pair().await?;
    let backup = cluster.folder().join("backup.db");
    let path = backup.display().to_string();
    cluster.a.cli(&["backup", &path]).await?.ok()?;
    cluster.a.cli(&["backup", &path]).await?.expect_code(1)?;
    cli::run(cluster.a.program(), &["verify", "--store", &format!("sqlite:{path}")]).await?.ok()?;
    let token = move_away(&cluster).await?;
    ensure!(cluster.a.client().reply(STAYS, "add 5").await? == "7");
    for epochs in 1..=2 {
        cluster.a.terminate().await?;
        put_back(&backup, &cluster.a)?;
        refused(&cluster.a, &[], "--restored").await?;
        cluster.a.start_with(&["--restored"], &[]).await?;
        suspended(&cluster, epochs).await?;
        ensure!(cluster.b.client().agent(MOVER).await?.token == token, "the real one is touched");
        ensure!(cluster.b.client().ask_here(MOVER, "get").await.reply() == Some("3"));
    }
    cluster.a.cli(&["agent", "resume", STAYS]).await?.ok()?;
    ensure!(cluster.a.client().reply(STAYS, "add 1").await? == "3", "as it was in the backup");
    cluster.a.terminate().await?;
    refused(&cluster.a, &["--restored"], "without --restored").await?;
    cluster.a.start(&[]).await?;
    ensure!(cluster.a.client().reply(STAYS, "get").await? == "3");
    cluster.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn an_old_copy_of_the_file_is_noticed() -> Result<()> {
    let _room = shared().await;
    let mut cluster = pair().await?;
    cluster.a.terminate().await?;
    let copy = cluster.folder().join("copy.db");
    std::fs::copy(cluster.store_file(Side::A), &copy)?;
    cluster.a.start(&[]).await?;
    move_away(&cluster).await?;
    cluster.a.terminate().await?;
    put_back(&copy, &cluster.a)?;
    refused(&cluster.a, &[], "older than what this host has seen").await?;
    let store = cluster.store_file(Side::A);
    std::fs::remove_file(&store)?;
    refused(&cluster.a, &[], "does not exist").await?;
    ensure!(!store.exists(), "no empty store is made in its place");
    std::fs::copy(cluster.store_file(Side::B), &store)?;
    refused(&cluster.a, &[], "DATA/head is about store").await?;
    put_back(&copy, &cluster.a)?;
    cluster.a.start_with(&["--restored"], &[]).await?;
    suspended(&cluster, 1).await?;
    cluster.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_death_beside_the_note_or_the_backup_harms_nothing() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let options = HostOptions::new(&binaries::failpoints()?, &folder.path().join("host"), "host");
    let mut host = options.start().await?;
    host.client().load_plugin(&binaries::plugin("counter")?).await?;
    host.client().create("c", "counter").await?;
    let archive = folder.path().join("c.godwit").display().to_string();
    host.cli(&["export", "c", &archive]).await?.ok()?;
    for failpoint in GAPS {
        println!("{failpoint}");
        host.terminate().await?;
        let started = host.start(&[("GODWIT_FAILPOINTS", failpoint)]).await;
        if failpoint.starts_with("head.") {
            ensure!(started.is_err(), "{failpoint}: it joins and is ready");
        } else if failpoint.starts_with("import.") {
            started?;
            let other = HostOptions::new(&binaries::failpoints()?, &folder.path().join("other"), "other");
            let mut other = other.variable("GODWIT_FAILPOINTS", failpoint).start().await?;
            other.cli(&["import", &archive]).await?.expect_code(6)?;
            other.died(SOON).await?;
            host.terminate().await?;
        } else {
            started?;
            let path = folder.path().join("torn.db");
            host.cli(&["backup", &path.display().to_string()]).await?.expect_code(6)?;
            ensure!(!path.exists(), "{failpoint}: a file is there");
            host.died(SOON).await?;
        }
        host.start(&[]).await?;
        host.client().reply("c", "add 1").await?;
        let scratch = std::fs::read_dir(host.data().join("scratch"))?.count();
        ensure!(scratch == 0, "{failpoint} leaves {scratch} files");
    }
    let path = folder.path().display().to_string();
    let made = host.cli(&["backup", &path, "-o", "json"]).await?.ok()?.json()?;
    ensure!(Path::new(made["path"].as_str().unwrap_or_default()).exists(), "{made}");
    Ok(())
}

#[tokio::test]
async fn what_retention_leaves_still_verifies() -> Result<()> {
    let _room = shared().await;
    let folder = Folder::new()?;
    let options = HostOptions::new(&binaries::product()?, &folder.path().join("host"), "host")
        .variable("GODWIT_LIMITS_INPUTS_KEPT_S", "1")
        .variable("GODWIT_LIMITS_RECEIPTS_KEPT", "3");
    let mut host = options.start().await?;
    let door = host.client();
    door.load_plugin(&binaries::plugin("counter")?).await?;
    door.create("c", "counter").await?;
    for number in 1..=10u32 {
        let fate = door.ask("c", "add 1", Some(&format!("key {number}"))).await;
        ensure!(fate.reply() == Some(number.to_string().as_str()), "{fate:?}");
    }
    let pruned = || async {
        door.reply("c", "get").await?;
        let kept = door.inputs("c").await?;
        let shown = door.verb("c", "verify").await?;
        ensure!(shown["ok"] == true, "{shown}");
        let is_pruned = shown["checkpointed"].as_u64().unwrap_or_default() >= 8
            && !kept.iter().any(|input| input.seq <= 10);
        Ok(is_pruned.then_some(()))
    };
    until("old inputs and receipts to go", SOON, pruned).await?;
    let again = door.ask("c", "add 1", Some("key 1")).await;
    ensure!(again.reply() == Some("11"), "the key is new again: {again:?}");
    host.terminate().await?;
    cli::run(host.program(), &["verify", "--store", &host.ready().store]).await?.ok()?;
    host.start(&[]).await?;
    ensure!(host.client().reply("c", "get").await? == "11");
    Ok(())
}

#[tokio::test]
async fn an_agent_leaves_in_a_file_and_comes_in_where_nobody_has_it() -> Result<()> {
    let _room = shared().await;
    let mut cluster = Cluster::separate(&binaries::product()?, &[]).await?;
    let (a, b) = (cluster.a.client(), cluster.b.client());
    a.load_plugin(&binaries::plugin("counter")?).await?;
    a.create(MOVER, "counter").await?;
    for number in 1..=5u32 {
        let fate = a.ask(MOVER, "add 1", Some(&format!("key {number}"))).await;
        ensure!(fate.reply() == Some(number.to_string().as_str()), "{fate:?}");
    }
    let file = cluster.folder().join("mover.godwit");
    let archive = file.display().to_string();
    cluster.a.cli(&["export", MOVER, &archive]).await?.ok()?;
    // It lives: nobody takes it in, here or there.
    cluster.a.cli(&["import", &archive]).await?.expect_code(4)?;
    cluster.b.cli(&["import", &archive]).await?.expect_code(4)?;
    let token = a.agent(MOVER).await?.token;
    cluster.a.terminate().await?;
    cluster.b.cli(&["import", &archive]).await?.expect_code(5)?;
    let whole = std::fs::read(&file)?;
    for (at, what) in [(whole.len() / 2, "damaged"), (whole.len() - 1, "damaged"), (0, "not an archive")] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let torn = cluster.folder().join("torn.godwit");
        std::fs::write(&torn, flipped)?;
        let refused = cluster.b.cli(&["import", "--force", &torn.display().to_string()]).await?;
        ensure!(refused.code != 0 && refused.stderr.contains(what), "byte {at}: {refused:?}");
    }
    ensure!(b.list("/v1/agents").await?.is_empty(), "a torn archive leaves something");
    cluster.b.cli(&["import", "--force", &archive]).await?.ok()?;
    let shown = b.agent(MOVER).await?;
    ensure!(shown.state == "suspended" && shown.token >= EPOCH + token, "{}", shown.body);
    cluster.b.cli(&["agent", "resume", MOVER]).await?.ok()?;
    ensure!(b.reply(MOVER, "add 1").await? == "6", "its plugin and its state came with it");
    let again = b.ask(MOVER, "add 1", Some("key 3")).await;
    ensure!(again.reply() == Some("3"), "its keys came with it: {again:?}");
    cluster.b.cli(&["verify", MOVER]).await?.ok()?;
    cluster.b.terminate().await?;
    cli::run(cluster.b.program(), &["verify", "--store", &cluster.b.ready().store]).await?.ok()?;
    Ok(())
}
