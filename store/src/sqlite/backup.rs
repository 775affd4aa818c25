//! A consistent copy of the database while it is in use, which no host can join before it was restored.

use std::fs::File;
use std::path::Path;

use godwit_core::failpoint;
use rusqlite::OpenFlags;

use super::connection::{connect_read_only, directory_of, engine};
use super::error::OpenError;
use super::lock::{beside, io};

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
    copy.close().map_err(|(_, error)| engine("close", partial)(error))?;
    File::open(partial).and_then(|file| file.sync_all()).map_err(io("sync", partial))?;
    failpoint::hit("backup.before-rename");
    std::fs::rename(partial, to).map_err(io("rename", partial))?;
    let directory = directory_of(to);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync", directory))
}

fn create_private(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map(drop).map_err(io("create", path))
}
