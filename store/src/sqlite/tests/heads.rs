//! A group does what its jobs would do one by one, though rows of agents are kept between them.

use std::collections::BTreeMap;

use futures::future::join_all;
use godwit_core::id::{AgentId, Incarnation, InputId};
use godwit_core::input::{AbandonReason, InputState, NewInput};
use godwit_core::store::{Owner, Page, RuntimeStore, Unit};

use super::fixture::{Desk, Place, create, join, message};
use crate::sqlite::{SqliteMode, SqliteStore};

const AGENTS: usize = 3;
const GROUPS: usize = 60;

/// SplitMix64: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One write, of the kinds that share rows and of those that don't.
#[derive(Clone)]
enum Op {
    Accept(Box<NewInput>),
    Unit(Unit),
    Labels(AgentId, u64),
    Abandon(AgentId, InputId),
    Release(Owner),
}

async fn apply(store: &SqliteStore, by: Incarnation, op: Op) -> String {
    match op {
        Op::Accept(input) => format!("{:?}", store.accept(*input, by).await),
        Op::Unit(unit) => format!("{:?}", store.commit_turns(unit).await),
        Op::Labels(agent, value) => {
            let labels = BTreeMap::from([("l".to_owned(), value.to_string())]);
            format!("{:?}", store.set_labels(&agent, labels).await)
        }
        Op::Abandon(agent, input) => {
            let cancelled = AbandonReason::Cancelled;
            format!("{:?}", store.abandon(&agent, input, InputState::Queued, cancelled).await)
        }
        Op::Release(owner) => format!("{:?}", store.release(&owner).await),
    }
}

/// Writes that mostly succeed; the desks advance as if all did.
fn next_ops(dice: &mut Dice, desks: &mut [Desk], sent: &mut Vec<NewInput>) -> Vec<Op> {
    let count = 1 + dice.below(23);
    let ops = (0..count).map(|_| {
        let desk = &mut desks[dice.below(AGENTS)];
        let agent = desk.owner.agent.clone();
        match dice.below(40) {
            0 if !sent.is_empty() => Op::Accept(Box::new(sent[dice.below(sent.len())].clone())),
            1 if !sent.is_empty() => {
                let mut reused = sent[dice.below(sent.len())].clone();
                reused.input.payload = b"another body".as_slice().into();
                Op::Accept(Box::new(reused))
            }
            2 => Op::Labels(agent, dice.next()),
            3 if !sent.is_empty() => {
                let input = &sent[dice.below(sent.len())];
                Op::Abandon(input.agent.clone(), input.input.id)
            }
            4 if dice.below(4) == 0 => Op::Release(desk.owner.clone()),
            5..20 => {
                let input = message(&agent, b"sent");
                desk.next_seq = desk.next_seq.next();
                sent.push(input.clone());
                Op::Accept(Box::new(input))
            }
            _ => Op::Unit(desk.ask(message(&agent, b"ask"), &dice.next().to_le_bytes())),
        }
    });
    ops.collect()
}

/// All that the store shows of the agents.
async fn shown(store: &SqliteStore, desks: &[Desk]) -> Vec<String> {
    let mut shown = Vec::new();
    for desk in desks {
        let agent = &desk.owner.agent;
        // But for how many change numbers that took.
        let mut image = store.image(agent, None).await.unwrap().unwrap();
        image.row.change = 0;
        shown.push(format!("{image:?}"));
        shown.push(format!("{:?}", store.inputs(agent, None, Page { after: 0, limit: 2_000 }).await));
    }
    shown
}

async fn desks(store: &SqliteStore) -> Vec<Desk> {
    let by = join(store, 1).await;
    let mut desks = Vec::new();
    for number in 0..AGENTS {
        let agent = create(store, &format!("a{number}")).await;
        desks.push(Desk::take(store, by, &agent).await);
    }
    desks
}

/// Every desk where its agent is, whatever has succeeded.
async fn settle(store: &SqliteStore, desks: &mut [Desk]) {
    for desk in desks {
        let (agent, by) = (desk.owner.agent.clone(), desk.owner.incarnation);
        *desk = Desk::take(store, by, &agent).await;
    }
}

#[tokio::test]
async fn a_group_does_what_its_writes_do_one_by_one() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let (places, mode) = ([Place::new(), Place::new()], SqliteMode::Exclusive);
        let [grouped, plain] = places.each_ref().map(|place| place.open(mode));
        let mut ours = desks(&grouped).await;
        let mut theirs = desks(&plain).await;
        let by = ours[0].owner.incarnation;
        let mut sent = Vec::new();
        for group in 0..GROUPS {
            let ops = next_ops(&mut dice, &mut ours, &mut sent);
            let held = loop {
                // It may be at its own work still.
                match grouped.shared.idle_writer() {
                    Some(held) => break held,
                    None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                }
            };
            let mut waiting = join_all(ops.iter().map(|op| apply(&grouped, by, op.clone())));
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(held);
            let answers = waiting.await;
            for (place, op) in ops.into_iter().enumerate() {
                let alone = apply(&plain, by, op).await;
                assert_eq!(answers[place], alone, "seed {seed}, group {group}, write {place}");
            }
            settle(&grouped, &mut ours).await;
            settle(&plain, &mut theirs).await;
            assert_eq!(
                shown(&grouped, &ours).await,
                shown(&plain, &theirs).await,
                "seed {seed}, group {group}"
            );
        }
    }
}
