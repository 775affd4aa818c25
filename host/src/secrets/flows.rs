//! Sign-ins as a host does them: starts flows, asks for devices' answers, sends each code once, refreshes tokens before they
//! end. What may happen is `book.rs`'s to say, inside the store's one transaction; what is asked of servers is `oauth.rs`'s.
//!
//! What asks a server and then writes runs in a task of its own: a caller that goes away must not leave a code sent and its
//! answer lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use futures::future::join_all;
use godwit_core::failpoint;
use godwit_core::id::{AuthFlowId, HostId};
use godwit_core::operation::secret::SecretName;
use godwit_core::retry::Backoff;
use godwit_core::store::{AuthFlowError, RuntimeStore, StoreError};
use godwit_core::task::TaskGroup;
use godwit_core::time::{Clock, sleep, within};
use tokio::sync::{Notify, oneshot};

use super::book::{Book, BookError, Flow, FlowKind, FlowState, Kept, Open, Refresh, Tokens};
use super::oauth::{Grant, OAuthClient, OAuthConfig, OAuthError, TokenAnswer, check_redirect};
use super::{Origin, SecretConfig, SecretError, SecretText, SecretsConfig};

/// How long a browser may take to come back.
const PKCE_LIFE_MS: u64 = 10 * 60_000;
/// A code that a browser brings, and a state, in bytes.
const CODE_MAX: usize = 4 * 1024;
/// A server that does not answer is asked again after its interval times two to this at most.
const SILENCES_MAX: u32 = 4;
/// Pauses between tries to write what a server has given, and how often it is tried: the server gives it once.
const WRITE_FIRST: Duration = Duration::from_millis(50);
const WRITE_PAUSE_MAX: Duration = Duration::from_secs(2);
const WRITES_MAX: u32 = 10;
/// How often a host looks whether another has refreshed tokens.
const OTHER_PAUSE: Duration = Duration::from_millis(200);
/// How long a host that ends in order waits for what a server is about to give: shorter than it waits for its tasks.
const GRACE: Duration = Duration::from_secs(5);

/// Why a sign-in was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not configured.
    #[error("the host has no secret {name}: add [secrets.{name}] to its configuration")]
    NoSecret {
        /// What was named.
        name: String,
    },
    /// Its value is given, not obtained.
    #[error("the operator gives secret {name} by {kind}: nobody signs in for it")]
    Given {
        /// Which.
        name: SecretName,
        /// Its kind.
        kind: &'static str,
    },
    /// The configuration does not say where.
    #[error("secret {name} has no {key}: add it to [secrets.{name}.oauth], or sign in in the other way")]
    NoSuchKind {
        /// Which.
        name: SecretName,
        /// What is missing.
        key: &'static str,
    },
    /// A part of the request is not what it must be.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The flow's state, or that of all of them, does not allow it.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The authorization server gave nothing.
    #[error(transparent)]
    Server(#[from] OAuthError),
    /// The host ends; what became of it will be shown.
    #[error("the host is stopping: look at the sign-in again")]
    Stopping,
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tokens as they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenView {
    /// Unix milliseconds; without it nobody knows.
    pub expires_at_ms: Option<u64>,
}

/// When a device flow is asked about next.
#[derive(Debug, Clone, Copy)]
struct Poll {
    at_ms: u64,
    /// Times in a row that its server did not answer.
    silences: u32,
}

/// The sign-ins of a host.
#[derive(Clone)]
pub struct AuthFlows(Arc<Inner>);

struct Inner {
    host: HostId,
    store: Arc<dyn RuntimeStore>,
    clock: Arc<dyn Clock>,
    secrets: Arc<SecretsConfig>,
    tasks: TaskGroup,
    server: OAuthClient,
    polls: Mutex<HashMap<AuthFlowId, Poll>>,
    /// Who refreshes a secret's tokens holds its lock: the others wait, and find them refreshed. Between hosts the book says.
    refreshing: Mutex<HashMap<SecretName, Arc<tokio::sync::Mutex<()>>>>,
    /// Set when a device flow was started.
    started: Notify,
}

impl AuthFlows {
    /// A host's sign-ins for these secrets, kept in a store.
    pub fn new(
        host: HostId,
        store: Arc<dyn RuntimeStore>,
        clock: Arc<dyn Clock>,
        secrets: Arc<SecretsConfig>,
        tasks: TaskGroup,
    ) -> Self {
        Self(Arc::new(Inner {
            host,
            store,
            clock,
            secrets,
            tasks,
            server: OAuthClient::default(),
            polls: Mutex::default(),
            refreshing: Mutex::default(),
            started: Notify::new(),
        }))
    }

    /// Starts a sign-in.
    ///
    /// # Errors
    /// `AuthError`; no flow is open then, unless the store's answer is unknown.
    pub async fn start(
        &self,
        secret: &str,
        kind: FlowKind,
        redirect_uri: Option<String>,
    ) -> Result<Flow, AuthError> {
        let (name, config) = self.0.client_of(secret)?;
        // A server is not asked for what there is no room for.
        let now_ms = self.0.clock.wall_ms();
        self.0.book().await?.has_room(now_ms)?;
        let (open, life_ms) = match kind {
            FlowKind::Device => {
                if redirect_uri.is_some() {
                    return Err(AuthError::Invalid {
                        reason: "a sign-in of kind device has no redirect_uri".into(),
                    });
                }
                self.0.open_device(&name, &config).await?
            }
            FlowKind::Pkce => (self.0.open_pkce(&name, &config, redirect_uri)?, PKCE_LIFE_MS),
        };
        let now_ms = self.0.clock.wall_ms();
        let flow = Flow {
            id: AuthFlowId::generate(now_ms, self.0.clock.random()),
            secret: name.as_str().to_owned(),
            kind,
            client: config.digest(),
            host: self.0.host,
            started_at_ms: now_ms,
            expires_at_ms: now_ms + life_ms,
            changed_at_ms: now_ms,
            state: FlowState::Open(open),
        };
        let admitted = flow.clone();
        self.0.change(move |book| book.admit(admitted, now_ms)).await?;
        tracing::info!(flow = %flow.id, secret = %name, kind = kind.name(), "sign-in started");
        if kind == FlowKind::Device {
            self.0.started.notify_one();
        }
        Ok(flow)
    }

    /// All flows that are known, in the order of their starts.
    ///
    /// # Errors
    /// As the store's.
    pub async fn list(&self) -> Result<Vec<Flow>, AuthError> {
        let now_ms = self.0.clock.wall_ms();
        let mut flows = self.0.book().await?.flows;
        flows.iter_mut().for_each(|flow| flow.expire(now_ms));
        Ok(flows)
    }

    /// One flow.
    ///
    /// # Errors
    /// `NoFlow`; as the store's.
    pub async fn show(&self, id: AuthFlowId) -> Result<Flow, AuthError> {
        let now_ms = self.0.clock.wall_ms();
        let mut book = self.0.book().await?;
        Ok(book.flow(id, now_ms)?.clone())
    }

    /// Ends a flow that is open. Repeating it is success.
    ///
    /// # Errors
    /// `NoFlow`, `Over`; as the store's.
    pub async fn cancel(&self, id: AuthFlowId) -> Result<(), AuthError> {
        let now_ms = self.0.clock.wall_ms();
        self.0.change(move |book| book.cancel(id, now_ms)).await?;
        tracing::info!(flow = %id, "sign-in cancelled");
        Ok(())
    }

    /// Sends the code that a browser brought, once, and answers what became of the flow.
    ///
    /// # Errors
    /// `AuthError`. With `Book` nothing was sent and the flow is as it was; with `Server` it has failed.
    ///
    /// Crash: the flow is open; or consumed, without tokens; or done, with all of them.
    pub async fn complete(&self, id: AuthFlowId, code: String, state: String) -> Result<Flow, AuthError> {
        let (code, state) = (SecretText::new(code), SecretText::new(state));
        let is_sound = |text: &SecretText| {
            let text = text.expose();
            (1..=CODE_MAX).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if !is_sound(&code) || !is_sound(&state) {
            let reason = format!("code and state are 1 to {CODE_MAX} visible ASCII characters");
            return Err(AuthError::Invalid { reason });
        }
        let inner = self.0.clone();
        self.0.detached(async move { inner.exchange(id, code, state).await }).await?;
        self.show(id).await
    }

    /// The value of a secret that is obtained: its access token, refreshed if it would end soon.
    ///
    /// # Errors
    /// `NoValue`.
    pub async fn token(&self, name: &SecretName, config: &OAuthConfig) -> Result<SecretText, SecretError> {
        let none = |reason: String| SecretError::NoValue { name: name.clone(), reason };
        let now_ms = self.0.clock.wall_ms();
        let tokens = self.0.tokens(name, config).await.map_err(|error| none(error.to_string()))?;
        let tokens = tokens.ok_or_else(|| none(format!("nobody has signed in: godwit auth start {name}")))?;
        if tokens.is_fresh(now_ms) {
            return Ok(tokens.access.0);
        }
        let (inner, secret, client) = (self.0.clone(), name.clone(), config.clone());
        let refreshed = self.0.detached(async move { inner.refresh(&secret, &client).await }).await;
        match refreshed {
            Ok(tokens) => Ok(tokens.access.0),
            // What is still good for a moment is better than nothing.
            Err(_) if tokens.is_valid(self.0.clock.wall_ms()) => Ok(tokens.access.0),
            Err(error) => Err(none(format!("{error}; if that stays so: godwit auth start {name}"))),
        }
    }

    /// What is known of the tokens of a secret; `None` when nobody has signed in.
    ///
    /// # Errors
    /// Why they would not do.
    pub async fn token_view(
        &self,
        name: &SecretName,
        config: &OAuthConfig,
    ) -> Result<Option<TokenView>, String> {
        let Some(tokens) = self.0.tokens(name, config).await.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        if !tokens.is_valid(self.0.clock.wall_ms()) && tokens.refresh.is_none() {
            let reason = tokens.refused.unwrap_or_else(|| "they can't be refreshed".into());
            return Err(format!("its tokens have expired: {reason}"));
        }
        Ok(Some(TokenView { expires_at_ms: tokens.expires_at_ms }))
    }

    /// Asks about devices until shutdown.
    pub async fn run(self) {
        let shutdown = self.0.tasks.shutdown();
        loop {
            let pause = self.step().await;
            let waiting = async {
                match pause {
                    Some(pause) => drop(within(pause, self.0.started.notified()).await),
                    None => self.0.started.notified().await,
                }
            };
            // Cancel safe: a notice that is lost with it is not needed any more.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = waiting => {}
            }
        }
    }

    /// Asks about each device whose time has come. Answers how long nothing is to be done; `None` when nobody waits.
    pub async fn step(&self) -> Option<Duration> {
        if self.0.secrets.values().all(|secret| matches!(secret.origin, Origin::Given(_))) {
            return None;
        }
        let flows = match self.list().await {
            Ok(flows) => flows,
            Err(error) => {
                tracing::debug!(%error, "sign-ins can't be read");
                return Some(WRITE_PAUSE_MAX);
            }
        };
        let now_ms = self.0.clock.wall_ms();
        let mut waiting = HashMap::new();
        for flow in flows.into_iter().filter(|flow| flow.host == self.0.host) {
            if let FlowState::Open(Open::Device { interval_s, device_code, .. }) = &flow.state {
                let first = Poll { at_ms: now_ms + interval_s * 1_000, silences: 0 };
                let poll = *self.0.polls().entry(flow.id).or_insert(first);
                waiting.insert(flow.id, (poll, *interval_s, device_code.0.clone(), flow));
            }
        }
        self.0.polls().retain(|id, _| waiting.contains_key(id));
        let due = waiting.values().filter(|(poll, ..)| poll.at_ms <= now_ms);
        join_all(due.map(|(poll, interval_s, code, flow)| self.0.poll(*poll, *interval_s, code, flow))).await;
        let next_ms = self.0.polls().values().map(|poll| poll.at_ms).min()?;
        Some(Duration::from_millis(next_ms.saturating_sub(self.0.clock.wall_ms())))
    }
}

impl Inner {
    fn polls(&self) -> MutexGuard<'_, HashMap<AuthFlowId, Poll>> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that obtains a secret.
    fn client_of(&self, secret: &str) -> Result<(SecretName, OAuthConfig), AuthError> {
        let found = self.secrets.iter().find(|(name, _)| name.as_str() == secret);
        match found {
            None => Err(AuthError::NoSecret { name: secret.chars().take(64).collect() }),
            Some((name, SecretConfig { origin: Origin::SignIn(config), .. })) => {
                Ok((name.clone(), config.as_ref().clone()))
            }
            Some((name, secret)) => Err(AuthError::Given { name: name.clone(), kind: secret.origin.kind() }),
        }
    }

    async fn open_device(&self, name: &SecretName, config: &OAuthConfig) -> Result<(Open, u64), AuthError> {
        let at = config.device_authorization_url.as_ref();
        let at =
            at.ok_or_else(|| AuthError::NoSuchKind { name: name.clone(), key: "device_authorization_url" })?;
        let answer = self.server.device_code(config, at).await?;
        let open = Open::Device {
            device_code: Kept(answer.device_code),
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete,
            interval_s: answer.interval_s,
        };
        Ok((open, answer.expires_in_s * 1_000))
    }

    fn open_pkce(
        &self,
        name: &SecretName,
        config: &OAuthConfig,
        redirect_uri: Option<String>,
    ) -> Result<Open, AuthError> {
        let page = config.authorize_url.as_ref();
        let page = page.ok_or_else(|| AuthError::NoSuchKind { name: name.clone(), key: "authorize_url" })?;
        if let Some(uri) = &redirect_uri {
            check_redirect(uri).map_err(|reason| AuthError::Invalid { reason })?;
        }
        // 32 bytes are 43 characters, as many as a verifier must have.
        let random = || SecretText::new(BASE64URL_NOPAD.encode(&self.clock.random::<32>()));
        let (verifier, state) = (random(), random());
        let authorize_url = config.page(page, redirect_uri.as_deref(), state.expose(), verifier.expose());
        Ok(Open::Pkce { verifier: Kept(verifier), state: Kept(state), authorize_url, redirect_uri })
    }

    async fn book(&self) -> Result<Book, AuthError> {
        Ok(Book::read(self.store.load_auth_flow().await?.as_deref())?)
    }

    /// Changes the book in one transaction of the store.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, AuthError> {
        // The store's closure answers in words; the typed answer goes past it.
        let told = Arc::new(Mutex::new(None));
        let tell = told.clone();
        let updated = self.store.update_auth_flow(Box::new(move |payload| {
            let changed = Book::read(payload).and_then(|mut book| {
                let answer = change(&mut book)?;
                Ok((book.write()?, answer))
            });
            let (payload, answer) = match changed {
                Ok((payload, answer)) => (Ok(payload.to_vec()), Ok(answer)),
                Err(error) => (Err(error.to_string()), Err(error)),
            };
            *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            payload
        }));
        let updated = updated.await;
        let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (updated, told) {
            (Ok(_), Some(answer)) | (Err(AuthFlowError::Refused { .. }), Some(answer)) => Ok(answer?),
            (Err(AuthFlowError::Store(error)), _) => Err(error.into()),
            (Ok(_) | Err(AuthFlowError::Refused { .. }), None) => {
                Err(StoreError::Corrupt { what: "the payload of auth flows: it was not changed".into() }
                    .into())
            }
        }
    }

    /// Changes the book with what a server has given once: tries again while the store can't.
    async fn keep(
        &self,
        change: impl Fn(&mut Book) -> Result<(), BookError> + Clone + Send + 'static,
    ) -> Result<(), AuthError> {
        let shutdown = self.tasks.shutdown();
        let mut backoff = Backoff::new(WRITE_FIRST, WRITE_PAUSE_MAX);
        let mut tries = 0;
        loop {
            tries += 1;
            // Repeating it is success, so that an unknown outcome is tried again as well.
            match self.change(change.clone()).await {
                Err(AuthError::Store(error)) if tries < WRITES_MAX => {
                    tracing::warn!(%error, "what a sign-in has brought can't be written now");
                }
                ended => return ended,
            }
            let [random] = self.clock.random();
            if within(backoff.delay(random), shutdown.cancelled()).await.is_some() {
                return Err(AuthError::Stopping);
            }
        }
    }

    /// Does something in a task that ends even if nobody waits for it any more.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AuthError>> + Send + 'static,
    ) -> Result<T, AuthError> {
        let (tell, told) = oneshot::channel();
        let shutdown = self.tasks.shutdown();
        self.tasks.spawn(async move {
            let late = async {
                shutdown.cancelled().await;
                sleep(GRACE).await;
            };
            // Cancel safe: what is dropped here is consumed and not settled, which is what the book says.
            tokio::select! {
                biased;
                answer = work => drop(tell.send(answer)),
                () = late => {}
            }
        });
        told.await.unwrap_or(Err(AuthError::Stopping))
    }

    async fn exchange(&self, id: AuthFlowId, code: SecretText, state: SecretText) -> Result<(), AuthError> {
        let now_ms = self.clock.wall_ms();
        failpoint::hit("auth.before-consume");
        let consumed = self.change(move |book| book.consume(id, &state, now_ms)).await?;
        failpoint::hit("auth.after-consume");
        let answer = match self.client_of(&consumed.secret) {
            Ok((_, config)) if config.digest() == consumed.client => {
                let redirect_uri = consumed.redirect_uri.as_deref();
                let grant = Grant::Code { code: &code, verifier: &consumed.verifier, redirect_uri };
                self.server.tokens(&config, grant).await
            }
            _ => {
                let reason = "the configuration of its secret has changed meanwhile".into();
                return self.settle(id, Err(FlowState::Failed { reason })).await;
            }
        };
        failpoint::hit("auth.before-settle");
        match answer {
            Ok(answer) => self.settle(id, Ok(answer)).await,
            Err(error) => {
                self.settle(id, Err(FlowState::Failed { reason: error.to_string() })).await?;
                Err(error.into())
            }
        }
    }

    async fn settle(&self, id: AuthFlowId, answer: Result<TokenAnswer, FlowState>) -> Result<(), AuthError> {
        let now_ms = self.clock.wall_ms();
        let end = answer.as_ref().map_or_else(FlowState::name, |_| "done");
        let settled = self.keep(move |book| book.settle(id, answer.clone(), now_ms)).await;
        failpoint::hit("auth.after-settle");
        match &settled {
            Ok(()) => tracing::info!(flow = %id, state = end, "sign-in ended"),
            Err(error) => tracing::warn!(flow = %id, %error, "what a sign-in has brought is lost"),
        }
        settled
    }

    /// Asks once about a device.
    async fn poll(&self, poll: Poll, interval_s: u64, code: &SecretText, flow: &Flow) {
        let ended = |reason: String| Err(FlowState::Failed { reason });
        let (mut interval_s, mut silences) = (interval_s, 0);
        let answer = match self.client_of(&flow.secret) {
            Ok((_, config)) if config.digest() == flow.client => {
                self.server.tokens(&config, Grant::Device(code)).await
            }
            _ => Err(OAuthError::Odd {
                reason: "the configuration of its secret has changed meanwhile".into(),
            }),
        };
        let end = match answer {
            Ok(answer) => Some(Ok(answer)),
            Err(OAuthError::Silent { reason }) => {
                tracing::debug!(flow = %flow.id, reason, "no answer about a device");
                silences = (poll.silences + 1).min(SILENCES_MAX);
                None
            }
            Err(OAuthError::Refused { code, words }) => match code.as_str() {
                "authorization_pending" => None,
                "slow_down" => {
                    let (id, now_ms) = (flow.id, self.clock.wall_ms());
                    // Also durably, so that a restart asks no sooner. What fails is tried with the next such answer.
                    let slower = self.change(move |book| book.slow_down(id, now_ms)).await;
                    interval_s = slower.unwrap_or(interval_s);
                    None
                }
                "expired_token" => Some(Err(FlowState::Expired)),
                _ => Some(ended(OAuthError::Refused { code, words }.to_string())),
            },
            Err(error) => Some(ended(error.to_string())),
        };
        if let Some(end) = end {
            failpoint::hit("auth.before-settle");
            drop(self.settle(flow.id, end).await);
        }
        let at_ms = self.clock.wall_ms() + (interval_s << silences) * 1_000;
        self.polls().insert(flow.id, Poll { at_ms, silences });
    }

    async fn tokens(&self, name: &SecretName, config: &OAuthConfig) -> Result<Option<Tokens>, AuthError> {
        let tokens = self.book().await?.tokens.remove(name.as_str());
        // Those of another client are nobody's any more.
        Ok(tokens.filter(|tokens| tokens.client == config.digest()))
    }

    /// Refreshes tokens, unless somebody else just has.
    async fn refresh(&self, name: &SecretName, config: &OAuthConfig) -> Result<Tokens, AuthError> {
        let lock = {
            let mut refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
            refreshing.entry(name.clone()).or_default().clone()
        };
        let _alone = lock.lock().await;
        let (client, host) = (config.digest(), self.host);
        let used = loop {
            let (secret, now_ms) = (name.clone(), self.clock.wall_ms());
            match self.change(move |book| Ok(book.refresh(&secret, client, host, now_ms))).await? {
                Refresh::Fresh(tokens) => return Ok(tokens),
                Refresh::Never(reason) => return Err(AuthError::Invalid { reason }),
                Refresh::Ask(used) => break used,
                Refresh::Wait => sleep(OTHER_PAUSE).await,
            }
        };
        let (answer, failed) = match self.server.tokens(config, Grant::Refresh(&used)).await {
            Ok(answer) => (Some(Ok(answer)), None),
            // It is worth nothing from now on; other errors may pass.
            Err(OAuthError::Refused { code, words }) if code == "invalid_grant" => {
                let error = OAuthError::Refused { code, words };
                (Some(Err(error.to_string())), Some(error))
            }
            Err(error) => (None, Some(error)),
        };
        failpoint::hit("auth.before-refreshed");
        let (secret, now_ms) = (name.clone(), self.clock.wall_ms());
        self.keep(move |book| {
            book.refreshed(&secret, &used, answer.clone(), now_ms);
            Ok(())
        })
        .await?;
        failpoint::hit("auth.after-refreshed");
        if let Some(error) = failed {
            tracing::warn!(secret = %name, %error, "tokens can't be refreshed");
            return Err(error.into());
        }
        let tokens = self.tokens(name, config).await?;
        tokens.ok_or_else(|| AuthError::Invalid { reason: "its tokens are gone".into() })
    }
}

#[cfg(test)]
mod tests;
