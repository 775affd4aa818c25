//! Loading and starting, with real components.

use std::sync::Barrier;

use godwit_core::lease::{LeaseGuard, SessionLease};

use super::*;
use crate::testing::{TestEngine, ask, component, encode, fault_of, request, test_config, turn};

#[test]
fn a_component_is_compiled_once_and_found_after_a_restart() {
    let test = TestEngine::new();
    let bytes = component("counter");
    let digest = Digest::of(&bytes);
    assert!(!test.engine.is_loaded(digest));
    let loaded = test.engine.load(&bytes).expect("the counter loads");
    assert_eq!(loaded.digest, digest);
    assert_eq!(loaded.name.as_deref(), Some("counter"));
    assert!(loaded.imports.is_sorted() && !loaded.imports.is_empty());
    assert!(test.engine.is_loaded(digest));
    assert_eq!(test.engine.load(&bytes).expect("again"), loaded);

    let TestEngine { engine, cache } = test;
    drop(engine);
    let engine = Engine::new(test_config(&cache)).expect("an engine");
    assert!(engine.is_loaded(digest), "from the cache");
    let mut guest = engine.start(request(digest)).expect("without the bytes");
    guest.init(&turn(0)).expect("it runs");
}

#[test]
fn damaged_code_is_compiled_again_and_never_run() {
    let test = TestEngine::new();
    let bytes = component("test/bare");
    let digest = test.load("test/bare");
    let path = test.engine.cache.path(digest);
    let TestEngine { engine, cache } = test;
    drop(engine);
    let mut code = std::fs::read(&path).expect("it was kept");
    let middle = code.len() / 2;
    code[middle] ^= 1;
    std::fs::write(&path, code).expect("it is written");

    let engine = Engine::new(test_config(&cache)).expect("an engine");
    assert!(!engine.is_loaded(digest));
    let message = fault_of(engine.start(request(digest)).map(drop));
    assert_eq!(message.0, FaultKind::Start);
    engine.load(&bytes).expect("it is compiled again");
    assert!(path.exists() && engine.is_loaded(digest));
}

#[test]
fn loads_of_one_component_at_the_same_time_compile_it_once() {
    let test = TestEngine::new();
    let bytes = component("test/bare");
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                together.wait();
                test.engine.load(&bytes).expect("it loads");
            });
        }
    });
    let written = std::fs::read_dir(test.cache.path().join("code")).expect("the cache").count();
    assert_eq!(written, 1, "one file and nothing partial");
    assert_eq!(lock(&test.engine.plugins).len(), 1);
}

#[test]
fn what_can_not_be_loaded_leaves_nothing() {
    let test = TestEngine::new();
    for name in ["test/fs", "test/other-world"] {
        let bytes = component(name);
        let error = test.engine.load(&bytes).expect_err(name);
        assert!(!error.problems.is_empty());
        assert!(!test.engine.is_loaded(Digest::of(&bytes)));
    }
    assert!(lock(&test.engine.plugins).is_empty());
    assert_eq!(std::fs::read_dir(test.cache.path().join("code")).expect("the cache").count(), 0);
}

/// What the names on the outside don't tell, compiling or linking does.
#[test]
fn what_is_wrong_inside_is_found_by_compiling_and_linking() {
    let test = TestEngine::new();
    let mut damaged = component("test/bare");
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let shell = encode(&["wasi:io/poll@0.2.0"], &["godwit:agent/guest@0.1.0"], &[]);
    for (bytes, says) in [(damaged, "compiled"), (shell, "does not fit the contract")] {
        let error = test.engine.load(&bytes).expect_err(says);
        assert_eq!(error.problems.len(), 1, "{error}");
        assert!(error.problems[0].contains(says), "{error}");
        assert!(lock(&test.engine.plugins).is_empty());
    }
}

#[test]
fn nobody_starts_without_a_lease_or_a_plugin() {
    let test = TestEngine::new();
    let digest = test.load("test/bare");
    let (kind, text) = fault_of(test.engine.start(request(Digest::ZERO)).map(drop));
    assert_eq!(kind, FaultKind::Start);
    assert!(text.contains("not loaded"), "{text}");
    let guard = LeaseGuard::new(SessionLease::unlimited(), Default::default());
    guard.lose();
    let fenced = test.engine.start(GuestRequest { guard, ..request(digest) });
    assert_eq!(fenced.map(drop), Err(GuestError::Fenced));
}

#[test]
fn a_pool_that_is_full_refuses_and_recovers() {
    let test = TestEngine::new();
    let digest = test.load("test/bare");
    let mut guests: Vec<_> = (0..8).map(|_| test.start(request(digest))).collect();
    let mut ninth = test.engine.start(request(digest)).expect("instantiation waits for the first call");
    let (kind, text) = fault_of(ninth.init(&turn(0)));
    assert_eq!(kind, FaultKind::Start);
    assert!(text.contains("no room"), "{text}");
    drop(guests.pop());
    let mut next = test.start(request(digest));
    assert_eq!(ask(next.as_mut(), "5").as_deref(), Ok("5"));
}
