//! OAuth 2.0 as its client speaks it: device authorization (RFC 8628), authorization code with PKCE S256 (RFC 7636), and
//! refreshing (RFC 6749, section 6). What is asked and what came of it; flows and their rules are in `book.rs`.
//!
//! No redirects, no proxies; answers are JSON of at most `ANSWER_BYTES_MAX`. A client secret goes into the body
//! (`client_secret_post`).

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use godwit_core::digest::Digest;
use godwit_core::limits::URL_BYTES_MAX;
use reqwest::{Client, Response, Url, redirect};
use serde_json::Value;
use zeroize::Zeroize;

use super::redact::cover_text;
use super::{SecretText, Source, is_loopback};
use crate::runtime::operations::http::innermost;

/// How long a server may take, from the connection to the last byte of the answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// An answer in bytes: a few tokens of `SECRET_BYTES_MAX`, and names.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A code for people, in characters.
const USER_CODE_MAX: usize = 64;
/// A device code in bytes.
const DEVICE_CODE_MAX: usize = 2 * 1024;
/// A server's words about an error, in characters.
const WORDS_MAX: usize = 200;
/// Seconds between polls if the server does not say, and at most.
const INTERVAL_DEFAULT_S: u64 = 5;
const INTERVAL_MAX_S: u64 = 300;
/// Fields of a form that are no secrets.
const OPEN_FIELDS: [&str; 4] = ["client_id", "grant_type", "redirect_uri", "scope"];
/// Seconds that a device code lives if the server does not say so plausibly, and at most.
const DEVICE_LIFE_MAX_S: u64 = 3_600;

/// The client that a host is at an authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthConfig {
    /// Its name there.
    pub client_id: String,
    /// What proves it, if it was given something.
    pub client_secret: Option<Source>,
    /// Where device codes are asked for.
    pub device_authorization_url: Option<Endpoint>,
    /// Where a browser is sent.
    pub authorize_url: Option<Endpoint>,
    /// Where tokens are asked for.
    pub token_url: Endpoint,
    /// What is asked for.
    pub scopes: Vec<String>,
}

impl OAuthConfig {
    /// Names the client and where its tokens come from: flows and tokens of another are of no use to it, and are never sent
    /// to its server.
    pub fn digest(&self) -> Digest {
        let parts = [&self.client_id, self.token_url.0.as_str()].map(str::as_bytes);
        let lengths = parts.map(|part| (part.len() as u64).to_be_bytes());
        Digest::of_parts([b"godwit oauth client".as_slice(), &lengths[0], parts[0], &lengths[1], parts[1]])
    }

    /// The page that a browser is sent to.
    pub fn page(
        &self,
        authorize_url: &Endpoint,
        redirect_uri: Option<&str>,
        state: &str,
        verifier: &str,
    ) -> String {
        let challenge = ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes());
        let mut url = authorize_url.0.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", &self.client_id);
            if let Some(redirect_uri) = redirect_uri {
                query.append_pair("redirect_uri", redirect_uri);
            }
            if !self.scopes.is_empty() {
                query.append_pair("scope", &self.scopes.join(" "));
            }
            query.append_pair("state", state);
            query.append_pair("code_challenge", &BASE64URL_NOPAD.encode(challenge.as_ref()));
            query.append_pair("code_challenge_method", "S256");
        }
        url.into()
    }
}

/// A url of an authorization server: encrypted, or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).ok().filter(|_| text.len() <= URL_BYTES_MAX);
        let is_encrypted = |url: &Url| {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            url.scheme() == "https" || (url.scheme() == "http" && is_loopback(host))
        };
        let is_bare =
            |url: &Url| url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        url.filter(|url| is_encrypted(url) && is_bare(url)).map(Self).ok_or_else(|| {
            "is not an https:// url (or http:// on this machine) without user, password and fragment".into()
        })
    }
}

/// Whether a text may be where a browser is sent back to.
///
/// # Errors
/// Why not.
pub fn check_redirect(text: &str) -> Result<(), String> {
    let url = Url::parse(text).ok().filter(|url| text.len() <= URL_BYTES_MAX && url.fragment().is_none());
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    match url {
        Some(_) if is_visible => Ok(()),
        _ => Err(format!("redirect_uri is not a url of at most {URL_BYTES_MAX} bytes without fragment")),
    }
}

/// A device code, and what its user must do.
#[derive(Debug)]
pub struct DeviceAnswer {
    /// For polling.
    pub device_code: SecretText,
    /// For the user to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Seconds until it is worth nothing.
    pub expires_in_s: u64,
    /// Seconds between polls.
    pub interval_s: u64,
}

/// Tokens as a server gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAnswer {
    /// What is sent to hosts.
    pub access: SecretText,
    /// For the next ones, if there will be any.
    pub refresh: Option<SecretText>,
    /// Seconds until it is worth nothing; without it nobody knows.
    pub expires_in_s: Option<u64>,
}

/// Why a server gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OAuthError {
    /// It said no.
    #[error("the authorization server says {code}{}", if words.is_empty() { String::new() } else { format!(": {words}") })]
    Refused {
        /// One of the specification's.
        code: String,
        /// For people.
        words: String,
    },
    /// No answer, or that it can't now. What was asked may have been done.
    #[error("the authorization server does not answer: {reason}")]
    Silent {
        /// What happened.
        reason: String,
    },
    /// An answer that is none.
    #[error("the authorization server's answer can't be used: {reason}")]
    Odd {
        /// What is wrong with it.
        reason: String,
    },
    /// The client has no secret, though it should.
    #[error("the client secret can't be read: {reason}")]
    NoClientSecret {
        /// Why.
        reason: String,
    },
}

/// What tokens are asked for with.
pub enum Grant<'a> {
    /// What a browser brought back.
    Code {
        /// The code.
        code: &'a SecretText,
        /// What the challenge was made of.
        verifier: &'a SecretText,
        /// As it was when the browser was sent.
        redirect_uri: Option<&'a str>,
    },
    /// A device code whose user may have answered.
    Device(&'a SecretText),
    /// Tokens that are about to end.
    Refresh(&'a SecretText),
}

/// Asks authorization servers.
#[derive(Default)]
pub struct OAuthClient {
    plain: OnceLock<Result<Client, String>>,
    /// Of its own, because reading the system's certificates takes long, and fails where there are none.
    tls: OnceLock<Result<Client, String>>,
}

impl OAuthClient {
    /// Asks for a device code.
    ///
    /// # Errors
    /// As `OAuthError` says.
    pub async fn device_code(&self, config: &OAuthConfig, at: &Endpoint) -> Result<DeviceAnswer, OAuthError> {
        let answer = self.ask(config, at, vec![("scope", scope_of(config))]).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let odd = |what: &str| OAuthError::Odd { reason: format!("{what} is missing or too long") };
        let is_uri = |uri: &String| uri.len() <= URL_BYTES_MAX && Url::parse(uri).is_ok();
        let device_code = text("device_code").filter(|code| (1..=DEVICE_CODE_MAX).contains(&code.len()));
        let user_code = text("user_code").filter(|code| (1..=USER_CODE_MAX).contains(&code.len()));
        // Some servers still speak the draft.
        let uri = text("verification_uri").or_else(|| text("verification_url")).filter(is_uri);
        let seconds = |name: &str| answer.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        Ok(DeviceAnswer {
            device_code: SecretText::new(device_code.ok_or_else(|| odd("device_code"))?),
            user_code: user_code.ok_or_else(|| odd("user_code"))?,
            verification_uri: uri.ok_or_else(|| odd("verification_uri"))?,
            verification_uri_complete: text("verification_uri_complete").filter(is_uri),
            expires_in_s: seconds("expires_in").unwrap_or(DEVICE_LIFE_MAX_S).min(DEVICE_LIFE_MAX_S),
            interval_s: seconds("interval").unwrap_or(INTERVAL_DEFAULT_S).min(INTERVAL_MAX_S),
        })
    }

    /// Asks for tokens.
    ///
    /// # Errors
    /// As `OAuthError` says; a device whose user has not answered yet is `Refused` as well.
    pub async fn tokens(&self, config: &OAuthConfig, grant: Grant<'_>) -> Result<TokenAnswer, OAuthError> {
        let owned = |text: &SecretText| text.expose().to_owned();
        let form = match grant {
            Grant::Code { code, verifier, redirect_uri } => {
                let mut form = vec![
                    ("grant_type", "authorization_code".to_owned()),
                    ("code", owned(code)),
                    ("code_verifier", owned(verifier)),
                ];
                form.extend(redirect_uri.map(|uri| ("redirect_uri", uri.to_owned())));
                form
            }
            Grant::Device(code) => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code".to_owned()),
                ("device_code", owned(code)),
            ],
            Grant::Refresh(token) => {
                vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", owned(token))]
            }
        };
        let answer = self.ask(config, &config.token_url, form).await?;
        let token = |name: &str| match answer.get(name).and_then(Value::as_str) {
            None => Ok(None),
            Some(text) => SecretText::new(text.to_owned())
                .checked()
                .map(Some)
                .map_err(|reason| OAuthError::Odd { reason: format!("{name}: {reason}") }),
        };
        let access = token("access_token")?;
        // Some servers write the number as a text.
        let expires_in_s = answer.get("expires_in").and_then(|value| match value {
            Value::String(digits) => digits.parse().ok(),
            value => value.as_u64(),
        });
        Ok(TokenAnswer {
            access: access.ok_or_else(|| OAuthError::Odd { reason: "access_token is missing".into() })?,
            refresh: token("refresh_token")?,
            expires_in_s,
        })
    }

    /// Posts a form and reads the JSON that comes back.
    async fn ask(
        &self,
        config: &OAuthConfig,
        at: &Endpoint,
        mut form: Vec<(&'static str, String)>,
    ) -> Result<Value, OAuthError> {
        form.push(("client_id", config.client_id.clone()));
        if let Some(source) = &config.client_secret {
            let secret = source.read().await.map_err(|reason| OAuthError::NoClientSecret { reason })?;
            form.push(("client_secret", secret.expose().to_owned()));
        }
        form.retain(|(_, value)| !value.is_empty());
        let client = self.client(at.0.scheme() == "https").map_err(|reason| OAuthError::Silent { reason })?;
        let sent = client.post(at.0.clone()).header("accept", "application/json").form(&form).send().await;
        let mut answer = match sent {
            Ok(response) => read(response).await,
            Err(error) => Err(OAuthError::Silent { reason: innermost(&error) }),
        };
        if let Err(OAuthError::Refused { code, words }) = &mut answer {
            // A server that explains itself may repeat what it was sent.
            let values = form.iter().filter(|(name, _)| !OPEN_FIELDS.contains(name));
            let values: Vec<_> = values.map(|(_, value)| value.as_bytes()).collect();
            cover_text(code, &values);
            cover_text(words, &values);
        }
        for (_, value) in &mut form {
            value.zeroize();
        }
        answer
    }

    fn client(&self, is_tls: bool) -> Result<Client, String> {
        let place = if is_tls { &self.tls } else { &self.plain };
        place.get_or_init(|| build(is_tls).map_err(|error| innermost(&error))).clone()
    }
}

fn scope_of(config: &OAuthConfig) -> String {
    config.scopes.join(" ")
}

fn build(is_tls: bool) -> reqwest::Result<Client> {
    // Without a provider the builder panics, even for plain http. One that is there already is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = Client::builder()
        .user_agent(concat!("godwit/", env!("CARGO_PKG_VERSION")))
        .timeout(ANSWER_MAX)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(0)
        .http1_only();
    if !is_tls {
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

/// Reads an answer: an object without `error`.
async fn read(mut response: Response) -> Result<Value, OAuthError> {
    let status = response.status();
    // It may have another moment; what was asked is worth another try.
    let is_overloaded = status.is_server_error() || status.as_u16() == 429;
    let mut body = zeroize::Zeroizing::new(Vec::new());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                return Err(OAuthError::Odd { reason: format!("it has more than {ANSWER_BYTES_MAX} bytes") });
            }
            Ok(None) => break,
            Err(error) => return Err(OAuthError::Silent { reason: innermost(&error) }),
        }
    }
    let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = |name: &str| {
        let text = parsed.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect::<String>()
    };
    let code = words("error");
    if is_overloaded {
        return Err(OAuthError::Silent {
            reason: format!("status {} {code}", status.as_u16()).trim_end().to_owned(),
        });
    }
    // Some servers say no with a status that says yes.
    if !code.is_empty() {
        return Err(OAuthError::Refused { code, words: words("error_description") });
    }
    match parsed {
        Value::Object(_) if status.is_success() => Ok(parsed),
        _ => {
            Err(OAuthError::Odd { reason: format!("status {}, and no JSON that says why", status.as_u16()) })
        }
    }
}
