//! A consistent copy of the database while it is in use, which no host can join before it was restored.
//!
//! A copy that nobody has used yet carries `UNUSED`: it has no log, so one that lies beside it belongs to the file that it
//! was put in the place of. SQLite can't tell, and would lay that log over the copy.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use godwit_core::failpoint;
use rusqlite::OpenFlags;

use super::connection::{APPLICATION_ID, connect_read_only, directory_of, engine, log_bytes};
use super::error::OpenError;
use super::lock::{beside, io};

/// `GDWB`: the application id of a copy that nobody has used yet.
pub(super) const UNUSED: i32 = 0x4744_5742;
/// Where a SQLite file has it, big-endian: <https://www.sqlite.org/fileformat2.html#the_database_header>.
const APPLICATION_ID_AT: u64 = 68;

/// Writes the copy of `from` to `to`, durably. `to` must not exist; after an error it does not.
///
/// The copy is one committed state. A log of the database can't be reset before the copy is done, and grows meanwhile.
pub(super) fn write(from: &Path, to: &Path) -> Result<(), OpenError> {
    let partial = beside(to, ".partial");
    let written = write_partial(from, to, &partial);
    if written.is_err() {
        // What is left of it is worth nothing.
        drop(std::fs::remove_file(&partial));
    }
    written
}

fn write_partial(from: &Path, to: &Path, partial: &Path) -> Result<(), OpenError> {
    if to.exists() {
        return Err(io("create", to)(std::io::ErrorKind::AlreadyExists.into()));
    }
    match std::fs::remove_file(partial) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("replace", partial)(error)),
    }
    // Made by us, for its owner alone; SQLite fills an empty file.
    create_private(partial)?;
    let source = connect_read_only(from, OpenFlags::empty())?;
    let target =
        partial.to_str().ok_or_else(|| io("name", partial)(std::io::ErrorKind::InvalidInput.into()))?;
    source.execute("VACUUM INTO ?1", [target]).map_err(engine("copy to", partial))?;
    drop(source);
    let copy = rusqlite::Connection::open(partial).map_err(engine("open", partial))?;
    copy.execute("UPDATE meta SET is_backup = 1", []).map_err(engine("mark", partial))?;
    copy.pragma_update(None, "application_id", UNUSED).map_err(engine("mark", partial))?;
    copy.close().map_err(|(_, error)| engine("close", partial)(error))?;
    File::open(partial).and_then(|file| file.sync_all()).map_err(io("sync", partial))?;
    failpoint::hit("backup.before-rename");
    std::fs::rename(partial, to).map_err(io("rename", partial))?;
    let directory = directory_of(to);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync", directory))
}

/// Whether a database is a copy that nobody has used yet; as one, it has no log. Only for whoever is alone on the file.
pub(super) fn check_log(path: &Path) -> Result<bool, OpenError> {
    let file = File::open(path).map_err(io("open", path))?;
    let mut found = [0; 4];
    match file.read_exact_at(&mut found, APPLICATION_ID_AT) {
        Ok(()) if found == UNUSED.to_be_bytes() => {}
        Ok(()) => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(io("read", path)(error)),
    }
    if log_bytes(path)? == 0 {
        return Ok(true);
    }
    Err(OpenError::ForeignLog { path: path.to_owned(), log: beside(path, "-wal") })
}

/// Before anything is written to a database: from now on a log beside it is its own. Only for whoever is alone on the file.
pub(super) fn begin_use(path: &Path) -> Result<(), OpenError> {
    if !check_log(path)? {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path).map_err(io("open", path))?;
    file.write_all_at(&APPLICATION_ID.to_be_bytes(), APPLICATION_ID_AT).map_err(io("write", path))?;
    file.sync_all().map_err(io("sync", path))
}

fn create_private(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map(drop).map_err(io("create", path))
}
