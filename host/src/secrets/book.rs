//! The book of sign-ins: flows that are open or have ended, and the tokens that they brought. Pure: what may happen to a flow
//! and when, and how all of it becomes the one payload that the store seals.
//!
//! ```text
//!             consume(code)               settle
//!   open ------------------> consumed ------------> done | failed       (pkce)
//!     | settle, without being consumed -----------> done | failed       (device: the server consumes its code)
//!     +---> expired | cancelled
//! ```
//! A flow is consumed before its code leaves the host, so that no code is sent twice; a host that dies then leaves it
//! consumed, which its user is shown. Tokens are in the book, whole, from the write on that makes a flow done. What has
//! ended keeps no secret.

use std::collections::BTreeMap;

use godwit_core::digest::Digest;
use godwit_core::id::{AuthFlowId, HostId};
use godwit_core::operation::secret::SecretName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::SecretText;
use super::oauth::TokenAnswer;

/// Flows that are open at once: people sign in one by one. With their urls and codes they take a third of the payload.
pub const OPEN_MAX: usize = 64;
/// Flows that have ended and are still shown; of more, the oldest go.
const ENDED_MAX: usize = 64;
/// Seconds that tokens are refreshed before they end: longer than clocks differ and a request takes to be answered.
const REFRESH_BEFORE_MS: u64 = 60_000;
/// No host asks longer than this to refresh tokens: an answer takes 30 s at most, and is then written.
const REFRESHING_MAX_MS: u64 = 60_000;
/// A server that wants fewer questions gets them so much later (RFC 8628, section 3.5).
const SLOW_DOWN_S: u64 = 5;
/// What the payload begins with.
const FORMAT: u8 = 1;

/// How a sign-in is done. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowKind {
    /// A code that is typed on another device.
    Device,
    /// A browser that comes back with a code.
    Pkce,
}

impl FlowKind {
    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Pkce => "pkce",
        }
    }
}

/// A text in the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept(pub SecretText);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretText::new(text)))
    }
}

/// What an open flow waits with. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// For its user to type a code.
    Device {
        /// For polling.
        device_code: Kept,
        /// For the user.
        user_code: String,
        /// Where the user types it.
        verification_uri: String,
        /// The same with the code in it.
        verification_uri_complete: Option<String>,
        /// Seconds between polls.
        interval_s: u64,
    },
    /// For a browser to come back.
    Pkce {
        /// What the challenge was made of.
        verifier: Kept,
        /// What the browser must bring back.
        state: Kept,
        /// Where the browser is sent.
        authorize_url: String,
        /// Where it comes back to.
        redirect_uri: Option<String>,
    },
}

/// How far a flow has come. The variants' order is part of the stored encoding: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowState {
    /// It waits.
    Open(Open),
    /// Its code was taken, and may have been sent.
    Consumed,
    /// There are tokens.
    Done,
    /// There are none.
    Failed {
        /// Why.
        reason: String,
    },
    /// Nobody came in time.
    Expired,
    /// Somebody ended it.
    Cancelled,
}

impl FlowState {
    /// The name in the HTTP API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Consumed => "consumed",
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Its name.
    pub id: AuthFlowId,
    /// The secret that it obtains.
    pub secret: String,
    /// How.
    pub kind: FlowKind,
    /// The client that it was started for.
    pub client: Digest,
    /// The host that it was started on: the only one that asks about its device.
    pub host: HostId,
    /// Unix milliseconds.
    pub started_at_ms: u64,
    /// Unix milliseconds: it can't be completed from then on.
    pub expires_at_ms: u64,
    /// Unix milliseconds of its last change of state.
    pub changed_at_ms: u64,
    /// How far it has come.
    pub state: FlowState,
}

/// What a sign-in has obtained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// The client that they were given to.
    pub client: Digest,
    /// What is sent to hosts.
    pub access: Kept,
    /// For the next ones.
    pub refresh: Option<Kept>,
    /// Unix milliseconds; without it nobody knows when they end.
    pub expires_at_ms: Option<u64>,
    /// Why they can't be refreshed any more.
    pub refused: Option<String>,
    /// Who refreshes them now, and until when nobody else does.
    pub refreshing: Option<(HostId, u64)>,
}

/// What whoever wants tokens refreshed must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// Nothing.
    Fresh(Tokens),
    /// Ask for other ones with this, which nobody else does meanwhile.
    Ask(SecretText),
    /// Wait: another host asks.
    Wait,
    /// Give up, for this reason.
    Never(String),
}

impl Tokens {
    fn of(answer: TokenAnswer, client: Digest, now_ms: u64) -> Self {
        let expires_at_ms =
            answer.expires_in_s.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1_000)));
        let refresh = answer.refresh.map(Kept);
        Self { client, access: Kept(answer.access), refresh, expires_at_ms, refused: None, refreshing: None }
    }

    /// Whether a request that is sent now would find them valid.
    pub fn is_valid(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|at| now_ms < at)
    }

    /// Whether they need not be refreshed yet.
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        self.is_valid(now_ms.saturating_add(REFRESH_BEFORE_MS))
    }
}

/// Why the book refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Too many are open.
    #[error("{OPEN_MAX} sign-ins are open already: complete or cancel one, or wait until one expires")]
    Full,
    /// Not in the book.
    #[error("there is no sign-in {id}; those that ended long ago are forgotten")]
    NoFlow {
        /// Which.
        id: AuthFlowId,
    },
    /// It can't go on.
    #[error("sign-in {id} is {state}: start another one")]
    Over {
        /// Which.
        id: AuthFlowId,
        /// What it is.
        state: &'static str,
    },
    /// Nobody completes it by hand.
    #[error("sign-in {id} is of kind device: its user types the code, and the host asks by itself")]
    NotByHand {
        /// Which.
        id: AuthFlowId,
    },
    /// The browser came from somewhere else.
    #[error("the state is not the one of sign-in {id}; nothing was sent, and the sign-in is still open")]
    WrongState {
        /// Which.
        id: AuthFlowId,
    },
    /// Not what this version writes.
    #[error("the stored sign-ins can't be read: {reason}")]
    Unreadable {
        /// What is wrong.
        reason: String,
    },
}

/// A code that may be sent now, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// The secret that is obtained.
    pub secret: String,
    /// The client that the flow was started for.
    pub client: Digest,
    /// What the challenge was made of.
    pub verifier: SecretText,
    /// Where the browser came back to.
    pub redirect_uri: Option<String>,
}

/// Flows and tokens of one store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// In the order of their starts.
    pub flows: Vec<Flow>,
    /// By name of the secret.
    pub tokens: BTreeMap<String, Tokens>,
}

impl Book {
    /// Reads a payload; there is none before the first.
    ///
    /// # Errors
    /// `Unreadable`.
    pub fn read(payload: Option<&[u8]>) -> Result<Self, BookError> {
        let unreadable = |reason: &str| BookError::Unreadable { reason: reason.into() };
        match payload.map(<[u8]>::split_first) {
            None => Ok(Self::default()),
            Some(Some((&FORMAT, rest))) => {
                postcard::from_bytes(rest).map_err(|_| unreadable("they are not what was written"))
            }
            Some(_) => Err(unreadable("another version of the host wrote them")),
        }
    }

    /// The payload.
    ///
    /// # Errors
    /// `Unreadable` never, unless memory ends.
    pub fn write(&self) -> Result<Zeroizing<Vec<u8>>, BookError> {
        let bytes = postcard::to_extend(self, vec![FORMAT]);
        bytes.map(Zeroizing::new).map_err(|error| BookError::Unreadable { reason: error.to_string() })
    }

    /// Takes a new flow in.
    ///
    /// # Errors
    /// `Full`.
    pub fn admit(&mut self, flow: Flow, now_ms: u64) -> Result<(), BookError> {
        self.has_room(now_ms)?;
        self.flows.push(flow);
        Ok(())
    }

    /// Whether a flow could be taken in.
    ///
    /// # Errors
    /// `Full`.
    pub fn has_room(&mut self, now_ms: u64) -> Result<(), BookError> {
        self.tidy(now_ms);
        let is_open = |flow: &&Flow| matches!(flow.state, FlowState::Open(_));
        if self.flows.iter().filter(is_open).count() >= OPEN_MAX { Err(BookError::Full) } else { Ok(()) }
    }

    /// Ends what has expired, and forgets the oldest of what has ended.
    fn tidy(&mut self, now_ms: u64) {
        for flow in &mut self.flows {
            flow.expire(now_ms);
        }
        let is_open = |flow: &Flow| matches!(flow.state, FlowState::Open(_));
        let ended = self.flows.iter().filter(|flow| !is_open(flow)).count();
        let mut too_many = ended.saturating_sub(ENDED_MAX);
        self.flows.retain(|flow| {
            let goes = too_many > 0 && !is_open(flow);
            too_many -= usize::from(goes);
            !goes
        });
    }

    /// One flow, as it is at a time.
    ///
    /// # Errors
    /// `NoFlow`.
    pub fn flow(&mut self, id: AuthFlowId, now_ms: u64) -> Result<&mut Flow, BookError> {
        let flow = self.flows.iter_mut().find(|flow| flow.id == id).ok_or(BookError::NoFlow { id })?;
        flow.expire(now_ms);
        Ok(flow)
    }

    /// Takes a flow's verifier out, once, for the code that a browser brought.
    ///
    /// # Errors
    /// `NoFlow`, `Over`, `NotByHand`, `WrongState`; the flow is as it was.
    pub fn consume(
        &mut self,
        id: AuthFlowId,
        state: &SecretText,
        now_ms: u64,
    ) -> Result<Consumed, BookError> {
        let flow = self.flow(id, now_ms)?;
        let FlowState::Open(open) = &flow.state else {
            return Err(BookError::Over { id, state: flow.state.name() });
        };
        let Open::Pkce { verifier, state: expected, redirect_uri, .. } = open else {
            return Err(BookError::NotByHand { id });
        };
        // Digests compare in a time that says nothing about the texts.
        if Digest::of(expected.0.expose().as_bytes()) != Digest::of(state.expose().as_bytes()) {
            return Err(BookError::WrongState { id });
        }
        let consumed = Consumed {
            secret: flow.secret.clone(),
            client: flow.client,
            verifier: verifier.0.clone(),
            redirect_uri: redirect_uri.clone(),
        };
        flow.go(FlowState::Consumed, now_ms);
        Ok(consumed)
    }

    /// Ends a flow as its server said: with tokens, or with a reason. Repeating it changes nothing.
    ///
    /// # Errors
    /// `NoFlow`, `Over` when somebody has ended it meanwhile: the tokens are not kept then.
    pub fn settle(
        &mut self,
        id: AuthFlowId,
        answer: Result<TokenAnswer, FlowState>,
        now_ms: u64,
    ) -> Result<(), BookError> {
        let flow = self.flows.iter_mut().find(|flow| flow.id == id).ok_or(BookError::NoFlow { id })?;
        match (&flow.state, &answer) {
            (FlowState::Done, Ok(_)) => return Ok(()),
            (FlowState::Consumed, _) | (FlowState::Open(Open::Device { .. }), _) => {}
            (state, _) => return Err(BookError::Over { id, state: state.name() }),
        }
        match answer {
            Ok(answer) => {
                let tokens = Tokens::of(answer, flow.client, now_ms);
                flow.go(FlowState::Done, now_ms);
                self.tokens.insert(flow.secret.clone(), tokens);
            }
            Err(end) => flow.go(end, now_ms),
        }
        Ok(())
    }

    /// Polls a device flow more seldom from now on. Answers how many seconds apart.
    ///
    /// # Errors
    /// `NoFlow`, `Over`.
    pub fn slow_down(&mut self, id: AuthFlowId, now_ms: u64) -> Result<u64, BookError> {
        let flow = self.flow(id, now_ms)?;
        match &mut flow.state {
            FlowState::Open(Open::Device { interval_s, .. }) => {
                *interval_s = interval_s.saturating_add(SLOW_DOWN_S);
                Ok(*interval_s)
            }
            state => Err(BookError::Over { id, state: state.name() }),
        }
    }

    /// Ends a flow because somebody wants that. Repeating it changes nothing.
    ///
    /// # Errors
    /// `NoFlow`, `Over` when it has ended otherwise.
    pub fn cancel(&mut self, id: AuthFlowId, now_ms: u64) -> Result<(), BookError> {
        let flow = self.flow(id, now_ms)?;
        match &flow.state {
            FlowState::Cancelled => {}
            FlowState::Open(_) => flow.go(FlowState::Cancelled, now_ms),
            state => return Err(BookError::Over { id, state: state.name() }),
        }
        Ok(())
    }

    /// Says what `host` must do to have fresh tokens of a secret, and if it is to ask, that it does. A host that died while it
    /// asked asks again; the others wait until it can't be asking any more: a refresh token may be good once.
    pub fn refresh(&mut self, secret: &SecretName, client: Digest, host: HostId, now_ms: u64) -> Refresh {
        let Some(tokens) = self.tokens.get_mut(secret.as_str()).filter(|tokens| tokens.client == client)
        else {
            return Refresh::Never("its tokens are gone".into());
        };
        if tokens.is_fresh(now_ms) {
            return Refresh::Fresh(tokens.clone());
        }
        let Some(Kept(used)) = &tokens.refresh else {
            let reason = tokens.refused.as_deref().unwrap_or("its server gave nothing to refresh it with");
            return Refresh::Never(format!("its token has expired: {reason}"));
        };
        if tokens.refreshing.is_some_and(|(by, until_ms)| by != host && now_ms < until_ms) {
            return Refresh::Wait;
        }
        let used = used.clone();
        tokens.refreshing = Some((host, now_ms.saturating_add(REFRESHING_MAX_MS)));
        Refresh::Ask(used)
    }

    /// Puts what a refresh has brought in the place of the tokens that it was asked with; those of a newer sign-in stay. An
    /// error: nothing more will come. None: nobody knows, and it may be tried again.
    pub fn refreshed(
        &mut self,
        secret: &SecretName,
        used: &SecretText,
        answer: Option<Result<TokenAnswer, String>>,
        now_ms: u64,
    ) {
        let Some(tokens) = self.tokens.get_mut(secret.as_str()) else { return };
        if tokens.refresh.as_ref().is_none_or(|refresh| refresh.0 != *used) {
            return;
        }
        tokens.refreshing = None;
        match answer {
            None => {}
            Some(Ok(answer)) => {
                // A server that gives no other one means that this one stays good.
                let kept = tokens.refresh.take();
                *tokens = Tokens::of(answer, tokens.client, now_ms);
                tokens.refresh = tokens.refresh.take().or(kept);
            }
            Some(Err(reason)) => {
                tokens.refresh = None;
                tokens.refused = Some(reason);
            }
        }
    }
}

impl Flow {
    fn go(&mut self, state: FlowState, now_ms: u64) {
        self.state = state;
        self.changed_at_ms = now_ms;
    }

    /// Ends it if its time is over.
    pub fn expire(&mut self, now_ms: u64) {
        if matches!(self.state, FlowState::Open(_)) && now_ms >= self.expires_at_ms {
            self.go(FlowState::Expired, now_ms);
        }
    }
}

#[cfg(test)]
mod tests;
