//! Entity keys: made with an agent, kept over everything but deletion, and never in what may become a file.

use crate::event::EventKind;
use crate::id::{AgentId, Generation};
use crate::identity::{EntityKey, EntityKeyRow, EntityPublicKey};
use crate::lifecycle::Verb;
use crate::output::UndeliverableReason;
use crate::receipt::BoundaryKind;
use crate::store::conformance::Case;
use crate::store::conformance::archive::{furnished, receive, whole};
use crate::store::conformance::fixture::{Turn, World, id, new_agent, put_plugin};
use crate::store::conformance::journey::Journey;
use crate::store::{ImportRequest, OutputEnd, OutputKey, Row, RowFrame, RuntimeStore, Sharing};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(an_agent_has_a_key_of_its_own_from_its_creation),
        Case::of(verbs_and_turns_leave_the_key),
        Case::of(a_deleted_agent_can_not_sign_and_one_made_anew_has_another_key),
        Case::of(what_a_deleted_agent_has_sent_goes_under_its_key),
        Case::of(the_key_moves_with_its_agent),
        Case::of(the_later_key_row_stays),
        Case::of(a_tombstone_knows_whose_it_is),
        Case::of(an_archive_has_the_public_half_and_an_import_another_key),
    ]
}

/// The whole key, and the public half as the agent's row has it, which must be its own.
async fn key_of(store: &dyn RuntimeStore, agent: &AgentId) -> EntityKey {
    let key = store.entity_key(agent).await.unwrap().expect("the agent has its key");
    assert_eq!(public_of(store, agent).await, Some(key.public()));
    key
}

async fn public_of(store: &dyn RuntimeStore, agent: &AgentId) -> Option<EntityPublicKey> {
    store.agent(agent).await.unwrap().unwrap().public_key
}

async fn an_agent_has_a_key_of_its_own_from_its_creation(world: World) {
    let site = world.site("a").await;
    let (one, other) = (site.create("one").await, site.create("other").await);
    let key = key_of(site.store.as_ref(), &one).await;
    assert_ne!(key.public(), key_of(site.store.as_ref(), &other).await.public());
    assert_eq!(site.store.create(new_agent("one", "plain")).await, Ok(false), "a repetition");
    assert_eq!(key_of(site.store.as_ref(), &one).await, key);
    assert_eq!(site.store.entity_key(&id("nobody")).await, Ok(None));
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(key_of(store.as_ref(), &one).await, key);
}

async fn verbs_and_turns_leave_the_key(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let key = key_of(desk.store(), desk.agent()).await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("s")).await;
    for verb in [Verb::Pause, Verb::Resume, Verb::Respawn, Verb::Reset] {
        // Some of them raise the token.
        let desk = site.take(&id("agent")).await;
        desk.verb(&verb).await.unwrap();
        assert_eq!(key_of(desk.store(), desk.agent()).await, key, "{verb:?}");
    }
}

async fn a_deleted_agent_can_not_sign_and_one_made_anew_has_another_key(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let before = key_of(desk.store(), desk.agent()).await;
    desk.verb(&Verb::Delete).await.unwrap();
    assert_eq!(desk.store().entity_key(desk.agent()).await, Ok(None), "the secret is gone");
    assert_eq!(public_of(desk.store(), desk.agent()).await, Some(before.public()), "who it was is known");
    let new = new_agent("agent", "plain");
    assert_eq!(site.store.recreate(new.clone()).await, Ok(true));
    let after = key_of(desk.store(), desk.agent()).await;
    assert_ne!(after.public(), before.public());
    assert_eq!(site.store.recreate(new).await, Ok(false), "a repetition");
    assert_eq!(key_of(desk.store(), desk.agent()).await, after);
}

async fn what_a_deleted_agent_has_sent_goes_under_its_key(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    let before = key_of(desk.store(), desk.agent()).await;
    desk.turn(Turn::of(BoundaryKind::Init).snapshot("s").output(&id("b"), "1").output(&id("c"), "2")).await;
    desk.verb(&Verb::Delete).await.unwrap();
    let desk = site.take(&id("agent")).await;
    for (destination, end) in
        [("b", OutputEnd::Acknowledged), ("c", OutputEnd::Undeliverable(UndeliverableReason::NotFound))]
    {
        assert_eq!(key_of(desk.store(), desk.agent()).await, before, "before {destination} has it");
        let key = OutputKey { destination: id(destination), generation: Generation(1), number: 1 };
        assert_eq!(desk.store().end_outputs(&desk.owner, &[(key, end)]).await, Ok(()));
    }
    assert_eq!(desk.store().entity_key(desk.agent()).await, Ok(None), "the secret is gone");
    assert_eq!(public_of(desk.store(), desk.agent()).await, Some(before.public()), "who it was is known");
}

async fn the_key_moves_with_its_agent(world: World) {
    let journey = Journey::furnished(&world).await;
    let agent = journey.agent().clone();
    let (from, to) = (journey.from.site.store.clone(), journey.to.store.clone());
    let key = key_of(from.as_ref(), &agent).await;
    let frames = journey.export(0).await;
    journey.receive(frames.clone()).await;
    let granted = journey.begin().await.granted;
    let sent = frames.last().map_or(0, |frame| frame.change);
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    assert_eq!(to.entity_key(&agent).await, Ok(None), "it is not at home there yet");
    journey.finish().await;
    assert_eq!(from.entity_key(&agent).await, Ok(None), "it has moved");
    journey.adopt().await;
    assert_eq!(key_of(to.as_ref(), &agent).await, key);
}

async fn a_tombstone_knows_whose_it_is(world: World) {
    let journey = Journey::furnished(&world).await;
    let (agent, from) = (journey.agent().clone(), journey.from.site.store.clone());
    let key = key_of(from.as_ref(), &agent).await;
    let frames = journey.export(0).await;
    journey.receive(frames.clone()).await;
    let granted = journey.begin().await.granted;
    let sent = frames.last().map_or(0, |frame| frame.change);
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request.clone()).await, Ok(()));
    journey.finish().await;
    assert_eq!(from.forget_moved(&agent, request.migration).await, Ok(()));
    assert_eq!(public_of(from.as_ref(), &agent).await, Some(key.public()));
    assert_eq!(from.entity_key(&agent).await, Ok(None), "the secret is gone");
    let known = from.agent(&agent).await.unwrap().unwrap().known_as();
    assert_eq!((known.hash, known.token), (Some(key.public().origin_hash()), granted));
}

async fn the_later_key_row_stays(world: World) {
    let journey = Journey::furnished(&world).await;
    let is_key = |frame: &RowFrame| matches!(frame.row, Row::EntityKey(_));
    let frames = journey.export(0).await;
    let row = frames.iter().find(|frame| is_key(frame)).unwrap().clone();
    let older = EntityKey::from_secret(&[9; 32]);
    let older = RowFrame { change: row.change - 1, row: Row::EntityKey(EntityKeyRow::Whole(older)) };
    journey.receive(frames).await;
    journey.receive(vec![older]).await;
    let granted = journey.begin().await.granted;
    let request = journey.request(granted, u64::from(u32::MAX)).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.finish().await;
    journey.adopt().await;
    let moved = key_of(journey.to.store.as_ref(), journey.agent()).await;
    assert_eq!(Row::EntityKey(EntityKeyRow::Whole(moved)), row.row);
}

async fn an_archive_has_the_public_half_and_an_import_another_key(world: World) {
    let (source, target) = (world.site("a").await, world.site("b").await);
    let (_, frames, request) = furnished(&source).await;
    let key = key_of(source.store.as_ref(), &id("x")).await;
    let has = |frames: &[RowFrame]| {
        let bytes = postcard::to_stdvec(frames).unwrap();
        let holds = |wanted: &[u8]| bytes.windows(32).any(|window| window == wanted);
        (holds(&key.public().0), holds(key.secret()))
    };
    assert_eq!(has(&whole(&source, "x").await.unwrap().1), (true, false));
    // The search finds a secret where one is.
    assert!(has(&source.store.export_rows(&id("x"), 0, usize::MAX).await.unwrap()).1);
    receive(&target, &frames).await;
    put_plugin(&target.store, "plain").await;
    target.store.import(ImportRequest { is_suspended: false, ..request }).await.unwrap();
    let imported = key_of(target.store.as_ref(), &id("x")).await;
    assert_ne!(imported.public(), key.public());
    let events = target.store.events(0, Some(&id("x")), Some(EventKind::AgentImported), 10).await.unwrap();
    let told = ("public_key".to_owned(), imported.public().to_string());
    assert!(events[0].event.data.contains(&told), "{events:?}");
}
