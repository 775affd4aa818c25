//! Tests of checkpoints.

use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::id::{Incarnation, RunId, SpecRevision};
use crate::receipt::BoundaryKind;

fn chain(length: u64) -> Vec<Receipt> {
    let mut parent = Digest::ZERO;
    let next = |revision| {
        let receipt = Receipt {
            agent: AgentId::parse("a").unwrap(),
            generation: Generation(1),
            revision: Revision(revision),
            run: RunId([0; 16]),
            sequence: 0,
            kind: BoundaryKind::Turn,
            inputs: vec![InputId([revision as u8; 16])],
            token: FencingToken(revision),
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
    };
    (1..=length).map(next).collect()
}

fn checkpoint(receipts: &[Receipt]) -> Checkpoint {
    let mut checkpoint = Checkpoint::start(&receipts[0].agent, Generation(1));
    receipts.iter().for_each(|receipt| checkpoint.push(receipt).unwrap());
    checkpoint
}

#[test]
fn only_the_next_receipt_is_taken_in() {
    let receipts = chain(4);
    let mut taken = checkpoint(&receipts[..2]);
    assert_eq!((taken.revision, taken.head, taken.inputs), (Revision(2), receipts[1].digest(), 2));
    let before = taken.clone();
    for wrong in [&receipts[0], &receipts[1], &receipts[3]] {
        assert!(taken.push(wrong).is_err());
    }
    let lower = Receipt { token: FencingToken(1), ..receipts[2].clone() };
    let another = Receipt { generation: Generation(2), ..receipts[2].clone() };
    for wrong in [&lower, &another] {
        assert!(taken.push(wrong).is_err());
    }
    assert_eq!(taken, before);
    taken.push(&receipts[2]).unwrap();
    assert_eq!(taken, checkpoint(&receipts[..3]), "in one go or in steps, the same");
}

#[test]
fn every_change_breaks_the_signature() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let host = HostId(key.verifying_key().to_bytes());
    let signed = checkpoint(&chain(3)).sign(host, |bytes| key.sign(bytes).to_bytes());
    assert!(signed.is_signed());
    let bytes = postcard::to_stdvec(&signed).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        if let Ok((read, [])) = postcard::take_from_bytes::<ReceiptCheckpoint>(&flipped) {
            assert!(!read.is_signed(), "byte {at}");
        }
    }
    let other = HostId(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
    assert!(!ReceiptCheckpoint { host: other, ..signed.clone() }.is_signed());
    assert!(!ReceiptCheckpoint { signature: Vec::new(), ..signed }.is_signed());
}
