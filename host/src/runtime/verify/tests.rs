//! Tests of the chain check.

use ed25519_dalek::{Signer, SigningKey};
use godwit_core::id::{Incarnation, RunId};

use super::*;

fn chain(length: u64) -> Vec<Receipt> {
    let mut parent = Digest::ZERO;
    (1..=length)
        .map(|revision| {
            let receipt = Receipt {
                agent: AgentId::parse("a").unwrap(),
                generation: Generation(1),
                revision: Revision(revision),
                run: RunId([0; 16]),
                sequence: 0,
                kind: BoundaryKind::Turn,
                inputs: vec![InputId([revision as u8; 16])],
                token: FencingToken(revision.div_ceil(2)),
                host: HostId([1; 32]),
                incarnation: Incarnation(1),
                plugin: Digest::ZERO,
                spec_revision: SpecRevision(1),
                effects: Digest::ZERO,
                state: None,
                journal: None,
                parent,
                elapsed_us: 1,
                fuel: None,
                committed_at_ms: revision,
                from: None,
            };
            parent = receipt.digest();
            receipt
        })
        .collect()
}

/// Makes the chain whole again after a change.
fn relink(receipts: &mut [Receipt]) {
    let mut parent = Digest::ZERO;
    for receipt in receipts {
        receipt.parent = parent;
        parent = receipt.digest();
    }
}

fn check(receipts: &[Receipt], head: Digest, expected: &[&str]) {
    check_behind(None, receipts, head, expected);
}

fn check_behind(
    checkpoint: Option<&ReceiptCheckpoint>,
    receipts: &[Receipt],
    head: Digest,
    expected: &[&str],
) {
    let mut check = HistoryCheck::new(AgentId::parse("a").unwrap());
    check.begin(Generation(1), checkpoint);
    receipts.iter().for_each(|receipt| check.push(receipt));
    let report = check.finish(Revision(4), head, FencingToken(2));
    let found: Vec<_> = report.breaks.iter().map(String::as_str).collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} lacks {expected:?}");
    }
}

#[test]
fn a_whole_chain_passes_and_each_damage_is_named() {
    let good = chain(4);
    let head = good[3].digest();
    check(&good, head, &[]);

    let mut altered = good.clone();
    altered[1].elapsed_us += 1;
    check(&altered, head, &["receipt 2 is damaged"]);

    let mut last = good.clone();
    last[3].elapsed_us += 1;
    check(&last, head, &["receipt 4 is damaged"]);

    let gap = [&good[..1], &good[2..]].concat();
    check(&gap, head, &["receipt 2 is missing"]);

    let mut doubled = good.clone();
    doubled[3].inputs = doubled[0].inputs.clone();
    check(&doubled, doubled[3].digest(), &["named by receipts 1 and 4"]);

    let mut redriven = doubled.clone();
    redriven[0].kind = BoundaryKind::DeadLetter;
    relink(&mut redriven);
    check(&redriven, redriven[3].digest(), &[]);
    redriven[3].kind = BoundaryKind::DeadLetter;
    check(&redriven, redriven[3].digest(), &[]);
    redriven[0].kind = BoundaryKind::Turn;
    relink(&mut redriven);
    check(&redriven, redriven[3].digest(), &["named by receipts 1 and 4"]);

    let mut lower = good.clone();
    lower[3].token = FencingToken(1);
    check(&lower, lower[3].digest(), &["lower than 2"]);

    check(&good[..3], good[2].digest(), &["last receipt at 3"]);
}

/// A checkpoint that stands for these receipts.
fn signed(receipts: &[Receipt]) -> ReceiptCheckpoint {
    let mut checkpoint = Checkpoint::start(&receipts[0].agent, Generation(1));
    receipts.iter().for_each(|receipt| checkpoint.push(receipt).unwrap());
    let key = SigningKey::from_bytes(&[7; 32]);
    let host = HostId(key.verifying_key().to_bytes());
    checkpoint.sign(host, |bytes| key.sign(bytes).to_bytes())
}

#[test]
fn a_history_goes_on_from_a_checkpoint_that_is_signed_and_fits() {
    let good = chain(4);
    let head = good[3].digest();
    let checkpoint = signed(&good[..2]);
    check_behind(Some(&checkpoint), &good[2..], head, &[]);
    check_behind(Some(&checkpoint), &good[3..], head, &["receipt 3 is missing"]);

    let mut forged = checkpoint.clone();
    forged.checkpoint.inputs += 1;
    check_behind(Some(&forged), &good[2..], head, &["has not signed it"]);

    let mut other = good[..2].to_vec();
    other[1].elapsed_us += 1;
    check_behind(Some(&signed(&other)), &good[2..], head, &["receipt 2 is damaged"]);

    let mut check = HistoryCheck::new(good[0].agent.clone());
    check.begin(Generation(1), Some(&checkpoint));
    good[2..].iter().for_each(|receipt| check.push(receipt));
    assert!(check.is_accounted(InputId([1; 16]), Revision(1)), "the checkpoint stands for it");
    assert!(check.is_accounted(InputId([3; 16]), Revision(3)));
    assert!(!check.is_accounted(InputId([3; 16]), Revision(4)));
    assert!(!check.is_accounted(InputId([9; 16]), Revision(3)));
    let report = check.finish(Revision(4), head, FencingToken(2));
    assert_eq!((report.receipts, report.checkpointed, report.signers), (2, 2, vec![checkpoint.host]));
}

#[test]
fn every_generation_is_a_chain_of_its_own_and_an_input_runs_in_one_of_them() {
    let first = chain(2);
    let mut second = chain(3);
    let mut parent = Digest::ZERO;
    for receipt in &mut second {
        (receipt.generation, receipt.token) = (Generation(2), FencingToken(5));
        receipt.inputs = vec![InputId([receipt.revision.0 as u8 + 10; 16])];
        receipt.parent = parent;
        parent = receipt.digest();
    }
    let head = second[2].digest();
    let run = |second: &[Receipt], head| {
        let mut check = HistoryCheck::new(first[0].agent.clone());
        check.begin(Generation(1), None);
        first.iter().for_each(|receipt| check.push(receipt));
        check.begin(Generation(2), None);
        second.iter().for_each(|receipt| check.push(receipt));
        check.finish(Revision(3), head, FencingToken(5)).breaks
    };
    assert_eq!(run(&second, head), Vec::<String>::new());
    let mut twice = second.clone();
    twice[2].inputs = first[0].inputs.clone();
    let found = run(&twice, twice[2].digest());
    assert!(found[0].contains("receipts 1 of generation 1 and 3"), "{found:?}");
}

#[test]
fn code_changes_at_an_upgrade_only() {
    let mut good = chain(4);
    for receipt in &mut good[2..] {
        receipt.plugin = Digest([9; 32]);
        receipt.spec_revision = SpecRevision(2);
    }
    good[2].kind = BoundaryKind::Upgrade;
    let relink = |receipts: &mut Vec<Receipt>| {
        for index in 1..receipts.len() {
            receipts[index].parent = receipts[index - 1].digest();
        }
        receipts[3].digest()
    };
    let head = relink(&mut good);
    check(&good, head, &[]);
    let mut silent = good.clone();
    silent[2].kind = BoundaryKind::Turn;
    let head = relink(&mut silent);
    check(&silent, head, &["another plugin without an upgrade"]);
    let mut older = good;
    older[3].spec_revision = SpecRevision(1);
    let head = relink(&mut older);
    check(&older, head, &["an older spec"]);
}

#[test]
fn a_repair_is_counted_and_says_what_it_took() {
    let repaired = |alter: fn(&mut Receipt)| {
        let mut receipts = chain(4);
        let repair = &mut receipts[2];
        (repair.kind, repair.from, repair.state) =
            (BoundaryKind::Repair, Some(Digest([1; 32])), Some(Digest([2; 32])));
        repair.inputs.clear();
        alter(repair);
        for index in 1..receipts.len() {
            receipts[index].parent = receipts[index - 1].digest();
        }
        let head = receipts[3].digest();
        (receipts, head)
    };
    let (good, head) = repaired(|_| {});
    check(&good, head, &[]);
    let wrong: [fn(&mut Receipt); 3] = [
        |repair| repair.from = None,
        |repair| repair.state = None,
        |repair| repair.inputs.push(InputId([9; 16])),
    ];
    for alter in wrong {
        let (silent, head) = repaired(alter);
        check(&silent, head, &["repair 3 names no state"]);
    }
    let (other, head) = repaired(|repair| repair.plugin = Digest([9; 32]));
    check(&other, head, &["receipt 3 ran another plugin", "receipt 4 ran another plugin"]);
}
