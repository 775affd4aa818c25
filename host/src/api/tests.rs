//! Clients that stop in the middle, and requests that say more than a path takes. Where clients stop, time stands still but
//! for what all wait for.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::extract::Body;
use super::*;

async fn length(Body(body): Body) -> String {
    body.len().to_string()
}

/// Serves, sends a request, and reads all that comes back until the connection ends.
async fn answer_of(router: Router, request: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    shutdown.cancel();
    serving.await.unwrap();
    answer
}

async fn answer(request: &str) -> String {
    answer_of(bounded(Router::new().route("/length", post(length))), request).await
}

/// Paths with methods that take neither parameters nor a body.
const BARE: [&str; 22] = [
    "GET /v1/plugins",
    "DELETE /v1/plugins/counter",
    "GET /v1/agents/a",
    "DELETE /v1/agents/a",
    "POST /v1/agents/a/pause",
    "POST /v1/agents/a/recover",
    "POST /v1/agents/a/checkpoint",
    "POST /v1/agents/a/verify",
    "POST /v1/agents/a/replay",
    "GET /v1/agents/a/timers",
    "GET /v1/agents/a/operations",
    "GET /v1/groups/a",
    "GET /v1/migrations",
    "GET /v1/hosts",
    "GET /v1/peers",
    "DELETE /v1/peers/aa",
    "POST /v1/backup",
    "GET /v1/operations",
    "GET /v1/secrets",
    "GET /v1/auth-flows",
    "GET /v1/auth-flows/a",
    "DELETE /v1/auth-flows/a",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_path_does_not_take_is_refused() {
    let router = bounded(routes()).with_state(crate::runtime::tests::lone_host().await);
    let sent = |head: String, body: &str| {
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let router = router.clone();
        async move { answer_of(router, &request).await }
    };
    let takes_bodies = ["POST /v1/agents/a/send", "POST /v1/agents/a/ask", "POST /v1/agents/a/query"];
    for path in BARE.into_iter().chain(takes_bodies) {
        let answer = sent(format!("{path}?unheard=1"), "").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("unheard"), "{path}: {answer}");
    }
    for path in BARE.into_iter().filter(|path| !path.starts_with("GET")) {
        let answer = sent(path.to_owned(), "{}").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("takes no body"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_and_can_not_be_there_is_no_empty_list() {
    let runtime = crate::runtime::tests::lone_host().await;
    crate::runtime::tests::create(&runtime, "a").await;
    let router = bounded(routes()).with_state(runtime);
    let get = |path: &str| {
        let (router, request) =
            (router.clone(), format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        async move { answer_of(router, &request).await }
    };
    let misspelt = get("/v1/agents?state=actve").await;
    assert!(
        misspelt.starts_with("HTTP/1.1 400") && misspelt.contains("active, dormant, paused"),
        "{misspelt}"
    );
    let active = get("/v1/agents?state=dormant").await;
    assert!(active.starts_with("HTTP/1.1 200"), "{active}");
    let no_channel = get("/v1/agents/a/subscribers?channel=news").await;
    assert!(no_channel.starts_with("HTTP/1.1 404") && no_channel.contains("channel news"), "{no_channel}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_go_on_is_given_up() {
    let start = Instant::now();
    let half_a_head = answer("POST /length HTTP/1.1\r\nHost: a\r\nContent-Le").await;
    assert!(!half_a_head.contains("200"), "{half_a_head}");
    assert!(start.elapsed() >= CLIENT_PAUSE_MAX);

    let start = Instant::now();
    let half_a_body = answer("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await;
    assert!(half_a_body.starts_with("HTTP/1.1 400"), "{half_a_body}");
    assert!(half_a_body.contains("\"code\":\"malformed\""), "{half_a_body}");
    assert!(start.elapsed() >= CLIENT_PAUSE_MAX);

    let whole = answer("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("\r\n\r\n2"), "{whole}");
}
