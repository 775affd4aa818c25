//! The payload of auth flows, sealed.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use godwit_core::id::StoreId;
use godwit_core::limits::AUTH_FLOW_BYTES_MAX;
use godwit_core::store::StoreError;
use godwit_core::store::auth::AuthFlowUpdate;
use rusqlite::{Connection, params};

use super::error::Fallible;
use super::sealing::SealKey;
use super::sql::{execute, first};
use super::writer::Tx;

/// What the key and the bytes belong to.
pub(super) struct Vault {
    pub(super) store: StoreId,
    pub(super) key: SealKey,
}

impl Vault {
    fn context(&self) -> Vec<u8> {
        [b"auth flow of store ".as_slice(), &self.store.0].concat()
    }
}

pub(super) fn load(conn: &Connection, vault: &Vault) -> Fallible<Option<Bytes>> {
    first(conn, "SELECT sealed FROM auth_flow", [], |row| {
        let sealed: Vec<u8> = row.get(0)?;
        Ok(vault.key.open(&sealed, &vault.context(), "the payload of auth flows").map(Bytes::from)?)
    })
}

pub(super) fn persist(tx: &Tx<'_>, vault: &Vault, payload: &[u8]) -> Fallible<()> {
    if payload.len() > AUTH_FLOW_BYTES_MAX {
        return Err(StoreError::Full.into());
    }
    let sealed = vault.key.seal(payload, &vault.context(), tx.env.clock.random())?;
    execute(
        tx.conn,
        "INSERT INTO auth_flow (one, sealed) VALUES (1, ?1) ON CONFLICT DO UPDATE SET sealed = excluded.sealed",
        params![sealed],
    )
    .map(drop)
}

/// A closure that may run once, in a write that may run again.
pub(super) struct Once {
    update: Option<AuthFlowUpdate>,
    /// What it was given, and what it answered.
    ran: Option<(Option<Bytes>, Result<Bytes, String>)>,
}

impl Once {
    pub(super) fn new(update: AuthFlowUpdate) -> Self {
        Self { update: Some(update), ran: None }
    }

    /// Runs it, or gives the answer of its run if that was on the same payload.
    fn answer(&mut self, current: Option<&Bytes>) -> Result<Result<Bytes, String>, StoreError> {
        if let Some(update) = self.update.take() {
            let run = AssertUnwindSafe(|| update(current.map(|payload| payload.as_ref())));
            let answer = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_owned()));
            self.ran = Some((current.cloned(), answer.map(Bytes::from)));
        }
        match &self.ran {
            Some((given, answer)) if given.as_ref() == current => Ok(answer.clone()),
            // Another process wrote between a rolled-back try and this one.
            _ => Err(StoreError::Busy),
        }
    }
}

pub(super) fn update(tx: &Tx<'_>, vault: &Vault, once: &mut Once) -> Fallible<Result<Bytes, String>> {
    let current = load(tx.conn, vault)?;
    let answer = once.answer(current.as_ref())?;
    if let Ok(payload) = &answer {
        persist(tx, vault, payload)?;
    }
    Ok(answer)
}
