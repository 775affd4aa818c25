//! Tests of whole hosts in this process: real store, engine, mesh and HTTP, each in a directory of its own.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use async_trait::async_trait;
use godwit_core::id::AgentId;
use godwit_core::retry::{Retry, Retryable};
use godwit_core::store::memory::MemoryStore;
use godwit_core::time::sleep;
use godwit_store::SqliteMode;

use super::*;
use crate::data_dir::DataDirError;
use crate::runtime::shutdown::Phase;

const SOON: Duration = Duration::from_secs(20);
/// Set in a process that runs one test and nothing else.
const ALONE: &str = "GODWIT_HOST_TEST_ALONE";

/// Two guests at a time: the engine reserves room for each.
fn config(data: &Path) -> HostConfig {
    HostConfig { resident_max: 2, guest_threads: 2, ..HostConfig::in_directory(data) }
}

/// The test's handle to the clock shows whether anything of a host is still there: everything holds a clock.
#[derive(Default)]
struct Watch(Arc<SystemClock>);

impl Watch {
    fn builder(&self, config: HostConfig) -> HostBuilder {
        HostBuilder::new(config).clock(self.0.clone())
    }

    async fn all_gone(&self) {
        let gone = async {
            while Arc::strong_count(&self.0) > 1 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let held = || Arc::strong_count(&self.0) - 1;
        within(SOON, gone).await.unwrap_or_else(|| panic!("{} parts still hold the clock", held()));
    }
}

struct Silent;

#[async_trait]
impl Hooks for Silent {}

/// Names of this process's threads that belong to a host.
fn host_threads() -> Vec<String> {
    let first = std::process::id().to_string();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap());
    // The first thread is the test program's, and is called after it.
    let others = tasks.filter(|task| task.file_name().to_str() != Some(&first));
    let names = others.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| !is_of_test(name)).collect()
}

fn is_of_test(name: &str) -> bool {
    // The test's own thread is called after it, tokio's after tokio.
    name.starts_with("tokio") || name.starts_with("host::tests")
}

async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await
        }
    };
    within(SOON, waiting).await.unwrap_or_else(|| panic!("not in time: {what}"));
}

fn free_address(is_udp: bool) -> SocketAddr {
    // Nobody else calls from there, or listens.
    let anywhere = ("127.77.0.1", 0);
    match is_udp {
        true => UdpSocket::bind(anywhere).unwrap().local_addr().unwrap(),
        false => TcpListener::bind(anywhere).unwrap().local_addr().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_at_any_stage_leaves_nothing_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("shared.db");
    // On a shared store a session that was not left would live on for a while.
    let url = format!("sqlite:{}?shared", file.display());
    let (listen, mesh) = (free_address(false), free_address(true));
    let config = HostConfig { store_url: Some(url), listen, mesh, ..config(&data) };
    for at in Stage::ALL {
        let (watch, hooks) = (Watch::default(), Arc::new(Silent));
        let builder = watch.builder(config.clone()).hooks(hooks.clone());
        let check = move |stage| if stage == at { Err(format!("not past {stage}")) } else { Ok(()) };
        let error = builder.after_each_stage(check).start().await.unwrap_err();
        assert_eq!((error.stage, &error.left[..]), (at, &[][..]), "{error}");
        assert!(matches!(error.cause, StartCause::Refused { .. }), "{error:?}");
        assert!(error.undone.is_sorted_by(|a, b| a > b), "last first: {:?}", error.undone);
        watch.all_gone().await;
        soon("the hooks are let go of", || Arc::strong_count(&hooks) == 1).await;
        // The mesh's sockets are let go of by tasks of their own.
        let is_free = || TcpListener::bind(listen).is_ok() && UdpSocket::bind(mesh).is_ok();
        soon("its addresses are free", is_free).await;
        if at >= Stage::Store {
            let clock = Arc::new(SystemClock);
            let store = SqliteStore::open(&file, SqliteMode::Shared, clock).unwrap();
            assert_eq!(store.sessions().await.unwrap(), [], "the session is left after {at}");
            store.close().await;
        }
        if std::env::var_os(ALONE).is_some() {
            // The system shows a thread for a moment longer than whoever waits for its end.
            soon("its threads are gone", || host_threads().is_empty()).await;
        }
    }
    let host = HostBuilder::new(config).start().await.unwrap();
    assert_eq!((host.api(), host.mesh()), (Some(listen), mesh));
    // A thread gives itself its name, when it gets to it.
    let is_seen = || host_threads().iter().any(|name| name == "godwit-lease");
    soon("the look at threads sees them", is_seen).await;
    let report = host.stop().await;
    assert_eq!((report.tasks_left, report.troubles().count()), (0, 0), "{report}");
}

#[test]
fn a_start_that_fails_leaves_no_thread() {
    let test = "host::tests::a_start_that_fails_at_any_stage_leaves_nothing_and_the_next_one_works";
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", test]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// What makes a start fail, and what becomes of it.
async fn fails(builder: HostBuilder, stage: Stage, says: &str) -> StartError {
    let error = builder.start().await.unwrap_err();
    let cause = format!("{:#}", anyhow::Error::new(error.cause));
    assert!(error.stage == stage && cause.contains(says), "stage {}: {cause}", error.stage);
    assert_eq!(error.left, []);
    StartError { cause: StartCause::Panicked, ..error }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_fail_by_themselves_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fresh = |name: &str| {
        std::fs::create_dir_all(at(name)).unwrap();
        config(&at(name))
    };

    std::fs::write(at("file"), "no directory").unwrap();
    fails(HostBuilder::new(config(&at("file"))), Stage::DataDirectory, "cannot make the data directory")
        .await;

    let open_key = fresh("key");
    std::fs::write(at("key").join("host.key"), "00").unwrap();
    fails(HostBuilder::new(open_key), Stage::Key, "readable by others").await;

    let foreign = fresh("foreign");
    std::fs::write(at("foreign").join("godwit.db"), "a".repeat(10_000)).unwrap();
    fails(HostBuilder::new(foreign), Stage::Store, "cannot open the store").await;

    let closed = SqliteStore::open(&at("closed.db"), SqliteMode::Exclusive, Arc::new(SystemClock)).unwrap();
    closed.close().await;
    fails(HostBuilder::new(fresh("closed")).store(closed), Stage::Admission, "the store is closed").await;

    let engine = fresh("engine");
    std::fs::write(at("engine").join("cache"), "no directory").unwrap();
    fails(HostBuilder::new(engine), Stage::Engine, "cache").await;

    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let says = format!("cannot listen at {listen} for the API");
    fails(HostBuilder::new(HostConfig { listen, ..fresh("api") }), Stage::Listener, &says).await;

    let taken = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let mesh = taken.local_addr().unwrap();
    let says = format!("cannot listen at {mesh} for the mesh");
    fails(HostBuilder::new(HostConfig { mesh, ..fresh("mesh") }), Stage::Mesh, &says).await;

    // A store that is read and never written takes no session.
    let read_only = SqliteStore::open_read_only(&at("closed.db")).unwrap();
    fails(HostBuilder::new(fresh("join")).store(read_only), Stage::Join, "cannot join the store").await;

    let recovery = fresh("recovery");
    std::fs::create_dir(at("recovery").join("head.new")).unwrap();
    fails(HostBuilder::new(recovery), Stage::Recovery, "DATA/head").await;

    let no_plugin =
        HostBuilder::new(fresh("plugin")).plugin(Bytes::from_static(b"?"), PluginLabel::default());
    let error = fails(no_plugin, Stage::Plugins, "cannot load the plugin number 1").await;
    assert_eq!(error.undone, [Stage::Join, Stage::Hooks, Stage::Mesh, Stage::Store, Stage::DataDirectory]);
    HostBuilder::new(config(&at("plugin"))).start().await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_has_one_host_and_another_waits_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let host = HostBuilder::new(config.clone()).start().await.unwrap();
    let error = HostBuilder::new(config.clone()).start().await.unwrap_err();
    assert_eq!((error.stage, error.retry()), (Stage::DataDirectory, Retry::Later));
    assert!(matches!(error.cause, StartCause::DataDir(DataDirError::InUse { .. })), "{error:?}");
    let report = host.stop().await;
    assert_eq!(report.phases.last().map(|last| last.phase), Some(Phase::Close));
    assert_eq!(host.stop().await, report, "it is done once");
    HostBuilder::new(config).start().await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_embedder_undoes_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let builder = watch.builder(config(folder.path()));
    let builder = builder.after_each_stage(|stage| {
        assert_ne!(stage, Stage::Services, "as the test wants it");
        Ok(())
    });
    let error = builder.start().await.unwrap_err();
    assert!(error.stage == Stage::Services && matches!(error.cause, StartCause::Panicked), "{error:?}");
    watch.all_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_nobody_waits_for_and_a_host_that_nobody_holds_end() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::default();
    let given_up = within(Duration::from_millis(1), watch.builder(config(folder.path())).start()).await;
    assert!(given_up.is_none(), "a start takes longer");
    watch.all_gone().await;
    let host = watch.builder(config(folder.path())).start().await.unwrap();
    drop(host);
    watch.all_gone().await;
    HostBuilder::new(config(folder.path())).start().await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedder_s_store_outlives_the_host_and_is_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)));
    let start = |store: Arc<MemoryStore>| {
        HostBuilder::new(config(folder.path())).store(store).serves_api(false).start()
    };
    let host = start(store.clone()).await.unwrap();
    assert_eq!(host.api(), None);
    let line = host.ready_line().to_owned();
    assert!(line.contains("api=none") && line.ends_with(&format!("store={}", store.id())), "{line}");
    let ended = host.run_until(std::future::ready(())).await;
    assert_eq!((ended.failure, ended.report.leases_released), (None, 0));
    store.probe().await.unwrap();
    drop(host);
    start(store).await.unwrap().stop().await;
    let other = start(Arc::new(MemoryStore::exclusive(Arc::new(SystemClock)))).await.unwrap_err();
    assert!(matches!(other.cause, StartCause::Head(_)), "{other:?}");
}

#[derive(Default)]
struct Spawned(Mutex<Vec<AgentId>>);

#[async_trait]
impl Hooks for Spawned {
    async fn post_spawn(&self, agents: &[AgentId]) {
        self.0.lock().unwrap().extend_from_slice(agents);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_there_when_the_host_is_and_hooks_hear_of_agents() {
    let folder = tempfile::tempdir().unwrap();
    let guests = std::env::var_os("GODWIT_GUESTS").expect("the suite says where the guests are");
    let counter = Path::new(&guests).join("counter.wasm");
    let hooks = Arc::new(Spawned::default());
    let builder = HostBuilder::new(config(folder.path())).hooks(hooks.clone()).plugin_file(counter);
    let host = builder.start().await.unwrap();
    let agent = AgentId::parse("c").unwrap();
    let request = crate::runtime::agents::CreateAgent::new(agent.clone(), "counter");
    assert!(host.runtime().create_agent(request.clone()).await.unwrap().1);
    assert!(!host.runtime().create_agent(request).await.unwrap().1, "it is there");
    let report = host.stop().await;
    assert_eq!(report.hooks_dropped, 0);
    assert_eq!(*hooks.0.lock().unwrap(), [agent], "once, before the host is gone");
}
