//! The client of a host's HTTP API.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, redirect};
use serde_json::Value;

use super::error::CliError;

/// How long a host may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a request may take that has no bound of its own.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(60);
/// Items that one request of a list asks for.
const PAGE: &str = "500";

/// Talks to one host.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(url: &str, token: Option<String>) -> Result<Self, CliError> {
        let is_http = reqwest::Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()));
        if !is_http {
            return Err(CliError::Usage(format!(
                "{url:?} is not the url of a host, like http://127.0.0.1:7700"
            )));
        }
        // Without a provider the builder panics, even for plain http. One that is there already is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            // A host is reached directly; where a proxy wants a say, the url can name it.
            .no_proxy()
            .redirect(redirect::Policy::none());
        if !url.starts_with("https:") {
            // Reading the system's certificates takes longer than most requests do, and fails where there are none.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| CliError::of_transport(&error, url, false))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { http, url, token })
    }

    /// A client of another host. Tokens belong to one host and are not shown to others.
    pub(super) fn at(&self, url: &str) -> Self {
        Self { http: self.http.clone(), url: url.trim_end_matches('/').to_owned(), token: None }
    }

    /// A request to a path. The caller may add to it, and sends it with `send`.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; an answer that is not 2xx becomes the error it describes.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let failed = |error, changes| CliError::of_transport(&error, &self.url, changes);
        let request = request.build().map_err(|error| failed(error, false))?;
        let changes = request.method() != Method::GET;
        let answer = self.http.execute(request).await.map_err(|error| failed(error, changes))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(|error| failed(error, changes))?;
        Err(CliError::of_answer(status, &body))
    }

    /// Sends a request and reads the JSON in the answer; `null` when it has no body.
    pub(super) async fn json(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let answer = self.send(request).await?;
        let body = answer.bytes().await;
        let body = body.map_err(|error| CliError::of_transport(&error, &self.url, true))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| {
            anyhow::anyhow!("{} answered something else than JSON: {error}", self.url).into()
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.json(self.request(Method::GET, path).timeout(REQUEST_MAX)).await
    }

    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let request = self.request(Method::POST, path).timeout(REQUEST_MAX);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.json(request).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.json(self.request(Method::DELETE, path).timeout(REQUEST_MAX)).await
    }

    /// All items of a list that comes in pages.
    pub(super) async fn pages(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE));
            if let Some(after) = &next {
                query.retain(|(name, _)| *name != "after");
                query.push(("after", after));
            }
            let request = self.request(Method::GET, path).query(&query).timeout(REQUEST_MAX);
            let mut page = self.json(request).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(after) => next = Some(after.to_owned()),
                None => return Ok(items),
            }
        }
    }

    /// All items of a list that comes whole.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, CliError> {
        match self.get(path).await?.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
