//! What a component may import: a static table from interface to verdict, and the sentences that explain a refusal.

use std::fmt;

use godwit_core::operation::request::{HTTP_GRANT_PREFIX, TargetPattern};
use godwit_core::operation::secret::{NotASecretName, SECRET_GRANT_PREFIX, SecretName};

/// The latest 0.2.x of WASI whose interfaces are served.
const WASI_PATCH_MAX: u32 = 12;

const FILES: &str = "an agent has no files: keep what it needs in its own memory or in `godwit:agent/state`, and drop the code \
                     that uses them (in Rust: `std::fs`, or a dependency that does)";
const SOCKETS: &str = "an agent has no sockets: whom it talks to, it reaches through `godwit:agent/outbox`";
const HTTP: &str =
    "an agent makes no HTTP requests of its own: `godwit:agent/operations` has the host make them";
const TIMEZONE: &str = "an agent's time is UTC";
const LATER: &str = "this version of the host does not serve it";

/// How an interface is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Linked for everybody.
    Served(Versions),
    /// Linked for those who have a grant. Granted without a manifest's `grants`, since it stays in the store.
    NeedsGrant(&'static str, Versions),
    /// Linked for those whose manifest asks for a grant: what it gives out counts beyond the store.
    MustAsk(&'static str, Versions),
    /// Linked for those whose manifest asks for grants that begin so, and say behind it for what: it reaches outside.
    NeedsTarget(&'static str, Versions),
    /// Never linked, for a reason.
    Never(&'static str),
}

/// Which versions of an interface are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    /// 0.2.0 up to 0.2.`WASI_PATCH_MAX`.
    Wasi,
    /// 0.1.x of `godwit:agent`.
    Godwit,
    /// Exactly these; an empty one is "without version".
    These(&'static [&'static str]),
}

/// The grants that exist, each for an interface below.
pub(crate) const GRANTS: [&str; 7] = ["channels", "config", "log", "outbox", "sign", "state", "timers"];

/// Says what is wrong with a grant that a manifest asks for, if anything.
pub(crate) fn grant_problem(grant: &str) -> Option<String> {
    let is_known = GRANTS.contains(&grant)
        || TargetPattern::of_grant(grant).is_some()
        || SecretName::of_grant(grant).is_some();
    if is_known {
        return None;
    }
    let shown = grant.escape_debug();
    Some(if grant.starts_with(HTTP_GRANT_PREFIX) {
        format!(
            "its manifest asks for the grant `{shown}`, which is not `{HTTP_GRANT_PREFIX}HOST:PORT` with a host name in lower \
             case or an address, and a port; either may be *"
        )
    } else if grant.starts_with(SECRET_GRANT_PREFIX) {
        format!(
            "its manifest asks for the grant `{shown}`, which is not `{SECRET_GRANT_PREFIX}NAME`: NAME {NotASecretName}"
        )
    } else {
        format!(
            "its manifest asks for the grant `{shown}`, which this host does not have; it has {}, {HTTP_GRANT_PREFIX}HOST:PORT \
             and {SECRET_GRANT_PREFIX}NAME",
            GRANTS.join(", ")
        )
    })
}

/// Interfaces and packages (those that end in `/`) with their verdicts. The first that fits counts.
const TABLE: &[(&str, Verdict)] = &[
    ("godwit:agent/types", Verdict::Served(Versions::Godwit)),
    ("godwit:agent/turn", Verdict::Served(Versions::Godwit)),
    ("godwit:agent/state", Verdict::NeedsGrant("state", Versions::Godwit)),
    ("godwit:agent/outbox", Verdict::NeedsGrant("outbox", Versions::Godwit)),
    ("godwit:agent/timers", Verdict::NeedsGrant("timers", Versions::Godwit)),
    ("godwit:agent/operations", Verdict::NeedsTarget(HTTP_GRANT_PREFIX, Versions::Godwit)),
    ("godwit:agent/identity", Verdict::MustAsk("sign", Versions::Godwit)),
    ("godwit:agent/channels", Verdict::MustAsk("channels", Versions::Godwit)),
    ("godwit:agent/", Verdict::Never(LATER)),
    ("wasi:logging/logging", Verdict::NeedsGrant("log", Versions::These(&["0.1.0-draft", ""]))),
    ("wasi:config/store", Verdict::NeedsGrant("config", Versions::These(&["0.2.0-rc.1"]))),
    ("wasi:io/error", Verdict::Served(Versions::Wasi)),
    ("wasi:io/poll", Verdict::Served(Versions::Wasi)),
    ("wasi:io/streams", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/environment", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/exit", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/stdin", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/stdout", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/stderr", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/terminal-input", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/terminal-output", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/terminal-stdin", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/terminal-stdout", Verdict::Served(Versions::Wasi)),
    ("wasi:cli/terminal-stderr", Verdict::Served(Versions::Wasi)),
    ("wasi:clocks/monotonic-clock", Verdict::Served(Versions::Wasi)),
    ("wasi:clocks/wall-clock", Verdict::Served(Versions::Wasi)),
    ("wasi:clocks/timezone", Verdict::Never(TIMEZONE)),
    ("wasi:random/random", Verdict::Served(Versions::Wasi)),
    ("wasi:random/insecure", Verdict::Served(Versions::Wasi)),
    ("wasi:random/insecure-seed", Verdict::Served(Versions::Wasi)),
    ("wasi:filesystem/", Verdict::Never(FILES)),
    ("wasi:sockets/", Verdict::Never(SOCKETS)),
    ("wasi:http/", Verdict::Never(HTTP)),
];

/// Says what is wrong with an import of an interface, if anything. `grants`: what the manifest asks for; none if it
/// does not say.
pub(crate) fn problem(import: &str, grants: Option<&[String]>) -> Option<String> {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    let fits = |(pattern, _): &&(&str, Verdict)| {
        *pattern == interface || (pattern.ends_with('/') && interface.starts_with(pattern))
    };
    match TABLE.iter().find(fits) {
        None => Some(format!(
            "it imports `{import}`, which no host of this version serves: build it for the world `agent` of \
             `godwit:agent@0.1.0` and for WASI 0.2 (`wasm32-wasip2`), without the dependency that needs it"
        )),
        Some((_, Verdict::Never(why))) => {
            Some(format!("it imports `{import}`, which is never served: {why}"))
        }
        Some((_, Verdict::Served(versions))) => wrong_version(import, version, *versions),
        Some((_, Verdict::NeedsTarget(prefix, versions))) => {
            let is_granted = grants.into_iter().flatten().any(|grant| grant.starts_with(prefix));
            if is_granted {
                wrong_version(import, version, *versions)
            } else {
                Some(format!(
                    "it imports `{import}`, which needs a grant `{prefix}HOST:PORT` for each host that it asks: add them to \
                     `grants` in the manifest"
                ))
            }
        }
        Some((_, Verdict::NeedsGrant(grant, versions))) => {
            let is_granted = grants.is_none_or(|grants| grants.iter().any(|has| has == grant));
            if is_granted { wrong_version(import, version, *versions) } else { ungranted(import, grant) }
        }
        Some((_, Verdict::MustAsk(grant, versions))) => {
            let is_granted = grants.into_iter().flatten().any(|has| has == grant);
            if is_granted { wrong_version(import, version, *versions) } else { ungranted(import, grant) }
        }
    }
}

fn ungranted(import: &str, grant: &str) -> Option<String> {
    Some(format!(
        "it imports `{import}`, which needs the grant `{grant}`: add it to `grants` in the manifest"
    ))
}

fn wrong_version(import: &str, version: &str, versions: Versions) -> Option<String> {
    if versions.contain(version) {
        return None;
    }
    Some(format!(
        "it imports `{import}`, but this host serves {versions} of it: build it with a toolchain or WIT of that version"
    ))
}

impl Versions {
    fn contain(self, version: &str) -> bool {
        let patch = |prefix: &str| version.strip_prefix(prefix)?.parse::<u32>().ok();
        match self {
            Self::Wasi => patch("0.2.").is_some_and(|patch| patch <= WASI_PATCH_MAX),
            Self::Godwit => patch("0.1.").is_some(),
            Self::These(served) => served.contains(&version),
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wasi => write!(f, "versions 0.2.0 to 0.2.{WASI_PATCH_MAX}"),
            Self::Godwit => f.write_str("version 0.1"),
            Self::These(served) => {
                let names = served.iter().map(|version| match *version {
                    "" => "the one without a version".to_string(),
                    version => format!("version {version}"),
                });
                f.write_str(&names.collect::<Vec<_>>().join(" and "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
