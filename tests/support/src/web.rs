//! A web server that agents ask: it counts requests by idempotency key, and answers when and as its path says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{self, ServerConfig};

/// Bytes of a request's head at most.
const HEAD_MAX: usize = 64 * 1024;

/// What the server was asked.
#[derive(Debug, Default)]
struct Asked {
    /// By idempotency key.
    times: BTreeMap<String, usize>,
    /// Heads of requests, in the order of their arrival.
    heads: Vec<String>,
}

/// The server. It ends when it is dropped.
///
/// | path | answer |
/// |---|---|
/// | `/text` | 200 `hello` |
/// | `/teapot` | 418 `short and stout` |
/// | `/moved` | 302 to `/text` |
/// | `/slow/MS` | 200 `slow`, after so many milliseconds |
/// | `/echo` | 200, the request's head; again in the header `x-echo` its `authorization` |
/// | `/never` | none |
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    scheme: &'static str,
    asked: Arc<Mutex<Asked>>,
    task: JoinHandle<()>,
}

impl Web {
    /// Starts it at a port that the system chooses.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// As `start`, over TLS. Also answers the certificate, as PEM, that whoever asks must trust.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start_tls() -> Result<(Self, String)> {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let web = Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await?;
        Ok((web, cert.pem()))
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Result<Self> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Asked::default()));
        let counts = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counts, tls) = (counts.clone(), tls.clone());
                tokio::spawn(async move {
                    let served = match tls {
                        None => serve(stream, &counts).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &counts).await,
                            Err(error) => Err(error.into()),
                        },
                    };
                    if let Err(error) = served {
                        eprintln!("the web server's connection ended: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, scheme, asked, task })
    }

    /// The url of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// How often each idempotency key was seen.
    pub fn asked(&self) -> BTreeMap<String, usize> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).times.clone()
    }

    /// The heads of all requests, as they arrived.
    pub fn heads(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).heads.clone()
    }

    /// How often a key was seen.
    pub fn times(&self, key: &str) -> usize {
        self.asked().get(key).copied().unwrap_or(0)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, asked: &Mutex<Asked>) -> Result<()> {
    let head = read_head(&mut stream).await?;
    let path = head.split(' ').nth(1).context("a request line")?.to_owned();
    let key = header(&head, "idempotency-key").unwrap_or("none").to_owned();
    {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked.times.entry(key).or_default() += 1;
        asked.heads.push(head.clone());
    }
    let echoed = format!("200 OK\r\nx-echo: {}", header(&head, "authorization").unwrap_or("none"));
    let (head, body) = match path.as_str() {
        "/echo" => (echoed.as_str(), head.as_str()),
        "/text" => ("200 OK\r\ncontent-type: text/plain", "hello"),
        "/teapot" => ("418 I'm a teapot", "short and stout"),
        "/moved" => ("302 Found\r\nlocation: /text", ""),
        "/never" => {
            // Until the other side gives up.
            drop(stream.read(&mut [0; 1]).await);
            return Ok(());
        }
        slow => {
            let ms =
                slow.strip_prefix("/slow/").and_then(|ms| ms.parse().ok()).context("a path of the table")?;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            ("200 OK", "slow")
        }
    };
    let answer =
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    // Whoever asked may be dead by now.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
    Ok(())
}

/// A header of a request's head; the last, if there are several.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next_back()
}

/// Reads up to the empty line; what follows it may have come along.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        anyhow::ensure!(bytes.len() < HEAD_MAX, "a head without an end");
        anyhow::ensure!(stream.read_buf(&mut bytes).await? > 0, "a request that breaks off");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
