//! Tests of hints: taken once, kept until they are taken, nothing left behind.

use super::*;

#[tokio::test]
async fn a_boundary_wakes_those_who_wait_for_its_agent() {
    let watched = Arc::new(Watched::default());
    let (one, other) = (AgentId::parse("one").unwrap(), AgentId::parse("other").unwrap());
    let mut first = watched.watch(&one);
    let mut second = watched.watch(&one);
    let mut third = watched.watch(&other);
    watched.committed(&one);
    first.committed().await;
    // One that came before the wait is not lost, and one before a rest is forgotten.
    second.rest();
    assert!(futures::FutureExt::now_or_never(second.committed()).is_none());
    assert!(futures::FutureExt::now_or_never(third.committed()).is_none());
    watched.committed(&one);
    assert!(futures::FutureExt::now_or_never(second.committed()).is_some());
    drop((first, second));
    assert_eq!(watched.lock().keys().collect::<Vec<_>>(), [&other]);
    drop(third);
    assert!(watched.lock().is_empty());
    assert_eq!(watched.watches.load(Ordering::SeqCst), 0);
    watched.committed(&one);
}
