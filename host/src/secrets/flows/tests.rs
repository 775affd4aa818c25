//! Sign-ins against an authorization server of our own, at times that the tests choose.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use godwit_core::store::memory::MemoryStore;
use godwit_core::time::SystemClock;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::secrets::Source;
use crate::secrets::book::OPEN_MAX;

type Fields = HashMap<String, String>;

const HOST: HostId = HostId([1; 32]);

/// A clock that stands still until it is moved.
struct HandClock(AtomicU64);

impl HandClock {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn boot(&self) -> Duration {
        Duration::from_millis(self.wall_ms())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemClock.fill_random(bytes);
    }
}

/// What the server does and was asked.
#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    asked: Arc<Mutex<Vec<Fields>>>,
    /// A token request waits for one of these.
    gate: Arc<Semaphore>,
    port: u16,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gate = Arc::new(Semaphore::new(1_000));
        let server = Self { answers: Arc::default(), asked: Arc::default(), gate, port };
        let router = Router::new()
            .route("/device", post(device))
            .route("/token", post(token))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn answer(&self, status: u16, body: Value) {
        self.answers.lock().unwrap().push_back((status, body));
    }

    fn refuse(&self, error: &str) {
        self.answer(400, json!({"error": error}));
    }

    fn give(&self, access: &str, refresh: Option<&str>, expires_in: u64) {
        let mut body = json!({"access_token": access, "token_type": "Bearer", "expires_in": expires_in});
        if let Some(refresh) = refresh {
            body["refresh_token"] = refresh.into();
        }
        self.answer(200, body);
    }

    /// Forms that the token endpoint was sent.
    fn asked(&self) -> Vec<Fields> {
        self.asked.lock().unwrap().clone()
    }
}

/// A posted form.
fn form(body: &str) -> Fields {
    parameters(&format!("form:?{body}"))
}

async fn device(body: String) -> Json<Value> {
    let fields = form(&body);
    assert_eq!(fields["client_id"], "client");
    assert_eq!(fields["scope"], "read write");
    Json(json!({
        "device_code": "the-device-code",
        "user_code": "ABCD-EFGH",
        "verification_uri": "https://auth.example.com/device",
        "expires_in": 600,
        "interval": 7,
    }))
}

async fn token(State(server): State<Server>, body: String) -> (StatusCode, Json<Value>) {
    server.asked.lock().unwrap().push(form(&body));
    server.gate.acquire().await.unwrap().forget();
    let (status, body) = server.answers.lock().unwrap().pop_front().expect("an answer for each question");
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

struct World {
    server: Server,
    clock: Arc<HandClock>,
    store: Arc<dyn RuntimeStore>,
    flows: AuthFlows,
}

fn config(port: u16) -> OAuthConfig {
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}").parse().unwrap();
    OAuthConfig {
        client_id: "client".into(),
        client_secret: Some(Source::Value(SecretText::new("client-s3cret".into()))),
        device_authorization_url: Some(url("device")),
        authorize_url: Some(url("authorize?tenant=1")),
        token_url: url("token"),
        scopes: vec!["read".into(), "write".into()],
    }
}

fn secrets(config: OAuthConfig) -> Arc<SecretsConfig> {
    let secret = |origin| SecretConfig { hosts: Vec::new(), origin };
    let given = Origin::Given(Source::Value(SecretText::new("x".into())));
    let secrets = [("mail", Origin::SignIn(Box::new(config))), ("given", given)];
    Arc::new(secrets.map(|(name, origin)| (name.parse().unwrap(), secret(origin))).into())
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(HandClock(AtomicU64::new(1_800_000_000_000)));
        let store: Arc<dyn RuntimeStore> = Arc::new(MemoryStore::exclusive(clock.clone()));
        Self::over(clock, store).await
    }

    async fn over(clock: Arc<HandClock>, store: Arc<dyn RuntimeStore>) -> Self {
        let server = Server::start().await;
        let flows = AuthFlows::new(
            HOST,
            store.clone(),
            clock.clone(),
            secrets(config(server.port)),
            TaskGroup::default(),
        );
        Self { server, clock, store, flows }
    }

    /// Another process on the same store.
    fn restart(&mut self) {
        let secrets = self.flows.0.secrets.clone();
        self.flows =
            AuthFlows::new(HOST, self.store.clone(), self.clock.clone(), secrets, TaskGroup::default());
    }

    async fn start(&self, kind: FlowKind) -> Flow {
        self.flows.start("mail", kind, None).await.unwrap()
    }

    /// Lets so many seconds pass, one by one, each with a look at what is due.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.pass(1);
            self.flows.step().await;
        }
    }

    async fn state(&self, id: AuthFlowId) -> String {
        match self.flows.show(id).await.unwrap().state {
            FlowState::Failed { reason } => format!("failed: {reason}"),
            state => state.name().to_owned(),
        }
    }

    async fn token(&self) -> Result<String, String> {
        let (name, config) = self.flows.0.client_of("mail").unwrap();
        let token = self.flows.token(&name, &config).await;
        token.map(|token| token.expose().to_owned()).map_err(|error| error.to_string())
    }

    async fn sign_in(&self, access: &str, refresh: Option<&str>) {
        let flow = self.start(FlowKind::Device).await;
        self.server.give(access, refresh, 3_600);
        self.flows.step().await;
        self.pass(7).await;
        assert_eq!(self.state(flow.id).await, "done");
        self.server.asked.lock().unwrap().clear();
    }
}

/// The parameters of a url.
fn parameters(url: &str) -> Fields {
    reqwest::Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

fn page(flow: &Flow) -> Fields {
    let FlowState::Open(Open::Pkce { authorize_url, .. }) = &flow.state else { panic!("{flow:?}") };
    parameters(authorize_url)
}

#[tokio::test]
async fn a_device_is_asked_about_as_often_as_its_server_likes() {
    let world = World::new().await;
    let flow = world.start(FlowKind::Device).await;
    let FlowState::Open(Open::Device { user_code, interval_s, .. }) = &flow.state else { panic!("{flow:?}") };
    assert_eq!((user_code.as_str(), *interval_s), ("ABCD-EFGH", 7));
    assert_eq!(flow.expires_at_ms, world.clock.wall_ms() + 600_000);
    assert_eq!(world.flows.step().await, Some(Duration::from_secs(7)));
    world.pass(6).await;
    assert_eq!(world.server.asked().len(), 0, "too early");
    world.server.refuse("authorization_pending");
    world.pass(1).await;
    assert_eq!(world.server.asked().len(), 1);
    world.server.refuse("slow_down");
    world.pass(7).await;
    assert_eq!(world.server.asked().len(), 2);
    world.pass(11).await;
    assert_eq!(world.server.asked().len(), 2, "7 and 5 seconds are 12");
    world.server.give("access-token", None, 60);
    world.pass(1).await;
    let asked = world.server.asked();
    assert_eq!(asked.len(), 3);
    for fields in &asked {
        let of = |name: &str| fields[name].as_str();
        assert_eq!(of("grant_type"), "urn:ietf:params:oauth:grant-type:device_code");
        assert_eq!((of("device_code"), of("client_id")), ("the-device-code", "client"));
        assert_eq!(of("client_secret"), "client-s3cret");
    }
    assert_eq!((world.state(flow.id).await, world.token().await), ("done".into(), Ok("access-token".into())));
    world.pass(60).await;
    assert_eq!(world.server.asked().len(), 3, "nobody asks about what is over");
}

#[tokio::test]
async fn a_device_flow_ends_as_its_server_says() {
    let cases = [
        ("access_denied", "failed: the authorization server says access_denied"),
        ("expired_token", "expired"),
        ("invalid_grant", "failed: the authorization server says invalid_grant"),
    ];
    for (error, expected) in cases {
        let world = World::new().await;
        let flow = world.start(FlowKind::Device).await;
        world.flows.step().await;
        world.server.refuse(error);
        world.pass(30).await;
        assert_eq!((world.state(flow.id).await.as_str(), world.server.asked().len()), (expected, 1));
        assert!(world.token().await.is_err_and(|reason| reason.contains("godwit auth start mail")));
    }
}

#[tokio::test]
async fn a_device_flow_expires() {
    let world = World::new().await;
    let flow = world.start(FlowKind::Device).await;
    world.flows.step().await;
    world.clock.pass(599);
    world.server.refuse("authorization_pending");
    world.flows.step().await;
    assert_eq!((world.state(flow.id).await.as_str(), world.server.asked().len()), ("open", 1));
    world.pass(20).await;
    assert_eq!((world.state(flow.id).await.as_str(), world.server.asked().len()), ("expired", 1));
    assert_eq!(world.flows.step().await, None);
}

#[tokio::test]
async fn a_server_that_can_not_now_is_asked_again_later_and_later() {
    let world = World::new().await;
    let flow = world.start(FlowKind::Device).await;
    world.flows.step().await;
    for asked in [1, 2, 3] {
        world.server.answer(503, json!({"error": "temporarily_unavailable"}));
        world.pass(7 << (asked - 1)).await;
        assert_eq!(world.server.asked().len(), asked);
    }
    world.server.give("access-token", None, 60);
    world.pass(7 << 3).await;
    assert_eq!(world.state(flow.id).await, "done");
}

#[tokio::test]
async fn a_browser_brings_a_code_once() {
    let world = World::new().await;
    let redirect = "http://127.0.0.1:8400/back".to_owned();
    let flow = world.flows.start("mail", FlowKind::Pkce, Some(redirect.clone())).await.unwrap();
    let page = page(&flow);
    let of = |name: &str| page[name].as_str();
    assert_eq!((of("tenant"), of("response_type"), of("client_id")), ("1", "code", "client"));
    assert_eq!((of("scope"), of("redirect_uri")), ("read write", redirect.as_str()));
    assert_eq!(of("code_challenge_method"), "S256");
    let complete = |state: &str| world.flows.complete(flow.id, "the-code".into(), state.into());
    let wrong = complete("somebody-elses").await;
    assert!(matches!(wrong, Err(AuthError::Book(BookError::WrongState { .. }))), "{wrong:?}");
    assert_eq!((world.server.asked().len(), world.state(flow.id).await.as_str()), (0, "open"));
    world.server.give("access-token", Some("refresh-token"), 3_600);
    assert_eq!(complete(of("state")).await.unwrap().state, FlowState::Done);
    let asked = world.server.asked();
    let [sent] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((sent["grant_type"].as_str(), sent["code"].as_str()), ("authorization_code", "the-code"));
    assert_eq!(sent["redirect_uri"], redirect);
    let verifier = &sent["code_verifier"];
    let challenge = ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes());
    assert_eq!(BASE64URL_NOPAD.encode(challenge.as_ref()), of("code_challenge"));
    assert!((43..=128).contains(&verifier.len()));
    let again = complete(of("state")).await;
    assert!(matches!(again, Err(AuthError::Book(BookError::Over { state: "done", .. }))), "{again:?}");
    assert_eq!((world.server.asked().len(), world.token().await), (1, Ok("access-token".into())));
}

#[tokio::test]
async fn of_many_who_bring_a_code_one_sends_it() {
    let world = World::new().await;
    let flow = world.start(FlowKind::Pkce).await;
    let state = page(&flow)["state"].clone();
    world.server.give("access-token", None, 60);
    let tries = (0..16).map(|_| world.flows.complete(flow.id, "code".into(), state.clone()));
    let ended = join_all(tries).await;
    let done = ended.iter().filter(|ended| matches!(ended, Ok(Flow { state: FlowState::Done, .. }))).count();
    let over =
        ended.iter().filter(|ended| matches!(ended, Err(AuthError::Book(BookError::Over { .. })))).count();
    assert_eq!((done, over, world.server.asked().len()), (1, 15, 1), "{ended:?}");
}

#[tokio::test]
async fn a_code_that_is_refused_fails_its_flow() {
    let world = World::new().await;
    let flow = world.start(FlowKind::Pkce).await;
    let state = page(&flow)["state"].clone();
    let words = "code the-code of client-s3cret is not known";
    world.server.answer(400, json!({"error": "invalid_grant", "error_description": words}));
    let refused = world.flows.complete(flow.id, "the-code".into(), state.clone()).await;
    assert!(matches!(refused, Err(AuthError::Server(OAuthError::Refused { .. }))), "{refused:?}");
    let failed = world.state(flow.id).await;
    assert!(failed.ends_with("invalid_grant: code ******** of ************* is not known"), "{failed}");
    let again = world.flows.complete(flow.id, "the-code".into(), state).await;
    assert!(matches!(again, Err(AuthError::Book(BookError::Over { state: "failed", .. }))), "{again:?}");
    assert_eq!(world.server.asked().len(), 1);
}

#[tokio::test]
async fn answers_that_are_none_are_named() {
    let long = "x".repeat(9_000);
    let cases = [
        (200, json!([]), "status 200, and no JSON"),
        (404, json!("not here"), "status 404, and no JSON"),
        (200, json!({"token_type": "Bearer"}), "access_token is missing"),
        (200, json!({"access_token": "two\nlines"}), "access_token: it has bytes that are not visible"),
        (200, json!({"access_token": long}), "access_token: it has more than"),
        (200, json!({"error": "bad_verification_code"}), "says bad_verification_code"),
        (500, json!({"error": "server_error"}), "does not answer: status 500 server_error"),
        (200, json!({"access_token": "a", "padding": "x".repeat(70_000)}), "has more than 65536 bytes"),
    ];
    for (status, body, expected) in cases {
        let world = World::new().await;
        let flow = world.start(FlowKind::Pkce).await;
        world.server.answer(status, body);
        let failed = world.flows.complete(flow.id, "the-code".into(), page(&flow)["state"].clone()).await;
        let said = failed.unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
        assert!(world.state(flow.id).await.starts_with("failed"));
    }
}

#[tokio::test]
async fn what_can_not_be_started_is_refused() {
    let world = World::new().await;
    let refused = async |secret: &str, kind, redirect: Option<&str>| {
        let started = world.flows.start(secret, kind, redirect.map(str::to_owned)).await;
        started.unwrap_err().to_string()
    };
    assert!(refused("none", FlowKind::Device, None).await.contains("[secrets.none]"));
    assert!(refused("given", FlowKind::Device, None).await.contains("by value"));
    assert!(refused("mail", FlowKind::Device, Some("http://a/")).await.contains("redirect_uri"));
    for redirect in ["", "not a url", "https://a/#fragment"] {
        assert!(refused("mail", FlowKind::Pkce, Some(redirect)).await.contains("redirect_uri"), "{redirect}");
    }
    let only = OAuthConfig { authorize_url: None, ..config(world.server.port) };
    let tasks = TaskGroup::default();
    let flows = AuthFlows::new(HOST, world.store.clone(), world.clock.clone(), secrets(only), tasks);
    let refused = flows.start("mail", FlowKind::Pkce, None).await.unwrap_err();
    assert!(refused.to_string().contains("authorize_url"), "{refused}");
    assert!(world.flows.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn only_so_many_flows_are_open() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..OPEN_MAX {
        ids.push(world.start(FlowKind::Pkce).await.id);
    }
    for kind in [FlowKind::Device, FlowKind::Pkce] {
        let refused = world.flows.start("mail", kind, None).await;
        assert!(matches!(refused, Err(AuthError::Book(BookError::Full))), "{refused:?}");
    }
    world.flows.cancel(ids[5]).await.unwrap();
    world.flows.cancel(ids[5]).await.unwrap();
    world.start(FlowKind::Pkce).await;
    // All at once past one free place.
    world.flows.cancel(ids[6]).await.unwrap();
    let tries = join_all((0..8).map(|_| world.flows.start("mail", FlowKind::Pkce, None))).await;
    assert_eq!(tries.iter().filter(|started| started.is_ok()).count(), 1);
}

#[tokio::test]
async fn what_comes_for_a_cancelled_flow_is_not_kept() {
    let world = World::new().await;
    let flow = world.start(FlowKind::Device).await;
    world.flows.step().await;
    world.clock.pass(7);
    world.server.give("access-token", None, 60);
    world.server.gate.forget_permits(1_000);
    let cancelling = async {
        while world.server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        world.flows.cancel(flow.id).await.unwrap();
        world.server.gate.add_permits(1);
    };
    tokio::join!(world.flows.step(), cancelling);
    assert_eq!(world.state(flow.id).await, "cancelled");
    assert!(world.token().await.is_err());
}

#[tokio::test]
async fn tokens_are_refreshed_once_for_all_who_wait() {
    let world = World::new().await;
    world.sign_in("first", Some("r1")).await;
    world.clock.pass(3_600 - 70);
    assert_eq!(world.token().await.as_deref(), Ok("first"));
    assert_eq!(world.server.asked().len(), 0, "not yet");
    world.clock.pass(20);
    world.server.give("second", Some("r2"), 3_600);
    let all = join_all((0..20).map(|_| world.token())).await;
    assert!(all.iter().all(|token| token.as_deref() == Ok("second")), "{all:?}");
    let asked = world.server.asked();
    let [sent] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((sent["grant_type"].as_str(), sent["refresh_token"].as_str()), ("refresh_token", "r1"));
    world.clock.pass(3_600);
    world.server.give("third", None, 3_600);
    assert_eq!(world.token().await.as_deref(), Ok("third"));
    assert_eq!(world.server.asked()[1]["refresh_token"], "r2");
}

#[tokio::test]
async fn hosts_on_one_store_refresh_and_ask_one_at_a_time() {
    let world = World::new().await;
    let secrets = world.flows.0.secrets.clone();
    let store = world.store.clone();
    let other = AuthFlows::new(HostId([2; 32]), store, world.clock.clone(), secrets, TaskGroup::default());
    let flow = world.start(FlowKind::Device).await;
    world.flows.step().await;
    world.clock.pass(7);
    assert_eq!(other.step().await, None, "another host's device");
    assert_eq!(world.server.asked().len(), 0);
    world.server.give("first", Some("r1"), 3_600);
    world.flows.step().await;
    assert_eq!(other.show(flow.id).await.unwrap().state, FlowState::Done);
    world.clock.pass(3_600);
    world.server.give("second", Some("r2"), 3_600);
    let (name, config) = world.flows.0.client_of("mail").unwrap();
    let (here, there) = tokio::join!(world.token(), other.token(&name, &config));
    assert_eq!((here.as_deref(), there.unwrap().expose()), (Ok("second"), "second"));
    assert_eq!(world.server.asked().len(), 2);
}

#[tokio::test]
async fn tokens_that_can_not_be_refreshed_serve_while_they_live() {
    let world = World::new().await;
    world.sign_in("first", Some("r1")).await;
    world.clock.pass(3_550);
    world.server.answer(503, json!({}));
    assert_eq!(world.token().await.as_deref(), Ok("first"));
    world.clock.pass(50);
    world.server.answer(503, json!({}));
    assert!(world.token().await.is_err_and(|reason| reason.contains("does not answer")));
    // It may go again.
    world.server.give("second", Some("r2"), 3_600);
    assert_eq!(world.token().await.as_deref(), Ok("second"));
    world.clock.pass(3_550);
    world.server.refuse("invalid_grant");
    assert_eq!(world.token().await.as_deref(), Ok("second"));
    let asked = world.server.asked().len();
    world.clock.pass(50);
    let refused = world.token().await.unwrap_err();
    assert!(refused.contains("invalid_grant") && refused.contains("godwit auth start mail"), "{refused}");
    assert_eq!(world.server.asked().len(), asked, "nobody asks with what was refused");
    let (name, config) = world.flows.0.client_of("mail").unwrap();
    assert!(
        world.flows.token_view(&name, &config).await.is_err_and(|problem| problem.contains("invalid_grant"))
    );
}

#[tokio::test]
async fn a_restart_in_between_loses_nothing() {
    let mut world = World::new().await;
    let device = world.start(FlowKind::Device).await;
    let pkce = world.start(FlowKind::Pkce).await;
    let state = page(&pkce)["state"].clone();
    world.flows.step().await;
    world.server.refuse("slow_down");
    world.pass(7).await;
    world.restart();
    world.flows.step().await;
    world.pass(11).await;
    assert_eq!(world.server.asked().len(), 1, "the pace is kept");
    world.server.give("by-device", Some("r1"), 3_600);
    world.pass(1).await;
    assert_eq!(world.state(device.id).await, "done");
    world.restart();
    world.server.give("by-browser", None, 3_600);
    world.flows.complete(pkce.id, "code".into(), state).await.unwrap();
    world.restart();
    assert_eq!(world.token().await.as_deref(), Ok("by-browser"), "the later sign-in counts");
    assert_eq!((world.state(device.id).await, world.state(pkce.id).await), ("done".into(), "done".into()));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_dies_with_a_code_sent_leaves_it_consumed() {
    let mut world = World::new().await;
    let flow = world.start(FlowKind::Pkce).await;
    let state = page(&flow)["state"].clone();
    world.server.gate.forget_permits(1_000);
    let tasks = world.flows.0.tasks.clone();
    let dying = async {
        while world.server.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        tasks.close().await;
    };
    let (ended, ()) = tokio::join!(world.flows.complete(flow.id, "code".into(), state.clone()), dying);
    assert_eq!(ended, Err(AuthError::Stopping));
    world.restart();
    assert_eq!(world.state(flow.id).await, "consumed");
    let again = world.flows.complete(flow.id, "code".into(), state).await;
    assert!(matches!(again, Err(AuthError::Book(BookError::Over { state: "consumed", .. }))), "{again:?}");
    assert_eq!(world.server.asked().len(), 1, "a code is not sent twice");
    assert!(world.token().await.is_err());
}

#[tokio::test]
async fn tokens_of_another_client_are_not_used() {
    let world = World::new().await;
    world.sign_in("first", Some("r1")).await;
    let pending = world.start(FlowKind::Pkce).await;
    let other = OAuthConfig { client_id: "other".into(), ..config(world.server.port) };
    let tasks = TaskGroup::default();
    let flows = AuthFlows::new(HOST, world.store.clone(), world.clock.clone(), secrets(other.clone()), tasks);
    let token = flows.token(&"mail".parse().unwrap(), &other).await;
    assert!(token.is_err_and(|error| error.to_string().contains("nobody has signed in")));
    let ended = flows.complete(pending.id, "code".into(), page(&pending)["state"].clone()).await.unwrap();
    assert!(matches!(&ended.state, FlowState::Failed { reason } if reason.contains("changed")), "{ended:?}");
    assert_eq!(world.server.asked().len(), 0, "no code goes to another server");
}

#[tokio::test]
async fn all_of_it_lies_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("godwit.db");
    let clock = Arc::new(HandClock(AtomicU64::new(1_800_000_000_000)));
    let key = godwit_store::SealKey::new([7; 32]);
    let store = godwit_store::SqliteStore::open_sealing(
        &file,
        godwit_store::SqliteMode::Exclusive,
        clock.clone(),
        key,
        Default::default(),
    );
    let world = World::over(clock, store.unwrap()).await;
    world.sign_in("the-access-token", Some("the-refresh-token")).await;
    let open = world.start(FlowKind::Pkce).await;
    world.start(FlowKind::Device).await;
    let FlowState::Open(Open::Pkce { verifier, state, .. }) = &open.state else { panic!("{open:?}") };
    let secrets =
        [verifier.0.expose(), state.0.expose(), "the-access-token", "the-refresh-token", "the-device-code"];
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(std::fs::read(folder.path().join("godwit.db-wal")).unwrap_or_default());
    for secret in secrets {
        assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{secret}");
    }
    // What the store can open has them.
    let payload = world.store.load_auth_flow().await.unwrap().unwrap();
    for secret in secrets {
        assert!(memchr::memmem::find(&payload, secret.as_bytes()).is_some(), "{secret}");
    }
}
