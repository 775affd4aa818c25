//! Agents as files: taken out while they run, and put in again where nobody has them.
//!
//! An archive gives nobody the right to run its agent. What comes in gets a token one epoch above its own, and waits for an
//! operator's word unless that was given with it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, ClaimId, MigrationId};
use godwit_core::identity::{EntityPublicKey, KnownAs, OriginHash};
use godwit_core::limits::PLUGIN_BYTES_MAX;
use godwit_core::placement::Wants;
use godwit_core::spec::PluginInfo;
use godwit_core::store::{AgentRow, Home, ImportRequest, Row, RowFrame};

use super::Runtime;
use super::backup::{Staged, stage};
use super::call::{AgentView, CallError};
use super::plugins::PluginError;
use super::routing::store_error;
use crate::archive::{ArchiveError, ArchiveHead, ArchiveReader, ArchiveWriter, COMPONENT_PART_BYTES, Record};

/// What an operator says about an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// The agent may run at once.
    pub is_active: bool,
    /// It is the real one, though a tombstone is here, or a peer has it or does not answer.
    pub is_forced: bool,
    /// Which agent of its name it must be: the one that the archive was made of. Any, when nothing is said.
    pub expected: Option<ExpectedIdentity>,
}

/// An agent as it is known from outside: by its public key, or by the short name of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedIdentity {
    /// 64 hex digits.
    Key(EntityPublicKey),
    /// 16 hex digits.
    Origin(OriginHash),
}

impl ExpectedIdentity {
    fn is(self, public: EntityPublicKey) -> bool {
        match self {
            Self::Key(key) => key == public,
            Self::Origin(hash) => hash == public.origin_hash(),
        }
    }
}

impl fmt::Display for ExpectedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Origin(hash) => hash.fmt(f),
        }
    }
}

impl FromStr for ExpectedIdentity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(key) = text.parse() {
            return Ok(Self::Key(key));
        }
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        let hash = hash.ok_or("an identity is a public key (64 hex digits) or an origin hash (16)")?;
        Ok(Self::Origin(OriginHash(hash)))
    }
}

type Writer = ArchiveWriter<BufWriter<File>>;

/// What a whole archive holds beside its rows.
struct Checked {
    head: ArchiveHead,
    /// Of the agent that it was made of, which could sign then.
    public_key: Option<EntityPublicKey>,
    plugin: Option<(PluginInfo, Bytes)>,
    /// What it wants of the host that it comes to.
    wants: Wants,
}

impl Runtime {
    /// Writes an agent that is at home here into an archive, as of one moment.
    ///
    /// # Errors
    /// `NotFound`, `Misdirected` where it is not at home; `Unavailable` when there is no room for it.
    pub async fn export_agent(&self, agent: &AgentId, with_plugin: bool) -> Result<Staged, CallError> {
        let row = self.inner().store.agent(agent).await.map_err(store_error)?;
        let row = row.ok_or_else(|| CallError::NotFound { agent: agent.clone() })?;
        if let Home::Moved(tombstone) = row.home {
            return Err(CallError::Misdirected { agent: agent.clone(), host: tombstone.target });
        }
        let info = if with_plugin { self.plugin_info(row.plugin).await? } else { None };
        let plugin = match info {
            Some(info) => {
                let component = self.inner().store.component(info.digest).await.map_err(store_error)?;
                component.map(|component| (info, component))
            }
            None => None,
        };
        let path = self.scratch_file("export")?;
        let written = self.write_archive(agent, plugin, path.clone()).await;
        if written.is_err() {
            // What is left of it is worth nothing.
            drop(std::fs::remove_file(&path));
        }
        written?;
        stage(path).await
    }

    async fn write_archive(
        &self,
        agent: &AgentId,
        plugin: Option<(PluginInfo, Bytes)>,
        path: PathBuf,
    ) -> Result<(), CallError> {
        let (store, now_ms) = (self.inner().store.id(), self.now_ms());
        let archive: Arc<Mutex<Option<Result<Writer, ArchiveError>>>> = Arc::default();
        let shared = Arc::clone(&archive);
        let sink = move |row: &AgentRow, frames: Vec<RowFrame>| {
            let mut archive = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = archive.take().unwrap_or_else(|| {
                let head = ArchiveHead {
                    agent: row.agent.clone(),
                    generation: row.generation,
                    revision: row.revision,
                    token: row.token,
                    store,
                    exported_at_ms: now_ms,
                };
                begin(&path, head, plugin.as_ref())
            });
            let written = begun.and_then(|mut writer| {
                writer.push(&Record::Rows(frames))?;
                Ok(writer)
            });
            let is_well = written.is_ok();
            *archive = Some(written);
            is_well
        };
        let row = self.inner().store.export_whole(agent, Box::new(sink)).await.map_err(store_error)?;
        let written = archive.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (row, written) {
            (Some(_), Some(writer)) => {
                let synced = tokio::task::spawn_blocking(move || finish(writer?)).await;
                synced.unwrap_or_else(|error| Err(std::io::Error::other(error).into())).map_err(unwritable)
            }
            _ => Err(CallError::NotFound { agent: agent.clone() }),
        }
    }

    /// Takes the agent of an archive in. Nothing is written before the whole archive has been checked.
    ///
    /// # Errors
    /// `Invalid` for what is no whole archive, `AnotherAgent` when it is not the agent that is expected, or not the one that has
    /// moved away from here; `Conflict` when the agent is here or somewhere else, or this host may not be given it, `Claimed` when
    /// another host makes one of its name at the same moment, `NoSuch` when its plugin is neither here nor in the archive. The plugin
    /// that it brought may stay, and nothing else.
    pub async fn import_agent(&self, file: File, options: ImportOptions) -> Result<AgentView, CallError> {
        let _inside = self.admit()?;
        let (file, checked) = blocking(move || check(file)).await?;
        let agent = checked.head.agent.clone();
        self.check_is_meant(&checked, options).await?;
        if let Some((info, component)) = checked.plugin
            && self.plugin_info(info.digest).await?.is_none()
        {
            self.compile(component.clone()).await.map_err(|error| match error {
                PluginError::Call(error) => error,
                other => CallError::Invalid { reason: other.to_string() },
            })?;
            let info = PluginInfo { loaded_at_ms: self.now_ms(), ..info };
            self.inner().store.put_plugin(info, component).await.map_err(store_error)?;
        }
        let copy = MigrationId::generate(self.now_ms(), self.inner().clock.random());
        let taken = self.take_rows_in(file, copy, &checked.head, options).await;
        if taken.is_err()
            && let Err(error) = self.inner().store.discard_copy(copy).await
        {
            tracing::warn!(%agent, %error, "the rows of an import can't be discarded now");
        }
        let row = taken?;
        tracing::info!(%agent, token = %row.token, is_active = options.is_active, "agent imported");
        self.inner().rescan.notify_one();
        self.view(&row).await
    }

    /// Judges who comes and who is here, before anything is stored.
    async fn check_is_meant(&self, checked: &Checked, options: ImportOptions) -> Result<(), CallError> {
        let (agent, found) = (&checked.head.agent, checked.public_key);
        self.inner().placement.may_take(&checked.wants).map_err(|why| CallError::Conflict {
            what: format!("agent {agent} can't be imported here: {why}"),
        })?;
        let another = |expected: String| {
            let found = found.map_or_else(|| "without a key".to_owned(), |key| key.to_string());
            Err(CallError::AnotherAgent { agent: agent.clone(), expected, found })
        };
        if let Some(expected) = options.expected.filter(|expected| !found.is_some_and(|key| expected.is(key)))
        {
            return another(expected.to_string());
        }
        if !options.is_forced {
            return self.check_nobody_has(agent).await;
        }
        let known = self.inner().store.agent(agent).await.map_err(store_error)?;
        let hash = found.map(EntityPublicKey::origin_hash);
        let given = KnownAs { hash, generation: checked.head.generation, token: checked.head.token };
        match known {
            Some(row) if matches!(row.home, Home::Moved(_)) && row.known_as().is_namesake(&given) => {
                another(row.known_as().hash.map(|hash| hash.to_string()).unwrap_or_default())
            }
            Some(row) if !matches!(row.home, Home::Moved(_)) => self.check_nobody_has(&row.agent).await,
            _ => Ok(()),
        }
    }

    async fn check_nobody_has(&self, agent: &AgentId) -> Result<(), CallError> {
        let known = self.inner().store.agent(agent).await.map_err(store_error)?;
        if let Some(row) = known {
            let what = match row.home {
                Home::Moved(tombstone) => {
                    format!(
                        "agent {agent} has moved to host {}: --force if that host is lost",
                        tombstone.target
                    )
                }
                _ => format!(
                    "agent {agent} is here, and {}: an archive becomes an agent only where none of its name is, not even a \
                     deleted one",
                    row.lifecycle.name()
                ),
            };
            return Err(CallError::Conflict { what });
        }
        match self.who_is_home(agent).await {
            Err(CallError::NotFound { .. }) => Ok(()),
            Ok(host) => Err(CallError::Conflict { what: format!("agent {agent} is on host {host}") }),
            Err(error) => Err(error),
        }
    }

    /// Claims the id as a creation does: whoever has it was asked for before, and may have got it since.
    async fn claim_for_import(&self, agent: &AgentId, options: ImportOptions) -> Result<ClaimId, CallError> {
        let claim = ClaimId::generate(self.now_ms(), self.inner().clock.random());
        match self.claim(agent, claim, options.is_forced).await {
            // Where it is it counts for lost.
            Err(CallError::Conflict { .. }) if options.is_forced => Ok(claim),
            claimed => claimed.map(|()| claim),
        }
    }

    async fn take_rows_in(
        &self,
        file: File,
        copy: MigrationId,
        head: &ArchiveHead,
        options: ImportOptions,
    ) -> Result<AgentRow, CallError> {
        let store = &self.inner().store;
        let mut reader = blocking(move || ArchiveReader::new(BufReader::new(file))).await?;
        loop {
            let (record, rest) = blocking(move || Ok((reader.next_record()?, reader))).await?;
            reader = rest;
            match record {
                Some(Record::Rows(frames)) => {
                    store.receive_rows(copy, &head.agent, frames).await.map_err(store_error)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let claim = self.claim_for_import(&head.agent, options).await?;
        failpoint::hit("import.before-bound");
        let request = ImportRequest {
            copy,
            agent: head.agent.clone(),
            generation: head.generation,
            revision: head.revision,
            token: head.token,
            is_suspended: !options.is_active,
            replaces_moved: options.is_forced,
            claim: Some(claim),
        };
        store.import(request).await.map_err(store_error)
    }
}

fn begin(
    path: &std::path::Path,
    head: ArchiveHead,
    plugin: Option<&(PluginInfo, Bytes)>,
) -> Result<Writer, ArchiveError> {
    let mut writer = ArchiveWriter::new(BufWriter::new(File::create_new(path)?))?;
    writer.push(&Record::Head(head))?;
    if let Some((info, component)) = plugin {
        writer.push(&Record::Plugin(info.clone()))?;
        for start in (0..component.len()).step_by(COMPONENT_PART_BYTES) {
            let end = component.len().min(start + COMPONENT_PART_BYTES);
            writer.push(&Record::Component(component.slice(start..end)))?;
        }
    }
    Ok(writer)
}

fn finish(writer: Writer) -> Result<(), ArchiveError> {
    let file = writer.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

/// Reads all of an archive once. Answers its file at the beginning again.
fn check(file: File) -> Result<(File, Checked), ArchiveError> {
    let mut file = file;
    file.rewind()?;
    let mut reader = ArchiveReader::new(BufReader::new(file.try_clone()?))?;
    let head = reader.head().clone();
    let mut info = None;
    let mut component = BytesMut::new();
    let mut public_key = None;
    let (mut newest, mut specs) = (None, BTreeMap::new());
    let mut number = 0;
    while let Some(record) = reader.next_record()? {
        number += 1;
        match record {
            Record::Plugin(plugin) => info = Some(plugin),
            Record::Component(part) if component.len() + part.len() <= PLUGIN_BYTES_MAX => {
                component.extend_from_slice(&part);
            }
            Record::Component(_) => {
                return Err(ArchiveError::TooLarge { record: number, bytes: component.len() as u64 });
            }
            Record::Rows(frames) => {
                // The one of the highest change number stays, as in a store.
                for RowFrame { change, row } in frames {
                    match row {
                        Row::EntityKey(key) if public_key.is_none_or(|(known, _)| known <= change) => {
                            public_key = Some((change, key.public()));
                        }
                        Row::Agent(row) if newest.as_ref().is_none_or(|(known, _)| *known <= change) => {
                            newest = Some((change, row));
                        }
                        Row::Spec { revision, spec } => drop(specs.insert(revision, spec)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    file.rewind()?;
    let plugin = info.map(|info| (info, component.freeze()));
    let public_key = public_key.map(|(_, key)| key);
    let current = newest.and_then(|(_, row)| Some((specs.remove(&row.spec_revision)?, row.labels)));
    let wants = current.map(|(spec, labels)| Wants::of(&spec, &labels)).unwrap_or_default();
    Ok((file, Checked { head, public_key, plugin, wants }))
}

/// Runs reading of an archive on a thread that may wait.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, CallError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(std::io::Error::other(error).into())).map_err(|error| match error {
        ArchiveError::Io(source) => {
            CallError::Unavailable { reason: format!("the archive can't be read: {source}") }
        }
        wrong => CallError::Invalid { reason: wrong.to_string() },
    })
}

fn unwritable(error: ArchiveError) -> CallError {
    let source = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
    CallError::Unavailable { reason: format!("{error}{source}") }
}
