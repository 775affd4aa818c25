//! What hooks are told, and when.

use std::sync::Mutex;

use async_trait::async_trait;
use godwit_core::spec::SpecPatch;
use godwit_core::store::BrokenReason;

use super::verbs::is_running;
use super::*;
use crate::hooks::{ErrorEvent, HookQueue, Hooks};
use crate::runtime::watchdog::{self, LOOKED_AT_MAX};

const SOON: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

#[async_trait]
impl Hooks for Told {
    async fn post_spawn(&self, agents: &[AgentId]) {
        self.0.lock().unwrap().push(format!("spawned {agents:?}"));
    }

    async fn error(&self, event: &ErrorEvent) {
        let text = match event {
            ErrorEvent::AgentBroken { agent, reason: BrokenReason::Init { .. } } => format!("broken {agent}"),
            ErrorEvent::AgentStuck { agent, .. } => format!("stuck {agent}"),
            ErrorEvent::SessionLost { .. } => "session lost".to_owned(),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

impl Told {
    async fn hears(&self, what: &str) {
        let heard = async {
            while !self.0.lock().unwrap().iter().any(|heard| heard == what) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within(SOON, heard).await.unwrap_or_else(|| panic!("{what:?} not in {:?}", self.0.lock().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_hear_of_new_agents_broken_and_stuck_ones_and_of_lost_sessions() {
    let told = Arc::new(Told::default());
    let store: Arc<dyn RuntimeStore> = Arc::new(MemoryStore::shared(Arc::new(SystemClock)));
    let (config, parts, door) =
        set_up(&SimNetwork::default(), 1, store.clone(), godwit_core::limits::INPUTS_KEPT);
    let parts = Parts { hooks: HookQueue::start(told.clone()).unwrap(), ..parts };
    let runtime = Runtime::start(config, parts, &door).await.unwrap();
    let (plugin, component) = script_plugin();
    store.put_plugin(plugin, component).await.unwrap();

    create(&runtime, "stuck").await;
    told.hears(r#"spawned ["stuck"]"#).await;
    // Its beginning is a turn as well, and not the one that is meant.
    ask(&runtime, "stuck", "get").await;
    send(&runtime, "stuck", "hang").await;
    is_running(&runtime, "stuck").await;
    let now = runtime.inner().clock.boot();
    for later in [0, 20] {
        watchdog::look(&runtime, now + Duration::from_secs(later), LOOKED_AT_MAX).await.unwrap();
    }
    told.hears("stuck stuck").await;

    let patch =
        SpecPatch { config: Some([("init".to_owned(), "fatal".to_owned())].into()), ..SpecPatch::default() };
    let request = CreateAgent { patch, ..CreateAgent::new(id("broken"), "script") };
    runtime.create_agent(request).await.unwrap();
    ask(&runtime, "broken", "get").await;
    told.hears("broken broken").await;

    store.leave(runtime.session().incarnation).await.unwrap();
    told.hears("session lost").await;
    assert_eq!(runtime.hooks().counts().dropped, 0);
    runtime.stop().await;
}
