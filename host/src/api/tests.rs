//! Clients that stop in the middle. Time stands still but for what all wait for.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::extract::Body;
use super::*;

async fn length(Body(body): Body) -> String {
    body.len().to_string()
}

/// Serves one route, sends a request, and reads all that comes back until the connection ends.
async fn answer(request: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let shutdown = CancellationToken::new();
    let router = bounded(Router::new().route("/length", post(length)));
    let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    shutdown.cancel();
    serving.await.unwrap();
    answer
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
