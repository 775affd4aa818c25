//! The decoder reads a receipt that was written down by hand, and refuses less than one.

use super::*;

fn written() -> Vec<u8> {
    let mut bytes = vec![1, b'a'];
    bytes.extend([1, 0xac, 0x02]); // generation 1, revision 300
    bytes.extend([7; 16]); // run
    bytes.extend([0, 1]); // sequence, kind
    bytes.push(2);
    bytes.extend([0xab; 16]);
    bytes.extend([0xcd; 16]);
    bytes.push(9); // token
    bytes.extend([3; 32]); // host
    bytes.push(4); // incarnation
    bytes.extend([5; 32]); // plugin
    bytes.push(1); // spec revision
    bytes.extend([6; 32]); // effects
    bytes.push(1);
    bytes.extend([8; 32]); // state
    bytes.push(0); // journal
    bytes.extend([9; 32]); // parent
    bytes.extend([1, 0, 2]); // elapsed, fuel, time
    bytes.push(0); // from
    bytes
}

#[test]
fn a_receipt_is_read() {
    let body = ReceiptBody::decode(&written()).unwrap();
    let expected = ReceiptBody {
        agent: "a".into(),
        generation: 1,
        revision: 300,
        kind: 1,
        inputs: vec!["ab".repeat(16), "cd".repeat(16)],
        token: 9,
        host: [3; 32],
        incarnation: 4,
        has_state: true,
        parent: [9; 32],
        has_from: false,
    };
    assert_eq!(body, expected);
}

#[test]
fn a_cut_receipt_is_refused() {
    let whole = written();
    for length in [0, 1, 10, 60, whole.len() - 4] {
        assert!(ReceiptBody::decode(&whole[..length]).is_err(), "{length} bytes were enough");
    }
}
