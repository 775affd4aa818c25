//! Reading fields of the API's JSON.

use anyhow::{Context, Result};
use serde_json::Value;

/// A text field.
///
/// # Errors
/// When it is missing or no text.
pub fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no text `{name}` in {value}"))
}

/// A counter: tokens, revisions and sequences travel as text, other numbers as numbers.
///
/// # Errors
/// When it is missing or neither.
pub fn number(value: &Value, name: &str) -> Result<u64> {
    optional_number(value, name).with_context(|| format!("no number `{name}` in {value}"))
}

/// A counter that may be missing.
pub fn optional_number(value: &Value, name: &str) -> Option<u64> {
    match &value[name] {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    }
}

/// The items of a list.
///
/// # Errors
/// When it is none.
pub fn items(value: &Value) -> Result<&Vec<Value>> {
    value["items"].as_array().with_context(|| format!("no list `items` in {value}"))
}
