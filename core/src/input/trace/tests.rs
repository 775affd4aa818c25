//! Tests of what counts as a `traceparent`.

use super::*;

#[test]
fn only_the_w3c_form_is_taken() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(TraceParent::parse(good).unwrap().as_str(), good);
    let bad = [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
    ];
    for text in bad {
        assert_eq!(TraceParent::parse(text), Err(TraceParentError), "{text:?}");
    }
    let stored = postcard::to_stdvec(&TraceParent::parse(good).unwrap()).unwrap();
    assert_eq!(postcard::from_bytes::<TraceParent>(&stored).unwrap().as_str(), good);
    let forged = postcard::to_stdvec("nonsense").unwrap();
    assert!(postcard::from_bytes::<TraceParent>(&forged).is_err(), "what is stored is checked again");
}
