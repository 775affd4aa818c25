//! The derived snapshot: one byte for the format, then the state in postcard. The host adds length and checksum.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::AgentError;

/// The format of the bytes that follow.
const FORMAT_POSTCARD: u8 = 1;

/// Writes a state.
pub(crate) fn encode<S: Serialize>(state: &S) -> Result<Vec<u8>, AgentError> {
    postcard::to_stdvec(&(FORMAT_POSTCARD, state))
        .map_err(|error| AgentError::fatal(format!("cannot write the state: {error}")))
}

/// Reads a state, all of the bytes.
pub(crate) fn decode<S: DeserializeOwned>(bytes: &[u8], from_version: &str) -> Result<S, AgentError> {
    let refuse = |reason: &str| {
        AgentError::fatal(format!("cannot read the state written by version {from_version}: {reason}"))
    };
    let Some((&FORMAT_POSTCARD, body)) = bytes.split_first() else {
        return Err(refuse("unknown format"));
    };
    match postcard::take_from_bytes(body) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(refuse(&format!("{} bytes left over", rest.len()))),
        Err(error) => Err(refuse(&error.to_string())),
    }
}
