//! Verifying an agent's whole history in a store: receipts, snapshot, inputs.

use godwit_core::id::{AgentId, Revision};
use godwit_core::input::Outcome;
use godwit_core::limits::PAGE_MAX;
use godwit_core::store::{AgentRow, Home, Page, RuntimeStore, StoreError};

use super::verify::{ChainCheck, VerifyReport};

/// Recomputes an agent's history. Damage is in the report; an agent unknown here, or moved away, has an empty one.
///
/// # Errors
/// Only when the store can't be read.
pub async fn audit(store: &dyn RuntimeStore, agent: &AgentId) -> Result<VerifyReport, StoreError> {
    let row = store.agent(agent).await?;
    let Some(row) = row.filter(|row| !matches!(row.home, Home::Moved(_))) else {
        let nothing = ChainCheck::new(agent.clone(), godwit_core::id::Generation(1));
        let zero = godwit_core::digest::Digest::ZERO;
        return Ok(nothing.finish(Revision(0), zero, godwit_core::id::FencingToken(0)));
    };
    let mut check = ChainCheck::new(agent.clone(), row.generation);
    check_receipts(store, &row, &mut check).await?;
    check_image(store, &row, &mut check).await?;
    check_inputs(store, &row, &mut check).await?;
    Ok(check.finish(row.revision, row.head, row.token))
}

/// Reads receipts in pages; a page with a damaged row is read again one by one, so that the damage is named.
async fn check_receipts(
    store: &dyn RuntimeStore,
    row: &AgentRow,
    check: &mut ChainCheck,
) -> Result<(), StoreError> {
    let mut after = Revision(0);
    let mut limit = PAGE_MAX;
    while after < row.revision {
        match store.receipts(&row.agent, row.generation, after, limit).await {
            Ok(receipts) => {
                let Some(last) = receipts.last() else {
                    return Ok(());
                };
                after = last.revision;
                receipts.iter().for_each(|receipt| check.push(receipt));
                limit = PAGE_MAX;
            }
            Err(StoreError::Corrupt { .. }) if limit > 1 => limit = 1,
            Err(StoreError::Corrupt { what }) => {
                check.note(format!("receipt {}: {what}", after.next()));
                after = after.next();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn check_image(
    store: &dyn RuntimeStore,
    row: &AgentRow,
    check: &mut ChainCheck,
) -> Result<(), StoreError> {
    match store.image(&row.agent).await {
        Ok(Some(image)) => {
            if let Err(what) = image.check() {
                check.note(what);
            }
            if image.row.revision > Revision(0) && image.snapshot.is_none() {
                check.note("the snapshot is missing".into());
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(StoreError::Corrupt { what }) => {
            check.note(what);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Each ended input names the boundary that ended it, and that boundary's receipt names it. Every seq that was given is a
/// row, or was counted when retention removed it.
async fn check_inputs(
    store: &dyn RuntimeStore,
    row: &AgentRow,
    check: &mut ChainCheck,
) -> Result<(), StoreError> {
    let mut after = 0;
    let mut rows = 0;
    let given = row.next_seq.0 - 1;
    while after < given {
        let page = Page { after, limit: PAGE_MAX };
        let inputs = match store.inputs(&row.agent, None, page).await {
            Ok(inputs) => inputs,
            Err(StoreError::Corrupt { what }) => {
                check.note(what);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let Some(last) = inputs.last() else { break };
        after = last.seq.0;
        for stored in inputs.iter().filter(|stored| stored.seq.0 <= given) {
            rows += 1;
            let Some(Outcome::Committed { revision, .. } | Outcome::DeadLettered { revision, .. }) =
                &stored.outcome
            else {
                continue;
            };
            // What ended after the row was read is not among the receipts that were.
            if *revision <= row.revision && check.revision_of(stored.input.id) != Some(*revision) {
                check.note(format!(
                    "input {} ended at revision {revision}, whose receipt does not name it",
                    stored.input.id
                ));
            }
        }
    }
    let now = store.agent(&row.agent).await?;
    let is_unchanged = now.is_some_and(|now| now.inputs_pruned == row.inputs_pruned);
    if is_unchanged && rows + row.inputs_pruned != given {
        let pruned = row.inputs_pruned;
        check.note(format!(
            "{given} inputs were accepted: {rows} are here and {pruned} were removed in order"
        ));
    }
    Ok(())
}
