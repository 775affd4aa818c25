//! Peers that lie, and keys that are no peers': refused with a typed answer or a closed connection, nothing in any store is
//! changed by them, and the hosts serve all others meanwhile. What is believed of a listed peer: agents that it brings, of
//! which the host knows no home (`mesh.accept = "expected"` ends that, too).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::id::{FencingToken, Generation, MigrationId, Revision};
use godwit_core::spec::{PluginInfo, Spec};
use godwit_core::store::{Row, RowFrame};
use godwit_support::binaries;
use godwit_support::check;
use godwit_support::memory::Mark;
use godwit_support::wait::until;
use iroh::endpoint::Connection;
use reqwest::Method;

use crate::room::{SOON, alone, shared};

mod raw;
mod sender;
mod stage;

use raw::{
    BulkHeader, MIGRATION_REFUSED, Message, NOT_READY, OK, PROTOCOL, Preparation, REQUEST, Raw, Request,
    STATE_FAILED, Said, ask, bulk, frame, message, say,
};
use sender::delivery;
use stage::{Stage, about, agent, count, held, is_back_at, migration, state};

const RESIDENT: &str = "resident";
const TRAVELLER: &str = "traveller";
const FORGED: [u64; 3] = [1 << 63, u64::MAX, 0];
/// More than any host keeps of what is offered to it.
const MANY: usize = 2_000;

fn prepare(granted: u64, frames: Vec<RowFrame>) -> Message {
    let (generation, revision) = (Generation(1), Revision(1));
    let (granted, bundle) = (FencingToken(granted), bundle(&frames));
    Message::Prepare(Box::new(Preparation { granted, generation, revision, frames, bundle }))
}

/// What a target computes over row frames.
fn bundle(frames: &[RowFrame]) -> Digest {
    let mut digest = RunningDigest::default();
    frames.iter().for_each(|frame| digest.add(frame.digest()));
    digest.finish()
}

/// Each is refused, and leaves both stores as they were.
async fn refused(stage: &Stage, to: &Connection, what: &str, request: &[u8]) -> Result<()> {
    let before = stage.states()?;
    let said = ask(to, request).await.with_context(|| what.to_owned())?;
    ensure!(said.is_no(), "{what}: {said:?}");
    ensure!(stage.states()? == before, "{what} has changed a store");
    Ok(())
}

#[tokio::test]
async fn forged_tokens_and_claims_of_a_listed_peer_change_nothing() -> Result<()> {
    let _room = shared().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let (a, b) = (stage.liar.greeted(&stage.pair.a).await?, stage.liar.greeted(&stage.pair.b).await?);
    for token in FORGED {
        refused(&stage, &b, "a reservation", &stage.reserve(migration(1), "ghost", token)).await?;
        refused(&stage, &b, "a delivery", &delivery(RESIDENT, "ghost", token, 1)).await?;
    }
    // One that is taken, and then is not what it should be.
    let said = ask(&b, &stage.reserve(migration(1), "ghost", 5)).await?;
    ensure!(matches!(said, Said::Migration(OK, _)), "{said:?}");
    for token in FORGED.into_iter().chain([5]) {
        refused(&stage, &b, "a preparation", &about(migration(1), "ghost", prepare(token, Vec::new())))
            .await?;
        let activate = Message::Activate { token: FencingToken(token) };
        refused(&stage, &b, "an activation", &about(migration(1), "ghost", activate)).await?;
    }
    for (place, home) in [(&a, TRAVELLER), (&b, RESIDENT)] {
        refused(&stage, place, "an agent that is at home there", &stage.reserve(migration(2), home, 9))
            .await?;
    }
    // An agent's own host is asked to hear it from somebody else.
    let spoken = ask(&b, &delivery(RESIDENT, RESIDENT, 1 << 40, 1)).await?;
    ensure!(matches!(spoken, Said::Delivered(3)), "{spoken:?}");
    refused(&stage, &b, "numbers to come", &delivery(RESIDENT, "ghost", 1, u64::MAX)).await?;

    let before = stage.states()?;
    let claims = count(&stage.pair.b, "claim")?;
    for number in 0..MANY {
        let claimed =
            ask(&b, &message(&Request::Claim { agent: agent(&format!("claimed-{number}")) })).await?;
        ensure!(matches!(claimed, Said::Other(6)), "{claimed:?}");
    }
    ensure!(count(&stage.pair.b, "claim")? == claims && stage.states()? == before, "claims are kept");
    // Nobody is kept from the names.
    stage.pair.b.client().create("claimed-1", "counter").await?;
    stage.is_well().await
}

#[tokio::test]
async fn thousands_of_reservations_are_put_off_and_leave_little() -> Result<()> {
    let _room = shared().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    let before = (stage.states()?, held(&stage.pair.b)?);
    let (mut taken, mut put_off) = (0, 0);
    for number in 0..MANY {
        match ask(&b, &stage.reserve(migration(number), &format!("ghost-{number}"), 5)).await? {
            Said::Migration(OK, _) => taken += 1,
            Said::Migration(NOT_READY, _) => put_off += 1,
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(taken <= 16 && put_off == MANY - taken, "{taken} taken, {put_off} put off");
    ensure!(count(&stage.pair.b, "migration")? <= 16 && stage.states()? == before.0);
    // Another peer's agent comes all the same.
    stage.pair.a.client().move_to(TRAVELLER, "b", SOON).await?;
    // And what is offered and taken back again is not kept for ever.
    for number in 0..MANY {
        let id = migration(MANY + number);
        let name = format!("offered-{number}");
        if number < 16 {
            ask(&b, &about(migration(number), &format!("ghost-{number}"), Message::Abort)).await?;
        }
        let said = ask(&b, &stage.reserve(id, &name, 5)).await?;
        ensure!(matches!(said, Said::Migration(OK | NOT_READY, _)), "{said:?}");
        let said = ask(&b, &about(id, &name, Message::Abort)).await?;
        ensure!(matches!(said, Said::Migration(..)), "{said:?}");
    }
    let kept = count(&stage.pair.b, "migration")?;
    ensure!(kept <= 300, "{kept} records are kept");
    is_back_at(&stage.pair.b, before.1).await?;
    stage.is_well().await
}

/// Says things about a migration between two others, while its source stands still. Answers what it has achieved.
async fn meddle(variables: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut stage = Stage::new(&binaries::failpoints()?, variables).await?;
    stage.pair.a.kill().await?;
    let stop = [("GODWIT_FAILPOINTS", "migration.source.after-reserve=stop")];
    stage.pair.a.start(&stop).await?;
    let id = stage.pair.a.client().migrate(TRAVELLER, stage.pair.b.key()).await?;
    stage.pair.a.process()?.stopped(SOON).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    let open: MigrationId = id.parse()?;
    let mut achieved = Vec::new();
    let messages = [
        ("another's reservation", stage.reserve(open, TRAVELLER, 1)),
        ("a restore", about(open, TRAVELLER, Message::Restore { revision: Revision(0) })),
        ("a preparation", about(open, TRAVELLER, prepare(5, Vec::new()))),
        ("an activation", about(open, TRAVELLER, Message::Activate { token: FencingToken(5) })),
        ("a question", about(open, TRAVELLER, Message::WhatHaveYou)),
        ("an abort of another agent's", about(open, "ghost", Message::Abort)),
        ("an abort", about(open, TRAVELLER, Message::Abort)),
    ];
    for (what, request) in messages {
        let said = ask(&b, &request).await?;
        if !said.is_no() {
            achieved.push(format!("{what}: {said:?}"));
        }
    }
    let rows = message(&BulkHeader::Rows { id: open, agent: agent(TRAVELLER) });
    let plugin = message(&BulkHeader::Plugin { id: open, plugin: stage.plugin.clone() });
    for (what, header, body) in
        [("rows", rows, message(&Vec::<u8>::new())), ("a component", plugin, vec![1, 2, 3])]
    {
        let said = bulk(&b, &header, &body).await?;
        if !said.is_no() {
            achieved.push(format!("{what}: {said:?}"));
        }
    }
    stage.pair.a.process()?.resume()?;
    let over = stage.pair.a.client().migration_over(&id, SOON).await?;
    if over.phase != "complete" {
        achieved.push(format!("the migration did not come to its end: {}", over.body));
        return Ok(achieved);
    }
    // Now that it is over, both hosts are asked again.
    let a = stage.liar.greeted(&stage.pair.a).await?;
    for (what, place, asked) in [
        ("the source's answer", &a, Message::WhatBecame),
        ("the target's answer", &b, Message::WhatHaveYou),
        ("a late abort", &b, Message::Abort),
        ("a late activation", &b, Message::Activate { token: FencingToken(u64::MAX >> 1) }),
    ] {
        let said = ask(place, &about(open, TRAVELLER, asked)).await?;
        if !said.is_no() {
            achieved.push(format!("{what}: {said:?}"));
        }
    }
    stage.is_well().await?;
    Ok(achieved)
}

#[tokio::test]
async fn nobody_meddles_with_a_migration_of_others() -> Result<()> {
    let _room = shared().await;
    check::none("a migration of others", &meddle(&[]).await?)
}

#[tokio::test]
async fn without_the_check_of_the_source_the_suite_fails() -> Result<()> {
    let _room = shared().await;
    let found = meddle(&[("GODWIT_BREAK", "no-peer-check")]).await?;
    ensure!(!found.is_empty(), "everybody was believed, and the suite did not see it");
    println!("found: {}", found.join("; "));
    Ok(())
}

/// Has the false peer play the target of an agent's migration, and keeps all that its source has sent.
async fn recorded(stage: &Stage, name: &str) -> Result<raw::Recording> {
    let taken = || stage.recording.lock().map(|mut kept| std::mem::take(&mut *kept));
    drop(taken());
    let id = stage.pair.a.client().migrate(name, &stage.liar.key).await?;
    let over = stage.pair.a.client().migration_over(&id, SOON).await?;
    ensure!(over.phase == "failed", "the false target said no: {}", over.body);
    taken().map_err(|_| anyhow::anyhow!("the recorder died"))
}

/// The recorded message of a kind.
fn of_kind(recording: &raw::Recording, kind: u8) -> Result<Vec<u8>> {
    let is_of =
        |body: &&bytes::Bytes| body.get(1) == Some(&4) && body.get(19 + usize::from(body[18])) == Some(&kind);
    Ok(recording.requests.iter().find(is_of).with_context(|| format!("no message {kind}"))?.to_vec())
}

/// Keeps what was recorded, as seeds of the corpora in `tests/fuzz`.
fn keep(folder: &std::ffi::OsStr, recordings: &[&raw::Recording]) -> Result<()> {
    let write = |name: String, bytes: &[u8]| std::fs::write(std::path::Path::new(folder).join(name), bytes);
    for (number, body) in recordings.iter().flat_map(|recording| &recording.requests).enumerate() {
        write(format!("request-{number}"), body)?;
    }
    for (number, (header, body)) in recordings.iter().flat_map(|recording| &recording.bulks).enumerate() {
        write(format!("header-{number}"), header)?;
        write(format!("rows-{number}"), body)?;
    }
    Ok(())
}

fn frames_of(body: &[u8]) -> Result<Vec<RowFrame>> {
    Ok(postcard::from_bytes(body.get(1..).context("empty")?)?)
}

/// What the source has sent, once more, and then again: up to the commit point, taken back, and after the end.
async fn said_again(
    stage: &Stage,
    b: &Connection,
    bait: &raw::Recording,
    before: &[String; 2],
) -> Result<()> {
    let [reserve, prepare] = [of_kind(bait, 0)?, of_kind(bait, 2)?];
    let recorded_id = MigrationId(reserve[2..18].try_into()?);
    for _ in 0..2 {
        let said = ask(b, &reserve).await?;
        ensure!(matches!(said, Said::Migration(OK, _)), "{said:?}");
    }
    for (header, body) in &bait.bulks {
        let said = bulk(b, header, body).await?;
        ensure!(matches!(said, Said::Migration(OK, _)), "{said:?}");
    }
    let first = ask(b, &prepare).await?;
    ensure!(matches!(first, Said::Migration(3, _)), "prepared: {first:?}");
    let prepared = state(&stage.pair.b)?;
    let again = ask(b, &prepare).await?;
    let is_known = matches!(again, Said::Migration(3 | MIGRATION_REFUSED | STATE_FAILED, _));
    ensure!(is_known, "prepared again: {again:?}");
    for (header, body) in &bait.bulks {
        let said = bulk(b, header, body).await?;
        ensure!(matches!(said, Said::Migration(OK | MIGRATION_REFUSED, _)), "{said:?}");
    }
    ensure!(state(&stage.pair.b)? == prepared, "a bound copy has changed");
    ask(b, &about(recorded_id, "bait", Message::Abort)).await?;
    ensure!(state(&stage.pair.b)? == before[1], "what was taken back has left something");
    // It is over: nothing that is said about it again opens it.
    for request in [&reserve, &prepare] {
        let said = ask(b, request).await?;
        ensure!(!matches!(said, Said::Migration(OK | 3, _)), "after its end: {said:?}");
    }
    let activate = Message::Activate { token: FencingToken(2) };
    refused(stage, b, "an activation after the end", &about(recorded_id, "bait", activate)).await?;
    ensure!(state(&stage.pair.b)? == before[1], "what was said again has changed a store");
    Ok(())
}

#[tokio::test]
async fn frames_said_again_or_of_another_agent_change_nothing() -> Result<()> {
    let _room = shared().await;
    let mut stage = Stage::new(&binaries::product()?, &[("GODWIT_MESH_ENTITY_KEYS", "stay")]).await?;
    let door = stage.pair.a.client();
    for name in ["bait", "other"] {
        door.create(name, "counter").await?;
        door.reply(name, if name == "bait" { "add 5" } else { "add 6" }).await?;
        door.verb(name, "checkpoint").await?;
        // And some turns that only the journal has.
        for _ in 0..3 {
            door.reply(name, "get").await?;
        }
    }
    let other = recorded(&stage, "other").await?;
    let bait = recorded(&stage, "bait").await?;
    ensure!(!bait.bulks.is_empty() && !other.bulks.is_empty(), "nothing was recorded");
    if let Some(folder) = std::env::var_os("GODWIT_RECORD") {
        keep(&folder, &[&bait, &other])?;
    }
    // It is gone from where it was: so nobody but the false peer has it.
    door.call(Method::DELETE, "/v1/agents/bait", None).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    let rows = |recording: &raw::Recording| recording.bulks[0].1.clone();

    // The rows of one agent under the name of another; and among its own, another's snapshot.
    let (id, name) = (migration(8), "bait");
    let header = message(&BulkHeader::Rows { id, agent: agent(name) });
    let before = stage.states()?;
    ensure!(matches!(ask(&b, &stage.reserve(id, name, 3)).await?, Said::Migration(OK, _)));
    let said = taken(&b, (id, name), &header, &rows(&other)).await?;
    ensure!(matches!(said, Said::Migration(MIGRATION_REFUSED, _)), "rows of another agent: {said:?}");
    ask(&b, &about(id, name, Message::Abort)).await?;
    let id = migration(7);
    let header = message(&BulkHeader::Rows { id, agent: agent(name) });
    ensure!(matches!(ask(&b, &stage.reserve(id, name, 3)).await?, Said::Migration(OK, _)));
    let foreign = frames_of(&rows(&other))?.into_iter().find_map(|frame| match frame.row {
        Row::Snapshot { snapshot, .. } => Some(snapshot.state),
        _ => None,
    });
    let foreign = foreign.context("no snapshot was recorded")?;
    let mut frames = frames_of(&rows(&bait))?;
    for frame in &mut frames {
        if let Row::Snapshot { snapshot, .. } = &mut frame.row {
            snapshot.state = foreign.clone();
        }
    }
    let revision = frames.iter().find_map(|frame| match &frame.row {
        Row::Agent(portable) => Some((portable.generation, portable.revision)),
        _ => None,
    });
    let (generation, revision) = revision.context("no agent's row was recorded")?;
    let said = taken(&b, (id, name), &header, &message(&frames)).await?;
    ensure!(matches!(said, Said::Migration(OK, _)), "{said:?}");
    let bundle = bundle(&frames);
    let granted = FencingToken(4);
    let preparation = Preparation { granted, generation, revision, frames: Vec::new(), bundle };
    let said = ask(&b, &about(id, name, Message::Prepare(Box::new(preparation)))).await?;
    ensure!(matches!(said, Said::Migration(MIGRATION_REFUSED, _)), "another's snapshot: {said:?}");
    ask(&b, &about(id, name, Message::Abort)).await?;
    ensure!(stage.states()? == before, "what was refused has changed a store");

    said_again(&stage, &b, &bait, &before).await?;
    stage.is_well().await
}

#[tokio::test]
async fn a_component_is_what_was_reserved_or_refused() -> Result<()> {
    let _room = shared().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    let before = (stage.states()?, count(&stage.pair.b, "plugin")?);
    let component = std::fs::read(binaries::plugin("relay")?)?;
    let claims: [(&str, Digest, &[&str], &[u8]); 3] = [
        ("other bytes", Digest::of(b"something else"), &[], &component),
        ("other grants", Digest::of(&component), &["http", "secrets"], &component),
        ("no component", Digest::of(b"garbage"), &[], b"garbage"),
    ];
    for (number, (what, digest, grants, body)) in claims.into_iter().enumerate() {
        let grants = grants.iter().map(|grant| (*grant).to_owned()).collect();
        let plugin = PluginInfo { digest, grants, name: "relay".into(), ..stage.plugin.clone() };
        let mut reservation = stage.reservation(5);
        (reservation.spec, reservation.plugin) = (Spec::new(digest), plugin.clone());
        let (id, name) = (migration(number), format!("ghost-{number}"));
        let said = ask(&b, &about(id, &name, Message::Reserve(Box::new(reservation)))).await?;
        if matches!(said, Said::Migration(MIGRATION_REFUSED, _)) {
            continue;
        }
        ensure!(matches!(said, Said::Migration(1, _)), "{what}: it needs the component: {said:?}");
        let said = bulk(&b, &message(&BulkHeader::Plugin { id, plugin }), body).await?;
        ensure!(matches!(said, Said::Migration(MIGRATION_REFUSED, _)), "{what}: {said:?}");
    }
    ensure!((stage.states()?, count(&stage.pair.b, "plugin")?) == before);
    stage.is_well().await
}

/// Bodies of requests that are none, among them every kind of message cut and damaged, and lengths that nothing has.
fn nonsense(stage: &Stage) -> Vec<Vec<u8>> {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let mut bodies = vec![Vec::new(), vec![PROTOCOL], vec![0xff; 64], vec![9, 0], vec![0; 1 << 20]];
    for variant in 0..=16_u8 {
        bodies.push([&[PROTOCOL, variant][..], &huge].concat());
        bodies.push([&[PROTOCOL, variant][..], &[0x7f; 300]].concat());
    }
    let whole = [
        stage.reserve(migration(3), "ghost", 5),
        about(migration(3), "ghost", prepare(6, Vec::new())),
        delivery(RESIDENT, "ghost", 1, 1),
    ];
    for message in whole {
        bodies.extend((0..message.len()).step_by(3).map(|cut| message[..cut].to_vec()));
        bodies.push([&message[..], b"and more"].concat());
        // A list of rows, or a text, that claims more than there is in the world.
        bodies.push([&message[..message.len() - 1], &huge[..]].concat());
    }
    bodies
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_and_cost_nothing() -> Result<()> {
    let _room = alone().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    let before = (stage.states()?, held(&stage.pair.b)?);
    for body in nonsense(&stage) {
        let said = ask(&b, &body).await?;
        let shown = &body[..body.len().min(24)];
        ensure!(said.is_no() || matches!(said, Said::Other(_)), "{shown:02x?}: {said:?}");
    }
    // Frames that are none.
    let good = frame(PROTOCOL, REQUEST, &[PROTOCOL, 0]);
    let mut frames = Vec::new();
    for (place, byte) in
        [(0, b'x'), (4, 9), (5, 99), (5, 10), (6, 1), (11, 0xff), (20, 1), (good.len() - 1, 9)]
    {
        let mut damaged = good.clone();
        damaged[place] ^= byte;
        frames.push(damaged);
    }
    for bytes in frames {
        let said = say(&b, &bytes).await?;
        ensure!(matches!(said, Said::MeshRefused(_)), "{said:?}");
    }
    let too_large = raw::announced(u64::MAX, b"");
    ensure!(matches!(say(&b, &too_large).await?, Said::MeshRefused(_)));
    ensure!(stage.states()? == before.0);

    // Streams on which nothing, or little, or one byte at a time comes, as many as may be open; and transfers that stand.
    let mut open = Vec::new();
    for number in 0..60_u8 {
        let (mut send, recv) = b.open_bi().await?;
        let start: &[u8] = match number % 3 {
            0 => &[],
            1 => &good[..20],
            _ => &frame(PROTOCOL, REQUEST, &[0; 1 << 16])[..100],
        };
        send.write_all(start).await?;
        open.push((send, recv));
    }
    for _ in 0..4 {
        let (mut send, recv) = b.open_bi().await?;
        send.write_all(&raw::announced(8 << 20, b"")).await?;
        open.push((send, recv));
    }
    let began = Instant::now();
    stage.pair.a.client().move_to(TRAVELLER, "b", SOON).await?;
    ensure!(stage.pair.b.client().reply(TRAVELLER, "get").await? == "7");
    ensure!(began.elapsed() < Duration::from_secs(10), "others waited {:?}", began.elapsed());
    for (_, mut recv) in open {
        ensure!(raw::ended(&mut recv, SOON).await, "a stream on which nothing comes stays open");
    }
    let listed = stage.pair.b.client().list("/v1/peers").await?;
    let shown = listed.iter().find(|peer| peer["key"] == stage.liar.key.as_str()).context("not listed")?;
    ensure!(shown["protocol"] == PROTOCOL, "{shown}");
    b.close(0_u32.into(), b"");
    is_back_at(&stage.pair.b, before.1).await?;
    stage.is_well().await
}

/// Sends a bundle, which is here before it is looked at, and asks what became of it: with one that has no rows.
async fn taken(b: &Connection, (id, name): (MigrationId, &str), header: &[u8], body: &[u8]) -> Result<Said> {
    let said = bulk(b, header, body).await?;
    ensure!(matches!(said, Said::Migration(OK, _)), "it is not here: {said:?}");
    let nothing: [RowFrame; 0] = [];
    bulk(b, &message(&BulkHeader::Rows { id, agent: agent(name) }), &message(&nothing.to_vec())).await
}

/// A zstd frame of blocks that each repeat one byte 128 Ki times.
fn bomb(blocks: usize) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x38];
    for number in 1..=blocks {
        let head: u32 = (128 << 10) << 3 | 1 << 1 | u32::from(number == blocks);
        bytes.extend_from_slice(&head.to_le_bytes()[..3]);
        bytes.push(b'x');
    }
    bytes
}

#[tokio::test]
async fn a_bundle_that_unpacks_to_very_much_is_refused_and_costs_nothing() -> Result<()> {
    let _room = alone().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    let name = "ghost";
    let before = (stage.states()?, Mark::of(&stage.pair.b)?);
    // 4 GiB, as it is and as it is not announced.
    let bomb = bomb(32 << 10);
    for (bytes, number) in [1, 1 << 20, 18 << 20, 4 << 30, u64::MAX].into_iter().zip(20..) {
        let id = migration(number);
        ensure!(matches!(ask(&b, &stage.reserve(id, name, 3)).await?, Said::Migration(OK, _)));
        let header = message(&BulkHeader::PackedRows { id, agent: agent(name), bytes });
        let said = taken(&b, (id, name), &header, &bomb).await?;
        ensure!(matches!(said, Said::Migration(MIGRATION_REFUSED, _)), "{bytes}: {said:?}");
        ask(&b, &about(id, name, Message::Abort)).await?;
    }
    ensure!(stage.states()? == before.0);
    let extra_kib = before.1.extra_kib()?;
    ensure!(extra_kib < 64 << 10, "it took {extra_kib} KiB");
    stage.is_well().await
}

#[tokio::test]
async fn keys_that_are_not_listed_get_nothing_and_keep_nobody_waiting() -> Result<()> {
    let _room = alone().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let before = (stage.states()?, held(&stage.pair.b)?);
    let mut strangers = Vec::new();
    for seed in 100..104 {
        strangers.push(Raw::start(seed).await?);
    }
    for round in 0..40 {
        let stranger = &strangers[round % strangers.len()];
        let connection = stranger.connect(&stage.pair.b).await?;
        ensure!(raw::closed(&connection).await? == 2, "an unlisted key is told so");
    }
    // Versions that nobody speaks: both sides say what they do.
    let connection = stage.liar.connect(&stage.pair.b).await?;
    let (kind, body) = stage.liar.greet(&connection, 7, 9).await?;
    ensure!((kind, &body[..]) == (raw::REFUSED, &[0, 1, PROTOCOL][..]), "{kind} {body:?}");
    connection.close(0_u32.into(), b"");
    let look = || async {
        let peers = stage.pair.b.client().list("/v1/peers").await?;
        let troubles = peers.iter().filter_map(|peer| peer["trouble"].as_str());
        let is_said =
            troubles.into_iter().any(|trouble| trouble.contains("7 to 9") && trouble.contains("1 to 2"));
        Ok(is_said.then_some(()))
    };
    until("the operator to be told of the versions", SOON, look).await?;
    ensure!(stage.states()? == before.0);
    is_back_at(&stage.pair.b, before.1).await?;
    stage.is_well().await
}

#[tokio::test]
async fn a_peer_that_is_removed_is_cut_off_at_once_and_stays_so() -> Result<()> {
    let _room = shared().await;
    let mut stage = Stage::new(&binaries::product()?, &[]).await?;
    let b = stage.liar.greeted(&stage.pair.b).await?;
    ensure!(matches!(ask(&b, &stage.reserve(migration(1), "ghost", 5)).await?, Said::Migration(OK, _)));
    stage.pair.b.cli(&["peer", "remove", &stage.liar.key]).await?.ok()?;
    ensure!(raw::closed(&b).await? == 2, "the connection is closed with the reason");
    let look = || async {
        let shown = stage.pair.b.client().migration(&migration(1).to_string()).await?;
        Ok((shown.phase == "aborted").then_some(()))
    };
    until("its reservation to be dropped", SOON, look).await?;
    // The start lists it once more by `--peer`: that an operator has removed it counts.
    stage.pair.b.kill().await?;
    stage.pair.b.start(&[]).await?;
    let again = stage.liar.connect(&stage.pair.b).await?;
    ensure!(raw::closed(&again).await? == 2);
    stage.pair.b.cli(&["peer", "add", &stage.liar.peer()?]).await?.ok()?;
    stage.liar.greeted(&stage.pair.b).await?;

    // What `a` says of `b`, once `b` does not list it.
    let key = stage.pair.a.key().to_owned();
    stage.pair.b.cli(&["peer", "remove", &key]).await?.ok()?;
    let look = || async {
        stage.pair.a.client().list("/v1/hosts").await?;
        let peers = stage.pair.a.client().list("/v1/peers").await?;
        let of_b: BTreeMap<_, _> = peers
            .iter()
            .filter_map(|peer| Some((peer["key"].as_str()?, peer["trouble"].as_str()?)))
            .collect();
        Ok(of_b.get(stage.pair.b.key()).is_some_and(|why| *why == "it does not list this host").then_some(()))
    };
    until("the other side to be told why", SOON, look).await?;
    let back = stage.pair.a.peer();
    stage.pair.b.cli(&["peer", "add", &back]).await?.ok()?;
    stage.is_well().await
}

#[tokio::test]
async fn configured_peers_are_read_again_while_the_host_runs() -> Result<()> {
    let _room = shared().await;
    let folder = godwit_support::cluster::Folder::new()?;
    let file = folder.path().join("godwit.toml");
    let stranger = Raw::start(90).await?;
    std::fs::write(&file, "[mesh]\npeers = []\n")?;
    let options =
        godwit_support::host::HostOptions::new(&binaries::product()?, &folder.path().join("h"), "h");
    let path = file.display().to_string();
    let mut host = options.arguments(&["--config", &path]).start().await?;
    ensure!(raw::closed(&stranger.connect(&host).await?).await? == 2);
    std::fs::write(&file, format!("[mesh]\npeers = [\"{}\"]\n", stranger.peer()?))?;
    let said = host.cli(&["peer", "reload"]).await?.ok()?.stdout;
    ensure!(said.contains("1 peers added, 0 removed"), "{said}");
    let connection = stranger.greeted(&host).await?;
    std::fs::write(&file, "[mesh]\npeers = \"nonsense\"\n")?;
    let failed = host.cli(&["peer", "reload"]).await?;
    ensure!(failed.code != 0, "a file that can't be read changes nothing");
    ensure!(connection.close_reason().is_none());
    std::fs::write(&file, "[mesh]\npeers = []\n")?;
    godwit_support::signal::send(host.pid()?, godwit_support::signal::Send::Hangup)?;
    ensure!(raw::closed(&connection).await? == 2, "SIGHUP has cut it off");
    host.terminate().await
}
