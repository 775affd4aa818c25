//! An agent that signs texts with its own key, and verifies what other agents have signed.
//!
//! | payload | does | reply |
//! |---|---|---|
//! | `sign TEXT` | signs TEXT as this agent, and counts | `{"public_key": HEX, "signature": HEX}` |
//! | `key` | | its public key, 64 hex digits |
//! | `verify AGENT KEY SIGNATURE TEXT` | | `valid` or `invalid`: whether AGENT, whose public key is KEY, has signed TEXT |
//! | `count` | | how many texts it has signed, in decimal |
//! | `last` | | the reply to the last `sign`; `none` before the first |
//!
//! All but `sign` work as queries too, and `sign` does there without counting. What can't be parsed is
//! `refused("malformed")`, a text that is too long `refused("too_large")`; without a key it is `refused("no_key")`.

#![forbid(unsafe_code)]

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use godwit_guest::{Agent, AgentError, Host, IdentityError, Input, Query, ReadHost, Reply, signed_bytes};
use serde::{Deserialize, Serialize};

/// What was signed so far.
#[derive(Default, Serialize, Deserialize)]
pub struct Signer {
    signed: u64,
    last: String,
}

enum Command<'a> {
    Sign(&'a str),
    Key,
    Verify { agent: &'a str, key: [u8; 32], signature: [u8; 64], text: &'a str },
    Count,
    Last,
}

impl<'a> Command<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match (word, rest) {
            ("key", "") => Self::Key,
            ("count", "") => Self::Count,
            ("last", "") => Self::Last,
            ("sign", text) => Self::Sign(text),
            ("verify", rest) => {
                let mut parts = rest.splitn(4, ' ');
                let (agent, key, signature) = (parts.next()?, parts.next()?, parts.next()?);
                let (key, signature) = (unhex(key)?, unhex(signature)?);
                Self::Verify { agent, key, signature, text: parts.next()? }
            }
            _ => return None,
        })
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn is_signed(agent: &str, key: &[u8; 32], signature: &[u8; 64], text: &str) -> bool {
    let bytes = signed_bytes(agent, text.as_bytes());
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(&bytes, &signature).is_ok())
}

fn signed(text: &str, host: &mut impl ReadHost) -> Result<String, IdentityError> {
    let (key, signature) = (host.public_key()?, host.sign(text.as_bytes())?);
    Ok(format!(
        r#"{{"public_key": "{}", "signature": "{}"}}"#,
        HEXLOWER.encode(&key),
        HEXLOWER.encode(&signature)
    ))
}

fn reply(answer: Result<String, IdentityError>) -> Result<Reply, AgentError> {
    match answer {
        Ok(text) => Ok(Reply::text(text)),
        Err(IdentityError::TooLarge) => Ok(Reply::refused("too_large")),
        Err(IdentityError::NoKey) => Ok(Reply::refused("no_key")),
        Err(error) => Err(error.into()),
    }
}

impl Signer {
    fn answer(&self, command: &Command<'_>, host: &mut impl ReadHost) -> Result<String, IdentityError> {
        Ok(match command {
            Command::Sign(text) => signed(text, host)?,
            Command::Key => HEXLOWER.encode(&host.public_key()?),
            Command::Verify { agent, key, signature, text } => {
                let verdict = if is_signed(agent, key, signature, text) { "valid" } else { "invalid" };
                verdict.to_owned()
            }
            Command::Count => self.signed.to_string(),
            Command::Last if self.signed == 0 => "none".to_owned(),
            Command::Last => self.last.clone(),
        })
    }
}

impl Agent for Signer {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        let Some(command) = input.text().and_then(Command::parse) else {
            return Ok(Reply::refused("malformed"));
        };
        let answer = self.answer(&command, host);
        if let (Command::Sign(_), Ok(answer)) = (&command, &answer) {
            self.signed += 1;
            self.last.clone_from(answer);
        }
        reply(answer)
    }
}

impl Query for Signer {
    fn query(&self, payload: &[u8], host: &mut impl ReadHost) -> Result<Reply, AgentError> {
        match std::str::from_utf8(payload).ok().and_then(Command::parse) {
            Some(command) => reply(self.answer(&command, host)),
            None => Ok(Reply::refused("malformed")),
        }
    }
}

godwit_guest::export!(Signer: Query, manifest = include_str!("../godwit.toml"));

#[cfg(test)]
mod tests;
