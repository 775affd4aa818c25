//! What hostile programs do with WASI, without a program.

use wasmtime_wasi::p2::bindings::sync::io::poll::{Host as _, HostPollable as _};
use wasmtime_wasi::p2::bindings::sync::io::streams::HostOutputStream as _;

use super::*;
use crate::context::Phase;
use crate::limits::STREAM_WRITE_BYTES_MAX;
use crate::testing::{NOW_MS, request, turn};

fn context() -> GuestContext {
    let mut context = GuestContext::new(request(Default::default()), &turn(1));
    context.begin_call(Phase::Handle, &turn(1));
    context
}

fn stop_of<T: std::fmt::Debug>(result: wasmtime::Result<T>) -> Stop {
    let error = result.expect_err("it must end the call");
    error.downcast_ref::<Stop>().expect("on purpose").clone()
}

#[test]
fn waiting_is_a_fault_and_asking_is_none() {
    use clocks::monotonic_clock::Host;
    let mut context = context();
    let now = Host::now(&mut context).expect("a time");
    assert_eq!(now, NOW_MS * NANOS_PER_MS);
    let mut subscribe = |when| context.subscribe_instant(when).expect("a pollable").rep();
    assert_eq!((subscribe(now), subscribe(0), subscribe(now + 1)), (READY, READY, PENDING));
    let pollables = |reps: &[u32]| reps.iter().map(|rep| Resource::new_borrow(*rep)).collect::<Vec<_>>();
    assert_eq!(context.poll(pollables(&[PENDING, READY, READY])).expect("two are ready"), [1, 2]);
    assert_eq!(stop_of(context.poll(pollables(&[PENDING]))), Stop::Blocked { what: "poll" });
    assert_eq!(stop_of(context.poll(Vec::new())), Stop::Blocked { what: "poll" });
    assert!(!context.ready(Resource::new_borrow(PENDING)).expect("an answer"));
    context.block(Resource::new_borrow(READY)).expect("it does not wait");
    let blocked = stop_of(context.block(Resource::new_borrow(PENDING)));
    assert_eq!(blocked, Stop::Blocked { what: "pollable.block" });
}

#[test]
fn bytes_have_limits_in_both_directions() {
    let mut context = context();
    assert_eq!(context.random_bytes(RANDOM_BYTES_MAX).expect("within the limit").len(), 65_536);
    for count in [RANDOM_BYTES_MAX + 1, u64::MAX] {
        assert!(matches!(stop_of(context.random_bytes(count)), Stop::Misuse { .. }));
    }
    let mut write = |count| context.write_zeroes(Resource::new_borrow(streams::STDOUT), count);
    assert!(write(STREAM_WRITE_BYTES_MAX).is_ok());
    for count in [STREAM_WRITE_BYTES_MAX + 1, u64::MAX] {
        assert!(matches!(write(count), Err(wasmtime_wasi::p2::StreamError::Trap(_))));
    }
}
