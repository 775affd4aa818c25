//! Texts of the configuration as values. Each error says what the text is not, to follow the text itself.

use std::net::SocketAddr;
use std::str::FromStr;

use godwit_core::id::HostId;
use godwit_core::lease::LeaseProfile;

use super::NAME_BYTES_MAX;

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(alphabet) {
        Ok(text.to_owned())
    } else {
        Err(format!("is not 1..={NAME_BYTES_MAX} letters, digits, dots, dashes or underscores"))
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    SocketAddr::from_str(text).map_err(|_| "is not IP:PORT".into())
}

/// Parses `KEY@IP:PORT`.
///
/// # Errors
/// What is wrong with which half.
pub fn parse_peer(text: &str) -> Result<(HostId, SocketAddr), String> {
    let Some((key, address)) = text.split_once('@') else {
        return Err("is not KEY@IP:PORT".into());
    };
    let key = key.parse().map_err(|error| format!("is not KEY@IP:PORT: {error}"))?;
    let address =
        parse_address(address).map_err(|reason| format!("is not KEY@IP:PORT: {address:?} {reason}"))?;
    Ok((key, address))
}

pub(super) fn parse_accept(text: &str) -> Result<bool, String> {
    match text {
        "peers" => Ok(false),
        "expected" => Ok(true),
        _ => Err("is not peers or expected".into()),
    }
}

pub(super) fn parse_travel(text: &str) -> Result<bool, String> {
    match text {
        "travel" => Ok(true),
        "stay" => Ok(false),
        _ => Err("is not travel or stay".into()),
    }
}

pub(super) fn parse_capability(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("is not NAME=VALUE".to_owned()),
    }
}

pub(super) fn parse_edges(text: &str) -> Result<bool, String> {
    match text {
        "open" => Ok(false),
        "required" => Ok(true),
        _ => Err("is not open or required".into()),
    }
}

pub(super) fn parse_profile(text: &str) -> Result<LeaseProfile, String> {
    match text {
        "normal" => Ok(LeaseProfile::NORMAL),
        "fast" => Ok(LeaseProfile::FAST),
        _ => Err("is not normal or fast".into()),
    }
}

pub(super) fn parse_count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (min..=max).contains(count));
    count.ok_or_else(|| format!("is not a number of {min}..={max}"))
}

/// Parses what says by itself what it should be.
pub(super) fn parse_displayed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
