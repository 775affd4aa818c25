//! An authorization server, as strict as one should be: codes are good once, a verifier must fit its challenge, a refresh
//! token is good once. It remembers what it gave, and whatever was asked of it that should not have been.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::web::{header, read_head};

/// Bytes of a form at most.
const FORM_MAX: usize = 64 * 1024;

/// The server. It ends when it is dropped.
///
/// | path | answers |
/// |---|---|
/// | `/device` | a device code, to be asked about every second |
/// | `/token` | tokens for a code, a device code or a refresh token |
#[derive(Debug)]
pub struct Authority {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Book {
    /// Seconds that access tokens live.
    life_s: u64,
    given: u64,
    /// Challenges by code; taken out when the code is used.
    codes: BTreeMap<String, String>,
    /// Whether the user has agreed, by device code; taken out when tokens were given.
    devices: BTreeMap<String, Option<bool>>,
    refresh: BTreeSet<String>,
    access: Vec<String>,
    secrets: Vec<String>,
    refused: Vec<String>,
}

impl Book {
    /// A text that nobody had before, and that is easily found where it should not be.
    fn mint(&mut self, what: &str) -> String {
        self.given += 1;
        let minted = format!("{what}-{}-{}", self.given, "x9Qz".repeat(6));
        self.secrets.push(minted.clone());
        minted
    }

    fn tokens(&mut self) -> (u16, Value) {
        let (access, refresh) = (self.mint("access"), self.mint("refresh"));
        self.access.push(access.clone());
        self.refresh.insert(refresh.clone());
        let body = json!({
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.life_s,
        });
        (200, body)
    }

    fn refuse(&mut self, error: &str, what: String) -> (u16, Value) {
        self.refused.push(what);
        (400, json!({ "error": error }))
    }

    fn answer(&mut self, path: &str, form: &BTreeMap<String, String>) -> (u16, Value) {
        let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        match (path, of("grant_type")) {
            ("/device", _) => {
                let device = self.mint("device");
                self.devices.insert(device.clone(), None);
                let number = self.given;
                let body = json!({
                    "device_code": device,
                    "user_code": format!("CODE-{number}"),
                    "verification_uri": "https://auth.example.com/device",
                    "expires_in": 600,
                    "interval": 1,
                });
                (200, body)
            }
            ("/token", "authorization_code") => match self.codes.remove(of("code")) {
                Some(challenge) if challenge == challenge_of(of("code_verifier")) => self.tokens(),
                found => self.refuse("invalid_grant", format!("code {} (challenge {found:?})", of("code"))),
            },
            ("/token", "refresh_token") => match self.refresh.remove(of("refresh_token")) {
                true => self.tokens(),
                false => self.refuse("invalid_grant", format!("refresh token {}", of("refresh_token"))),
            },
            ("/token", _) => match self.devices.get(of("device_code")).copied() {
                Some(None) => (400, json!({ "error": "authorization_pending" })),
                Some(Some(true)) => {
                    self.devices.remove(of("device_code"));
                    self.tokens()
                }
                Some(Some(false)) => (400, json!({ "error": "access_denied" })),
                None => self.refuse("expired_token", format!("device code {}", of("device_code"))),
            },
            _ => self.refuse("invalid_request", format!("{path} {form:?}")),
        }
    }
}

fn challenge_of(verifier: &str) -> String {
    BASE64URL_NOPAD.encode(ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes()).as_ref())
}

impl Authority {
    /// Starts it at a port that the system chooses; its access tokens live so many seconds.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(life_s: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let book = Arc::new(Mutex::new(Book { life_s, ..Book::default() }));
        let serving = book.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let book = serving.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &book).await {
                        eprintln!("the authority's connection ended: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, book, task })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A secret of this name in a host's configuration, that may be sent to `target`.
    pub fn section(&self, name: &str, target: &str) -> String {
        let base = format!("http://{}", self.address);
        format!(
            "[secrets.{name}]\nhosts = [\"{target}\"]\n[secrets.{name}.oauth]\nclient_id = \"a client\"\n\
             device_authorization_url = \"{base}/device\"\nauthorize_url = \"{base}/authorize\"\n\
             token_url = \"{base}/token\"\nscopes = [\"read\"]\n"
        )
    }

    /// What a browser does at the page that it is sent to: signs in, and comes back with a code and the state.
    ///
    /// # Errors
    /// When the page's url lacks something.
    pub fn browse(&self, page: &str) -> Result<(String, String)> {
        let query: BTreeMap<String, String> = Url::parse(page)?.query_pairs().into_owned().collect();
        let of = |name: &str| query.get(name).cloned().with_context(|| format!("no {name} in {page}"));
        ensure!(of("response_type")? == "code" && of("code_challenge_method")? == "S256", "{page}");
        let mut book = self.book();
        let code = book.mint("code");
        book.codes.insert(code.clone(), of("code_challenge")?);
        Ok((code, of("state")?))
    }

    /// What the user of a device does who is asked for a code: agrees, or does not, to all that are open.
    pub fn answer_devices(&self, agrees: bool) {
        self.book().devices.values_mut().for_each(|answer| *answer = Some(agrees));
    }

    /// Access tokens, in the order in which they were given.
    pub fn access_tokens(&self) -> Vec<String> {
        self.book().access.clone()
    }

    /// Everything it gave that is nobody else's to know.
    pub fn secrets(&self) -> Vec<String> {
        self.book().secrets.clone()
    }

    /// What was asked of it that should not have been.
    pub fn refused(&self) -> Vec<String> {
        self.book().refused.clone()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, book: &Mutex<Book>) -> Result<()> {
    let head = read_head(&mut stream).await?;
    let (head, body) = head.split_once("\r\n\r\n").context("a head")?;
    let path = head.split(' ').nth(1).context("a request line")?;
    let length: usize = header(head, "content-length").context("a length")?.parse()?;
    ensure!(length <= FORM_MAX, "a form of {length} bytes");
    let mut body = body.as_bytes().to_vec();
    while body.len() < length {
        ensure!(stream.read_buf(&mut body).await? > 0, "a form that breaks off");
    }
    let form =
        Url::parse(&format!("form:?{}", String::from_utf8(body)?))?.query_pairs().into_owned().collect();
    let (status, answer) = book.lock().unwrap_or_else(PoisonError::into_inner).answer(path, &form);
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close");
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
    // Whoever asked may be dead by now.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
    Ok(())
}
