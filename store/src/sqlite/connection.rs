//! Opening the database: lock, write-ahead log, settings that are read back, schema.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_core::failpoint;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{M, MigrationDefinitionError, Migrations};

use super::error::OpenError;
use super::lock::{STARTS_WAITED_MAX, StoreLock, beside, io};
use super::sql::STATEMENTS_CACHED;
use super::{SqliteMode, backup, bodies};

/// Older ones can corrupt a write-ahead log while resetting it.
const ENGINE_MIN: (i32, &str) = (3_051_003, "3.51.3");
/// `GDWT`: marks the file as ours.
pub(super) const APPLICATION_ID: i32 = 0x4744_5754;
/// How often a statement that finds the database locked waits 1 ms: half a minute in all.
const BUSY_WAITS_MAX: i32 = 30_000;
/// After how many waits it says so.
const BUSY_WAITS_WARNED: i32 = 1_000;
/// Page cache of a connection that writes: the eight pages of each of 1,000 agents at work. A page that is missing is read
/// for every one that is written; but whenever a page is split, SQLite walks through the whole cache after the commit, and
/// through a table of the next power of two.
const CACHE_KIB: i64 = 4 * 8_000;
/// Page cache of one that reads: each commit of another connection empties it.
const READ_CACHE_KIB: i64 = 2 * 1024;
/// What a write-ahead log shrinks to when it starts over: what it has after a large agent has arrived.
const LOG_BYTES_KEPT: i64 = 96 << 20;

const SCHEMA: &[M<'static>] = &[M::up(include_str!("../schema/sqlite/0001_init.sql"))];

/// An opened and checked database.
pub(super) struct Opened {
    pub(super) lock: StoreLock,
    pub(super) writer: Connection,
    pub(super) store: [u8; 16],
}

/// Opens or creates a database for writing. `store` becomes the id of a new one.
pub(super) fn open(
    path: &Path,
    mode: SqliteMode,
    store: [u8; 16],
    bytes_max: Option<u64>,
) -> Result<Opened, OpenError> {
    check_engine()?;
    check_file_system(path)?;
    let mut lock = StoreLock::open(path, true)?.expect("a lock file that may be created is there");
    let is_alone = match mode {
        SqliteMode::Exclusive => lock.exclusive().map(|()| true)?,
        SqliteMode::Shared => lock.join(STARTS_WAITED_MAX)?,
    };
    create_file(path)?;
    if is_alone {
        backup::check_log(path)?;
        rewrite_log(path)?;
    }
    check_owner(path)?;
    if is_alone {
        backup::begin_use(path)?;
    }
    lock.sign(is_alone)?;
    let mut writer = connect(path)?;
    bring_up_to_date(&mut writer, path, is_alone)?;
    failpoint::hit("store.open.after-schema");
    if is_alone {
        bodies::drop_left_behind(&writer).map_err(engine("clear", path))?;
    }
    let store = identify(&writer, store).map_err(engine("read", path))?;
    sync_directory(path)?;
    if mode == SqliteMode::Shared && is_alone {
        writer = share(&lock, writer, path)?;
    }
    if let Some(bytes_max) = bytes_max {
        bound(&writer, bytes_max).map_err(engine("bound", path))?;
    }
    Ok(Opened { lock, writer, store })
}

/// Lets others in. No lock can be exchanged for another at once, and whoever starts while there is none is alone and puts
/// another log in the place of this one: so nothing of it is open meanwhile.
fn share(lock: &StoreLock, writer: Connection, path: &Path) -> Result<Connection, OpenError> {
    drop(writer);
    lock.release()?;
    #[cfg(test)]
    std::thread::sleep(tests::WHILE_NOBODY_LOCKS);
    lock.shared()?;
    connect(path)
}

/// Lets the file grow no further than this; one that is larger already keeps its size.
fn bound(conn: &Connection, bytes_max: u64) -> rusqlite::Result<()> {
    let page_bytes: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages_max = i64::try_from(bytes_max).unwrap_or(i64::MAX) / page_bytes.max(1);
    conn.pragma_update_and_check(None, "max_page_count", pages_max.max(1), |_| Ok(()))
}

fn check_engine() -> Result<(), OpenError> {
    if rusqlite::version_number() >= ENGINE_MIN.0 {
        return Ok(());
    }
    Err(OpenError::OldEngine { found: rusqlite::version(), needed: ENGINE_MIN.1 })
}

fn check_file_system(path: &Path) -> Result<(), OpenError> {
    let directory = directory_of(path);
    let stat = rustix::fs::statfs(directory).map_err(|errno| io("look at", directory)(errno.into()))?;
    let kind = match u32::try_from(stat.f_type) {
        Ok(0x6969) => "nfs",
        Ok(0x517B | 0xFF53_4D42 | 0xFE53_4D42) => "smb",
        Ok(0x0102_1997) => "9p",
        Ok(0x5346_414F) => "afs",
        Ok(0x00C3_6400) => "ceph",
        _ => return Ok(()),
    };
    let path = path.to_owned();
    Err(OpenError::NetworkFileSystem { path, kind })
}

pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_directory(path: &Path) -> Result<(), OpenError> {
    let directory = directory_of(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync", directory))
}

/// Creates the file for its owner alone; SQLite gives its side files the same mode.
fn create_file(path: &Path) -> Result<(), OpenError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match created {
        Ok(_) => sync_directory(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io("create", path)(error)),
    }
}

/// The length of a database's write-ahead log; 0 when it has none.
pub(super) fn log_bytes(path: &Path) -> Result<u64, OpenError> {
    let log = beside(path, "-wal");
    match std::fs::metadata(&log) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io("look at", &log)(error)),
    }
}

/// Puts what recovery is going to read onto the disk: after a failed fsync the page cache may hold what the disk lacks.
/// Only for whoever is alone on the file.
fn rewrite_log(path: &Path) -> Result<(), OpenError> {
    if log_bytes(path)? == 0 {
        return Ok(());
    }
    let log = beside(path, "-wal");
    let copy = beside(path, "-wal.new");
    let mut source = File::open(&log).map_err(io("read", &log))?;
    let mut target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&copy)
        .map_err(io("create", &copy))?;
    std::io::copy(&mut source, &mut target).map_err(io("write", &copy))?;
    target.sync_all().map_err(io("sync", &copy))?;
    failpoint::hit("store.open.before-log-replaced");
    std::fs::rename(&copy, &log).map_err(io("replace", &log))?;
    failpoint::hit("store.open.after-log-replaced");
    sync_directory(path)
}

/// Refuses another program's file before anything is written to it.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    let is_empty = std::fs::metadata(path).map_err(io("look at", path))?.len() == 0;
    if !is_empty {
        schema_of(&connect_read_only(path, OpenFlags::empty())?, path)?;
    }
    Ok(())
}

/// Opens a connection that may write, with every setting in place.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(engine("open", path))?;
    configure(&conn, path, true)?;
    Ok(conn)
}

/// Opens a connection that only reads.
pub(super) fn connect_read_only(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(engine("open", path))?;
    configure(&conn, path, false)?;
    Ok(conn)
}

fn configure(conn: &Connection, path: &Path, is_writer: bool) -> Result<(), OpenError> {
    let set = |conn: &Connection| -> rusqlite::Result<()> {
        conn.busy_handler(Some(wait_while_busy))?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // Plans don't depend on values: otherwise each new value of a LIMIT prepares its statement once more.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        conn.pragma_update(None, "cell_size_check", true)?;
        conn.pragma_update(None, "mmap_size", 0)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.pragma_update(None, "cache_size", if is_writer { -CACHE_KIB } else { -READ_CACHE_KIB })?;
        conn.pragma_update(None, "foreign_keys", true)?;
        if is_writer {
            conn.pragma_update(None, "journal_mode", "WAL")?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "wal_autocheckpoint", 0)?;
            conn.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        }
        Ok(())
    };
    set(conn).map_err(|error| not_a_store(path, "configure", error))?;
    let always = [("foreign_keys", "1"), ("trusted_schema", "0"), ("cell_size_check", "1")];
    let writing = [("journal_mode", "wal"), ("synchronous", "2"), ("wal_autocheckpoint", "0")];
    for (name, needed) in always {
        check_setting(conn, path, name, needed)?;
    }
    for (name, needed) in writing.into_iter().filter(|_| is_writer) {
        check_setting(conn, path, name, needed)?;
    }
    Ok(())
}

fn wait_while_busy(waits: i32) -> bool {
    if waits == BUSY_WAITS_WARNED {
        tracing::warn!(
            "waiting for the write lock of the store; a stopped process that shares it may hold it"
        );
    }
    std::thread::sleep(Duration::from_millis(1));
    waits < BUSY_WAITS_MAX
}

fn check_setting(
    conn: &Connection,
    path: &Path,
    name: &'static str,
    needed: &'static str,
) -> Result<(), OpenError> {
    let read = |row: &rusqlite::Row<'_>| {
        row.get::<_, rusqlite::types::Value>(0).map(|value| match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
    };
    let found = conn.pragma_query_value(None, name, read).map_err(engine("configure", path))?;
    if found == needed {
        return Ok(());
    }
    Err(OpenError::Setting { path: path.to_owned(), name, found, needed })
}

/// Checks whose file it is and, when alone on it, applies the schema files it lacks.
fn bring_up_to_date(conn: &mut Connection, path: &Path, is_alone: bool) -> Result<(), OpenError> {
    let known = SCHEMA.len() as u32;
    let found = schema_of(conn, path)?;
    if found == known {
        return Ok(());
    }
    if !is_alone {
        let path = path.to_owned();
        return Err(OpenError::OlderSchema { path, found, known });
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID).map_err(engine("mark", path))?;
    failpoint::hit("store.open.before-schema");
    Migrations::from_slice(SCHEMA).to_latest(conn).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => engine("set up", path)(err),
        rusqlite_migration::Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
            let path = path.to_owned();
            OpenError::NewerSchema { path, found, known }
        }
        other => OpenError::NotAStore { path: path.to_owned(), reason: other.to_string() },
    })
}

/// The schema of a file of ours; 0 for an empty file.
fn schema_of(conn: &Connection, path: &Path) -> Result<u32, OpenError> {
    let number = |name: &str| {
        conn.pragma_query_value(None, name, |row| row.get::<_, u32>(0))
            .map_err(|error| not_a_store(path, "read", error))
    };
    let found = number("user_version")?;
    let known = SCHEMA.len() as u32;
    let tables: u32 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| not_a_store(path, "read", error))?;
    let is_ours = [APPLICATION_ID, backup::UNUSED].contains(&number("application_id")?.cast_signed());
    let path = path.to_owned();
    match (is_ours, tables) {
        (false, 0) if found == 0 => Ok(0),
        (false, _) => {
            Err(OpenError::NotAStore { path, reason: "another program's SQLite database".to_owned() })
        }
        (true, _) if found > known => Err(OpenError::NewerSchema { path, found, known }),
        (true, _) => Ok(found),
    }
}

fn identify(conn: &Connection, store: [u8; 16]) -> rusqlite::Result<[u8; 16]> {
    conn.execute("INSERT INTO meta (one, store) VALUES (1, ?1) ON CONFLICT DO NOTHING", [store])?;
    stored_id(conn)
}

fn stored_id(conn: &Connection) -> rusqlite::Result<[u8; 16]> {
    conn.query_row("SELECT store FROM meta", [], |row| row.get(0))
}

pub(super) fn engine(action: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Engine { action, path, source }
}

fn not_a_store(path: &Path, action: &'static str, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            OpenError::NotAStore { path: path.to_owned(), reason: "not a SQLite database".to_owned() }
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            let log = beside(path, "-wal");
            let hint = if log.exists() {
                format!(
                    "; if it was put in the place of another file, remove {} and the -shm beside it, which belong to that one",
                    log.display()
                )
            } else {
                String::new()
            };
            OpenError::NotAStore { path: path.to_owned(), reason: format!("{error}{hint}") }
        }
        _ => engine(action, path)(error),
    }
}

/// A database opened for reading, with what keeps it still meanwhile.
pub(super) struct OpenedReadOnly {
    pub(super) path: PathBuf,
    pub(super) flags: OpenFlags,
    pub(super) store: [u8; 16],
    pub(super) lock: Option<StoreLock>,
    pub(super) copy: Option<PrivateCopy>,
}

/// Opens a database for reading and leaves every byte of it as it is.
///
/// - Nobody has it open and there is no write-ahead log: it is read in place as immutable, under the exclusive lock.
/// - Nobody has it open and there is a log: file and log are copied to a private directory under the exclusive lock, and
///   the copy is recovered there.
/// - Processes share it: it is read as one more reader beside them.
pub(super) fn open_read_only(path: &Path) -> Result<OpenedReadOnly, OpenError> {
    check_engine()?;
    std::fs::metadata(path).map_err(io("open", path))?;
    let lock = StoreLock::open(path, false)?;
    // It waits for nobody who has it alone.
    let is_alone = match &lock {
        Some(lock) => lock.join(1)?,
        None => true,
    };
    if is_alone {
        backup::check_log(path)?;
    }
    let mut opened =
        OpenedReadOnly { path: path.to_owned(), flags: OpenFlags::empty(), store: [0; 16], lock, copy: None };
    if is_alone && log_bytes(path)? == 0 {
        opened.path = immutable_uri(path);
        opened.flags = OpenFlags::SQLITE_OPEN_URI;
    } else if is_alone {
        let copy = PrivateCopy::of(path)?;
        opened.path = copy.database.clone();
        opened.copy = Some(copy);
        opened.lock = None;
        // Recovers the copy's log, so that readers find it in order.
        connect(&opened.path)?;
    }
    let conn = connect_read_only(&opened.path, opened.flags)?;
    let (found, known) = (schema_of(&conn, path)?, SCHEMA.len() as u32);
    if found != known {
        let path = path.to_owned();
        return Err(OpenError::OlderSchema { path, found, known });
    }
    opened.store = stored_id(&conn).map_err(engine("read", path))?;
    Ok(opened)
}

fn immutable_uri(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?immutable=1");
    PathBuf::from(uri)
}

/// A copy of a database and its log in a directory of its own, deleted when dropped.
pub(super) struct PrivateCopy {
    directory: PathBuf,
    database: PathBuf,
}

impl PrivateCopy {
    fn of(path: &Path) -> Result<Self, OpenError> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = (0..1_000)
            .map(|number| std::env::temp_dir().join(format!("godwit-read-{}-{number}", std::process::id())))
            .find(|directory| std::fs::DirBuilder::new().mode(0o700).create(directory).is_ok())
            .ok_or_else(|| io("copy", path)(std::io::ErrorKind::AlreadyExists.into()))?;
        let database = directory.join("store.db");
        let copy = Self { directory, database };
        std::fs::copy(path, &copy.database).map_err(io("copy", path))?;
        let log = beside(path, "-wal");
        std::fs::copy(&log, beside(&copy.database, "-wal")).map_err(io("copy", &log))?;
        Ok(copy)
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "cannot delete the copy of a store");
        }
    }
}

#[cfg(test)]
mod tests;
