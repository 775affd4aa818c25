//! Outputs of a turn that ask for a reply, without a guest.

use std::sync::Arc;

use godwit_core::guest::GuestRequest;
use godwit_core::limits::TIMERS_MAX;

use super::*;
use crate::bindings::godwit::agent::outbox::Host;
use crate::bindings::godwit::agent::types::PeerKind;
use crate::context::Phase;
use crate::testing::{Rows, request, turn};

fn context(waiting: usize) -> GuestContext {
    let rows = Rows { timers: (0..waiting).map(|number| number.to_string()).collect(), ..Rows::default() };
    let request = GuestRequest { state: Arc::new(rows), ..request(Default::default()) };
    let mut context = GuestContext::new(request, &turn(1));
    context.begin_call(Phase::Handle, &turn(1));
    context
}

fn options(timeout_ms: Option<u64>, correlation: Option<&str>) -> SendOptions {
    SendOptions {
        kind: PeerKind::Request("i".into()),
        content_type: String::new(),
        headers: Vec::new(),
        correlation: correlation.map(str::to_owned),
        expects_reply: timeout_ms.map(|timeout_ms| ReplyExpectation { timeout_ms }),
    }
}

fn send(context: &mut GuestContext, to: &str, options: SendOptions) -> Result<String, SendError> {
    context.send(to.into(), b"hello".to_vec(), options).expect("no trap")
}

#[test]
fn a_request_carries_its_id_and_sets_the_timer_that_ends_it() {
    let mut context = context(0);
    let id = send(&mut context, "b", options(Some(500), None)).expect("sent");
    let plain = send(&mut context, "b", options(None, Some("mine"))).expect("sent");
    assert_ne!(id, plain);
    let effects = std::mem::take(&mut context.effects).finish(Vec::new(), Default::default()).expect("whole");
    let sent: Vec<_> = effects.outputs.iter().map(|sent| (sent.correlation.as_deref(), sent.reply)).collect();
    assert_eq!(sent, [(Some(id.as_str()), ReplyRole::Expected), (Some("mine"), ReplyRole::None)]);
    let at_ms = turn(1).now_ms + 500;
    let watch = NewTimer { at_ms, payload: Bytes::new() };
    assert_eq!(effects.timers, [(reply::timer_name(&id), Some(watch))]);
}

#[test]
fn a_request_that_can_not_be_sent_leaves_no_timer() {
    let cases = [
        (0, "b", options(Some(0), None), "Unsupported"),
        (0, "b", options(Some(REPLY_TIMEOUT_MS_MAX + 1), None), "Unsupported"),
        (0, "b", options(Some(1), Some("mine")), "Unsupported"),
        (0, "not an id", options(Some(1), None), "BadAgentId"),
        (TIMERS_MAX, "b", options(Some(1), None), "Quota"),
    ];
    for (waiting, to, options, expected) in cases {
        let mut context = context(waiting);
        let refused = send(&mut context, to, options).expect_err(expected);
        assert!(format!("{refused:?}").contains(expected), "{refused:?} is not {expected}");
        let effects = std::mem::take(&mut context.effects);
        let effects = effects.finish(Vec::new(), Default::default()).expect("whole");
        assert_eq!((effects.outputs.len(), effects.timers.len()), (0, 0), "{expected}");
    }
}
