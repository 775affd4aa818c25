//! The host's own key: `DATA/host.key`, 32 secret bytes in hex, readable by its owner only. And the key under which its store
//! seals secrets.

use std::io::Write;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, PermissionsExt};
use ed25519_dalek::{Signer, SigningKey};
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::HostId;
use godwit_core::time::{Clock, SystemClock};

use zeroize::Zeroizing;

use crate::data_dir::DataDirError;
use crate::envelope;

const KEY_FILE: &str = "host.key";

/// A host's secret key. Its `Debug` shows the public half only.
pub struct HostKey(SigningKey);

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({})", self.id())
    }
}

impl HostKey {
    /// Reads the key of a data directory; makes directory and key if they are missing, durably.
    ///
    /// # Errors
    /// When the directory can't be written, or the key file is damaged or readable by others.
    pub fn load_or_create(data: &Path) -> Result<Self, DataDirError> {
        let dir = open_data_dir(data)?;
        let path = data.join(KEY_FILE);
        if let Some(secret) = read_secret(&dir, KEY_FILE, &path)? {
            return Ok(Self(SigningKey::from_bytes(&secret)));
        }
        let clock: &dyn Clock = &SystemClock;
        let kept = keep_secret(&dir, KEY_FILE, &format!("{KEY_FILE}.new"), &clock.random());
        kept.map_err(DataDirError::io("write", path.clone()))?;
        let secret = read_secret(&dir, KEY_FILE, &path)?.ok_or_else(|| gone(&path))?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// The key of 32 secret bytes, of a host without a data directory.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The public key.
    pub fn id(&self) -> HostId {
        HostId(self.0.verifying_key().to_bytes())
    }

    /// What secrets in a store are sealed under: the same for all hosts that share a file, which keep it in `STORE.seal`
    /// beside the file. The first of them puts its own there, so that what it has sealed alone it can still open.
    ///
    /// # Errors
    /// When the key beside the store can't be read or made, is damaged, or readable by others.
    pub fn seal_key_of(&self, store: &Path, is_shared: bool) -> Result<[u8; 32], DataDirError> {
        let mut path = store.to_owned().into_os_string();
        path.push(".seal");
        let path = PathBuf::from(path);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(DataDirError::Damaged { path, what: "the store's name is no text".to_owned() });
        };
        if !is_shared && !path.exists() {
            return Ok(self.seal_key());
        }
        let dir =
            Dir::open_ambient_dir(folder, ambient_authority()).map_err(DataDirError::io("open", folder))?;
        if let Some(secret) = read_secret(&dir, name, &path)? {
            return Ok(secret);
        }
        let kept = keep_secret(&dir, name, &format!("{name}.{}", std::process::id()), &self.seal_key());
        kept.map_err(DataDirError::io("write", path.clone()))?;
        read_secret(&dir, name, &path)?.ok_or_else(|| gone(&path))
    }

    /// What secrets in this host's own store are sealed under.
    fn seal_key(&self) -> [u8; 32] {
        blake3::derive_key("godwit 2026 key that seals secrets in a store", &self.0.to_bytes())
    }

    /// Signs bytes that say themselves what they are for.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    /// Opens what was sealed to this key for `context`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        envelope::open(&self.0, context, sealed)
    }

    /// The secret, for the mesh.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

/// Reads a file of 32 secret bytes in hex; `None` when there is none.
fn read_secret(dir: &Dir, name: &str, path: &Path) -> Result<Option<[u8; 32]>, DataDirError> {
    let unreadable = || DataDirError::io("read", path);
    let file = match dir.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable()(error)),
    };
    let mode = file.metadata().map_err(unreadable())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(DataDirError::ReadableByOthers { path: path.to_owned(), mode: mode & 0o777 });
    }
    let text = dir.read_to_string(name).map_err(unreadable())?;
    match text.trim().parse::<Digest>() {
        Ok(secret) => Ok(Some(secret.0)),
        Err(_) => {
            let what = "it is not a key of 64 hex digits".to_owned();
            Err(DataDirError::Damaged { path: path.to_owned(), what })
        }
    }
}

fn gone(path: &Path) -> DataDirError {
    DataDirError::Damaged { path: path.to_owned(), what: "it was made and is gone again".to_owned() }
}

/// Makes a file of 32 secret bytes, durably, by way of a temporary one; one that somebody else has made meanwhile stays.
fn keep_secret(dir: &Dir, name: &str, temporary: &str, secret: &[u8; 32]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    // A left-over of a crash between the two steps below is worth nothing.
    drop(dir.remove_file(temporary));
    let mut file = dir.open_with(temporary, &options)?;
    writeln!(file, "{}", Digest(*secret))?;
    file.sync_all()?;
    failpoint::hit("key.before-link");
    match dir.hard_link(temporary, dir, name) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    dir.remove_file(temporary)?;
    dir.open(".")?.sync_all()?;
    Ok(())
}

/// Opens the data directory, made with mode 0700 if it is missing.
///
/// # Errors
/// When it can't be made or opened.
pub fn open_data_dir(data: &Path) -> Result<Dir, DataDirError> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(data).map_err(DataDirError::io("make the data directory", data))?;
    Dir::open_ambient_dir(data, ambient_authority())
        .map_err(DataDirError::io("open the data directory", data))
}

#[cfg(test)]
mod tests;
