//! Compiled code on disk: one file per component and kind of engine, in a directory that only the owner may enter.
//!
//! ```text
//! name     DIGEST.ENGINE.cwasm    BLAKE3 of the component; 16 hex digits of what the code was compiled for
//! bytes    magic      8           "GODWITC1"
//!          checksum  32           BLAKE3 over component digest, engine, code, each with its length
//!          code      to the end
//! ```
//! wasmtime does not notice a flipped bit in compiled code, and running it would be undefined behaviour. So a file is
//! read, checked, and only then given to wasmtime; one that fails is deleted, and the component is compiled again.
//! Compiled code is never taken from anywhere else.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_core::digest::Digest;
use wasmtime::component::Component;

use crate::limits::ARTIFACT_BYTES_MAX;

const MAGIC: &[u8; 8] = b"GODWITC1";
const HEADER_BYTES: usize = MAGIC.len() + 32;
const EXTENSION: &str = "cwasm";
const PARTIAL: &str = "partial";

/// The directory of compiled code for one `wasmtime::Engine`.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    /// What code must have been compiled for, 16 hex digits.
    engine: String,
    /// Tells the partial files of one process apart.
    writes: AtomicU64,
}

impl Cache {
    /// Opens the directory, makes it if missing, and removes what an earlier kind of engine or a crash has left.
    ///
    /// # Errors
    /// When the directory can't be made or is not ours.
    pub(crate) fn open(directory: &Path, engine: &wasmtime::Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        let cache = Self {
            directory: directory.to_path_buf(),
            engine: engine_name(engine),
            writes: AtomicU64::new(0),
        };
        cache.sweep()?;
        Ok(cache)
    }

    /// Loads the code of a component, if there is a good file. A bad one is deleted.
    pub(crate) fn load(&self, engine: &wasmtime::Engine, component: Digest) -> Option<Component> {
        let path = self.path(component);
        match self.read(&path, component) {
            Ok(None) => None,
            Ok(Some(code)) => match deserialize(engine, &code) {
                Ok(component) => Some(component),
                Err(error) => {
                    self.discard(&path, &format!("{error:#}"));
                    None
                }
            },
            Err(error) => {
                self.discard(&path, &error.to_string());
                None
            }
        }
    }

    /// Keeps the code of a component. Durable when it returns.
    ///
    /// # Errors
    /// When the file can't be written; there is none then, or the one that was there.
    pub(crate) fn store(&self, component: Digest, code: &[u8]) -> io::Result<()> {
        let path = self.path(component);
        let write = self.writes.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_added_extension(format!("{}-{write}.{PARTIAL}", std::process::id()));
        let written = self.write(&partial, component, code).and_then(|()| {
            std::fs::rename(&partial, &path)?;
            File::open(&self.directory)?.sync_all()
        });
        if written.is_err() {
            // Best effort: what is left is removed when the cache is opened the next time.
            let _ = std::fs::remove_file(&partial);
        }
        written
    }

    /// The file of a component.
    pub(crate) fn path(&self, component: Digest) -> PathBuf {
        self.directory.join(format!("{component}.{}.{EXTENSION}", self.engine))
    }

    fn read(&self, path: &Path, component: Digest) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bad = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let length = file.metadata()?.len();
        if length > ARTIFACT_BYTES_MAX {
            return bad("too long");
        }
        let mut header = [0; HEADER_BYTES];
        let mut file = file.take(length);
        file.read_exact(&mut header)?;
        let mut code = Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_sub(HEADER_BYTES));
        file.read_to_end(&mut code)?;
        if !header.starts_with(MAGIC) {
            return bad("wrong magic");
        }
        if header[MAGIC.len()..] != self.checksum(component, &code).0 {
            return bad("wrong checksum");
        }
        Ok(Some(code))
    }

    fn write(&self, path: &Path, component: Digest, code: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.checksum(component, code).0)?;
        file.write_all(code)?;
        file.sync_all()
    }

    fn checksum(&self, component: Digest, code: &[u8]) -> Digest {
        Digest::of_parts([&component.0, self.engine.as_bytes(), code])
    }

    fn discard(&self, path: &Path, why: &str) {
        tracing::warn!(file = %path.display(), error = why, "compiled code is damaged and will be compiled again");
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(file = %path.display(), %error, "cannot remove damaged compiled code");
        }
    }

    fn sweep(&self) -> io::Result<()> {
        let current = format!(".{}.{EXTENSION}", self.engine);
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_ours = name.ends_with(&format!(".{EXTENSION}")) || name.ends_with(&format!(".{PARTIAL}"));
            if is_ours && !name.ends_with(&current) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "the one place where compiled code comes back from disk")]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must be what `Component::serialize` gave. The only caller has compared them with a checksum
    // that `store` made from such bytes, for this component and kind of engine; they are in our memory, where nobody
    // changes them; and the directory they come from is writable by nobody but us.
    unsafe { Component::deserialize(engine, code) }
}

/// What code of this engine is compatible with, as 16 hex digits.
fn engine_name(engine: &wasmtime::Engine) -> String {
    let mut hasher = StableHasher(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().to_hex()[..16].to_owned()
}

/// The standard library's hasher may change with the compiler; a file name may not.
struct StableHasher(blake3::Hasher);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not used: all of the digest is.
    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests;
