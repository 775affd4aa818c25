//! A host's configuration: defaults < file < `GODWIT_*` environment < flags.
//!
//! `KEYS` is the one table of what can be set. Each layer gives texts by key; the highest layer that names a key wins,
//! lists included. The texts are parsed once, at the end, so that a bad value is reported the same way wherever it came
//! from: by key and origin. Unknown keys are refused, in the environment too where they carry a section's prefix. The
//! section `[secrets]` has names of the operator's own for keys, and stands in the file alone (`config/secrets.rs`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_core::id::HostId;
use godwit_core::lease::LeaseProfile;

use crate::runtime::ArrivalRule;
use crate::runtime::boot::BootMode;
use crate::runtime::operations::OperationPolicy;
use crate::secrets::SecretsConfig;
use godwit_core::limits::{DELTA_BYTES_MAX, INPUTS_KEPT, Quotas};

mod parse;
mod secrets;

pub use parse::parse_peer;
use parse::{
    parse_accept, parse_address, parse_capability, parse_count, parse_displayed, parse_edges, parse_name,
    parse_profile, parse_travel,
};

/// Guests kept at once at most: each reserves address space for its memory.
const RESIDENT_MAX: usize = 10_000;
/// Threads for guests at most.
const GUEST_THREADS_MAX: usize = 256;
/// Ended inputs are kept for a century at most.
const INPUTS_KEPT_S_MAX: usize = 100 * 366 * 24 * 3600;
/// The smallest bound of a store's file: an empty one with a few plugins fits.
const STORE_BYTES_MIN: usize = 16 << 20;
/// What may be left of an agent when it is held for its move, at most: both hosts have it in memory.
const DELTA_BYTES_MOST: usize = 64 << 20;
/// Agents that are started at the same time at most.
const BOOT_CONCURRENCY_MAX: usize = 1_024;
/// Each start waits for reads of the store as much as for a processor.
const BOOT_CONCURRENCY_DEFAULT: usize = 16;
/// A host's name in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Variables with a section's prefix that are the command line's own.
const CLIENT_VARIABLES: [&str; 1] = ["GODWIT_API_TOKEN"];

/// How a host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The data directory.
    pub data: PathBuf,
    /// For people; without it the host makes one from its key.
    pub name: Option<String>,
    /// Where everything durable is; without it `DATA/godwit.db`.
    pub store_url: Option<String>,
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    /// Where the mesh listens.
    pub mesh: SocketAddr,
    /// Hosts to talk to.
    pub peers: Vec<(HostId, SocketAddr)>,
    /// Whether only agents are taken from peers that are expected.
    pub takes_only_expected: bool,
    /// Which agents are taken from peers; without a rule any.
    pub arrival_rules: Vec<ArrivalRule>,
    /// What may be left to send of an agent when it is held for its move, in bytes.
    pub delta_bytes_max: usize,
    /// Whether the keys of agents that leave go with them.
    pub transport_identity: bool,
    /// What it offers to agents that require it: names and values.
    pub capabilities: BTreeMap<String, String>,
    /// Life of sessions on a shared store.
    pub lease_profile: LeaseProfile,
    /// Guests kept at once.
    pub resident_max: usize,
    /// Threads that guests run on.
    pub guest_threads: usize,
    /// How long ended inputs are kept.
    pub inputs_kept: Duration,
    /// What agents may fill of the store.
    pub quotas: Quotas,
    /// Receipts of each agent that are kept; without it all are.
    pub receipts_kept: Option<u64>,
    /// What the work of agents may reach.
    pub operations: OperationPolicy,
    /// What that work may carry without the agents seeing it. Only the file sets it.
    pub secrets: SecretsConfig,
    /// Which agents there should be, and how they come up.
    pub roster: RosterConfig,
}

/// `[roster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterConfig {
    /// The roster file, which is watched.
    pub file: Option<PathBuf>,
    /// What is done with the agents at home when the host starts.
    pub boot: BootMode,
    /// Agents that are started at the same time.
    pub boot_concurrency: usize,
    /// Whether agents may send only to those with which they have an edge.
    pub needs_edges: bool,
}

/// One thing that can be set.
struct Key {
    /// `SECTION.KEY` in the file; `GODWIT_SECTION_KEY` in the environment.
    name: &'static str,
    /// The flag of `serve`, if it has one.
    flag: Option<&'static str>,
    /// As it would stand in the file.
    example: &'static str,
    /// Whether the example is what holds when nothing is set; else `meaning` says what does.
    is_default: bool,
    /// What it is for.
    meaning: &'static str,
}

const KEYS: [Key; 28] = [
    Key {
        name: "host.name",
        flag: Some("--name"),
        example: "\"host-a\"",
        is_default: false,
        meaning: "What people call this host. By default the first 8 digits of its key.",
    },
    Key {
        name: "host.data",
        flag: Some("--data"),
        example: "\"./godwit-data\"",
        is_default: true,
        meaning: "The directory of key, store and caches. Made if it is missing.",
    },
    Key {
        name: "host.capabilities",
        flag: None,
        example: "[\"zone=eu\", \"gpu=yes\"]",
        is_default: false,
        meaning: "What this host offers, each NAME=VALUE: agents that require something go only where it is offered. Nothing by \
                  default. The variable takes them separated by commas.",
    },
    Key {
        name: "store.url",
        flag: Some("--store"),
        example: "\"sqlite:/var/lib/godwit/godwit.db?shared\"",
        is_default: false,
        meaning: "Everything durable. By default sqlite:DATA/godwit.db, for one host alone; ?shared lets several hosts on \
                  one machine share a file.",
    },
    Key {
        name: "mesh.listen",
        flag: Some("--mesh"),
        example: "\"127.0.0.1:7701\"",
        is_default: true,
        meaning: "Where other hosts reach this one (UDP). Port 0 picks one.",
    },
    Key {
        name: "mesh.peers",
        flag: Some("--peer"),
        example: "[]",
        is_default: true,
        meaning: "Hosts to talk to, each KEY@IP:PORT of its mesh; read again at SIGHUP and by `godwit peer reload`. The variable takes \
                  them separated by commas.",
    },
    Key {
        name: "mesh.accept",
        flag: None,
        example: "\"peers\"",
        is_default: true,
        meaning: "Which agents may come: those of any peer (peers), or only those that POST /v1/expected-migrations names (expected).",
    },
    Key {
        name: "mesh.accept_plugins",
        flag: None,
        example: "[]",
        is_default: true,
        meaning: "What agents run that may come, and from whom: each any, stored (plugins that were loaded here) or a plugin's digest, \
                  alone or as any@KEY from the host of that key. Without a rule any may. The variable takes them separated by commas.",
    },
    Key {
        name: "mesh.entity_keys",
        flag: None,
        example: "\"travel\"",
        is_default: true,
        meaning: "The keys of agents that leave: they go with them, sealed to their target (travel), or they don't, and the agents can't \
                  sign there (stay).",
    },
    Key {
        name: "mesh.delta_bytes_max",
        flag: None,
        example: "1048576",
        is_default: true,
        meaning: "What may be left to send of an agent, beside its newest snapshot, when it is held for its move: it stands still until that has arrived. One that \
                  writes faster than it is sent does not move, and says so.",
    },
    Key {
        name: "lease.profile",
        flag: Some("--lease-profile"),
        example: "\"normal\"",
        is_default: true,
        meaning: "How soon another host on a shared store takes over: normal (15 s) or fast (3 s).",
    },
    Key {
        name: "api.listen",
        flag: Some("--listen"),
        example: "\"127.0.0.1:7700\"",
        is_default: true,
        meaning: "Where the HTTP API listens. Port 0 picks one. Beyond loopback clients need the token in DATA/api.token.",
    },
    Key {
        name: "roster.file",
        flag: None,
        example: "\"roster.toml\"",
        is_default: false,
        meaning: "The agents and edges that there should be; read again when it changes. Without it: what `godwit apply` stored.",
    },
    Key {
        name: "roster.boot",
        flag: None,
        example: "\"lazy\"",
        is_default: true,
        meaning: "Agents at a start: lazy (each when it is needed), warm (the same, and one after the other beside it), or eager.",
    },
    Key {
        name: "roster.boot_concurrency",
        flag: None,
        example: "16",
        is_default: true,
        meaning: "How many agents eager and warm start at the same time.",
    },
    Key {
        name: "roster.edges",
        flag: None,
        example: "\"open\"",
        is_default: true,
        meaning: "Whom agents may send to: everybody (open), or those with an edge between them (required).",
    },
    Key {
        name: "limits.resident_max",
        flag: None,
        example: "1000",
        is_default: true,
        meaning: "Guests kept in memory at once; the others are parked in the store.",
    },
    Key {
        name: "limits.guest_threads",
        flag: None,
        example: "4",
        is_default: false,
        meaning: "Threads that guests run on. By default four for each CPU, at least 8.",
    },
    Key {
        name: "limits.inputs_kept_s",
        flag: None,
        example: "604800",
        is_default: true,
        meaning: "Seconds that an ended input keeps its key, outcome and reply; later the same key is a new input.",
    },
    Key {
        name: "limits.events_kept",
        flag: None,
        example: "1000000",
        is_default: true,
        meaning: "Events that the store keeps at least; older ones go, and whoever reads on from one of those gets a gap event.",
    },
    Key {
        name: "limits.receipts_kept",
        flag: None,
        example: "100000",
        is_default: false,
        meaning: "Receipts of each agent that are kept; a checkpoint signed by the host stands for older ones. By default all.",
    },
    Key {
        name: "limits.inbox_inputs_max",
        flag: None,
        example: "10000",
        is_default: true,
        meaning: "Open inputs of one agent; more are refused (429).",
    },
    Key {
        name: "limits.inbox_bytes_max",
        flag: None,
        example: "67108864",
        is_default: true,
        meaning: "Bytes of one agent's open inputs; from there on more are refused (429).",
    },
    Key {
        name: "limits.state_keys_max",
        flag: None,
        example: "1000000",
        is_default: true,
        meaning: "State rows of one agent; a turn that would leave more is a fault of its guest.",
    },
    Key {
        name: "limits.state_bytes_max",
        flag: None,
        example: "1073741824",
        is_default: true,
        meaning: "Bytes of one agent's state rows, keys and values; a turn that would leave more is a fault of its guest.",
    },
    Key {
        name: "limits.store_bytes_max",
        flag: None,
        example: "68719476736",
        is_default: false,
        meaning: "Bytes of the store's file, beside its log. Above 15/16 of it inputs are refused (503). By default the disk alone \
                  bounds it.",
    },
    Key {
        name: "operations.http",
        flag: None,
        example: "[]",
        is_default: true,
        meaning: "Where agents' HTTP operations may go, each HOST:PORT, in which either may be *. A plugin must have asked for it, too. \
                  The variable takes them separated by commas.",
    },
    Key {
        name: "operations.networks",
        flag: None,
        example: "[]",
        is_default: true,
        meaning: "Networks that agents' operations may reach though they are not of the public internet, each an IP address or \
                  ADDRESS/PREFIX.",
    },
];

/// Why a configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No such key.
    #[error("{origin}: there is no key {key}; `godwit serve --help-config` lists them all")]
    UnknownKey {
        /// What was named.
        key: String,
        /// Where.
        origin: String,
    },
    /// A value that the key does not take.
    #[error("{key} ({origin}): {text:?} {reason}")]
    Value {
        /// Which key.
        key: &'static str,
        /// Where the value was given.
        origin: String,
        /// The value.
        text: String,
        /// What it should be.
        reason: String,
    },
    /// A secret that can't be used. Nothing of its value is said.
    #[error("secrets.{name} ({origin}): {reason}")]
    Secret {
        /// Which.
        name: String,
        /// The file.
        origin: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a layer says about one key: a list of texts, one for a scalar.
#[derive(Debug, Clone)]
struct Given {
    texts: Vec<String>,
    origin: String,
}

type Layers = BTreeMap<&'static str, Given>;

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Values by name of flag (`--data`); several for a list.
    pub values: Vec<(&'static str, Vec<String>)>,
}

impl HostConfig {
    /// The defaults, in a data directory, at ports of loopback that the system chooses: for a host inside another program.
    pub fn in_directory(data: impl Into<PathBuf>) -> Self {
        let defaults = Self::parse(&Layers::new(), SecretsConfig::new())
            .expect("nothing is set, so no value can be wrong");
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { data: data.into(), listen: anywhere, mesh: anywhere, ..defaults }
    }

    /// Puts the layers on top of each other.
    ///
    /// # Errors
    /// `ConfigError` names the key and where it was given.
    pub fn load(
        flags: &Flags,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<_, _> = environment.into_iter().collect();
        let mut layers = Layers::new();
        let mut secrets = SecretsConfig::new();
        if let Some(path) = &flags.config {
            let mut file = read_file(path)?;
            if let Some(section) = file.remove(secrets::SECTION) {
                let toml::Value::Table(section) = section else {
                    let origin = path.display().to_string();
                    return Err(ConfigError::UnknownKey { key: secrets::SECTION.into(), origin });
                };
                secrets = secrets::parse(path, section, &environment)?;
            }
            layers.extend(from_file(path, file)?);
        }
        layers.extend(from_environment(environment)?);
        layers.extend(from_flags(flags)?);
        Self::parse(&layers, secrets)
    }

    fn parse(layers: &Layers, secrets: SecretsConfig) -> Result<Self, ConfigError> {
        let data = scalar(layers, "host.data", parse_data)?;
        Ok(Self {
            data: data.unwrap_or_else(|| PathBuf::from("./godwit-data")),
            name: scalar(layers, "host.name", parse_name)?,
            store_url: scalar(layers, "store.url", |text| Ok(text.to_owned()))?,
            listen: scalar(layers, "api.listen", parse_address)?.unwrap_or(([127, 0, 0, 1], 7700).into()),
            mesh: scalar(layers, "mesh.listen", parse_address)?.unwrap_or(([127, 0, 0, 1], 7701).into()),
            peers: list(layers, "mesh.peers", parse_peer)?,
            takes_only_expected: scalar(layers, "mesh.accept", parse_accept)?.unwrap_or(false),
            arrival_rules: list(layers, "mesh.accept_plugins", parse_displayed)?,
            delta_bytes_max: scalar(layers, "mesh.delta_bytes_max", |text| {
                parse_count(text, 1, DELTA_BYTES_MOST)
            })?
            .unwrap_or(DELTA_BYTES_MAX),
            transport_identity: scalar(layers, "mesh.entity_keys", parse_travel)?.unwrap_or(true),
            capabilities: list(layers, "host.capabilities", parse_capability)?.into_iter().collect(),
            lease_profile: scalar(layers, "lease.profile", parse_profile)?.unwrap_or(LeaseProfile::NORMAL),
            resident_max: scalar(layers, "limits.resident_max", |text| parse_count(text, 1, RESIDENT_MAX))?
                .unwrap_or(1000),
            guest_threads: scalar(layers, "limits.guest_threads", |text| {
                parse_count(text, 2, GUEST_THREADS_MAX)
            })?
            .unwrap_or_else(threads_default),
            operations: OperationPolicy {
                targets: list(layers, "operations.http", parse_displayed)?,
                networks: list(layers, "operations.networks", parse_displayed)?,
            },
            inputs_kept: scalar(layers, "limits.inputs_kept_s", |text| {
                parse_count(text, 1, INPUTS_KEPT_S_MAX)
            })?
            .map_or(INPUTS_KEPT, |seconds| Duration::from_secs(seconds as u64)),
            roster: roster(layers)?,
            quotas: quotas(layers)?,
            receipts_kept: scalar(layers, "limits.receipts_kept", |text| parse_count(text, 1, usize::MAX))?
                .map(|count| count as u64),
            secrets,
        })
    }
}

fn quotas(layers: &Layers) -> Result<Quotas, ConfigError> {
    let count = |name: &'static str, min: usize| {
        let count = scalar(layers, name, |text| parse_count(text, min, usize::MAX))?;
        Ok::<_, ConfigError>(count.map(|count| count as u64))
    };
    let default = Quotas::default();
    Ok(Quotas {
        inbox_inputs_max: count("limits.inbox_inputs_max", 1)?.unwrap_or(default.inbox_inputs_max),
        inbox_bytes_max: count("limits.inbox_bytes_max", 1)?.unwrap_or(default.inbox_bytes_max),
        state_keys_max: count("limits.state_keys_max", 0)?.unwrap_or(default.state_keys_max),
        state_bytes_max: count("limits.state_bytes_max", 0)?.unwrap_or(default.state_bytes_max),
        store_bytes_max: count("limits.store_bytes_max", STORE_BYTES_MIN)?,
        events_kept: count("limits.events_kept", 1)?.unwrap_or(default.events_kept),
    })
}

fn key_named(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| {
        // Not the line itself, as the error would show it: a secret may stand in it.
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        failed(format!("line {line}: {}", error.message()))
    })
}

fn from_file(path: &Path, table: toml::Table) -> Result<Layers, ConfigError> {
    let origin = path.display().to_string();
    let mut layer = Layers::new();
    for (section, content) in table {
        let toml::Value::Table(keys) = content else {
            return Err(ConfigError::UnknownKey { key: section, origin });
        };
        for (name, value) in keys {
            let name = format!("{section}.{name}");
            let origin = origin.clone();
            let Some(key) = key_named(&name) else {
                return Err(ConfigError::UnknownKey { key: name, origin });
            };
            let texts = file_texts(key, value).map_err(|text| ConfigError::Value {
                key: key.name,
                origin: origin.clone(),
                text,
                reason: format!("is not like {}", key.example),
            })?;
            layer.insert(key.name, Given { texts, origin });
        }
    }
    Ok(layer)
}

/// A value of the file as texts; the value itself when its type does not fit the key.
fn file_texts(key: &Key, value: toml::Value) -> Result<Vec<String>, String> {
    let is_list = key.example.starts_with('[');
    let text = |value: toml::Value| match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        other => Err(other.to_string()),
    };
    match value {
        toml::Value::Array(values) if is_list => values.into_iter().map(text).collect(),
        value if is_list => Err(value.to_string()),
        value => Ok(vec![text(value)?]),
    }
}

fn variable(key: &Key) -> String {
    format!("GODWIT_{}", key.name.replace('.', "_").to_ascii_uppercase())
}

fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Result<Layers, ConfigError> {
    let mut layer = Layers::new();
    for (name, value) in environment {
        let Some(key) = KEYS.iter().find(|key| variable(key) == name) else {
            if has_section_prefix(&name) && !CLIENT_VARIABLES.contains(&name.as_str()) {
                let origin = String::from("environment");
                return Err(ConfigError::UnknownKey { key: name, origin });
            }
            continue;
        };
        let texts = if key.example.starts_with('[') {
            let parts = value.split(',').map(str::trim);
            parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
        } else {
            vec![value]
        };
        layer.insert(key.name, Given { texts, origin: name });
    }
    Ok(layer)
}

/// Whether a variable looks like one of ours, so that a slip of the pen is not silently ignored.
fn has_section_prefix(name: &str) -> bool {
    let rest = name.strip_prefix("GODWIT_").and_then(|rest| rest.split_once('_'));
    rest.is_some_and(|(section, _)| {
        let section = section.to_ascii_lowercase();
        KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(known, _)| known == section))
    })
}

fn from_flags(flags: &Flags) -> Result<Layers, ConfigError> {
    let mut layer = Layers::new();
    for (flag, texts) in &flags.values {
        let Some(key) = KEYS.iter().find(|key| key.flag == Some(flag)) else {
            let origin = String::from("command line");
            return Err(ConfigError::UnknownKey { key: (*flag).to_owned(), origin });
        };
        let given = Given { texts: texts.clone(), origin: (*flag).to_owned() };
        layer.insert(key.name, given);
    }
    Ok(layer)
}

fn scalar<T>(
    layers: &Layers,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    Ok(list(layers, key, parse)?.pop())
}

fn list<T>(
    layers: &Layers,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let Some(given) = layers.get(key) else {
        return Ok(Vec::new());
    };
    let parsed = given.texts.iter().map(|text| {
        parse(text).map_err(|reason| ConfigError::Value {
            key,
            origin: given.origin.clone(),
            text: text.clone(),
            reason,
        })
    });
    parsed.collect()
}

fn parse_data(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("is not a path".into()),
        path => Ok(path.into()),
    }
}

fn roster(layers: &Layers) -> Result<RosterConfig, ConfigError> {
    let concurrency =
        scalar(layers, "roster.boot_concurrency", |text| parse_count(text, 1, BOOT_CONCURRENCY_MAX))?;
    Ok(RosterConfig {
        file: scalar(layers, "roster.file", parse_data)?,
        boot: scalar(layers, "roster.boot", parse_displayed)?.unwrap_or_default(),
        boot_concurrency: concurrency.unwrap_or(BOOT_CONCURRENCY_DEFAULT),
        needs_edges: scalar(layers, "roster.edges", parse_edges)?.unwrap_or(false),
    })
}

/// More threads than processors: a guest that loops to its deadline must not keep the others waiting.
fn threads_default() -> usize {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    (cpus * 4).clamp(8, GUEST_THREADS_MAX)
}

/// Every key with its default and meaning, as a file that can be kept and edited.
pub fn help() -> String {
    let mut text = String::from(
        "# Everything `godwit serve` can be told. What is set later wins: defaults, this file (--config), environment, flags.\n",
    );
    let mut last = "";
    for key in &KEYS {
        let (section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if section != last {
            last = section;
            push(&mut text, format_args!("\n[{section}]\n"));
        }
        let flag = key.flag.map_or_else(String::new, |flag| format!(", flag {flag}"));
        push(&mut text, format_args!("# {}\n", key.meaning));
        push(&mut text, format_args!("# Variable {}{flag}.\n", variable(key)));
        // A key that is not its own default stays a comment, so that the file as printed changes nothing.
        let comment = if key.is_default { "" } else { "# " };
        push(&mut text, format_args!("{comment}{name} = {}\n", key.example));
    }
    text.push_str(secrets::HELP);
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests;
