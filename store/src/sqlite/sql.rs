//! Running statements: cached, and with errors of the store.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::error::{Fail, Fallible};

/// Statements that a connection keeps prepared: more than the store has.
pub(super) const STATEMENTS_CACHED: usize = 192;

/// Runs a statement and answers how many rows it changed.
pub(super) fn execute(conn: &Connection, sql: &str, params: impl Params) -> Fallible<usize> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

/// The first row of a query, when there is one.
pub(super) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Fallible<T>,
) -> Fallible<Option<T>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

/// All rows of a query.
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Fallible<T>,
) -> Fallible<Vec<T>> {
    conn.prepare_cached(sql)?.query_and_then::<T, Fail, _, _>(params, read)?.collect()
}

/// Whether a query has a row.
pub(super) fn exists(conn: &Connection, sql: &str, params: impl Params) -> Fallible<bool> {
    Ok(conn.prepare_cached(sql)?.query_row(params, |_| Ok(())).optional()?.is_some())
}
