//! Tests of the two ways to name a peer.

use serde_json::from_value;

use super::*;

#[test]
fn a_peer_is_given_in_one_of_two_ways() {
    let key = "ab".repeat(32);
    let expected = (HostId([0xab; 32]), SocketAddr::from(([127, 0, 0, 1], 7)));
    for given in
        [json!({"key": key, "address": "127.0.0.1:7"}), json!({"peer": format!("{key}@127.0.0.1:7")})]
    {
        let parsed = from_value::<NewPeerJson>(given.clone()).expect("the right shape").parse();
        assert_eq!(parsed.expect("a peer"), expected, "{given}");
    }
    for bad in [
        json!({}),
        json!({"key": key}),
        json!({"address": "127.0.0.1:7"}),
        json!({"key": "00", "address": "127.0.0.1:7"}),
        json!({"peer": key}),
        json!({"peer": format!("{key}@127.0.0.1:7"), "key": key}),
    ] {
        let parsed = from_value::<NewPeerJson>(bad.clone()).expect("the right shape").parse();
        assert_eq!(parsed.expect_err("no peer").code(), Code::Malformed, "{bad}");
    }
}
