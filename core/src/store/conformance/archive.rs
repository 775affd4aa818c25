//! Taking all rows of an agent out at one moment, and binding a copy that came from an archive.

use std::sync::{Arc, Mutex};

use crate::event::EventKind;
use crate::id::{ClaimId, FencingToken};
use crate::lifecycle::{Lifecycle, SuspendReason};
use crate::limits::PAGE_MAX;
use crate::receipt::BoundaryKind;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    ALL, Desk, Site, Turn, World, host, id, is_conflict, is_not_home, migration, picture, put_plugin,
};
use crate::store::{AgentRow, Home, ImportRequest, RowFrame, Sharing, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(all_rows_come_out_in_order),
        Case::of(an_imported_agent_has_all_its_rows_under_a_higher_token),
        Case::of(an_import_that_does_not_fit_leaves_everything),
        Case::of(a_tombstone_is_replaced_on_request_only),
        Case::of(an_import_without_its_plugin_is_refused),
        Case::of(an_import_needs_the_claim_that_it_names),
        Case::of(numbers_of_outputs_jump_at_an_import),
    ]
}

pub(super) async fn whole(site: &Site, agent: &str) -> Result<(Option<AgentRow>, Vec<RowFrame>), StoreError> {
    let frames = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&frames);
    let sink = Box::new(move |_: &AgentRow, more: Vec<RowFrame>| {
        taken.lock().unwrap().extend(more);
        true
    });
    let row = site.store.export_whole(&id(agent), sink).await?;
    let frames = std::mem::take(&mut *frames.lock().unwrap());
    Ok((row, frames))
}

/// An agent with a row of every kind, and the request that imports it.
pub(super) async fn furnished(site: &Site) -> (Desk, Vec<RowFrame>, ImportRequest) {
    let desk = site.own("x").await;
    desk.furnish().await;
    let (row, frames) = whole(site, "x").await.unwrap();
    (desk, frames, request(&row.unwrap()))
}

/// What imports an agent as it was exported.
pub(super) fn request(row: &AgentRow) -> ImportRequest {
    ImportRequest {
        copy: migration(7),
        agent: row.agent.clone(),
        generation: row.generation,
        revision: row.revision,
        token: row.token,
        is_suspended: true,
        replaces_moved: false,
        claim: None,
    }
}

pub(super) async fn receive(site: &Site, frames: &[RowFrame]) {
    put_plugin(&site.store, "plain").await;
    for batch in frames.chunks(3) {
        site.store.receive_rows(migration(7), &id("x"), batch.to_vec()).await.unwrap();
    }
}

async fn all_rows_come_out_in_order(world: World) {
    let site = world.site("a").await;
    let (desk, frames, _) = furnished(&site).await;
    let exported = site.store.export_rows(&id("x"), 0, usize::MAX).await.unwrap();
    assert_eq!(frames, exported.into_iter().map(RowFrame::without_secret).collect::<Vec<_>>());
    assert!(frames.is_sorted_by(|one, next| one.change < next.change));
    assert_eq!(whole(&site, "nobody").await, Ok((None, Vec::new())));
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let sink = Box::new(move |_: &AgentRow, _| {
        *counted.lock().unwrap() += 1;
        false
    });
    site.store.export_whole(&id("x"), sink).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), 1, "it ends when the sink says so");
    let base = desk.row().await.revision;
    site.store.begin_handoff(&desk.owner, base, migration(1), host(2)).await.unwrap();
    let refused = whole(&site, "x").await;
    assert!(matches!(&refused, Err(error) if is_not_home(error)), "{refused:?}");
}

async fn an_imported_agent_has_all_its_rows_under_a_higher_token(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let (desk, frames, request) = furnished(&source).await;
    receive(&target, &frames).await;
    assert_eq!(target.store.agent(&id("x")).await, Ok(None), "invisible until it is bound");
    let row = target.store.import(request.clone()).await.unwrap();
    assert_eq!(Some(row.token), request.token.raised(1));
    assert_eq!((&row.home, row.holder), (&Home::Here, None));
    assert_eq!(row.lifecycle, Lifecycle::Suspended(SuspendReason::Imported));
    assert_eq!(target.store.agent(&id("x")).await, Ok(Some(row.clone())));
    assert_eq!(target.store.runnable(target.incarnation, 10).await, Ok(Vec::new()));
    let before = desk.row().await;
    let numbers = |row: &AgentRow| (row.generation, row.revision, row.head, row.next_seq, row.open_inputs);
    assert_eq!(numbers(&row), numbers(&before));
    let inputs = |site: Site| async move { site.store.inputs(&id("x"), None, ALL).await.unwrap().len() };
    assert_eq!(inputs(target.clone()).await, inputs(source.clone()).await);
    let receipts = |site: Site| async move {
        let generation = crate::id::Generation(1);
        site.store.receipts(&id("x"), generation, crate::id::Revision(0), PAGE_MAX).await.unwrap()
    };
    assert_eq!(receipts(target.clone()).await, receipts(source.clone()).await);
    let image = target.store.image(&id("x"), None).await.unwrap().unwrap();
    assert_eq!(image.check(), Ok(()));
    let events = target.store.events(0, Some(&id("x")), Some(EventKind::AgentImported), 10).await.unwrap();
    assert_eq!(events.len(), 1);
    let again = target.store.import(request).await;
    assert!(matches!(&again, Err(error) if is_conflict(error)), "{again:?}");
    let store = world.reopen("b", Sharing::Exclusive, target.store).await;
    assert_eq!(store.agent(&id("x")).await, Ok(Some(row)));
}

async fn an_import_that_does_not_fit_leaves_everything(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let (_, frames, request) = furnished(&source).await;
    let nothing = target.store.import(request.clone()).await;
    assert!(matches!(&nothing, Err(error) if is_conflict(error)), "{nothing:?}");
    receive(&target, &frames).await;
    let wrong = [
        ImportRequest { agent: id("y"), ..request.clone() },
        ImportRequest { revision: request.revision.next(), ..request.clone() },
        ImportRequest { generation: request.generation.next(), ..request.clone() },
        ImportRequest { token: FencingToken(i64::MAX as u64), ..request.clone() },
    ];
    for wrong in wrong {
        let refused = target.store.import(wrong.clone()).await;
        assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?} to {wrong:?}");
        assert_eq!(target.store.agent(&id("x")).await, Ok(None));
    }
    // The source has it itself.
    let before = picture(source.store.as_ref(), &id("x")).await;
    receive(&source, &frames).await;
    let refused = source.store.import(ImportRequest { replaces_moved: true, ..request.clone() }).await;
    assert!(matches!(&refused, Err(error) if is_conflict(error)), "{refused:?}");
    assert_eq!(picture(source.store.as_ref(), &id("x")).await, before);
    target.store.import(request).await.unwrap();
}

async fn a_tombstone_is_replaced_on_request_only(world: World) {
    let site = world.site("a").await;
    let (desk, frames, request) = furnished(&site).await;
    let base = desk.row().await.revision;
    let handoff = site.store.begin_handoff(&desk.owner, base, migration(1), host(2)).await.unwrap();
    site.store.finish_handoff(&id("x"), migration(1)).await.unwrap();
    receive(&site, &frames).await;
    let refused = site.store.import(request.clone()).await;
    assert!(matches!(&refused, Err(error) if is_not_home(error)), "{refused:?}");
    let active = ImportRequest { replaces_moved: true, is_suspended: false, ..request };
    let row = site.store.import(active).await.unwrap();
    assert_eq!((Some(row.token), row.lifecycle), (handoff.granted.raised(1), Lifecycle::Active));
    let desk = site.take(&id("x")).await;
    desk.turn(Turn::of(BoundaryKind::Turn).snapshot("again")).await;
}

async fn an_import_without_its_plugin_is_refused(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let (_, frames, request) = furnished(&source).await;
    target.store.receive_rows(migration(7), &id("x"), frames).await.unwrap();
    let refused = target.store.import(request).await;
    assert!(matches!(&refused, Err(StoreError::NoPlugin { .. })), "{refused:?}");
    assert_eq!(target.store.agent(&id("x")).await, Ok(None));
}

async fn an_import_needs_the_claim_that_it_names(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let (_, frames, request) = furnished(&source).await;
    let (claim, mut hosts) = (ClaimId([1; 16]), [host(1), host(2)]);
    hosts.sort();
    let [low, own] = hosts;
    receive(&target, &frames).await;
    let import = || target.store.import(ImportRequest { claim: Some(claim), ..request.clone() });
    assert_eq!(import().await, Err(StoreError::Unclaimed), "nobody has claimed it");
    target.store.claim(&id("x"), own, claim).await.unwrap();
    assert_eq!(target.store.yield_claims(&id("x"), low).await, Ok(None), "a lower host's comes first");
    assert_eq!(import().await, Err(StoreError::Unclaimed), "it has yielded");
    assert_eq!(target.store.agent(&id("x")).await, Ok(None));
    target.store.claim(&id("x"), own, claim).await.unwrap();
    assert_eq!(import().await.unwrap().home, Home::Here);
    assert_eq!(target.store.yield_claims(&id("x"), low).await, Ok(None));
}

async fn numbers_of_outputs_jump_at_an_import(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let (_, frames, request) = furnished(&source).await;
    receive(&target, &frames).await;
    target.store.import(ImportRequest { is_suspended: false, ..request }).await.unwrap();
    let desk = target.take(&id("x")).await;
    let waiting = target.store.outputs(desk.agent(), ALL).await.unwrap();
    desk.turn(Turn::of(BoundaryKind::Turn).output(&id("somebody"), "new").snapshot("s")).await;
    let now = target.store.outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(now.len(), waiting.len() + 1);
    let last = now.last().unwrap().number;
    assert_eq!(last, FencingToken::NUMBERS_PER_EPOCH + waiting.len() as u64 + 1);
    // The source may have sent to others since as well.
    desk.turn(Turn::of(BoundaryKind::Turn).output(&id("another"), "new").snapshot("s")).await;
    let now = target.store.outputs(desk.agent(), ALL).await.unwrap();
    assert_eq!(now.last().unwrap().number, FencingToken::NUMBERS_PER_EPOCH + 1);
}
