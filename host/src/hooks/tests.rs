//! Tests of the queue in front of hooks.

use godwit_core::time::sleep;
use tokio::sync::{Notify, Semaphore};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn id(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

fn failed(reason: &str) -> ErrorEvent {
    ErrorEvent::HostFailed { reason: reason.to_owned() }
}

/// Does what the reason of an error says, and remembers it.
#[derive(Default)]
struct Told {
    heard: Mutex<Vec<String>>,
    /// Told when a call has begun.
    began: Notify,
    /// What `wait` waits for.
    gate: Option<Semaphore>,
}

impl Told {
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

#[async_trait]
impl Hooks for Told {
    async fn post_spawn(&self, agents: &[AgentId]) {
        let agents: Vec<_> = agents.iter().map(AgentId::to_string).collect();
        self.heard.lock().unwrap().push(agents.join(","));
    }

    async fn error(&self, event: &ErrorEvent) {
        let ErrorEvent::HostFailed { reason } = event else { return };
        self.began.notify_one();
        match reason.as_str() {
            "panic" => panic!("as the test wants it"),
            "hang" => std::future::pending().await,
            "wait" => self.gate.as_ref().unwrap().acquire().await.unwrap().forget(),
            _ => {}
        }
        self.heard.lock().unwrap().push(reason.clone());
    }
}

#[tokio::test]
async fn calls_come_in_order_past_those_that_panic_and_hang() {
    let told = Arc::new(Told::default());
    let queue = HookQueue::start_with(told.clone(), 16, Duration::from_millis(20)).unwrap();
    for reason in ["one", "panic", "two", "hang", "three"] {
        queue.error(failed(reason));
    }
    queue.post_spawn(vec![id("a"), id("b")]);
    assert!(queue.close(SOON).await);
    assert_eq!(told.heard(), ["one", "two", "three", "a,b"]);
    assert_eq!(queue.counts(), HookCounts { done: 4, timed_out: 1, panicked: 1, dropped: 0 });
}

#[tokio::test]
async fn a_queue_that_is_full_drops_and_counts_and_never_waits() {
    let told = Arc::new(Told { gate: Some(Semaphore::new(0)), ..Told::default() });
    let queue = HookQueue::start_with(told.clone(), 2, SOON).unwrap();
    queue.error(failed("wait"));
    told.began.notified().await;
    for reason in ["kept", "kept too", "lost", "lost too"] {
        queue.error(failed(reason));
    }
    assert_eq!(queue.counts().dropped, 2);
    told.gate.as_ref().unwrap().add_permits(1);
    assert!(queue.close(SOON).await);
    assert_eq!(told.heard(), ["wait", "kept", "kept too"]);
    queue.error(failed("after"));
    assert_eq!(queue.counts(), HookCounts { done: 3, dropped: 3, ..HookCounts::default() });
}

#[tokio::test]
async fn closing_does_not_wait_for_a_hook_that_hangs() {
    let told = Arc::new(Told::default());
    let queue = HookQueue::start_with(told.clone(), 2, SOON).unwrap();
    queue.error(failed("hang"));
    told.began.notified().await;
    assert!(!queue.close(Duration::from_millis(5)).await);
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle() {
    let told = Arc::new(Told::default());
    let queue = HookQueue::start_with(told.clone(), 2, SOON).unwrap();
    drop(queue.clone());
    queue.error(failed("one"));
    drop(queue);
    let gone = async {
        while Arc::strong_count(&told) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within(SOON, gone).await.expect("the thread lets go of the hooks");
    assert_eq!(told.heard(), ["one"]);
}
