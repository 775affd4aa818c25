//! The client against servers of our own: what it sends, what it takes, and where it does not go.

use std::sync::Mutex;

use godwit_core::operation::Class;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that answers each connection with the same bytes, or with none at all, and keeps what it was sent.
struct Server {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answer: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keeping = heard.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 64 * 1024];
                let size = stream.read(&mut bytes).await.unwrap_or(0);
                keeping.lock().unwrap().push(String::from_utf8_lossy(&bytes[..size]).into_owned());
                match &answer {
                    Some(answer) => drop(stream.write_all(answer).await),
                    None => std::future::pending().await,
                }
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn policy(networks: &[&str]) -> OperationPolicy {
    OperationPolicy {
        targets: vec!["*:*".parse().unwrap()],
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
    }
}

fn request(url: &str) -> HttpRequest {
    HttpRequest {
        method: "POST".into(),
        url: url.into(),
        headers: vec![("x-note".into(), "kept".into())],
        body: Bytes::from_static(b"question"),
        timeout_ms: 5_000,
        class: Class::AtLeastOnce,
    }
}

const ID: OperationId = OperationId([3; 16]);

async fn run(policy: OperationPolicy, request: HttpRequest) -> OperationEnd {
    HttpClient::new(policy).run(request, ID, &Filling::default()).await
}

fn answer(head: &str, body: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[tokio::test]
async fn an_answer_comes_back_whole() {
    let head = "201 Created\r\ncontent-type: text/plain\r\netag: x";
    let server = Server::start(answer(head, "made")).await;
    let url = format!("http://127.0.0.1:{}/things?q=1", server.port);
    let end = run(policy(&["127.0.0.1"]), request(&url)).await;
    assert_eq!((end.outcome, end.status), (Outcome::Completed, Some(201)), "{end:?}");
    assert_eq!((&*end.body, &*end.content_type), (b"made".as_slice(), "text/plain"));
    assert!(end.headers.contains(&("etag".into(), "x".into())));
    let heard = server.heard();
    let [sent] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(
        sent.starts_with("POST /things?q=1 HTTP/1.1\r\n") && sent.ends_with("\r\n\r\nquestion"),
        "{sent}"
    );
    for line in
        [format!("idempotency-key: {ID}"), format!("host: 127.0.0.1:{}", server.port), "x-note: kept".into()]
    {
        assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line}: {sent}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let elsewhere = Server::start(answer("200 OK", "secret")).await;
    let head = format!("302 Found\r\nlocation: http://127.0.0.1:{}/", elsewhere.port);
    let server = Server::start(answer(&head, "")).await;
    let end = run(policy(&["127.0.0.1"]), request(&format!("http://127.0.0.1:{}/", server.port))).await;
    assert_eq!((end.outcome, end.status), (Outcome::Completed, Some(302)));
    assert_eq!(elsewhere.heard().len(), 0, "nobody went there");
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_before_a_byte_leaves() {
    let server = Server::start(answer("200 OK", "secret")).await;
    for host in
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"]
    {
        let url = format!("http://{host}:{}/", server.port);
        let end = run(policy(&[]), request(&url)).await;
        assert_eq!((end.outcome, end.status), (Outcome::Failed, None), "{url}: {end:?}");
        assert!(end.reason.contains("public internet"), "{url}: {}", end.reason);
    }
    assert_eq!(server.heard().len(), 0);
    // The negative control: the same name, listed.
    let url = format!("http://localhost:{}/", server.port);
    let end = run(policy(&["127.0.0.0/8", "::1"]), request(&url)).await;
    assert_eq!((end.outcome, server.heard().len()), (Outcome::Completed, 1), "{end:?}");
}

#[tokio::test]
async fn a_name_with_one_address_that_is_not_public_is_refused() {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let mixed = vec![address("8.8.8.8:0"), address("127.0.0.1:0")];
    assert!(matches!(allowed(&policy(&[]), "a", mixed.clone()), Err(ResolveError::NotAllowed { .. })));
    assert_eq!(allowed(&policy(&["127.0.0.1"]), "a", mixed.clone()).unwrap(), mixed);
    assert!(matches!(allowed(&policy(&[]), "a", Vec::new()), Err(ResolveError::Nothing { .. })));
}

#[tokio::test]
async fn targets_that_are_not_listed_are_refused() {
    let server = Server::start(answer("200 OK", "secret")).await;
    let only =
        OperationPolicy { targets: vec!["example.com:443".parse().unwrap()], ..policy(&["0.0.0.0/0"]) };
    for policy in [only, OperationPolicy { targets: Vec::new(), ..policy(&["0.0.0.0/0"]) }] {
        let end = run(policy, request(&format!("http://127.0.0.1:{}/", server.port))).await;
        assert_eq!(end.outcome, Outcome::Failed);
        assert!(end.reason.contains("operations.http"), "{}", end.reason);
    }
    assert_eq!(server.heard().len(), 0);
}

#[test]
fn a_host_that_asks_nobody_grants_nothing_that_reaches_outside() {
    let closed = crate::runtime::operations::Operations::new(OperationPolicy::default());
    let open = crate::runtime::operations::Operations::new(policy(&[]));
    let grants = |grants: &[&str]| grants.iter().map(|grant| (*grant).to_owned()).collect::<Vec<_>>();
    for inside in [grants(&[]), grants(&["state", "timers"])] {
        assert!(closed.check_grants(&inside).is_ok() && open.check_grants(&inside).is_ok());
    }
    let outside = grants(&["state", "operations.http:example.com:443"]);
    assert!(open.check_grants(&outside).is_ok());
    assert!(closed.check_grants(&outside).is_err_and(|why| why.contains("example.com:443")));
}

#[tokio::test]
async fn what_never_answers_ends_by_its_own_timeout() {
    let server = Server::start(None).await;
    let url = format!("http://127.0.0.1:{}/", server.port);
    let end = run(policy(&["127.0.0.1"]), HttpRequest { timeout_ms: 1_000, ..request(&url) }).await;
    assert_eq!((end.outcome, end.status), (Outcome::Unknown, None));
    assert_eq!(server.heard().len(), 1, "it was sent, and so nobody knows");
}

#[tokio::test]
async fn nobody_there_is_a_failure() {
    // It has the port, so that nobody else gets it, and does not listen.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let end = run(policy(&["127.0.0.1"]), request(&format!("http://127.0.0.1:{port}/"))).await;
    assert_eq!((end.outcome, end.status), (Outcome::Failed, None), "{end:?}");
}

#[tokio::test]
async fn answers_that_are_too_large_or_break_off_are_not_taken() {
    let large = Server::start(answer("200 OK", &"x".repeat(OPERATION_ANSWER_BYTES_MAX + 1))).await;
    let end = run(policy(&["127.0.0.1"]), request(&format!("http://127.0.0.1:{}/", large.port))).await;
    assert_eq!((end.outcome, end.status, end.body.len()), (Outcome::Failed, Some(200), 0));
    let most = Server::start(answer("200 OK", &"x".repeat(OPERATION_ANSWER_BYTES_MAX))).await;
    let end = run(policy(&["127.0.0.1"]), request(&format!("http://127.0.0.1:{}/", most.port))).await;
    assert_eq!((end.outcome, end.body.len()), (Outcome::Completed, OPERATION_ANSWER_BYTES_MAX));
    let torn = Server::start(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec())).await;
    let end = run(policy(&["127.0.0.1"]), request(&format!("http://127.0.0.1:{}/", torn.port))).await;
    assert_eq!((end.outcome, end.status), (Outcome::Unknown, Some(200)), "{end:?}");
    let gone = Server::start(Some(Vec::new())).await;
    let end = run(policy(&["127.0.0.1"]), request(&format!("http://127.0.0.1:{}/", gone.port))).await;
    assert_eq!((end.outcome, end.status), (Outcome::Unknown, None), "{end:?}");
}

#[tokio::test]
async fn what_a_header_names_is_sent_and_does_not_come_back() {
    let head = "200 OK\r\ncontent-type: text/plain\r\nx-echo: Bearer s3cret-value";
    let server = Server::start(answer(head, "you sent s3cret-value, s3cret-valu")).await;
    let mut filling = Filling::default();
    let value = crate::secrets::SecretText::new("s3cret-value".into());
    filling.insert("key".parse().unwrap(), value);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let headers =
        vec![("authorization".into(), "Bearer {{secret:key}}".into()), ("x-note".into(), "kept".into())];
    let asked = HttpRequest { headers, ..request(&url) };
    let end = HttpClient::new(policy(&["127.0.0.1"])).run(asked.clone(), ID, &filling).await;
    assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
    assert!(server.heard()[0].contains("\r\nauthorization: Bearer s3cret-value\r\n"), "{:?}", server.heard());
    assert_eq!(&*end.body, b"you sent ************, s3cret-valu");
    assert!(end.headers.contains(&("x-echo".into(), "Bearer ************".into())), "{end:?}");
    // What was not read is not sent as it stands.
    let end = HttpClient::new(policy(&["127.0.0.1"])).run(asked, ID, &Filling::default()).await;
    assert_eq!((end.outcome, server.heard().len()), (Outcome::Failed, 1));
    assert!(end.reason.contains("authorization"), "{}", end.reason);
}
