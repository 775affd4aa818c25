//! Operations of a turn, without a guest.

use std::sync::Arc;

use godwit_core::guest::GuestRequest;

use super::*;
use crate::bindings::godwit::agent::operations::Host;
use crate::context::Phase;
use crate::testing::{Rows, request, turn};

const GRANT: &str = "operations.http:api.example.com:443";

fn context(active: usize, phase: Phase) -> GuestContext {
    let number = |number| OperationId([u8::try_from(number).expect("few"); 16]);
    let rows = Rows { operations: (0..active).map(number).collect(), ..Rows::default() };
    let grants = Arc::new([GRANT.to_owned()]);
    let request = GuestRequest { state: Arc::new(rows), grants, ..request(Default::default()) };
    let mut context = GuestContext::new(request, &turn(1));
    context.begin_call(phase, &turn(1));
    context
}

fn http(url: &str) -> operations::Request {
    operations::Request::Http(operations::HttpRequest {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: 1_000,
        class: operations::Class::AtLeastOnce,
    })
}

fn start(context: &mut GuestContext, url: &str) -> Result<String, OperationError> {
    context.start(http(url)).expect("the store answers")
}

const GOOD: &str = "https://api.example.com/";

#[test]
fn ids_are_the_same_at_each_attempt_and_differ_within_a_turn() {
    let ids = |context: &mut GuestContext| [0, 1].map(|_| start(context, GOOD).expect("it is granted"));
    let first = ids(&mut context(0, Phase::Handle));
    assert_eq!(first, ids(&mut context(3, Phase::Handle)), "nor by what else is active");
    assert_ne!(first[0], first[1]);
}

#[test]
fn what_is_not_granted_is_refused() {
    let cases = [
        (GOOD, "ok"),
        ("https://api.example.com:444/", "NotGranted"),
        ("http://api.example.com/", "NotGranted"),
        ("https://example.com/", "NotGranted"),
        ("https://api.example.com@evil.example/", "InvalidRequest"),
        ("https://API.example.com/", "InvalidRequest"),
    ];
    for (url, expected) in cases {
        let mut context = context(0, Phase::Handle);
        let answer = match start(&mut context, url) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert!(answer.contains(expected), "{url}: {answer}");
        assert_eq!(context.effects.started().count(), usize::from(expected == "ok"), "{url}");
    }
    let mut nothing = context(0, Phase::Handle);
    nothing.grants = Arc::new([]);
    assert!(matches!(start(&mut nothing, GOOD), Err(OperationError::NotGranted)));
}

#[test]
fn an_agent_has_so_many_operations_and_no_more() {
    let mut context = context(OPERATIONS_MAX - 2, Phase::Handle);
    start(&mut context, GOOD).expect("there is room");
    let last = start(&mut context, GOOD).expect("there is room");
    assert!(matches!(start(&mut context, GOOD), Err(OperationError::Quota)));
    let active = context.list_active().expect("the store answers").expect("it is a turn");
    assert_eq!((active.len(), active.last()), (OPERATIONS_MAX, Some(&last)));
}

#[test]
fn a_cancel_is_noted_in_order() {
    let mut context = context(1, Phase::Handle);
    let id = start(&mut context, GOOD).expect("it is granted");
    context.cancel(id.clone()).expect("no trap").expect("noted");
    assert!(matches!(context.cancel("x".into()).expect("no trap"), Err(OperationError::InvalidRequest(_))));
    let effects = std::mem::take(&mut context.effects);
    let changes = effects.finish(Vec::new(), Default::default()).expect("within the limits").operations;
    assert!(matches!(&changes[1], OperationChange::Cancel(cancelled) if cancelled.to_string() == id));
    assert_eq!(changes.len(), 2);
}

#[test]
fn outside_a_turn_nothing_starts() {
    for phase in [Phase::Start, Phase::Snapshot, Phase::Restore] {
        let mut context = context(0, phase);
        assert!(matches!(start(&mut context, GOOD), Err(OperationError::NotInTurn)));
        assert!(matches!(context.cancel("x".into()).expect("no trap"), Err(OperationError::NotInTurn)));
        assert!(matches!(context.list_active().expect("no trap"), Err(OperationError::NotInTurn)));
    }
}

#[test]
fn a_secret_is_named_in_a_header_by_those_who_have_the_grant() {
    let cases = [
        ("Bearer {{secret:key}}", "ok"),
        ("{{secret:key}}:{{secret:key}}", "ok"),
        ("{{secret:other}}", "NotGranted"),
        ("{{secret:key}} {{secret:other}}", "NotGranted"),
        ("{{secret:Key}}", "InvalidRequest"),
        ("{{secret:key", "InvalidRequest"),
        ("{{key}}", "InvalidRequest"),
    ];
    for (value, expected) in cases {
        let mut context = context(0, Phase::Handle);
        context.grants = Arc::new([GRANT.to_owned(), "secrets.key".to_owned()]);
        let operations::Request::Http(mut request) = http(GOOD);
        request.headers = vec![("authorization".into(), value.into())];
        let answer = context.start(operations::Request::Http(request)).expect("the store answers");
        let answer = answer.map_or_else(|error| format!("{error:?}"), |_| "ok".to_owned());
        assert!(answer.contains(expected), "{value}: {answer}");
    }
}
