//! HTTP requests for agents: to listed targets, at addresses that were checked after they were resolved, within bounds.
//!
//! What is not done is as important: no redirects, no proxies, no cookies, no retries, no decompression, no connection
//! that outlives its request. The client connects to what `Resolver` gives it and resolves nothing itself.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use godwit_core::id::OperationId;
use godwit_core::limits::OPERATION_ANSWER_BYTES_MAX;
use godwit_core::operation::address::{Network, is_public};
use godwit_core::operation::request::{Target, TargetPattern};
use godwit_core::operation::{HttpRequest, OperationEnd, Outcome};
use godwit_core::time::within;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, Response, redirect};

use crate::secrets::filling::Filling;

/// How long a server may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Headers that an answer may have.
const ANSWER_HEADERS_MAX: usize = 64;

/// What the operator lets operations reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationPolicy {
    /// Targets that may be asked, if the plugin has a grant for them too. None: no operation is done.
    pub targets: Vec<TargetPattern>,
    /// Networks that may be reached though they are not of the public internet.
    pub networks: Vec<Network>,
}

impl OperationPolicy {
    fn allows(&self, address: IpAddr) -> bool {
        is_public(address) || self.networks.iter().any(|network| network.contains(address))
    }
}

/// Makes requests under a policy.
pub(crate) struct HttpClient {
    policy: Arc<OperationPolicy>,
    plain: OnceLock<Result<Client, String>>,
    /// Of its own, because reading the system's certificates takes long, and fails where there are none.
    tls: OnceLock<Result<Client, String>>,
}

impl HttpClient {
    pub(crate) fn new(policy: OperationPolicy) -> Self {
        Self { policy: Arc::new(policy), plain: OnceLock::new(), tls: OnceLock::new() }
    }

    /// Whether any target may be asked.
    pub(crate) fn is_open(&self) -> bool {
        !self.policy.targets.is_empty()
    }

    /// Whether a target may be asked, as far as can be said before its name is resolved.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, target: &Target) -> Result<(), String> {
        if !self.policy.targets.iter().any(|pattern| pattern.allows(target)) {
            return Err(format!("the host's operator has not listed {target} in operations.http"));
        }
        // An address needs no resolver, so that the client would not ask ours.
        match target.host.parse::<IpAddr>() {
            Ok(address) if !self.policy.allows(address) => Err(not_allowed(address)),
            _ => Ok(()),
        }
    }

    /// Makes a request, with what its headers name filled in, and takes that out of the answer. Ends by its own timeout.
    pub(crate) async fn run(&self, request: HttpRequest, id: OperationId, filling: &Filling) -> OperationEnd {
        let timeout = Duration::from_millis(u64::from(request.timeout_ms));
        let timeout_ms = request.timeout_ms;
        match within(timeout, self.send(request, id, filling)).await {
            Some(end) => filling.redact(end),
            None => {
                let reason = format!("no answer within {timeout_ms} ms");
                OperationEnd::without_answer(Outcome::Unknown, reason)
            }
        }
    }

    async fn send(&self, request: HttpRequest, id: OperationId, filling: &Filling) -> OperationEnd {
        let failed = |reason: String| OperationEnd::without_answer(Outcome::Failed, reason);
        let target = match request.check() {
            Ok(target) => target,
            Err(error) => return failed(error.to_string()),
        };
        if let Err(reason) = self.check(&target) {
            return failed(reason);
        }
        let url = match reqwest::Url::parse(&request.url) {
            Ok(url) if is_same(&url, &target) => url,
            _ => return failed("the url can be read in more than one way".into()),
        };
        let client = match self.client(target.is_tls) {
            Ok(client) => client,
            Err(reason) => return failed(reason),
        };
        let Ok(method) = Method::from_bytes(request.method.as_bytes()) else {
            return failed("the method is none".into());
        };
        let mut builder = client.request(method, url).header("idempotency-key", id.to_string());
        for (name, value) in request.headers {
            let Some(value) = filling.fill(&value) else {
                return failed(format!("the header {name} names a secret that was not read"));
            };
            builder = builder.header(name, value);
        }
        match builder.body(request.body).send().await {
            Ok(response) => take(response).await,
            Err(error) if error.is_connect() || error.is_builder() => failed(innermost(&error)),
            Err(error) => OperationEnd::without_answer(Outcome::Unknown, innermost(&error)),
        }
    }

    fn client(&self, is_tls: bool) -> Result<Client, String> {
        let place = if is_tls { &self.tls } else { &self.plain };
        place.get_or_init(|| self.build(is_tls).map_err(|error| innermost(&error))).clone()
    }

    fn build(&self, is_tls: bool) -> reqwest::Result<Client> {
        // Without a provider the builder panics, even for plain http. One that is there already is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .user_agent(concat!("godwit/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_max_idle_per_host(0)
            .http1_only()
            .http1_max_headers(ANSWER_HEADERS_MAX)
            .dns_resolver(Arc::new(Resolver { policy: self.policy.clone() }));
        if !is_tls {
            builder = builder.tls_certs_only([]);
        }
        builder.build()
    }
}

/// Whether the client's own reading of a url is ours.
fn is_same(url: &reqwest::Url, target: &Target) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_tls = url.scheme() == "https";
    host == target.host && url.port_or_known_default() == Some(target.port) && is_tls == target.is_tls
}

fn not_allowed(address: IpAddr) -> String {
    format!(
        "{address} is not of the public internet, and the host's operator has not listed it in operations.networks"
    )
}

/// What lies at the bottom of an error: the sentences above it say only that a request failed.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut bottom: &dyn Error = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}

/// Reads an answer, as much of it as an input has room for.
async fn take(mut response: Response) -> OperationEnd {
    let status = Some(response.status().as_u16());
    let text = |value: &reqwest::header::HeaderValue| value.to_str().ok().map(str::to_owned);
    let content_type = response.headers().get("content-type").and_then(text).unwrap_or_default();
    let headers = response.headers().iter();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
    let end = OperationEnd {
        outcome: Outcome::Completed,
        status,
        reason: String::new(),
        content_type,
        headers: headers.filter(|(name, _)| name != "content-type").collect(),
        body: Bytes::new(),
    };
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= OPERATION_ANSWER_BYTES_MAX => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                let reason = format!("the answer has more than {OPERATION_ANSWER_BYTES_MAX} bytes");
                return OperationEnd { outcome: Outcome::Failed, reason, ..end };
            }
            Ok(None) => return OperationEnd { body: body.freeze(), ..end },
            Err(error) => {
                let reason = format!("the answer broke off: {}", innermost(&error));
                return OperationEnd { outcome: Outcome::Unknown, reason, ..end };
            }
        }
    }
}

/// Resolves names to the addresses that may be reached, and to no other.
struct Resolver {
    policy: Arc<OperationPolicy>,
}

/// A name leads nowhere that may be reached.
#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error("{name} can't be resolved: {reason}")]
    Failed { name: String, reason: String },
    #[error("{name} has no address")]
    Nothing { name: String },
    #[error("{name} leads to an address that may not be reached: {}", not_allowed(*address))]
    NotAllowed { name: String, address: IpAddr },
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found
                .map_err(|error| ResolveError::Failed { name: name.clone(), reason: error.to_string() })?;
            let addresses = allowed(&policy, &name, found.collect())?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name, if all of them may be reached. A name with one that may not is not to be trusted.
fn allowed(
    policy: &OperationPolicy,
    name: &str,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let name = || name.to_owned();
    if addresses.is_empty() {
        return Err(ResolveError::Nothing { name: name() });
    }
    match addresses.iter().find(|address| !policy.allows(address.ip())) {
        Some(address) => Err(ResolveError::NotAllowed { name: name(), address: address.ip() }),
        None => Ok(addresses),
    }
}

#[cfg(test)]
mod tests;
