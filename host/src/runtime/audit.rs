//! Verifying an agent's whole history in a store: receipts, snapshots, journal, inputs.

use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, FencingToken, Generation, Revision};
use godwit_core::input::Outcome;
use godwit_core::limits::PAGE_MAX;
use godwit_core::receipt::ReceiptCheckpoint;
use godwit_core::store::{AgentRow, Home, Page, RuntimeStore, StoreError};

use super::verify::{HistoryCheck, VerifyReport};

/// How often a history is read again because retention has removed some of it meanwhile.
const READS_MAX: u32 = 8;

/// Recomputes an agent's history in all its generations. Damage is in the report; an agent unknown here has an empty one, and
/// of one that has moved away only its tombstone is looked at.
///
/// # Errors
/// Only when the store can't be read.
pub async fn audit(store: &dyn RuntimeStore, agent: &AgentId) -> Result<VerifyReport, StoreError> {
    for _ in 1..READS_MAX {
        let before = removed(store, agent).await?;
        let report = read(store, agent).await?;
        // What goes between two pages looks like a gap.
        if report.breaks.is_empty() || removed(store, agent).await? == before {
            return Ok(report);
        }
    }
    read(store, agent).await
}

/// How far retention has come with an agent: inputs that are gone, and the checkpoints in the place of receipts.
async fn removed(
    store: &dyn RuntimeStore,
    agent: &AgentId,
) -> Result<(Option<u64>, Vec<ReceiptCheckpoint>), StoreError> {
    let inputs = store.agent(agent).await?.map(|row| row.inputs_pruned);
    match store.receipt_checkpoints(agent).await {
        Ok(checkpoints) => Ok((inputs, checkpoints)),
        Err(StoreError::Corrupt { .. }) => Ok((inputs, Vec::new())),
        Err(error) => Err(error),
    }
}

async fn read(store: &dyn RuntimeStore, agent: &AgentId) -> Result<VerifyReport, StoreError> {
    let mut check = HistoryCheck::new(agent.clone());
    let row = match store.agent(agent).await? {
        Some(row) if !matches!(row.home, Home::Moved(_)) => row,
        gone => {
            let token = gone.as_ref().map_or(FencingToken(0), |row| row.token);
            if let Some(AgentRow { home: Home::Moved(tombstone), generation, .. }) = gone
                && (tombstone.token, tombstone.generation) != (token, generation)
            {
                check.note("the tombstone names another token or generation than the row".into());
            }
            return Ok(check.finish(Revision(0), Digest::ZERO, token));
        }
    };
    let checkpoints = match store.receipt_checkpoints(agent).await {
        Ok(checkpoints) => checkpoints,
        Err(StoreError::Corrupt { what }) => {
            check.note(what);
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    for generation in (1..=row.generation.0).map(Generation) {
        let of_this = |signed: &&ReceiptCheckpoint| signed.checkpoint.generation == generation;
        let checkpoint = checkpoints.iter().find(of_this);
        check.begin(generation, checkpoint);
        let after = checkpoint.map_or(Revision(0), |signed| signed.checkpoint.revision);
        check_receipts(store, &row, (generation, after), &mut check).await?;
    }
    check_image(store, &row, &mut check).await?;
    check_inputs(store, &row, &mut check).await?;
    Ok(check.finish(row.revision, row.head, row.token))
}

/// Reads the receipts of a generation in pages; a page with a damaged row is read again one by one, so that the damage is
/// named. What is committed after the row was read is left out.
async fn check_receipts(
    store: &dyn RuntimeStore,
    row: &AgentRow,
    (generation, mut after): (Generation, Revision),
    check: &mut HistoryCheck,
) -> Result<(), StoreError> {
    let last = if generation == row.generation { row.revision } else { Revision(u64::MAX) };
    let mut limit = PAGE_MAX;
    while after < last {
        match store.receipts(&row.agent, generation, after, limit).await {
            Ok(receipts) => {
                let Some(newest) = receipts.last() else {
                    return Ok(());
                };
                after = newest.revision;
                let receipts = receipts.iter().filter(|receipt| receipt.revision <= last);
                receipts.for_each(|receipt| check.push(receipt));
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

/// What the agent would be loaded from, and the older kept snapshot with the journal that leads from it to the newest one.
async fn check_image(
    store: &dyn RuntimeStore,
    row: &AgentRow,
    check: &mut HistoryCheck,
) -> Result<(), StoreError> {
    let kept = store.kept_snapshots(&row.agent).await?;
    let newest = kept.last().map_or(Revision(0), |newest| newest.revision);
    for older in kept.iter().filter(|kept| kept.generation == row.generation && kept.revision < newest) {
        match store.image(&row.agent, Some(older.revision)).await {
            Ok(Some(image)) => image.damage_to(newest).into_iter().for_each(|what| check.note(what)),
            // A newer one has just taken its place.
            Ok(None) => {}
            Err(StoreError::Corrupt { what }) => check.note(what),
            Err(error) => return Err(error),
        }
    }
    match store.image(&row.agent, None).await {
        Ok(Some(image)) => {
            if let Err(what) = image.check() {
                check.note(what);
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
    check: &mut HistoryCheck,
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
            let id = stored.input.id;
            if !matches!(stored.outcome, Some(Outcome::Committed { .. }))
                && let Some(revision) = check.turn_of(id)
            {
                let state = stored.state.name();
                check.note(format!("input {id} is {state}, and receipt {revision} says that it was applied"));
            }
            let Some(Outcome::Committed { revision, .. } | Outcome::DeadLettered { revision, .. }) =
                &stored.outcome
            else {
                continue;
            };
            // What ended after the row was read is not among the receipts that were.
            if *revision <= row.revision && !check.is_accounted(stored.input.id, *revision) {
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
