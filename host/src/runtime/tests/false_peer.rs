//! A listed peer that says what it likes: whose messages count, and what is never believed. Over real connections, and in real
//! processes: `tests/cluster`.

use godwit_core::digest::{Digest, RunningDigest};
use godwit_core::id::{FencingToken, Generation, InputId, Revision};
use godwit_core::identity::{EntityKey, SignedStatement, Statement};
use godwit_core::input::{DeliveryStamp, Input, NewInput, Reach};
use godwit_core::migration::Refusal;
use godwit_core::output::UndeliverableReason;
use godwit_core::spec::{PluginInfo, Spec};

use super::*;
use crate::runtime::wire::{
    self, BulkHeader, Delivered, MigrationAnswer, MigrationMessage, PeerAnswer, PeerRequest, Preparation,
    Reservation,
};

const STRANGER: HostId = HostId([9; 32]);
const FORGED: [u64; 4] = [0, 1 << 63, u64::MAX, (1 << 63) - 1];

fn migration(number: u8) -> MigrationId {
    MigrationId([number; 16])
}

fn plugin() -> PluginInfo {
    script_plugin().0
}

fn reservation(token: u64) -> Reservation {
    Reservation {
        token: FencingToken(token),
        generation: Generation(1),
        revision: Revision(0),
        plugin: plugin(),
        spec: Spec::new(plugin().digest),
        public_key: None,
        residency: None,
        is_shared: false,
        deadline_ms: u64::MAX,
    }
}

async fn reserve(
    host: &Runtime,
    from: HostId,
    number: u8,
    agent: &str,
    what: Reservation,
) -> MigrationAnswer {
    host.on_migration(from, migration(number), id(agent), MigrationMessage::Reserve(Box::new(what))).await
}

async fn tell(
    host: &Runtime,
    from: HostId,
    number: u8,
    agent: &str,
    what: MigrationMessage,
) -> MigrationAnswer {
    host.on_migration(from, migration(number), id(agent), what).await
}

fn why(answer: MigrationAnswer) -> Option<Refusal> {
    match answer {
        MigrationAnswer::Refused { why, .. } => Some(why),
        _ => None,
    }
}

fn preparation(granted: u64) -> MigrationMessage {
    let (generation, revision) = (Generation(1), Revision(0));
    let granted = FencingToken(granted);
    let bundle = RunningDigest::default().finish();
    MigrationMessage::Prepare(Box::new(Preparation {
        granted,
        generation,
        revision,
        frames: Vec::new(),
        bundle,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_migration_hears_its_source_alone() {
    let World { hosts, .. } = two_hosts().await;
    let [source, target] = [&hosts[0], &hosts[1]];
    let from = source.host();
    assert_eq!(reserve(target, from, 1, "a", reservation(1)).await, MigrationAnswer::Ok);
    let restore = || MigrationMessage::Restore { revision: Revision(0) };
    let others = [("another host's", STRANGER, "a"), ("of another agent", from, "b")];
    for (what, from, agent) in others {
        assert_eq!(
            why(reserve(target, from, 1, agent, reservation(1)).await),
            Some(Refusal::Protocol),
            "{what}"
        );
        assert_eq!(why(tell(target, from, 1, agent, restore()).await), Some(Refusal::Protocol), "{what}");
        assert_eq!(
            why(tell(target, from, 1, agent, preparation(2)).await),
            Some(Refusal::Protocol),
            "{what}"
        );
        let activate = MigrationMessage::Activate { token: FencingToken(2) };
        assert_eq!(why(tell(target, from, 1, agent, activate).await), Some(Refusal::Protocol), "{what}");
        let aborted = tell(target, from, 1, agent, MigrationMessage::Abort).await;
        assert_eq!(aborted, MigrationAnswer::Nothing, "{what}");
        let header = BulkHeader::Rows { id: migration(1), agent: id(agent) };
        let rows = target.take_bulk(from, header, bulk(wire::encode(&Vec::<u8>::new()))).await;
        assert_eq!(why(rows), Some(Refusal::Protocol), "{what}");
    }
    let header = BulkHeader::Plugin { id: migration(1), plugin: plugin() };
    assert_eq!(why(target.take_bulk(STRANGER, header, bulk(Bytes::new())).await), Some(Refusal::Protocol));
    let still_open = tell(target, from, 1, "a", restore()).await;
    assert_eq!(still_open, MigrationAnswer::Restored { revision: Revision(0) });
    // Nor does a try of its own end this one: the source has not given it up, as far as anybody knows.
    source.stop().await;
    let displaced = reserve(target, STRANGER, 2, "a", reservation(1)).await;
    assert!(matches!(displaced, MigrationAnswer::NotReady { .. }), "{displaced:?}");
    assert_eq!(target.migration(migration(1)).await.unwrap().phase, Phase::Reserve);
    assert_eq!(tell(target, from, 1, "a", MigrationMessage::Abort).await, MigrationAnswer::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_honest_source_says_is_refused_and_leaves_nothing() {
    let host = lone_host().await;
    for token in FORGED {
        assert_eq!(why(reserve(&host, STRANGER, 1, "a", reservation(token)).await), Some(Refusal::Protocol));
    }
    let mut other_plugin = reservation(1);
    other_plugin.spec.plugin = Digest::of(b"another");
    let mut greedy = reservation(1);
    greedy.spec.limits.memory_bytes_max = u64::MAX;
    let mut talkative = reservation(1);
    talkative.spec.instructions = vec![String::new(); 100_000];
    // Only who has a session on this host's store can say that.
    let shared = Reservation { is_shared: true, ..reservation(1) };
    for absurd in [other_plugin, greedy, talkative, shared] {
        assert_eq!(why(reserve(&host, STRANGER, 1, "a", absurd).await), Some(Refusal::Protocol));
    }
    assert_eq!(host.migrations().await.unwrap(), Vec::new());

    assert_eq!(reserve(&host, STRANGER, 1, "a", reservation(5)).await, MigrationAnswer::Ok);
    let deadline_ms = host.migration(migration(1)).await.unwrap().deadline_ms;
    assert!(deadline_ms < host.now_ms() + 3_600_000, "a deadline is no reason to keep it for ever");
    for token in FORGED.into_iter().chain([5, 4]) {
        assert_eq!(why(tell(&host, STRANGER, 1, "a", preparation(token)).await), Some(Refusal::Protocol));
        let activate = MigrationMessage::Activate { token: FencingToken(token) };
        assert_eq!(why(tell(&host, STRANGER, 1, "a", activate).await), Some(Refusal::Protocol));
    }
    let (mut claimed, component) = script_plugin();
    claimed.grants = vec!["http".into()];
    let header = BulkHeader::Plugin { id: migration(1), plugin: claimed.clone() };
    assert_eq!(why(host.take_bulk(STRANGER, header, bulk(component.clone())).await), Some(Refusal::Plugin));
    assert_eq!(host.plugins().await.unwrap(), vec![plugin()]);
    assert!(host.inner().store.agent(&id("a")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_too_many_reservations_is_put_off_and_another_is_not() {
    let host = lone_host().await;
    let reserve = async |from, number: u8| {
        reserve(&host, from, number, &format!("agent-{number}"), reservation(1)).await
    };
    let mut taken = 0;
    for number in 0..100 {
        match reserve(STRANGER, number).await {
            MigrationAnswer::Ok => taken += 1,
            answer => assert!(matches!(answer, MigrationAnswer::NotReady { .. }), "{answer:?}"),
        }
    }
    assert_eq!(taken, 16);
    assert_eq!(host.migrations().await.unwrap().len(), 16);
    assert_eq!(reserve(HostId([8; 32]), 200).await, MigrationAnswer::Ok);
    assert_eq!(tell(&host, STRANGER, 0, "agent-0", MigrationMessage::Abort).await, MigrationAnswer::Ok);
    assert_eq!(reserve(STRANGER, 100).await, MigrationAnswer::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_a_migration_is_said_to_its_two_hosts_only() {
    let World { hosts, .. } = two_hosts().await;
    let [source, target] = [&hosts[0], &hosts[1]];
    create(source, "a").await;
    let record = try_to_migrate(source, "a", target).await;
    let asked = async |host: &Runtime, from, what| host.on_migration(from, record.id, id("a"), what).await;
    let became = asked(source, target.host(), MigrationMessage::WhatBecame).await;
    assert_eq!(became, MigrationAnswer::Adopted);
    assert_eq!(why(asked(source, STRANGER, MigrationMessage::WhatBecame).await), Some(Refusal::Protocol));
    let have = asked(target, source.host(), MigrationMessage::WhatHaveYou).await;
    assert_eq!(have, MigrationAnswer::Adopted);
    assert_eq!(why(asked(target, STRANGER, MigrationMessage::WhatHaveYou).await), Some(Refusal::Protocol));
    // Nor does the source undo it by saying again what it said before.
    let again = MigrationMessage::Reserve(Box::new(reservation(1)));
    assert_eq!(why(asked(target, source.host(), again).await), Some(Refusal::Exists));
    assert_eq!(asked(target, source.host(), MigrationMessage::Abort).await, MigrationAnswer::Adopted);
    assert_eq!(ask(target, "a", "add 1").await, "1");
}

fn delivery(to: &str, origin: &str, (token, number, lowest_open): (u64, u64, u64)) -> PeerRequest {
    let input = Input {
        id: godwit_core::id::InputId::of_delivery(&id(origin), Generation(1), &id(to), number),
        kind: Kind::Message,
        source: Source::Peer { agent: id(origin), expects_reply: false },
        content_type: "text/plain".into(),
        payload: Bytes::from_static(b"add 1"),
        headers: Vec::new(),
        correlation: None,
        accepted_at_ms: 0,
    };
    let stamp = DeliveryStamp {
        origin: id(origin),
        generation: Generation(1),
        number,
        lowest_open,
        token: FencingToken(token),
        host: HostId([0; 32]),
        origin_hash: None,
        origin_generation: Generation(1),
        is_vouched_for: false,
        channel: None,
    };
    let input = NewInput { delivery: Some(stamp), reach: Reach::Any, ..NewInput::of_host(&id(to), input) };
    PeerRequest::Deliver { inputs: vec![input], statement: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_delivery_moves_nothing() {
    let host = lone_host().await;
    for agent in ["a", "b"] {
        create(&host, agent).await;
        ask(&host, agent, "get").await;
    }
    let deliver = async |request| host.answer_peer(STRANGER, request).await;
    let malformed = async |request| matches!(deliver(request).await, PeerAnswer::Malformed { .. });
    for token in FORGED {
        assert!(malformed(delivery("a", "far", (token, 1, 1))).await, "{token}");
    }
    for (number, lowest_open) in [(0, 0), (1, 2), (u64::MAX, u64::MAX), (1 << 50, 1 << 50)] {
        assert!(malformed(delivery("a", "far", (1, number, lowest_open))).await, "{number}");
    }
    let PeerRequest::Deliver { mut inputs, statement } = delivery("a", "far", (1, 1, 1)) else {
        unreachable!()
    };
    inputs[0].input.source = Source::Peer { agent: id("b"), expects_reply: false };
    assert!(malformed(PeerRequest::Deliver { inputs, statement }).await, "one agent's stamp, another's word");
    // An agent that is at home here: nobody else speaks for it.
    let spoken = deliver(delivery("a", "b", (1 << 40, 1, 1))).await;
    assert!(
        matches!(&spoken, PeerAnswer::Delivered(said) if matches!(said[..], [Delivered::Later { .. }])),
        "{spoken:?}"
    );
    assert_eq!(ask(&host, "a", "get").await, "0");
    let honest = deliver(delivery("a", "far", (1, 1, 1))).await;
    assert_eq!(honest, PeerAnswer::Delivered(vec![Delivered::Acknowledged]));
}

/// The same, with a statement that a key has signed.
fn stated(key: &EntityKey, statement: Statement, number: u64) -> PeerRequest {
    let place = (statement.token.0, number, number);
    let PeerRequest::Deliver { mut inputs, .. } = delivery("a", statement.agent.as_str(), place) else {
        unreachable!()
    };
    let stamp = inputs[0].delivery.as_mut().unwrap();
    (stamp.generation, stamp.origin_generation) = (statement.generation, statement.generation);
    PeerRequest::Deliver { inputs, statement: Some(Box::new(SignedStatement::new(key, statement))) }
}

fn said(answer: PeerAnswer) -> Delivered {
    match answer {
        PeerAnswer::Delivered(mut said) if said.len() == 1 => said.remove(0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_an_agents_key_names_sends_for_it() {
    let host = lone_host().await;
    create(&host, "a").await;
    let key = EntityKey::from_secret(&[5; 32]);
    let owner = HostId([8; 32]);
    let granted = |token, host| Statement {
        agent: id("far"),
        generation: Generation(1),
        token: FencingToken(token),
        host,
    };
    let deliver = async |from, request| host.answer_peer(from, request).await;
    assert_eq!(said(deliver(owner, stated(&key, granted(3, owner), 1)).await), Delivered::Acknowledged);

    // What another peer has for a higher token: nothing, a key of its own, what the owner has said, what it makes of that.
    let none = said(deliver(STRANGER, delivery("a", "far", (4, 2, 2))).await);
    let is_asked_for_proof =
        matches!(&none, Delivered::Later { reason } if reason.contains("its host needs its key"));
    assert!(is_asked_for_proof, "{none:?}");
    let mut named = delivery("a", "far", (4, 2, 2));
    if let PeerRequest::Deliver { inputs, .. } = &mut named {
        inputs[0].delivery.as_mut().unwrap().origin_hash = Some(key.public().origin_hash());
    }
    let named = said(deliver(STRANGER, named).await);
    assert!(matches!(named, Delivered::Later { .. }), "the hash alone proves nothing: {named:?}");
    let own = stated(&EntityKey::from_secret(&[6; 32]), granted(4, STRANGER), 2);
    assert_eq!(said(deliver(STRANGER, own).await), Delivered::Never(UndeliverableReason::Namesake));
    let replayed = stated(&key, granted(3, owner), 2);
    let mut forged = stated(&key, granted(3, owner), 2);
    if let PeerRequest::Deliver { statement: Some(signed), .. } = &mut forged {
        signed.statement.host = STRANGER;
    }
    let mut raised = stated(&key, granted(3, owner), 2);
    let mut mixed = stated(&key, granted(3, owner), 2);
    if let (PeerRequest::Deliver { inputs, .. }, PeerRequest::Deliver { inputs: more, .. }) =
        (&mut raised, &mut mixed)
    {
        inputs[0].delivery.as_mut().unwrap().token = FencingToken(9);
        let PeerRequest::Deliver { inputs: others, .. } = delivery("a", "near", (3, 1, 1)) else {
            unreachable!()
        };
        more.extend(others);
    }
    for (what, from, request) in [
        ("said again by another", STRANGER, replayed),
        ("with another host in it", STRANGER, forged),
        ("for another token", owner, raised),
        ("for another agent as well", owner, mixed),
    ] {
        let answer = deliver(from, request).await;
        assert!(matches!(answer, PeerAnswer::Malformed { .. }), "{what}: {answer:?}");
    }
    // Nor by somebody who has heard nothing yet, or was not there when it was said first.
    create(&host, "b").await;
    let unheard = said(deliver(STRANGER, delivery("b", "far", (1, 1 << 40, 1 << 40))).await);
    assert!(matches!(unheard, Delivered::Later { .. }), "{unheard:?}");
    let usurped = stated(&EntityKey::from_secret(&[6; 32]), granted(3, STRANGER), 1);
    let PeerRequest::Deliver { mut inputs, statement } = usurped else { unreachable!() };
    (inputs[0].agent, inputs[0].input.id) =
        (id("b"), InputId::of_delivery(&id("far"), Generation(1), &id("b"), 1));
    let unheard = said(deliver(STRANGER, PeerRequest::Deliver { inputs, statement }).await);
    assert!(matches!(unheard, Delivered::Later { .. }), "{unheard:?}");
    assert_eq!(said(deliver(STRANGER, delivery("nobody", "far", (9, 1, 1))).await), Delivered::NotHere);
    // Nothing of all that was heard: the owner goes on, and so does the next one.
    assert_eq!(said(deliver(owner, stated(&key, granted(3, owner), 2)).await), Delivered::Acknowledged);
    let next = stated(&key, granted(4, STRANGER), 3);
    assert_eq!(said(deliver(STRANGER, next).await), Delivered::Acknowledged);
    let stale = said(deliver(owner, stated(&key, granted(3, owner), 4)).await);
    assert_eq!(stale, Delivered::StalePublisher { highest: FencingToken(4) });
}

/// Another key is the agent's only if nobody else has an agent of the name: a liar takes a key of its own, and a higher epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_is_not_believed_while_somebody_else_has_the_agent() {
    let World { network, hosts, .. } = two_hosts().await;
    let [home, host] = [&hosts[0], &hosts[1]];
    create(home, "far").await;
    create(host, "a").await;
    let owned = home.own(&id("far")).await.unwrap();
    let key = home.inner().store.entity_key(&id("far")).await.unwrap().unwrap();
    let granted = Statement {
        agent: id("far"),
        generation: owned.lease.generation,
        token: owned.lease.token,
        host: home.host(),
    };
    let first = host.answer_peer(home.host(), stated(&key, granted.clone(), 1)).await;
    assert_eq!(said(first), Delivered::Acknowledged);
    let usurped = |number| {
        let token = owned.lease.token.raised(1).unwrap();
        let statement = Statement { token, host: STRANGER, ..granted.clone() };
        stated(&EntityKey::from_secret(&[6; 32]), statement, number)
    };
    let refused = async || {
        // Others are asked about the first; what they have said counts for the second.
        for _ in 0..2 {
            let answer = said(host.answer_peer(STRANGER, usurped(1 << 33)).await);
            assert!(matches!(answer, Delivered::Later { .. }), "{answer:?}");
            sleep(Duration::from_millis(300)).await;
        }
    };
    refused().await;
    let anew = Statement { generation: Generation(2), host: STRANGER, ..granted.clone() };
    let anew = host.answer_peer(STRANGER, stated(&EntityKey::from_secret(&[6; 32]), anew, 1)).await;
    assert!(matches!(said(anew), Delivered::Later { .. }));
    // Who does not answer may have it.
    network.set_cut(home.host(), true);
    refused().await;
    network.set_cut(home.host(), false);
    let second = host.answer_peer(home.host(), stated(&key, granted.clone(), 2)).await;
    assert_eq!(said(second), Delivered::Acknowledged);
}
