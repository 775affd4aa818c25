//! A disk that fails, or is full for a while, under a running host. strace makes its system calls fail, which needs no
//! privilege: it runs as a grandchild of the host's process (`-D`), so that the host can be signalled and ends as always.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Folder;
use godwit_support::fate::Fate;
use godwit_support::host::{Host, HostOptions};
use godwit_support::random::Random;
use godwit_support::wait::until;

use crate::jobs::{self, Job};
use crate::runs::{conclude, start};
use crate::scene::{SOON, Scene, Template};

const BUSY: &[Job] = &[Job::Count, Job::Crowd, Job::Pay, Job::Relay];
const AFTERWARDS: usize = 10;
/// Inputs in a row that are accepted when there is room again.
const CALM: usize = 50;
/// Names the fault for one life of the host; none means that it runs untraced.
const FAULT: &str = "GODWIT_TEST_FAULT";

/// A program that runs the host, under strace when there is a fault.
fn faulty(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("faulty");
    let host = binaries::failpoints()?;
    let script = format!(
        "#!/bin/sh\n[ -z \"${FAULT}\" ] && exec {host} \"$@\"\n\
         exec strace -D -f -qq -o /dev/null -e \"trace=${{{FAULT}%%:*}}\" -e \"inject=${FAULT}\" {host} \"$@\"\n",
        host = host.display()
    );
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

async fn host(template: &Template, folder: &Folder) -> Result<Host> {
    template.data(folder.path(), "a")?;
    HostOptions::new(&faulty(folder.path())?, &folder.path().join("a"), "a").prepare()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_resolved_by_reading_the_disk_and_never_guessed() -> Result<()> {
    let template = Template::make().await?;
    let mut random = Random::printed("failed sync");
    let mut unknown = 0;
    for _ in 0..6 {
        let folder = Folder::new()?;
        let mut host = host(&template, &folder).await?;
        let fault = format!("fsync,fdatasync:error=EIO:when={}", 12 + random.below(20));
        start(&mut host, &[(FAULT, &fault)]).await?;
        let scene = Arc::new(Scene::new(vec![host.client()], random.draw()));
        let clients = jobs::start(&scene, BUSY);
        let status = host.process()?.exit().await?;
        ensure!(status.code() == Some(75), "after {fault} the host ended with {status}");
        let recovery = start(&mut host, &[]).await?;
        scene.progress(AFTERWARDS).await?;
        jobs::finish(&scene, clients).await?;
        let outcome = conclude(&scene, vec![recovery], &[&host]).await?;
        ensure!(outcome.violations.is_empty(), "{fault}:\n{}", outcome.violations.join("\n"));
        let operations = scene.journal.operations();
        let fates = operations.iter().flat_map(|operation| &operation.fates);
        unknown += fates.filter(|fate| matches!(fate, Fate::Unknown(_))).count();
    }
    println!("{unknown} answers were unknown, each was resolved by asking again");
    ensure!(unknown > 0, "no client was ever in doubt: the fault hit nobody");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_loses_nothing_and_service_resumes_by_itself() -> Result<()> {
    let (template, folder) = (Template::make().await?, Folder::new()?);
    let mut host = host(&template, &folder).await?;
    // Counted by thread: for each thread that writes, its writes 60 to 90 find no room.
    start(&mut host, &[(FAULT, "pwrite64:error=ENOSPC:when=60..90")]).await?;
    let pid = host.pid()?;
    let scene = Arc::new(Scene::new(vec![host.client()], 0));
    let clients = jobs::start(&scene, BUSY);
    let door = host.client();
    let probe = || door.send("sink", "get", None);
    let refused = || async {
        match probe().await {
            Fate::Refused(problem) if problem.status != 0 => Ok(Some(problem)),
            _ => Ok(None),
        }
    };
    let problem = until("an input to be refused", SOON, refused).await?;
    ensure!(problem.code == "store_full", "not a clear refusal: {}", problem.body);
    let resumed = || async {
        for _ in 0..CALM {
            if probe().await.answer().is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    };
    until("service to resume", SOON, resumed).await?;
    ensure!(host.is_running() && host.pid()? == pid, "it did not resume by itself");
    scene.progress(AFTERWARDS).await?;
    jobs::finish(&scene, clients).await?;
    let outcome = conclude(&scene, vec![], &[&host]).await?;
    ensure!(outcome.violations.is_empty(), "{}", outcome.violations.join("\n"));
    Ok(())
}
