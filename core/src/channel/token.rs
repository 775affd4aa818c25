//! Permission tokens: what lets one agent do something on another one's channel.
//!
//! A token is a chain of links. The first is signed by the channel's owner; each further one by the bearer of the one before
//! it, which must have the right to delegate, and gives no more than that one gives. A link names its bearer by the public
//! half of an **entity key**, so a token is worth something in the hands of one agent alone, and stays so when that agent
//! moves, is reset or upgraded. It is worth nothing once it has expired, or the owner has revoked or was reset.
//!
//! A signature covers `LINK_PREFIX` and the link's postcard bytes; these name the digest of the link before it, so that no
//! link fits behind another one. Whoever uses a token proves at each use that it is the bearer: the request carries a
//! signature of the bearer over `PROOF_PREFIX`, the output's names and number, and the digest of all that is asked.
//! Entity keys sign nothing else that begins with either prefix.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgentId, Generation, Revision};
use crate::identity::{EntityKey, EntityPublicKey, is_signed, prefixed};
use crate::input::{DeliveryStamp, NewInput};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_LINKS_MAX};

use super::{Channel, ChannelName, ChannelRequest, Permission, Refusal};

/// What the signed bytes of a link begin with.
pub const LINK_PREFIX: &[u8] = b"godwit channel token v1\0";
/// What the signed bytes of a proof begin with.
pub const PROOF_PREFIX: &[u8] = b"godwit channel request v1\0";

/// A set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rights(pub u8);

impl Rights {
    /// To publish through the owner's channel.
    pub const PUBLISH: Self = Self(1);
    /// To subscribe.
    pub const SUBSCRIBE: Self = Self(2);
    /// To list and remove subscribers.
    pub const ADMIN: Self = Self(4);
    /// To pass on what one has.
    pub const DELEGATE: Self = Self(8);

    /// Whether all of `others` are among these.
    pub fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These and those.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// One link: who gives what to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The channel's owner.
    pub owner: AgentId,
    /// The channel.
    pub channel: ChannelName,
    /// Who signs: the owner in the first link, the bearer of the one before in others.
    pub issuer: EntityPublicKey,
    /// The owner's generation when the first link was issued; the same in all.
    pub generation: Generation,
    /// The owner's revision that issued the first link; the same in all.
    pub issued_at: Revision,
    /// Who may use it.
    pub bearer: EntityPublicKey,
    /// For what.
    pub rights: Rights,
    /// Until when, Unix milliseconds.
    pub expires_at_ms: u64,
    /// The digest of the link before it; zero in the first.
    pub parent: Digest,
}

impl Link {
    fn digest(&self) -> Digest {
        Digest::of(&prefixed(LINK_PREFIX, self))
    }
}

/// A link and its issuer's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedLink {
    /// What is signed.
    pub link: Link,
    /// 64 bytes.
    pub signature: Bytes,
}

/// A chain of links, the owner's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub Vec<SignedLink>);

/// Whom, for what and until when: what an issuer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Who may use it.
    pub bearer: EntityPublicKey,
    /// For what.
    pub rights: Rights,
    /// Until when, Unix milliseconds.
    pub expires_at_ms: u64,
}

impl Token {
    /// The first link, by the owner of a channel.
    pub fn issue(
        key: &EntityKey,
        (owner, channel): (&AgentId, &ChannelName),
        (generation, issued_at): (Generation, Revision),
        terms: Terms,
    ) -> Self {
        let link = Link {
            owner: owner.clone(),
            channel: channel.clone(),
            issuer: key.public(),
            generation,
            issued_at,
            bearer: terms.bearer,
            rights: terms.rights,
            expires_at_ms: terms.expires_at_ms,
            parent: Digest::ZERO,
        };
        Self(vec![sign(key, link)])
    }

    /// This token with one more link, by its bearer.
    ///
    /// # Errors
    /// `TokenOfAnother` when the key is not its bearer's; `NoRight` when it can't be passed on, or not that far; `TooDeep`.
    pub fn delegate(&self, key: &EntityKey, terms: Terms) -> Result<Self, Refusal> {
        let last = &self.0.last().ok_or(Refusal::TokenInvalid)?.link;
        if last.bearer != key.public() {
            return Err(Refusal::TokenOfAnother);
        }
        if self.0.len() >= TOKEN_LINKS_MAX {
            return Err(Refusal::TooDeep);
        }
        let link = Link {
            issuer: key.public(),
            bearer: terms.bearer,
            rights: terms.rights,
            expires_at_ms: terms.expires_at_ms,
            parent: last.digest(),
            ..last.clone()
        };
        check_narrower(last, &link)?;
        let mut links = self.0.clone();
        links.push(sign(key, link));
        Ok(Self(links))
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("a token has no type that postcard can't write"))
    }

    /// Reads a token. Its signatures are not looked at.
    ///
    /// # Errors
    /// `TokenInvalid` when the bytes are none; `TooDeep` when it has more links than one may.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TokenInvalid);
        }
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((token, [])) if token.0.is_empty() => Err(Refusal::TokenInvalid),
            Ok((token, [])) if token.0.len() > TOKEN_LINKS_MAX => Err(Refusal::TooDeep),
            Ok((token, [])) => Ok(token),
            _ => Err(Refusal::TokenInvalid),
        }
    }

    /// Checks the chain: signatures, order, and that each link gives no more than the one before. Answers what it comes to.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<Credential, Refusal> {
        let first = &self.0.first().ok_or(Refusal::TokenInvalid)?.link;
        if self.0.len() > TOKEN_LINKS_MAX {
            return Err(Refusal::TooDeep);
        }
        if first.parent != Digest::ZERO {
            return Err(Refusal::TokenInvalid);
        }
        let mut before: Option<&Link> = None;
        for SignedLink { link, signature } in &self.0 {
            if !is_signed(link.issuer, &prefixed(LINK_PREFIX, link), signature) {
                return Err(Refusal::TokenInvalid);
            }
            if let Some(parent) = before {
                if link.issuer != parent.bearer || link.parent != parent.digest() {
                    return Err(Refusal::TokenInvalid);
                }
                check_narrower(parent, link)?;
            }
            before = Some(link);
        }
        let last = before.unwrap_or(first);
        Ok(Credential {
            owner: last.owner.clone(),
            channel: last.channel.clone(),
            issuer: first.issuer,
            permission: Permission {
                until_ms: last.expires_at_ms,
                generation: last.generation,
                issued_at: last.issued_at,
            },
            bearer: last.bearer,
            rights: last.rights,
        })
    }
}

/// Whether a link gives no more than the one before it.
fn check_narrower(parent: &Link, link: &Link) -> Result<(), Refusal> {
    let is_same = (&link.owner, &link.channel, link.generation, link.issued_at)
        == (&parent.owner, &parent.channel, parent.generation, parent.issued_at);
    if !is_same {
        return Err(Refusal::TokenInvalid);
    }
    let may = parent.rights.contain(Rights::DELEGATE) && parent.rights.contain(link.rights);
    if may && link.expires_at_ms <= parent.expires_at_ms { Ok(()) } else { Err(Refusal::NoRight) }
}

/// What a sound token comes to. Whether the owner still stands by it is said by its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    owner: AgentId,
    channel: ChannelName,
    issuer: EntityPublicKey,
    /// What a subscription that rests on it keeps.
    pub permission: Permission,
    bearer: EntityPublicKey,
    rights: Rights,
}

impl Credential {
    /// Whether it lets its bearer do something on a channel, now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        owner: &Owner<'_>,
        channel: &Channel,
        right: Rights,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if self.owner != *owner.agent || Some(self.issuer) != owner.public_key {
            return Err(Refusal::TokenInvalid);
        }
        if self.channel != channel.name {
            return Err(Refusal::TokenForAnother);
        }
        if !self.permission.is_current(owner.generation, channel) {
            return Err(Refusal::TokenRevoked);
        }
        if self.permission.until_ms <= now_ms {
            return Err(Refusal::TokenExpired);
        }
        if self.rights.contain(right) { Ok(()) } else { Err(Refusal::NoRight) }
    }
}

impl Permission {
    /// Whether the owner has neither revoked it nor been reset since.
    pub fn is_current(&self, generation: Generation, channel: &Channel) -> bool {
        self.generation == generation && self.issued_at >= channel.tokens_from
    }
}

/// The owner of a channel, as the transaction finds it.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Its name.
    pub agent: &'a AgentId,
    /// Its generation.
    pub generation: Generation,
    /// Its entity key.
    pub public_key: Option<EntityPublicKey>,
}

/// That a request comes from the bearer of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whose.
    pub public_key: EntityPublicKey,
    /// 64 bytes.
    pub signature: Bytes,
}

/// What a proof covers: which output of whom for whom it is, and all that it asks.
#[derive(Serialize)]
struct Proven<'a> {
    origin: &'a AgentId,
    generation: Generation,
    destination: &'a AgentId,
    number: u64,
    asked: Digest,
}

fn proven_bytes(stamp: &DeliveryStamp, input: &NewInput, request: &ChannelRequest) -> Vec<u8> {
    let request = postcard::to_stdvec(request).expect("a request has no type that postcard can't write");
    let body = postcard::to_stdvec(&(&input.input.content_type, &input.input.headers, &input.input.payload))
        .expect("an input has no type that postcard can't write");
    let proven = Proven {
        origin: &stamp.origin,
        generation: stamp.generation,
        destination: &input.agent,
        number: stamp.number,
        asked: Digest::of_parts([request.as_slice(), &body]),
    };
    prefixed(PROOF_PREFIX, &proven)
}

impl Proof {
    /// Proves that the holder of a key makes a request.
    pub fn new(key: &EntityKey, stamp: &DeliveryStamp, input: &NewInput, request: &ChannelRequest) -> Self {
        let signature = key.sign_raw(&proven_bytes(stamp, input, request));
        Self { public_key: key.public(), signature: Bytes::copy_from_slice(&signature) }
    }
}

/// The credential of a request that has a token: the token is sound, and the sender proves that it is its bearer. `None` for
/// one without a token.
///
/// # Errors
/// What is wrong with the token or the proof.
pub fn credential(
    stamp: &DeliveryStamp,
    input: &NewInput,
    request: &ChannelRequest,
    proof: Option<&Proof>,
) -> Result<Option<Credential>, Refusal> {
    let Some(token) = &request.token else {
        return Ok(None);
    };
    let credential = Token::from_bytes(token)?.verify()?;
    let proof = proof.ok_or(Refusal::TokenOfAnother)?;
    let is_bearer = proof.public_key == credential.bearer
        && is_signed(proof.public_key, &proven_bytes(stamp, input, request), &proof.signature);
    if is_bearer { Ok(Some(credential)) } else { Err(Refusal::TokenOfAnother) }
}

fn sign(key: &EntityKey, link: Link) -> SignedLink {
    let signature = Bytes::copy_from_slice(&key.sign_raw(&prefixed(LINK_PREFIX, &link)));
    SignedLink { link, signature }
}

#[cfg(test)]
mod tests;
