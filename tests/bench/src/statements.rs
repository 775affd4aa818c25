//! The statements that SQLite runs, as it names them itself.

use std::sync::{Mutex, PoisonError};

use rusqlite::trace::TraceEvent;

/// What was run since the last `take`. SQLite's hook carries no pointer, so there is one list for the process.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes a statement; to be given to SQLite as its trace function.
pub(crate) fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(_, sql) = event
        && let Some(brief) = brief(sql)
    {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(brief);
    }
}

/// What has been noted, in order. Starts over.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut *SEEN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The verb of a statement and its first table; `None` for what it runs inside itself.
fn brief(sql: &str) -> Option<String> {
    let mut words =
        sql.split(|c: char| c.is_whitespace() || c == ',' || c == '(').filter(|word| !word.is_empty());
    let verb = words.next().filter(|word| !word.starts_with("--"))?;
    let table = match verb {
        "UPDATE" => words.next(),
        "SELECT" | "INSERT" | "DELETE" => {
            words.find(|word| matches!(*word, "FROM" | "INTO")).and_then(|_| words.next())
        }
        _ => None,
    };
    Some(table.map_or_else(|| verb.to_owned(), |table| format!("{verb} {table}")))
}

#[cfg(test)]
mod tests;
