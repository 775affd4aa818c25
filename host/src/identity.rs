//! The host's own key: `DATA/host.key`, 32 secret bytes in hex, readable by its owner only.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, PermissionsExt};
use ed25519_dalek::{Signer, SigningKey};
use godwit_core::digest::Digest;
use godwit_core::failpoint;
use godwit_core::id::HostId;
use godwit_core::time::{Clock, SystemClock};

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
    pub fn load_or_create(data: &Path) -> anyhow::Result<Self> {
        let dir = open_data_dir(data)?;
        match dir.open(KEY_FILE) {
            Ok(file) => {
                let mode = file.metadata()?.permissions().mode();
                if mode & 0o077 != 0 {
                    bail!(
                        "{} is readable by others (mode {:o}): chmod 600 it",
                        data.join(KEY_FILE).display(),
                        mode & 0o777
                    );
                }
                Self::parse(dir.read_to_string(KEY_FILE)?.trim())
                    .with_context(|| format!("{} is damaged", data.join(KEY_FILE).display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(&dir),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read {}", data.join(KEY_FILE).display()))
            }
        }
    }

    fn create(dir: &Dir) -> anyhow::Result<Self> {
        let clock: &dyn Clock = &SystemClock;
        let key = Self(SigningKey::from_bytes(&clock.random()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let temporary = format!("{KEY_FILE}.new");
        // A left-over of a crash between the two steps below is worth nothing.
        drop(dir.remove_file(&temporary));
        let mut file = dir.open_with(&temporary, &options)?;
        writeln!(file, "{}", Digest(key.0.to_bytes()))?;
        file.sync_all()?;
        failpoint::hit("key.before-rename");
        dir.rename(&temporary, dir, KEY_FILE)?;
        dir.open(".")?.sync_all()?;
        Ok(key)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let secret: Digest = text.parse()?;
        Ok(Self(SigningKey::from_bytes(&secret.0)))
    }

    /// The public key.
    pub fn id(&self) -> HostId {
        HostId(self.0.verifying_key().to_bytes())
    }

    /// What secrets in this host's store are sealed under.
    pub fn seal_key(&self) -> [u8; 32] {
        blake3::derive_key("godwit 2026 key that seals secrets in a store", &self.0.to_bytes())
    }

    /// Signs bytes that say themselves what they are for.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    /// The secret, for the mesh.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

/// Opens the data directory, made with mode 0700 if it is missing.
///
/// # Errors
/// When it can't be made or opened.
pub fn open_data_dir(data: &Path) -> anyhow::Result<Dir> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(data).with_context(|| format!("cannot make the data directory {}", data.display()))?;
    Dir::open_ambient_dir(data, ambient_authority())
        .with_context(|| format!("cannot open the data directory {}", data.display()))
}

#[cfg(test)]
mod tests;
