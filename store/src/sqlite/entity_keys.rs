//! Entity keys: the public half in plain, the secret sealed under the store's key.
//!
//! A store without such a key gives agents none: a secret is never written in plain.

use godwit_core::id::AgentId;
use godwit_core::identity::{EntityKey, EntityKeyRow, EntityPublicKey};
use godwit_core::store::{Home, StoreError};
use rusqlite::{Connection, params};
use zeroize::Zeroizing;

use super::agents::Head;
use super::auth::Vault;
use super::codec::Int;
use super::error::{Fail, Fallible, corrupt};
use super::sql::{execute, first};
use super::writer::Tx;

/// What a sealed secret belongs to: it opens for no other agent, store or public key.
fn context(vault: &Vault, agent: &AgentId, public: EntityPublicKey) -> Vec<u8> {
    [b"entity key of agent ".as_slice(), agent.as_str().as_bytes(), &[0], &vault.store.0, &public.0].concat()
}

/// Gives an agent another key, under the change number that `change` answers. `None` when the store seals nothing.
pub(super) fn renew(
    tx: &Tx<'_>,
    key: i64,
    agent: &AgentId,
    change: impl FnOnce() -> Int,
) -> Fallible<Option<EntityPublicKey>> {
    if tx.env.vault.is_none() {
        return Ok(None);
    }
    let secret = Zeroizing::new(tx.env.clock.random::<32>());
    let entity_key = EntityKey::from_secret(&secret);
    let public = entity_key.public();
    put(tx, (key, agent), change(), &EntityKeyRow::Whole(entity_key))?;
    Ok(Some(public))
}

/// Takes a row that another store has sent, unless a later one is here.
pub(super) fn put(
    tx: &Tx<'_>,
    (key, agent): (i64, &AgentId),
    change: Int,
    row: &EntityKeyRow,
) -> Fallible<()> {
    let public = row.public();
    let secret = match (row.key(), &tx.env.vault) {
        (Some(entity_key), Some(vault)) => {
            let context = context(vault, agent, public);
            Some(vault.key.seal(entity_key.secret(), &context, tx.env.clock.random())?)
        }
        _ => None,
    };
    execute(
        tx.conn,
        "INSERT INTO entity_key (agent, change, public, secret) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent) DO UPDATE SET change = excluded.change, public = excluded.public, secret = excluded.secret
         WHERE excluded.change > entity_key.change",
        params![key, change, public.0, secret],
    )
    .map(drop)
}

/// Lets go of the secret of a deleted agent, once nothing that it has sent waits.
pub(super) fn erase_secret(tx: &Tx<'_>, head: &mut Head) -> Fallible<()> {
    let change = head.change();
    execute(
        tx.conn,
        "UPDATE entity_key SET secret = NULL, change = ?2 WHERE agent = ?1",
        params![head.key, change],
    )
    .map(drop)
}

/// The row as it travels: whole if there is a vault that opens it.
pub(super) fn row(
    conn: &Connection,
    (key, agent): (i64, &AgentId),
    vault: Option<&Vault>,
) -> Fallible<Option<EntityKeyRow>> {
    first(conn, "SELECT public, secret FROM entity_key WHERE agent = ?1", params![key], |row| {
        let public = EntityPublicKey(row.get(0)?);
        let sealed: Option<Vec<u8>> = row.get(1)?;
        let (Some(sealed), Some(vault)) = (sealed, vault) else {
            return Ok(EntityKeyRow::Public(public));
        };
        Ok(EntityKeyRow::Whole(open(vault, agent, public, &sealed)?))
    })
}

fn open(vault: &Vault, agent: &AgentId, public: EntityPublicKey, sealed: &[u8]) -> Fallible<EntityKey> {
    let what = format!("the entity key of agent {agent}");
    let secret = Zeroizing::new(vault.key.open(sealed, &context(vault, agent, public), &what)?);
    let secret: &[u8; 32] =
        secret.as_slice().try_into().map_err(|_| corrupt(format!("{what}: its length")))?;
    let entity_key = EntityKey::from_secret(secret);
    // The context names the public half, so that only a store that sealed nonsense comes here.
    if entity_key.public() == public { Ok(entity_key) } else { Err(corrupt(format!("{what}: another half"))) }
}

/// As `row`, for an agent on its way out: a secret that this host can't open stays behind, and the agent arrives unable to
/// sign, as it is here.
pub(super) fn row_for_export(
    conn: &Connection,
    place: (i64, &AgentId),
    vault: Option<&Vault>,
) -> Fallible<Option<EntityKeyRow>> {
    match row(conn, place, vault) {
        Err(Fail::Store(error @ StoreError::Conflict { .. })) => {
            tracing::warn!(agent = %place.1, %error, "the agent leaves without its entity key's secret");
            row(conn, place, None)
        }
        read => read,
    }
}

/// The whole key of an agent that is at home here.
pub(super) fn whole(conn: &Connection, agent: &AgentId, vault: &Vault) -> Fallible<Option<EntityKey>> {
    let Some(head) = Head::load(conn, agent)?.filter(|head| head.home == Home::Here) else {
        return Ok(None);
    };
    Ok(row(conn, (head.key, agent), Some(vault))?.and_then(|row| row.key().cloned()))
}
