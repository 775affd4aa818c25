//! Entity keys in transit: sealed to the target or left behind, and nobody comes who is not let in.

use godwit_core::identity::EntityKey;
use godwit_core::migration::{Failure, Refusal};

use super::verbs::show;
use super::*;
use crate::runtime::verbs::VerbCall;

async fn key(host: &Runtime, agent: &str) -> Option<EntityKey> {
    host.inner().store.entity_key(&id(agent)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_crosses_sealed_and_is_gone_where_it_was() {
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |_, _| {}).await;
    create(&one, "a").await;
    ask(&one, "a", "add 1").await;
    let before = key(&one, "a").await.expect("it has one");
    network.tap();
    migrate(&one, "a", &other).await;
    assert_eq!(key(&other, "a").await.as_ref(), Some(&before), "it signs as it did");
    assert_eq!(key(&one, "a").await, None);
    migrate(&other, "a", &one).await;
    assert_eq!(key(&one, "a").await.as_ref(), Some(&before));
    let sent = network.tapped();
    let holds =
        |bytes: &[u8]| sent.iter().any(|body| body.windows(bytes.len()).any(|window| window == bytes));
    assert!(holds(&before.public().0), "the public half has crossed: this looks at the right bytes");
    assert!(!holds(before.secret()), "and the secret half has not, in the clear");
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_stays_behind_is_given_by_other_means_or_not_at_all() {
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |_, config| config.carries_identity = false).await;
    for agent in ["a", "b"] {
        create(&one, agent).await;
        ask(&one, agent, "add 1").await;
    }
    let keys = [key(&one, "a").await.unwrap(), key(&one, "b").await.unwrap()];
    other.expect_migration(id("b"), Some(one.host()), Some(keys[1].secret())).unwrap();
    // Somebody else's key is not taken for its own.
    other.expect_migration(id("a"), None, Some(keys[1].secret())).unwrap();
    for agent in ["a", "b"] {
        migrate(&one, agent, &other).await;
        assert_eq!(ask(&other, agent, "get").await, "1");
    }
    assert_eq!(key(&other, "a").await, None, "it can't sign");
    assert_eq!(show(&other, "a").await.public_key, Some(keys[0].public()), "and is the same agent");
    assert_eq!(key(&other, "b").await, Some(keys[1].clone()));
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_expected_is_refused_before_anything_happens() {
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |number, config| config.takes_only_expected = number == 2).await;
    for agent in ["a", "b"] {
        create(&one, agent).await;
        ask(&one, agent, "add 1").await;
    }
    other.expect_migration(id("b"), Some(other.host()), None).unwrap();
    for agent in ["a", "b"] {
        let record = try_to_migrate(&one, agent, &other).await;
        let refused = record.failure.as_ref().and_then(Failure::refusal);
        assert_eq!(refused, Some(Refusal::Policy), "{agent}: {record:?}");
        assert!(
            other.inner().store.agent(&id(agent)).await.unwrap().is_none(),
            "nothing of {agent} is there"
        );
        assert_eq!(ask(&one, agent, "get").await, "1");
    }
    other.expect_migration(id("a"), None, None).unwrap();
    other.expect_migration(id("b"), Some(one.host()), None).unwrap();
    for agent in ["a", "b"] {
        migrate(&one, agent, &other).await;
        migrate(&other, agent, &one).await;
    }
    let again = try_to_migrate(&one, "a", &other).await;
    assert!(again.failure.is_some(), "it was expected once");
    for host in [&one, &other] {
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_in_doubt_goes_on_where_an_operator_says_so() {
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |_, _| {}).await;
    create(&one, "a").await;
    ask(&one, "a", "add 4").await;
    let nobody = other.adopt(&id("a"), true).await;
    assert!(matches!(nobody, Err(CallError::NotFound { .. })), "{nobody:?}");
    // Its answer to `Prepare` is lost, and then the source: the target has a copy that is bound.
    let before = one.inner().store.agent(&id("a")).await.unwrap().unwrap();
    network.set_cut(one.host(), true);
    in_doubt(&one, "a", &other).await;
    assert!(matches!(other.adopt(&id("a"), false).await, Err(CallError::Unavailable { .. })));
    let view = other.adopt(&id("a"), true).await.unwrap();
    assert!(view.token.0 > before.token.0 + (1 << 20), "{} after {}", view.token, before.token);
    assert_eq!(ask(&other, "a", "get").await, "4");
    assert!(matches!(other.adopt(&id("a"), true).await, Err(CallError::Conflict { .. })), "it is settled");
    for host in [&one, &other] {
        host.stop().await;
    }
}

/// What is left at a source that comes back: held, said so, and given up only on an operator's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_comes_back_holds_what_its_target_runs() {
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |_, _| {}).await;
    create(&one, "a").await;
    ask(&one, "a", "add 4").await;
    network.set_cut(one.host(), true);
    in_doubt(&one, "a", &other).await;
    other.adopt(&id("a"), true).await.unwrap();
    ask(&other, "a", "add 1").await;
    network.set_cut(one.host(), false);
    // The source sees its open record, as after a restart.
    let record = other.migration(MigrationId([3; 16])).await.unwrap();
    let record = MigrationRecord { role: Role::Source, phase: Phase::Cutover, ..record };
    one.inner().store.put_migration(record).await.unwrap();
    let record = ended(&one, MigrationId([3; 16])).await;
    assert_eq!((record.phase, record.failure), (Phase::Failed, Some(Failure::Forked)));
    assert!(matches!(one.adopt(&id("a"), false).await, Err(CallError::Conflict { .. })));
    one.adopt(&id("a"), true).await.unwrap();
    assert_eq!(ask(&one, "a", "get").await, "5", "it is forwarded to where the agent is");
    for host in [&one, &other] {
        host.stop().await;
    }
}

/// A source that has not heard that its target runs the agent takes it back, and finds out when it calls the target off: then it
/// is the one that ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_took_back_what_its_target_runs_is_broken_as_forked() {
    use godwit_core::store::{BrokenReason, Lifecycle};
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |_, _| {}).await;
    create(&one, "a").await;
    ask(&one, "a", "add 4").await;
    network.set_cut(one.host(), true);
    in_doubt(&one, "a", &other).await;
    other.adopt(&id("a"), true).await.unwrap();
    ask(&other, "a", "add 1").await;
    // As after a restart it owns nothing. It asks what the target has, and does not hear that.
    let owned = one.inner().directory.owned(&id("a")).unwrap();
    one.inner().directory.lose(&id("a"), owned.lease.token);
    network.lose_answer(other.host());
    network.set_cut(one.host(), false);
    let record = other.migration(MigrationId([3; 16])).await.unwrap();
    let record = MigrationRecord { role: Role::Source, phase: Phase::Cutover, ..record };
    one.inner().store.put_migration(record).await.unwrap();
    let record = ended(&one, MigrationId([3; 16])).await;
    assert_eq!(record.phase, Phase::Aborted, "it was taken back: {record:?}");
    until("the agent to be broken here", async || {
        let row = one.inner().store.agent(&id("a")).await.unwrap().unwrap();
        (row.home, row.lifecycle) == (Home::Here, Lifecycle::Broken(BrokenReason::Forked))
    })
    .await;
    let asked = AgentCall::Ask { submission: submission(&one, "get"), timeout_ms: 5_000 };
    let refused = one.call(&id("a"), asked, Forward::No).await.map(|called| called.reply);
    assert!(matches!(refused, Err(CallError::Broken { reason: BrokenReason::Forked })), "{refused:?}");
    // Not on an operator's word either: it would be a second one.
    for verb in [VerbCall::Reset, VerbCall::Retire] {
        let refused = one.call(&id("a"), AgentCall::Verb(verb), Forward::No).await.map(|called| called.reply);
        assert!(matches!(refused, Err(CallError::Illegal(_))), "{refused:?}");
    }
    assert_eq!(ask(&other, "a", "get").await, "5", "the one under the higher token goes on");
    let tokens = [&one, &other].map(|host| host.inner().store.clone());
    let [here, there] =
        tokens.map(|store| async move { store.agent(&id("a")).await.unwrap().unwrap().token });
    assert!(here.await < there.await);
    for host in [&one, &other] {
        host.stop().await;
    }
}

/// A source that could not ask its target takes the agent back, and goes on with it. It is told who runs it when it can be, whatever
/// its target has done since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_took_back_what_was_forced_is_told_until_it_hears() {
    use godwit_core::store::{BrokenReason, Lifecycle};
    let network = SimNetwork::default();
    let [one, other] = hosts_apart(&network, |_, _| {}).await;
    create(&one, "a").await;
    ask(&one, "a", "add 4").await;
    network.set_cut(one.host(), true);
    in_doubt(&one, "a", &other).await;
    other.adopt(&id("a"), true).await.unwrap();
    let owned = one.inner().directory.owned(&id("a")).unwrap();
    one.inner().directory.lose(&id("a"), owned.lease.token);
    let record = other.migration(MigrationId([3; 16])).await.unwrap();
    let record = MigrationRecord { role: Role::Source, phase: Phase::Cutover, failure: None, ..record };
    one.inner().store.put_migration(record).await.unwrap();
    let record = ended(&one, MigrationId([3; 16])).await;
    assert_eq!(record.phase, Phase::Aborted, "{record:?}");
    assert_eq!(ask(&one, "a", "add 1").await, "5", "there are two now");
    // Each new grant closes what is open.
    let row = other.inner().store.agent(&id("a")).await.unwrap().unwrap();
    let held = other.inner().directory.owned(&id("a")).unwrap();
    let base = row.revision;
    other.inner().directory.handle(&id("a")).unwrap().park().await;
    let onward = MigrationId([4; 16]);
    other.inner().store.begin_handoff(&held.owner(), base, onward, one.host()).await.unwrap();
    let incarnation = other.session().incarnation;
    other.inner().store.abort_handoff(&id("a"), onward, incarnation).await.unwrap();
    network.set_cut(one.host(), false);
    until("the agent to be broken at its source", async || {
        let row = one.inner().store.agent(&id("a")).await.unwrap().unwrap();
        (row.home, row.lifecycle) == (Home::Here, Lifecycle::Broken(BrokenReason::Forked))
    })
    .await;
    assert_eq!(ended(&other, MigrationId([3; 16])).await.phase, Phase::Complete, "it has been heard");
    for host in [&one, &other] {
        host.stop().await;
    }
}

/// Hands an agent off up to the copy that is bound at its target, and no further.
async fn in_doubt(from: &Runtime, agent: &str, to: &Runtime) {
    use godwit_core::store::PrepareRequest;
    let owned = from.own(&id(agent)).await.unwrap();
    from.inner().directory.handle(&id(agent)).unwrap().park().await;
    let (source, target) = (&from.inner().store, &to.inner().store);
    let row = source.agent(&id(agent)).await.unwrap().unwrap();
    let migration = MigrationId([3; 16]);
    let begun = source.begin_handoff(&owned.owner(), row.revision, migration, to.host()).await.unwrap();
    let frames = source.export_rows(&id(agent), 0, usize::MAX).await.unwrap();
    let (generation, revision) = (row.generation, row.revision);
    let request = PrepareRequest {
        migration,
        agent: id(agent),
        source: from.host(),
        token: begun.granted,
        generation,
        revision,
        frames,
    };
    target.prepare(request).await.unwrap();
    // Behind the copy: what has none is discarded.
    target.put_migration(bound_record(Role::Target, from, to)).await.unwrap();
}
