//! Broken agents that are brought back: as recorded, or on the record as something else.

use super::*;
use crate::agent::recover::{RecoverError, RecoverOutcome, Recovered, Recovery, Refused, recover};
use crate::event::EventKind;
use crate::id::Generation;
use crate::receipt::{BoundaryKind, Receipt};
use crate::spec::PluginInfo;
use crate::store::AgentImage;

const FROM_NEWEST: Recovery = Recovery { from: None, accepts_state: false };
const ACCEPTING: Recovery = Recovery { from: None, accepts_state: true };

fn from(revision: u64) -> Recovery {
    Recovery { from: Some(Revision(revision)), accepts_state: false }
}

fn accepting_from(revision: u64) -> Recovery {
    Recovery { from: Some(Revision(revision)), accepts_state: true }
}

impl World {
    /// Runs turns in a driver of their own.
    async fn run(&self, texts: &[&str]) -> String {
        let handle = self.drive().await;
        let mut said = String::new();
        for text in texts {
            said = match *text {
                "checkpoint" => handle.checkpoint().await.unwrap().revision.to_string(),
                text => reply(&self.ask(&handle, text).await),
            };
        }
        handle.park().await;
        said
    }

    async fn break_it(&self) {
        self.change(&Verb::Break(BrokenReason::Corrupt { what: "a test said so".into() })).await;
    }

    async fn recover(&self, recovery: Recovery) -> Result<Recovered, RecoverError> {
        let grant = self.grant().await;
        recover(&self.env, &grant.lease, grant.guard, recovery).await
    }

    /// Tries a recovery that is refused, and checks that nothing has changed.
    async fn refused(&self, recovery: Recovery) -> Refused {
        let before = (self.row().await, self.receipts().await, self.kept().await);
        let refused = match self.recover(recovery).await {
            Err(RecoverError::Refused(refused)) => *refused,
            other => panic!("{other:?}"),
        };
        assert_eq!((self.row().await, self.receipts().await, self.kept().await), before);
        refused
    }

    async fn whole(&self) -> AgentImage {
        self.env.store.image(&self.agent, None).await.unwrap().unwrap()
    }

    async fn kept(&self) -> Vec<u64> {
        let kept = self.env.store.kept_snapshots(&self.agent).await.unwrap();
        kept.iter().map(|kept| kept.revision.0).collect()
    }

    async fn receipts(&self) -> Vec<Receipt> {
        self.env.store.receipts(&self.agent, Generation(1), Revision(0), PAGE_MAX).await.unwrap()
    }

    async fn events(&self, kind: EventKind) -> Vec<crate::event::Event> {
        self.env.store.events(0, Some(&self.agent), Some(kind), PAGE_MAX).await.unwrap()
    }
}

#[tokio::test]
async fn a_history_that_fits_is_recovered_and_nothing_of_it_changes() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 2", "write a one", "dice", "add 3"]).await;
    let sum = world.run(&["get"]).await;
    world.break_it().await;
    let (receipts, kept) = (world.receipts().await, world.kept().await);
    for recovery in [FROM_NEWEST, ACCEPTING, from(1), accepting_from(1)] {
        let recovered = world.recover(recovery).await.unwrap();
        let expected = Recovered { from: Revision(1), turns: 5, outcome: RecoverOutcome::Rebuilt };
        assert_eq!(recovered, expected, "there is nothing to accept");
        assert_eq!(world.row().await.lifecycle, Lifecycle::Active);
        assert_eq!((world.receipts().await, world.kept().await), (receipts.clone(), kept.clone()));
        world.break_it().await;
    }
    world.recover(FROM_NEWEST).await.unwrap();
    assert_eq!(world.run(&["get"]).await, sum);
    assert!(world.events(EventKind::AgentRepaired).await.is_empty());
}

#[tokio::test]
async fn an_agent_that_never_began_is_recovered() {
    let world = world().await;
    world.change(&Verb::Break(BrokenReason::Init { message: "no".into() })).await;
    let recovered = world.recover(FROM_NEWEST).await.unwrap();
    assert_eq!(recovered, Recovered { from: Revision(0), turns: 0, outcome: RecoverOutcome::Rebuilt });
    assert_eq!(world.run(&["add 1"]).await, "1");
}

#[tokio::test]
async fn an_older_snapshot_leads_past_the_newer_one_to_the_head() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 2", "dice", "checkpoint", "add 3", "dice"]).await;
    let sum = world.run(&["get"]).await;
    assert_eq!(world.kept().await, [1, 3]);
    world.break_it().await;
    let (head, receipts) = (world.row().await.head, world.receipts().await);
    let recovered = world.recover(from(1)).await.unwrap();
    assert_eq!(recovered, Recovered { from: Revision(1), turns: 5, outcome: RecoverOutcome::Mended });
    assert_eq!(world.kept().await, [3, 6], "the one that was passed, and the head");
    assert_eq!((world.row().await.head, world.receipts().await), (head, receipts), "no boundary is added");
    let image = world.whole().await;
    assert_eq!((image.check(), image.journal.len()), (Ok(()), 0));
    assert_eq!(image.snapshot.unwrap().state, Bytes::from(sum.clone()));
    assert_eq!(world.run(&["get"]).await, sum);
}

#[tokio::test]
async fn another_state_is_taken_only_when_that_is_said() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 5", "send friend hello", "drift", "add 1"]).await;
    let outputs = world.env.store.pending_outputs(&world.agent, Page { after: 0, limit: 9 }).await.unwrap();
    world.env.store.accept(world.input("add 10", None), world.incarnation).await.unwrap();
    world.break_it().await;
    let before = world.row().await;
    let refused = world.refused(FROM_NEWEST).await;
    assert!(refused.what.contains("turn 4"), "{refused:?}");
    assert_eq!((refused.from, refused.turns, &refused.ways[..]), (Revision(1), 4, &[ACCEPTING][..]));
    assert!(refused.to_string().contains("`recover --accept-state`"), "{refused}");

    let recovered = world.recover(ACCEPTING).await.unwrap();
    let RecoverOutcome::Repaired { misfit, accepted, turns_left_out } = &recovered.outcome else {
        panic!("{recovered:?}")
    };
    let receipts = world.receipts().await;
    let (last, turn) = (receipts.last().unwrap(), &receipts[3]);
    assert_eq!((misfit.revision, misfit.expected, *turns_left_out), (Revision(4), turn.effects, 0));
    assert_eq!((last.kind, last.revision), (BoundaryKind::Repair, before.revision.next()));
    assert_eq!((last.from, last.state, last.parent), (Some(misfit.expected), Some(*accepted), before.head));
    assert!(last.inputs.is_empty());
    let image = world.whole().await;
    assert_eq!((image.check(), image.row.lifecycle.clone()), (Ok(()), Lifecycle::Active));
    assert_eq!(image.snapshot.unwrap().state_digest(), *accepted);
    assert_eq!(image.row.open_inputs, 1, "what waits goes on waiting");
    let again = world.env.store.pending_outputs(&world.agent, Page { after: 0, limit: 9 }).await.unwrap();
    assert_eq!(again, outputs, "nothing is sent a second time");
    assert_eq!(world.events(EventKind::AgentRepaired).await.len(), 1);
    assert_eq!(world.events(EventKind::AgentRecovered).await.len(), 1);
    let sum = world.run(&["get"]).await;
    assert_eq!(world.run(&["get"]).await, sum, "the next load builds on it");
}

#[tokio::test]
async fn a_turn_that_fails_ends_the_accepted_state_before_it() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 5", "fragile", "add 1", "fatal"]).await;
    world.break_it().await;
    let refused = world.refused(FROM_NEWEST).await;
    assert!(refused.what.contains("once only"), "{refused:?}");
    let recovered = world.recover(ACCEPTING).await.unwrap();
    assert_eq!(recovered.turns, 1);
    match recovered.outcome {
        RecoverOutcome::Repaired { misfit, turns_left_out, .. } => {
            assert_eq!((misfit.revision, turns_left_out), (Revision(3), 2), "a dead letter is no turn");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.run(&["get"]).await, "5");
}

#[tokio::test]
async fn a_history_that_fails_elsewhere_each_time_does_not_fit() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 5", "checkpoint", "moody", "moody"]).await;
    world.break_it().await;
    let refused = world.refused(FROM_NEWEST).await;
    assert!(refused.what.contains("not in the mood"), "{refused:?}");
    assert_eq!(refused.ways, [ACCEPTING, accepting_from(1)]);
    match world.recover(ACCEPTING).await.unwrap().outcome {
        RecoverOutcome::Repaired { turns_left_out, .. } => assert_eq!(turns_left_out, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.run(&["get"]).await, "5");
}

#[tokio::test]
async fn what_was_never_journaled_can_be_left_out_on_the_record() {
    let world = world_of(Durability::Snapshot).await;
    world.run(&["add 1", "add 1"]).await;
    // The two slots hold one snapshot each: that of the last turn, and the one before a checkpoint.
    world.run(&["fatal", "checkpoint", "add 1", "add 1"]).await;
    assert_eq!(world.kept().await, [4, 6]);
    world.break_it().await;
    let refused = world.refused(from(4)).await;
    assert!(refused.what.contains("turn 5 has neither"), "{refused:?}");
    assert_eq!(refused.ways, [FROM_NEWEST, accepting_from(4)], "those that lose nothing first");
    let recovered = world.recover(accepting_from(4)).await.unwrap();
    match recovered.outcome {
        RecoverOutcome::Repaired { misfit, turns_left_out, .. } => {
            assert_eq!((misfit.revision, turns_left_out), (Revision(5), 2));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.run(&["get"]).await, "2");
    assert_eq!(world.kept().await.last(), Some(&8), "the turn after the repair");
}

#[tokio::test]
async fn a_state_of_the_plugin_before_is_accepted_as_that() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 2", "checkpoint"]).await;
    let component = Bytes::from_static(b"newer script");
    let digest = crate::digest::Digest::of(&component);
    let (script, _) = script_plugin();
    let newer = PluginInfo { digest, name: "newer".into(), version: "2.0.0".into(), ..script.clone() };
    world.env.store.put_plugin(newer.clone(), component).await.unwrap();
    let handle = world.drive().await;
    reply(&world.ask(&handle, "add 3").await);
    let spec = Spec { durability: Durability::Journal, ..Spec::new(digest) };
    handle.respec(spec, newer).await.unwrap();
    assert_eq!(reply(&world.ask(&handle, "add 4").await), "9");
    handle.park().await;
    assert_eq!(world.kept().await, [2, 4]);
    world.break_it().await;
    let recovered = world.recover(accepting_from(2)).await.unwrap();
    assert!(matches!(recovered.outcome, RecoverOutcome::Repaired { turns_left_out: 2, .. }), "{recovered:?}");
    let snapshot = world.whole().await.snapshot.unwrap();
    assert_eq!((snapshot.state, snapshot.plugin_version), (Bytes::from_static(b"2"), script.version));
    assert_eq!(world.run(&["get"]).await, "2");
}

#[tokio::test]
async fn a_newer_state_that_the_turns_do_not_make_must_be_accepted() {
    let world = world_of(Durability::Journal).await;
    world.run(&["drift", "checkpoint", "add 1"]).await;
    world.break_it().await;
    let refused = world.refused(from(1)).await;
    assert_eq!(refused.ways, [FROM_NEWEST, accepting_from(1)]);
    let recovered = world.recover(accepting_from(1)).await.unwrap();
    assert!(matches!(recovered.outcome, RecoverOutcome::Repaired { .. }), "{recovered:?}");
    assert_eq!(world.whole().await.check(), Ok(()));
}

#[tokio::test]
async fn a_revision_without_snapshot_is_refused_with_those_that_have_one() {
    let world = world_of(Durability::Journal).await;
    world.run(&["add 1", "add 1"]).await;
    world.break_it().await;
    for recovery in [from(2), accepting_from(2), from(99)] {
        let refused = world.refused(recovery).await;
        assert!(refused.what.contains("there is 1"), "{refused:?}");
        assert_eq!(refused.ways, [FROM_NEWEST]);
    }
}

#[tokio::test]
async fn who_is_not_the_owner_recovers_nothing() {
    let world = world_of(Durability::Journal).await;
    world.run(&["drift"]).await;
    world.break_it().await;
    let mut grant = world.grant().await;
    grant.lease.token = FencingToken(grant.lease.token.0 - 1);
    for recovery in [FROM_NEWEST, ACCEPTING] {
        let recovered = recover(&world.env, &grant.lease, grant.guard.clone(), recovery).await;
        let is_fenced = matches!(recovered, Err(RecoverError::Store(StoreError::Fenced { .. })));
        assert!(is_fenced, "{recovered:?}");
    }
    assert!(matches!(world.row().await.lifecycle, Lifecycle::Broken(_)));
}
