//! The section `[secrets]` of the file: its keys are the names that the operator chooses.
//!
//! Nothing here quotes what it refuses: a value that is in the wrong place is a value all the same.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use godwit_core::limits::TEXT_BYTES_MAX;
use godwit_core::operation::secret::SecretName;
use toml::{Table, Value};

use super::ConfigError;
use crate::secrets::oauth::{Endpoint, OAuthConfig};
use crate::secrets::{Origin, SecretConfig, SecretText, SecretsConfig, Source};

/// The section's name.
pub(super) const SECTION: &str = "secrets";

/// Secrets of one host.
const SECRETS_MAX: usize = 256;
/// Hosts of one secret, and scopes of one sign-in.
const ITEMS_MAX: usize = 64;

/// What stands in the help for the section.
pub(super) const HELP: &str = "
[secrets]
# What agents' HTTP operations may carry without ever seeing it: a header names it, {{secret:NAME}}, and the host fills it in
# when it sends the request. A plugin must have asked for the grant secrets.NAME. Only this file sets them; no variable, no flag.
# Each has a name, one source (file, env, value or oauth), and the hosts that it may be sent to, encrypted unless they are on
# this machine or listed as http://HOST:PORT.
# [secrets.api-key]
# file = \"/run/credentials/api-key\"      # read each time; or env = \"API_KEY\"; or value = \"..\", and then this file needs mode 600
# hosts = [\"api.example.com:443\"]
# [secrets.mail.oauth]                   # obtained by `godwit auth start mail --kind device|pkce`, and refreshed by the host
# client_id = \"..\"
# client_secret = { file = \"/run/credentials/mail-client\" }    # if the provider gave one: a source as above
# device_authorization_url = \"https://auth.example.com/device\" # for device
# authorize_url = \"https://auth.example.com/authorize\"         # for pkce
# token_url = \"https://auth.example.com/token\"
# scopes = [\"mail.read\"]
# [secrets.mail]
# hosts = [\"mail.example.com:443\"]
";

/// Reads the section.
///
/// # Errors
/// `ConfigError::Secret` names the secret, and not what it holds.
pub(super) fn parse(
    path: &Path,
    section: Table,
    environment: &BTreeMap<String, String>,
) -> Result<SecretsConfig, ConfigError> {
    let refused = |name: &str, reason: String| ConfigError::Secret {
        name: name.escape_debug().take(TEXT_BYTES_MAX).collect(),
        origin: path.display().to_string(),
        reason,
    };
    if section.len() > SECRETS_MAX {
        return Err(refused("*", format!("there are more than {SECRETS_MAX}")));
    }
    let mut secrets = SecretsConfig::new();
    let mut has_values = None;
    for (name, value) in section {
        let parsed: SecretName = name.parse().map_err(|error| refused(&name, format!("{error}")))?;
        let reader = Reader { environment, has_value: false };
        let (secret, has_value) = reader.secret(value).map_err(|reason| refused(&name, reason))?;
        if has_value {
            has_values = Some(name);
        }
        secrets.insert(parsed, secret);
    }
    if let Some(name) = has_values {
        check_mode(path).map_err(|reason| refused(&name, reason))?;
    }
    Ok(secrets)
}

fn check_mode(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!(
        "its value stands in a file that others may read (mode {mode:o}): chmod 600 it, or put the value into a file of its own"
    ))
}

struct Reader<'a> {
    environment: &'a BTreeMap<String, String>,
    /// Whether a value stands in the file.
    has_value: bool,
}

impl Reader<'_> {
    /// A secret, and whether a value of it stands in the file.
    fn secret(mut self, value: Value) -> Result<(SecretConfig, bool), String> {
        const HOW: &str = "is not a table with a source (file, env, value or oauth) and hosts";
        let Value::Table(mut table) = value else { return Err(HOW.into()) };
        let hosts = texts(&mut table, "hosts")?;
        if hosts.is_empty() {
            return Err("has no hosts: list each HOST:PORT that it may be sent to".into());
        }
        let hosts = hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>();
        let origin = match table.remove("oauth") {
            None => Origin::Given(self.source(&mut table)?),
            Some(Value::Table(oauth)) => Origin::SignIn(Box::new(self.oauth(oauth)?)),
            Some(_) => return Err("oauth is not a table".into()),
        };
        nothing_left(&table)?;
        Ok((
            SecretConfig { hosts: hosts.map_err(|reason: String| format!("hosts: {reason}"))?, origin },
            self.has_value,
        ))
    }

    /// The one source in a table.
    fn source(&mut self, table: &mut Table) -> Result<Source, String> {
        let file = text(table, "file")?.map(|path| Source::File(PathBuf::from(path)));
        let env = text(table, "env")?.map(|name| {
            let value = self.environment.get(&name).cloned().map(SecretText::new);
            Source::Env { name, value }
        });
        let value = text(table, "value")?.map(|value| Source::Value(SecretText::new(value)));
        self.has_value |= value.is_some();
        let mut sources = [file, env, value].into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            _ => Err("has not exactly one source: file, env, value, or a table oauth".into()),
        }
    }

    fn oauth(&mut self, mut table: Table) -> Result<OAuthConfig, String> {
        let in_oauth = |reason: String| format!("oauth: {reason}");
        let client_secret = match table.remove("client_secret") {
            None => None,
            Some(Value::Table(mut source)) => {
                let secret =
                    self.source(&mut source).map_err(|reason| in_oauth(format!("client_secret {reason}")))?;
                nothing_left(&source).map_err(in_oauth)?;
                Some(secret)
            }
            Some(_) => return Err("oauth: client_secret is not a source, like { file = \"/path\" }".into()),
        };
        let mut endpoint = |key: &str| -> Result<Option<Endpoint>, String> {
            let url = text(&mut table, key).map_err(in_oauth)?;
            url.map(|url| url.parse().map_err(|reason: String| format!("oauth: {key} {reason}"))).transpose()
        };
        let device_authorization_url = endpoint("device_authorization_url")?;
        let authorize_url = endpoint("authorize_url")?;
        let token_url = endpoint("token_url")?.ok_or("oauth: token_url is missing")?;
        if device_authorization_url.is_none() && authorize_url.is_none() {
            return Err(
                "oauth: it has neither device_authorization_url (for device) nor authorize_url (for pkce)"
                    .into(),
            );
        }
        let client_id =
            text(&mut table, "client_id").map_err(in_oauth)?.ok_or("oauth: client_id is missing")?;
        let scopes = texts(&mut table, "scopes").map_err(in_oauth)?;
        let is_scope =
            |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
        if !scopes.iter().all(is_scope) {
            return Err("oauth: a scope is not visible ASCII without spaces".into());
        }
        nothing_left(&table).map_err(in_oauth)?;
        Ok(OAuthConfig {
            client_id,
            client_secret,
            device_authorization_url,
            authorize_url,
            token_url,
            scopes,
        })
    }
}

fn text(table: &mut Table, key: &str) -> Result<Option<String>, String> {
    match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(format!("{key} is not a text in quotes")),
    }
}

fn texts(table: &mut Table, key: &str) -> Result<Vec<String>, String> {
    let refused = || format!("{key} is not a list of at most {ITEMS_MAX} texts in quotes");
    match table.remove(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= ITEMS_MAX => {
            let text = |item| match item {
                Value::String(text) => Ok(text),
                _ => Err(refused()),
            };
            items.into_iter().map(text).collect()
        }
        Some(_) => Err(refused()),
    }
}

/// Refuses what nobody has asked for: a slip of the pen. The key may be a value in the wrong place, too.
fn nothing_left(table: &Table) -> Result<(), String> {
    match table.len() {
        0 => Ok(()),
        _ => Err("has a key that there is not; `godwit serve --help-config` shows them".into()),
    }
}

#[cfg(test)]
mod tests;
