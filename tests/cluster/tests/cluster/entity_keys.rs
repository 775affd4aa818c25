//! Entity keys on real hosts: what an agent signs is verified here by another implementation than the product's, and its
//! secret is looked for in everything that lies on the disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::client::{Client, Method};
use godwit_support::cluster::{Cluster, Folder, Side};
use godwit_support::host::HostOptions;
use godwit_support::wait::until;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::room::{SOON, shared};

const AGENT: &str = "notary";
const TEXT: &str = "pay 5 to bob";

fn journaled() -> Value {
    json!({"plugin": "signer", "policy": "journal"})
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2).context("an odd digit"));
    digits.map(|digits| Ok(u8::from_str_radix(digits?, 16)?)).collect()
}

/// The public key that the host shows of the agent, which must be the one that the command line prints.
async fn shown_key(client: &Client, agent: &str) -> Result<String> {
    let shown = client.agent(agent).await?.body;
    Ok(shown["public_key"].as_str().context("no public key is shown")?.to_owned())
}

/// Has the agent sign, and verifies that as a stranger would: from its id, the public key that its host shows, and the
/// words of `wit/identity.wit`. Answers the key.
pub(crate) async fn signs(client: &Client, agent: &str) -> Result<String> {
    let key = shown_key(client, agent).await?;
    let reply: Value = serde_json::from_str(&client.reply(agent, &format!("sign {TEXT}")).await?)?;
    ensure!(reply["public_key"] == key.as_str(), "{reply} and {key}");
    let signature = unhex(reply["signature"].as_str().context("no signature")?)?;
    let public = UnparsedPublicKey::new(&ED25519, unhex(&key)?);
    let signed = |agent: &str, text: &str| format!("godwit agent signature v1\0{agent}\0{text}");
    let verified = public.verify(signed(agent, TEXT).as_bytes(), &signature);
    ensure!(verified.is_ok(), "the signature is of something else");
    for (agent, text) in [(agent, "pay 6 to bob"), ("somebody", TEXT)] {
        ensure!(public.verify(signed(agent, text).as_bytes(), &signature).is_err(), "it fits anything");
    }
    Ok(key)
}

/// Opens the sealed secret of an agent as the host does, from its key file and the store's file: layout and context are
/// written down here once more.
fn secret_of(data: &Path, store: &Path, agent: &str) -> Result<Vec<u8>> {
    let host_key = unhex(std::fs::read_to_string(data.join("host.key"))?.trim())?;
    let seal_key = blake3::derive_key("godwit 2026 key that seals secrets in a store", &host_key);
    let file = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let id: Vec<u8> = file.query_row("SELECT store FROM meta", [], |row| row.get(0))?;
    let sql = "SELECT e.public, e.secret FROM entity_key e JOIN agent a ON a.key = e.agent WHERE a.id = ?1 AND a.home < 4";
    let (public, sealed): (Vec<u8>, Vec<u8>) =
        file.query_row(sql, [agent], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let context = [b"entity key of agent ", agent.as_bytes(), &[0], &id, &public].concat();
    let nonce: [u8; 12] = sealed.get(9..21).context("no nonce")?.try_into()?;
    let mut bytes = sealed[21..].to_vec();
    let key = UnboundKey::new(&CHACHA20_POLY1305, &seal_key).ok().context("the seal key")?;
    let opened = LessSafeKey::new(key).open_in_place(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(context),
        &mut bytes,
    );
    let secret = opened.ok().context("the seal does not open")?.to_vec();
    let pair = Ed25519KeyPair::from_seed_and_public_key(&secret, &public);
    ensure!(pair.is_ok(), "it is no secret of this public key");
    Ok(secret)
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// All files of a data directory.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[tokio::test]
async fn an_agent_signs_under_one_key_wherever_it_is() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    pair.load(&["signer"]).await?;
    let door = pair.a.client();
    door.create_with(AGENT, journaled()).await?;
    let key = signs(&door, AGENT).await?;
    let printed = pair.a.cli(&["agent", "show", AGENT]).await?.ok()?;
    ensure!(printed.stdout.contains(&key), "the command line hides it: {}", printed.stdout);
    ensure!(door.reply(AGENT, "key").await? == key);

    pair.a.kill().await?;
    pair.a.start(&[]).await?;
    ensure!(signs(&pair.a.client(), AGENT).await? == key, "another key after the kill");
    ensure!(pair.a.client().verb(AGENT, "replay").await?["ok"] == true);
    for verb in ["respawn", "reset"] {
        pair.a.client().verb(AGENT, verb).await?;
        ensure!(signs(&pair.a.client(), AGENT).await? == key, "another key after {verb}");
    }

    let counted = pair.a.client().reply(AGENT, "count").await?;
    let secret = secret_of(pair.a.data(), &pair.store_file(Side::A), AGENT)?;
    pair.a.cli(&["migrate", AGENT, "--to", "b", "--wait"]).await?.ok()?;
    let there = pair.b.client();
    ensure!(pair.runner(AGENT, SOON).await? == Side::B, "it is not there");
    ensure!(there.reply(AGENT, "count").await? == counted, "the same agent");
    ensure!(signs(&there, AGENT).await? == key, "another key on the other host");
    pair.b.kill().await?;
    pair.b.start(&[]).await?;
    ensure!(signs(&pair.b.client(), AGENT).await? == key, "another key after the kill there");
    ensure!(pair.b.client().verb(AGENT, "replay").await?["ok"] == true, "its signatures are its history");

    let moved = secret_of(pair.b.data(), &pair.store_file(Side::B), AGENT)?;
    ensure!(moved == secret, "another secret under the same public key");
    // The source has let go of it; the rows of a moved agent go once the target has said that it runs.
    let gone =
        || async { Ok(secret_of(pair.a.data(), &pair.store_file(Side::A), AGENT).is_err().then_some(())) };
    until("the source to forget the secret", SOON, gone).await?;
    for data in [pair.a.data(), pair.b.data()] {
        for file in files_below(data)? {
            ensure!(!holds(&std::fs::read(&file)?, &secret), "{} holds the secret", file.display());
        }
    }

    // Created anew it is somebody else.
    pair.b.cli(&["agent", "delete", AGENT]).await?.ok()?;
    let path = format!("/v1/agents/{AGENT}?recreate=true");
    let made = pair.b.client().call(Method::PUT, &path, Some(journaled())).await?;
    ensure!(made.status == 201, "{} {}", made.status, made.body);
    ensure!(signs(&pair.b.client(), AGENT).await? != key, "the key outlived its agent");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_stays_is_given_to_its_target_by_other_means() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[("GODWIT_MESH_ENTITY_KEYS", "stay")]).await?;
    pair.load(&["signer"]).await?;
    let [door, there] = [pair.a.client(), pair.b.client()];
    let mut keys = Vec::new();
    for agent in [AGENT, "bare"] {
        door.create_with(agent, journaled()).await?;
        keys.push(signs(&door, agent).await?);
    }
    // Whoever runs both hosts brings the secret; nobody else can read it.
    let secret = secret_of(pair.a.data(), &pair.store_file(Side::A), AGENT)?;
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = json!({"agent": AGENT, "from": pair.a.key(), "entity_secret": digits});
    let told = there.call(Method::POST, "/v1/expected-migrations", Some(expected)).await?;
    ensure!(told.status == 204, "{} {}", told.status, told.body);
    for agent in [AGENT, "bare"] {
        pair.a.cli(&["migrate", agent, "--to", "b", "--wait"]).await?.ok()?;
        ensure!(pair.runner(agent, SOON).await? == Side::B, "{agent} is not there");
    }
    ensure!(signs(&there, AGENT).await? == keys[0], "another key on the other host");
    ensure!(secret_of(pair.b.data(), &pair.store_file(Side::B), AGENT)? == secret, "another secret");
    // The other one lives on as the same agent, counts what it had signed, and can sign no more.
    ensure!(shown_key(&there, "bare").await? == keys[1], "another agent");
    ensure!(there.reply("bare", "count").await? == "1", "its state");
    let refused = there.ask("bare", format!("sign {TEXT}"), None).await;
    ensure!(format!("{refused:?}").contains("no_key"), "{refused:?}");
    ensure!(secret_of(pair.b.data(), &pair.store_file(Side::B), "bare").is_err(), "its secret has travelled");
    pair.end_and_verify().await?;
    Ok(())
}

#[tokio::test]
async fn of_two_agents_of_one_name_a_receiver_hears_the_first() -> Result<()> {
    let _room = shared().await;
    let (folder, product) = (Folder::new()?, binaries::product()?);
    let start = |name: &str| HostOptions::new(&product, &folder.path().join(name), name).start();
    // They don't know each other yet, so that both can create it.
    let (mut a, mut b) = tokio::try_join!(start("a"), start("b"))?;
    for host in [&a, &b] {
        host.client().load_plugin(&binaries::plugin("relay")?).await?;
        host.client().create("twin", "relay").await?;
    }
    a.client().load_plugin(&binaries::plugin("counter")?).await?;
    a.client().create("sum", "counter").await?;
    ensure!(shown_key(&a.client(), "twin").await? != shown_key(&b.client(), "twin").await?);
    let order = json!({"to": "sum", "payload": "add 1"}).to_string();
    a.client().reply("twin", &order).await?;
    let heard = || async { Ok((a.client().reply("sum", "get").await? == "1").then_some(())) };
    until("the first to be heard", SOON, heard).await?;
    let (peer_a, peer_b) = (a.peer(), b.peer());
    a.add_peer(peer_b).await?;
    b.add_peer(peer_a).await?;
    b.client().reply("twin", &order).await?;
    let refused = || async {
        let outputs = b.client().list("/v1/agents/twin/outputs").await?;
        Ok(outputs.into_iter().find(|output| output["state"] == "undeliverable"))
    };
    let output = until("the second to be refused", SOON, refused).await?;
    ensure!(output["reason"] == "namesake", "{output}");
    a.client().reply("twin", &order).await?;
    let goes_on = || async { Ok((a.client().reply("sum", "get").await? == "2").then_some(())) };
    until("the first to be heard again", SOON, goes_on).await?;
    Ok(())
}

#[tokio::test]
async fn an_archive_has_no_secret_and_what_comes_from_it_another_key() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::separate(&binaries::product()?, &[]).await?;
    let a = pair.a.client();
    a.load_plugin(&binaries::plugin("signer")?).await?;
    a.create_with(AGENT, journaled()).await?;
    let key = signs(&a, AGENT).await?;
    let last = a.reply(AGENT, "last").await?;
    let file = pair.folder().join("notary.godwit");
    let archive = file.display().to_string();
    pair.a.cli(&["export", AGENT, &archive]).await?.ok()?;
    let backup = pair.folder().join("backup.db");
    pair.a.cli(&["backup", &backup.display().to_string()]).await?.ok()?;
    let secret = secret_of(pair.a.data(), &pair.store_file(Side::A), AGENT)?;
    let written = std::fs::read(&file)?;
    ensure!(!holds(&written, &secret), "the archive holds the secret");
    ensure!(!holds(&std::fs::read(&backup)?, &secret), "the backup holds the secret");
    // The search finds what is there: the public half, and a secret that somebody has put there.
    ensure!(holds(&written, &unhex(&key)?), "the archive does not say whose it is");
    ensure!(holds(&[written, secret.clone()].concat(), &secret));

    pair.a.terminate().await?;
    pair.b.cli(&["import", "--force", "--activate", &archive]).await?.ok()?;
    let b = pair.b.client();
    // Its journal was written under the other key, and must run again as it was.
    ensure!(b.reply(AGENT, "last").await? == last, "its history is another");
    let new = signs(&b, AGENT).await?;
    ensure!(new != key, "two agents have one key");
    ensure!(b.verb(AGENT, "replay").await?["ok"] == true);
    let events = pair.b.cli(&["events", "--agent", AGENT, "-o", "json"]).await?.ok()?;
    ensure!(events.stdout.contains(&new), "no event says so: {}", events.stdout);
    pair.b.kill().await?;
    pair.b.start(&[]).await?;
    ensure!(signs(&pair.b.client(), AGENT).await? == new);
    Ok(())
}

#[tokio::test]
async fn hosts_of_one_file_sign_for_each_others_agents() -> Result<()> {
    let _room = shared().await;
    let mut pair = Cluster::shared(&binaries::product()?, &[]).await?;
    pair.load(&["signer"]).await?;
    pair.a.client().create(AGENT, "signer").await?;
    let key = signs(&pair.a.client(), AGENT).await?;
    pair.a.client().move_to(AGENT, "b", SOON).await?;
    ensure!(signs(&pair.b.client(), AGENT).await? == key, "another key after the move");
    pair.b.kill().await?;
    let taken = || async { Ok(signs(&pair.a.client(), AGENT).await.ok()) };
    ensure!(until("host a to take over", SOON, taken).await? == key, "another key after the takeover");
    pair.end_and_verify().await?;
    Ok(())
}
