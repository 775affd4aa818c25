//! Tests of the chain check.

use godwit_core::id::{HostId, Incarnation, RunId, SpecRevision};
use godwit_core::receipt::BoundaryKind;

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
                parent,
                elapsed_us: 1,
                fuel: None,
                committed_at_ms: revision,
            };
            parent = receipt.digest();
            receipt
        })
        .collect()
}

fn check(receipts: &[Receipt], head: Digest, expected: &[&str]) {
    let mut check = ChainCheck::new(AgentId::parse("a").unwrap(), Generation(1));
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

    let mut lower = good.clone();
    lower[3].token = FencingToken(1);
    check(&lower, lower[3].digest(), &["lower than 2"]);

    check(&good[..3], good[2].digest(), &["last receipt at 3"]);
}
