//! A client of one host's HTTP API.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
pub use reqwest::Method;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_rustls::rustls;

use crate::fate::{Fate, Parts, Problem, of_ask, of_send};
use crate::wait::until;

/// How long an ask waits at the host, unless the caller says.
pub const ASK_MAX: Duration = Duration::from_secs(10);
/// How much longer the client waits than it told the host to.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for anything that is no ask.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Talks to one host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// Any answer of the API.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// The header `Location`.
    pub location: Option<String>,
}

impl Client {
    /// A client of the host at `base`, as `http://127.0.0.1:7700`.
    pub fn new(base: &str) -> Self {
        // Built beside the host, the client can speak TLS, and asks which provider to use, though nobody here needs it.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { http: reqwest::Client::new(), base: base.trim_end_matches('/').to_owned(), token: None }
    }

    /// The same for a host that listens beyond loopback, and wants its token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The host's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(CALL_MAX);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Submits and waits for the end.
    pub async fn ask(&self, agent: &str, payload: impl Into<Vec<u8>>, key: Option<&str>) -> Fate {
        self.ask_within(agent, payload, key, ASK_MAX).await
    }

    /// Submits and waits for the end, at most `limit`.
    pub async fn ask_within(
        &self,
        agent: &str,
        payload: impl Into<Vec<u8>>,
        key: Option<&str>,
        limit: Duration,
    ) -> Fate {
        let path = format!("/v1/agents/{agent}/ask?timeout_ms={}", limit.as_millis());
        let request = self.request(Method::POST, &path).timeout(limit + PATIENCE);
        submit(request, payload.into(), key).await.map_or_else(|fate| fate, of_ask)
    }

    /// Submits and waits for durable acceptance.
    pub async fn send(&self, agent: &str, payload: impl Into<Vec<u8>>, key: Option<&str>) -> Fate {
        let request = self.request(Method::POST, &format!("/v1/agents/{agent}/send"));
        submit(request, payload.into(), key).await.map_or_else(|fate| fate, of_send)
    }

    /// Submits and waits for durable acceptance; it runs when something else does.
    pub async fn enqueue(&self, agent: &str, payload: impl Into<Vec<u8>>, key: Option<&str>) -> Fate {
        let request = self.request(Method::POST, &format!("/v1/agents/{agent}/enqueue"));
        submit(request, payload.into(), key).await.map_or_else(|fate| fate, of_send)
    }

    /// Submits through one of the doors `ask`, `send`, `enqueue`, with headers, whatever the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn submit(
        &self,
        agent: &str,
        door: &str,
        payload: &str,
        headers: &[(&str, &str)],
    ) -> Result<Reply> {
        let request = self.request(Method::POST, &format!("/v1/agents/{agent}/{door}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.header("Content-Type", "text/plain").body(payload.to_owned());
        let response = request.send().await.with_context(|| format!("no answer to {door}"))?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        let shown = || serde_json::Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| shown());
        Ok(Reply { status, body, location: None })
    }

    /// Asks the host itself, without forwarding: 421 says that it is not the agent's home.
    pub async fn ask_here(&self, agent: &str, payload: &str) -> Fate {
        let path = format!("/v1/agents/{agent}/ask?timeout_ms={}", ASK_MAX.as_millis());
        let request = self.request(Method::POST, &path).header("Godwit-No-Forward", "1");
        submit(request, payload.into(), None).await.map_or_else(|fate| fate, of_ask)
    }

    /// Asks and takes the reply's text.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn reply(&self, agent: &str, payload: &str) -> Result<String> {
        let fate = self.ask(agent, payload, None).await;
        let reply = fate.reply().map(str::to_owned);
        reply.with_context(|| format!("{agent} did not reply to {payload:?}: {fate:?}"))
    }

    /// Gets a path, whatever the status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.with_context(|| format!("no answer to {path}"))?;
        let status = response.status().as_u16();
        let location = header(&response, "location");
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Reply { status, body, location })
    }

    /// Gets a path that must answer 200.
    ///
    /// # Errors
    /// When it answers otherwise.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let reply = self.call(Method::GET, path, None).await?;
        if reply.status != 200 {
            bail!("GET {path}: {} {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }

    /// All items of a list, page by page.
    ///
    /// # Errors
    /// When a page can't be had.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = match after.as_str() {
                "" => self.get(path).await?,
                after => self.get(&format!("{path}{separator}after={after}")).await?,
            };
            all.extend(crate::json::items(&page)?.iter().cloned());
            match &page["next"] {
                Value::Null => return Ok(all),
                Value::String(next) if *next != after => after.clone_from(next),
                Value::Number(next) if next.to_string() != after => after = next.to_string(),
                next => bail!("{path}: the cursor {next} leads nowhere"),
            }
        }
    }

    /// Loads a component, whatever the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn upload(&self, component: Vec<u8>, name: Option<&str>) -> Result<Result<Value, Problem>> {
        let path = match name {
            Some(name) => format!("/v1/plugins?name={name}&version=0.1.0"),
            None => "/v1/plugins".to_owned(),
        };
        let request =
            self.request(Method::POST, &path).header("Content-Type", "application/wasm").body(component);
        let response = request.send().await.context("no answer to the upload")?;
        let status = response.status();
        let bytes = response.bytes().await?;
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(match status {
            StatusCode::CREATED | StatusCode::OK => Ok(body),
            _ => Err(Problem {
                status: status.as_u16(),
                code: body["code"].as_str().unwrap_or_default().to_owned(),
                body,
            }),
        })
    }

    /// Loads a plugin from a file.
    ///
    /// # Errors
    /// When the host refuses it.
    pub async fn load_plugin(&self, file: &Path) -> Result<Value> {
        let name = file.file_stem().and_then(|stem| stem.to_str());
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match self.upload(bytes, name).await? {
            Ok(plugin) => Ok(plugin),
            Err(problem) => bail!("{} was refused: {}", file.display(), problem.body),
        }
    }

    /// Creates an agent. Repeats what is worth repeating: a peer that just came back may not have answered.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn create(&self, agent: &str, plugin: &str) -> Result<()> {
        self.create_with(agent, json!({ "plugin": plugin })).await
    }

    /// As `create`, with all that is said of the agent.
    ///
    /// # Errors
    /// When the host refuses.
    pub async fn create_with(&self, agent: &str, spec: Value) -> Result<()> {
        let path = format!("/v1/agents/{agent}");
        let look = || async {
            let reply = self.call(Method::PUT, &path, Some(spec.clone())).await?;
            let is_created = matches!(reply.status, 200 | 201);
            if !is_created && reply.body["retryable"] == true {
                bail!("{} {}", reply.status, reply.body);
            }
            Ok(Some((is_created, reply)))
        };
        let (is_created, reply) = until(&format!("agent {agent} to be created"), CALL_MAX, look).await?;
        if !is_created {
            bail!("agent {agent} was not created: {} {}", reply.status, reply.body);
        }
        Ok(())
    }

    /// Uses one of the lifecycle verbs.
    ///
    /// # Errors
    /// When the answer is no success.
    pub async fn verb(&self, agent: &str, verb: &str) -> Result<Value> {
        let path = format!("/v1/agents/{agent}/{verb}");
        let reply = self.call(Method::POST, &path, None).await?;
        if !(200..300).contains(&reply.status) {
            bail!("{verb} of {agent}: {} {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    /// When it does not open.
    pub(crate) async fn open(&self, path: &str, limit: Duration) -> Result<Response> {
        let response = self.request(Method::GET, path).timeout(limit).send().await?;
        if response.status() != StatusCode::OK {
            bail!("GET {path}: {}", response.status());
        }
        Ok(response)
    }
}

/// Sends a submission: the answer's parts, or the fate when there is none.
async fn submit(request: RequestBuilder, payload: Vec<u8>, key: Option<&str>) -> Result<Parts, Fate> {
    let request = match key {
        Some(key) => request.header("Idempotency-Key", key),
        None => request,
    };
    let request = request.header("Content-Type", "text/plain").body(payload);
    let response = match request.send().await {
        Ok(response) => response,
        // Nothing was sent, so nothing can have been accepted.
        Err(error) if error.is_connect() => {
            return Err(Fate::Refused(Problem {
                status: 0,
                code: "unreachable".into(),
                body: Value::String(error.to_string()),
            }));
        }
        Err(error) => return Err(Fate::Unknown(error.to_string())),
    };
    let status = response.status().as_u16();
    let input_id = header(&response, "godwit-input-id");
    let number = |name| header(&response, name).and_then(|text| text.parse().ok());
    let (revision, token) = (number("godwit-revision"), number("godwit-token"));
    match response.bytes().await {
        Ok(body) => Ok(Parts { status, input_id, revision, token, body: body.to_vec() }),
        Err(error) => Err(Fate::Unknown(error.to_string())),
    }
}

fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}
