//! Edges, and which agents an input reaches.

use bytes::Bytes;

use crate::edge::Edge;
use crate::event::EventKind;
use crate::id::{AgentId, Generation, Incarnation, InputId, StoreId};
use crate::input::{NewInput, Reach, Source};
use crate::lifecycle::Verb;
use crate::limits::{EDGES_MAX, PAGE_MAX, ROSTER_BYTES_MAX};
use crate::migration::Phase;
use crate::spec::Addressability;
use crate::store::conformance::Case;
use crate::store::conformance::fixture::{
    ALL, Desk, World, delivery, done, id, is_conflict, keyed, message, new_agent, put_plugin,
};
use crate::store::conformance::journey::Journey;
use crate::store::{AcceptError, Accepted, Lifecycle, Row, RowKey, RuntimeStore, Sharing, Step, StoreError};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::of(edges_are_put_listed_and_removed),
        Case::of(an_unmanaged_edge_stays_one),
        Case::of(an_agent_has_so_many_edges_at_most),
        Case::of(edges_move_with_their_agent),
        Case::of(a_deleted_agent_has_no_edges),
        Case::of(an_internal_agent_is_reached_from_inside),
        Case::of(a_spec_decides_who_reaches_an_agent),
        Case::of(each_generation_begins_with_the_initial_message),
        Case::of(the_roster_is_one_document),
        Case::of(only_neighbours_are_reached_when_that_is_asked),
    ]
}

fn edge(peer: &str, is_managed: bool) -> Edge {
    Edge { peer: id(peer), managed_by: is_managed.then_some(StoreId([7; 16])) }
}

async fn edges(desk: &Desk) -> Vec<(AgentId, Edge)> {
    desk.store().edges(None, None, PAGE_MAX).await.unwrap()
}

async fn events_of(desk: &Desk, kind: EventKind) -> usize {
    desk.store().events(0, Some(desk.agent()), Some(kind), PAGE_MAX).await.unwrap().len()
}

async fn edges_are_put_listed_and_removed(world: World) {
    let site = world.site("a").await;
    let (one, two) = (site.own("one").await, site.own("two").await);
    let store = &site.store;
    for (desk, peer) in [(&two, "one"), (&one, "two"), (&one, "far")] {
        for is_new in [true, false] {
            assert_eq!(store.put_edge(desk.agent(), edge(peer, true)).await, Ok(is_new));
        }
    }
    let all =
        vec![(id("one"), edge("far", true)), (id("one"), edge("two", true)), (id("two"), edge("one", true))];
    assert_eq!(edges(&one).await, all);
    for after in 0..all.len() {
        let last = (all[after].0.clone(), all[after].1.peer.clone());
        let page = store.edges(None, Some(&last), 1).await.unwrap();
        assert_eq!(page, all.get(after + 1).cloned().into_iter().collect::<Vec<_>>());
    }
    let own = store.edges(Some(&id("one")), None, 1).await.unwrap();
    assert_eq!(own, all[..1], "of one agent");
    let rest = store.edges(Some(&id("one")), Some(&(id("one"), id("far"))), 9).await.unwrap();
    assert_eq!(rest, all[1..2]);
    for was_there in [true, false] {
        assert_eq!(store.remove_edge(&id("one"), &id("far")).await, Ok(was_there));
    }
    assert_eq!(edges(&one).await, all[1..]);
    let told = (events_of(&one, EventKind::EdgeWired).await, events_of(&one, EventKind::EdgeUnwired).await);
    assert_eq!(told, (2, 1), "a repetition is no event");
    let nobody = store.put_edge(&id("nobody"), edge("one", true)).await;
    assert_eq!(nobody, Err(StoreError::NoAgent));
    drop((one, two));
    let store = world.reopen("a", Sharing::Exclusive, site.store).await;
    assert_eq!(store.edges(None, None, PAGE_MAX).await.unwrap(), all[1..], "they are durable");
}

async fn an_unmanaged_edge_stays_one(world: World) {
    let desk = world.site("a").await.own("agent").await;
    let put = |is_managed| desk.store().put_edge(desk.agent(), edge("peer", is_managed));
    assert_eq!(put(true).await, Ok(true));
    assert_eq!(put(false).await, Ok(true), "an operator may keep what a roster has made");
    assert_eq!(put(true).await, Ok(false), "and no roster takes it over");
    assert_eq!(edges(&desk).await, [(id("agent"), edge("peer", false))]);
}

async fn an_agent_has_so_many_edges_at_most(world: World) {
    let desk = world.site("a").await.own("agent").await;
    for number in 0..EDGES_MAX {
        assert_eq!(desk.store().put_edge(desk.agent(), edge(&format!("p{number}"), true)).await, Ok(true));
    }
    let one_more = desk.store().put_edge(desk.agent(), edge("more", true)).await;
    assert!(one_more.as_ref().is_err_and(is_conflict), "{one_more:?}");
    assert_eq!(desk.store().put_edge(desk.agent(), edge("p0", true)).await, Ok(false), "known ones stay");
}

async fn edges_move_with_their_agent(world: World) {
    let journey = Journey::furnished(&world).await;
    let (store, agent) = (journey.from.store(), journey.agent());
    for peer in ["kept", "cut"] {
        store.put_edge(agent, edge(peer, true)).await.unwrap();
    }
    journey.record_at_source(Phase::Transfer).await;
    let first = journey.export(0).await;
    let sent = first.last().map_or(0, |frame| frame.change);
    journey.receive(first).await;
    store.remove_edge(agent, &id("cut")).await.unwrap();
    let changed = journey.export(sent).await;
    let is_cut = |row: &Row| *row == Row::Deleted(RowKey::Edge(id("cut")));
    assert!(changed.iter().any(|frame| is_cut(&frame.row)), "{changed:?}");
    let granted = journey.begin().await.granted;
    let request = journey.request(granted, sent).await;
    assert_eq!(journey.to.store.prepare(request).await, Ok(()));
    journey.finish().await;
    assert_eq!(store.edges(None, None, PAGE_MAX).await, Ok(vec![]), "what has moved away is not listed");
    let desk = journey.to.desk(journey.adopt().await);
    assert_eq!(edges(&desk).await, [(agent.clone(), edge("kept", true))]);
}

async fn a_deleted_agent_has_no_edges(world: World) {
    let desk = world.site("a").await.own("agent").await;
    desk.store().put_edge(desk.agent(), edge("peer", true)).await.unwrap();
    let lease = desk.verb(&Verb::Reset).await.unwrap().lease.unwrap();
    let desk = desk.site.desk(lease);
    assert_eq!(edges(&desk).await.len(), 1, "a reset leaves them");
    desk.verb(&Verb::Delete).await.unwrap();
    assert_eq!(edges(&desk).await, []);
    let put = desk.store().put_edge(desk.agent(), edge("peer", true)).await;
    assert_eq!(put, Err(StoreError::Lifecycle { state: Lifecycle::Deleted }));
}

async fn an_internal_agent_is_reached_from_inside(world: World) {
    let site = world.site("a").await;
    put_plugin(&site.store, "plain").await;
    let mut new = new_agent("agent", "plain");
    new.spec.addressability = Addressability::Internal;
    site.store.create(new).await.unwrap();
    let agent = id("agent");
    let outside = |input| NewInput { reach: Reach::Addressable, ..input };
    let accept = |input| site.store.accept(input, site.incarnation);
    assert_eq!(accept(outside(message(&agent, "no"))).await, Err(AcceptError::NotAddressable));
    let inside = keyed(&agent, "key", "yes");
    assert!(matches!(accept(inside.clone()).await, Ok(Accepted::New { .. })));
    let again = accept(outside(inside)).await;
    assert!(matches!(again, Ok(Accepted::Duplicate(_))), "what is known is answered: {again:?}");
    let delivered = NewInput { reach: Reach::Any, ..delivery(&agent, "peer", (1, 1), 1, 1) };
    assert!(matches!(accept(delivered).await, Ok(Accepted::New { .. })));
}

async fn a_spec_decides_who_reaches_an_agent(world: World) {
    let site = world.site("a").await;
    let desk = site.own("agent").await;
    desk.furnish().await;
    let outside = || NewInput { reach: Reach::Addressable, ..message(desk.agent(), "from outside") };
    for (revision, addressability) in [(2, Addressability::Internal), (3, Addressability::Addressable)] {
        let mut spec = new_agent("agent", "plain").spec;
        spec.addressability = addressability;
        let change = crate::spec::SpecChange { revision: crate::id::SpecRevision(revision), spec };
        let unit = desk.chain().await.step(Step::Configure(change)).unit();
        assert_eq!(desk.commit(unit).await, done(1));
        let accepted = site.store.accept(outside(), site.incarnation).await;
        let is_refused = accepted == Err(AcceptError::NotAddressable);
        assert_eq!(is_refused, addressability == Addressability::Internal, "{accepted:?}");
        let in_a_unit = desk.commit(desk.chain().await.accept(outside()).unit()).await;
        assert_eq!(in_a_unit.failure.is_some(), is_refused, "{in_a_unit:?}");
    }
}

/// A delivery under the key that its origin has in a store.
pub(super) async fn under_its_key(store: &dyn RuntimeStore, mut new: NewInput) -> NewInput {
    let stamp = new.delivery.as_mut().unwrap();
    stamp.origin_hash = store.agent(&stamp.origin).await.unwrap().unwrap().known_as().hash;
    new
}

async fn only_neighbours_are_reached_when_that_is_asked(world: World) {
    let desk = world.site("a").await.own("agent").await;
    let from = |origin: &str, number| {
        let mut new = delivery(desk.agent(), origin, (1, 1), number, number);
        new.input.source = Source::Peer { agent: id(origin), expects_reply: false };
        NewInput { reach: Reach::Neighbours, ..new }
    };
    let accept = |input| desk.store().accept(input, desk.owner.incarnation);
    let refused = accept(from("peer", 1)).await;
    assert_eq!(refused, Err(AcceptError::NoEdge { origin: id("peer") }));
    desk.store().put_edge(desk.agent(), edge("peer", false)).await.unwrap();
    assert!(
        matches!(accept(from("peer", 1)).await, Ok(Accepted::New { .. })),
        "what was refused comes again"
    );
    let own = under_its_key(desk.store(), from("agent", 1)).await;
    assert!(matches!(accept(own).await, Ok(Accepted::New { .. })), "it may write to itself");
    desk.store().remove_edge(desk.agent(), &id("peer")).await.unwrap();
    assert!(matches!(accept(from("peer", 1)).await, Ok(Accepted::AlreadyEnded)), "what came before is known");
    assert!(accept(from("peer", 2)).await.is_err());
}

async fn the_roster_is_one_document(world: World) {
    let site = world.site("a").await;
    let store = site.store;
    assert_eq!(store.roster().await, Ok(None));
    let put = |text: &'static str| store.put_roster(Bytes::from_static(text.as_bytes()));
    for (text, revision) in [("one", 1), ("one", 1), ("two", 2), ("one", 3)] {
        assert_eq!(put(text).await, Ok(revision), "{text}");
    }
    let large = Bytes::from(vec![b' '; ROSTER_BYTES_MAX + 1]);
    assert_eq!(store.put_roster(large).await, Err(StoreError::Full));
    let told = store.events(0, None, Some(EventKind::RosterChanged), PAGE_MAX).await.unwrap().len();
    assert_eq!(told, 3, "a repetition is no event");
    let store = world.reopen("a", Sharing::Exclusive, store).await;
    assert_eq!(store.roster().await, Ok(Some((3, Bytes::from_static(b"one")))));
}

async fn each_generation_begins_with_the_initial_message(world: World) {
    let site = world.site("a").await;
    put_plugin(&site.store, "plain").await;
    let mut new = new_agent("agent", "plain");
    new.spec.initial_message = "begin".to_owned();
    let agent = id("agent");
    let waiting = || async {
        let open = site.store.open_inputs(&agent, ALL).await.unwrap();
        let [input] = open.as_slice() else { panic!("one input: {open:?}") };
        assert_eq!((input.input.payload.as_ref(), input.placing.wakes), (b"begin".as_slice(), true));
        assert_eq!(input.accepted_by, Incarnation(0));
        input.input.id
    };
    assert_eq!(site.store.create(new.clone()).await, Ok(true));
    assert_eq!(site.store.create(new.clone()).await, Ok(false));
    assert_eq!(waiting().await, InputId::of_initial(&agent, Generation(1)));
    assert_eq!(site.store.runnable(site.incarnation, 9).await, Ok(vec![agent.clone()]));
    let desk = site.take(&agent).await;
    let lease = desk.verb(&Verb::Reset).await.unwrap().lease.unwrap();
    assert_eq!(waiting().await, InputId::of_initial(&agent, Generation(2)));
    let desk = site.desk(lease);
    desk.verb(&Verb::Delete).await.unwrap();
    assert_eq!(desk.store().open_inputs(&agent, ALL).await.unwrap(), []);
    assert_eq!(site.store.recreate(new).await, Ok(true));
    assert_eq!(waiting().await, InputId::of_initial(&agent, Generation(3)));
}
