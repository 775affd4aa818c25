//! The manifest: TOML in the component's custom section `godwit:manifest`, written by the author's SDK.

use godwit_core::limits::GuestLimits;
use serde::Deserialize;

use crate::limits::{HOST_MAX, MANIFEST_BYTES_MAX};
use crate::plugin::imports::grant_problem;

/// Name of the custom section.
pub(crate) const SECTION: &str = "godwit:manifest";

const NAME_BYTES_MAX: usize = 128;

/// What an author says of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Manifest {
    /// The plugin's name.
    pub(crate) name: Option<String>,
    /// The plugin's version.
    pub(crate) version: Option<String>,
    /// Grants it asks for. Without this list it has all that stay in the store.
    pub(crate) grants: Option<Vec<String>>,
    /// The least it needs to run. Which limits an agent has is said by its spec; here they are only held against what
    /// the host could give at all.
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Limits {
    turn_ms_max: Option<u64>,
    memory_bytes_max: Option<u64>,
    snapshot_bytes_max: Option<u64>,
}

impl Manifest {
    /// Reads a manifest and adds what is wrong with it to `problems`.
    pub(crate) fn parse(section: &[u8], problems: &mut Vec<String>) -> Self {
        if section.len() > MANIFEST_BYTES_MAX {
            problems
                .push(format!("its manifest has {} bytes, and may have {MANIFEST_BYTES_MAX}", section.len()));
            return Self::default();
        }
        let parsed = std::str::from_utf8(section)
            .map_err(|error| error.to_string())
            .and_then(|text| toml::from_str::<Self>(text).map_err(|error| error.message().to_string()));
        match parsed {
            Ok(manifest) => {
                manifest.check(problems);
                manifest
            }
            Err(error) => {
                problems.push(format!(
                    "its manifest (custom section `{SECTION}`) can't be read: {error}; it is TOML with `name`, `version`, \
                     and if needed `grants` and `limits`"
                ));
                Self::default()
            }
        }
    }

    fn check(&self, problems: &mut Vec<String>) {
        for (field, text) in [("name", &self.name), ("version", &self.version)] {
            let is_plain = |text: &str| {
                (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
            };
            if text.as_deref().is_some_and(|text| !is_plain(text)) {
                problems.push(format!(
                    "its manifest's {field} is not 1 to {NAME_BYTES_MAX} printable ASCII characters without spaces"
                ));
            }
        }
        problems.extend(self.grants.iter().flatten().filter_map(|grant| grant_problem(grant)));
        let GuestLimits { turn_ms_max, memory_bytes_max, snapshot_bytes_max } = HOST_MAX;
        let asked = [
            ("turn-ms-max", self.limits.turn_ms_max, turn_ms_max),
            ("memory-bytes-max", self.limits.memory_bytes_max, memory_bytes_max),
            ("snapshot-bytes-max", self.limits.snapshot_bytes_max, snapshot_bytes_max),
        ];
        for (name, asked, most) in asked {
            if let Some(asked) = asked.filter(|asked| *asked > most) {
                problems.push(format!(
                    "its manifest needs `{name} = {asked}`, and this host gives no guest more than {most}"
                ));
            }
        }
    }
}
