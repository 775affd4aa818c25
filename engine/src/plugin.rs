//! Looks into a component before it is compiled: what it imports, whether it is an agent, what its manifest says. All
//! problems are found at once, each a sentence that says what would help.

use std::collections::BTreeSet;

use godwit_core::guest::LoadError;
use godwit_core::limits::PLUGIN_BYTES_MAX;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload};

use crate::plugin::manifest::{Manifest, SECTION};

pub(crate) mod imports;
pub(crate) mod manifest;

/// The interface that makes a component an agent, and the versions of it that are served.
const GUEST_EXPORT: &str = "godwit:agent/guest@0.1.0";
const GUEST_INTERFACE: &str = "godwit:agent/guest";
const GUEST_VERSIONS: &str = "0.1.";

const HOW_TO_BUILD: &str = "build it for the world `agent` of `godwit:agent@0.1.0`; in Rust with the crate `godwit-guest` \
                            and `cargo build --target wasm32-wasip2`";

/// What a look into a component has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// From the manifest.
    pub(crate) name: Option<String>,
    /// From the manifest.
    pub(crate) version: Option<String>,
    /// Names of all imports, sorted.
    pub(crate) imports: Vec<String>,
    /// Grants that the manifest asks for, sorted.
    pub(crate) grants: Vec<String>,
}

/// Looks into a component.
///
/// # Errors
/// All problems at once.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    let mut problems = Vec::new();
    let outline = match Outline::read(bytes) {
        Ok(outline) => outline,
        Err(problem) => {
            return Err(LoadError { problems: vec![problem] });
        }
    };
    if !outline.is_agent() {
        problems.push(outline.not_an_agent());
    }
    let manifest = match outline.manifests.as_slice() {
        [] => Manifest::default(),
        [section] => Manifest::parse(section, &mut problems),
        more => {
            problems.push(format!("it has {} manifests (custom sections `{SECTION}`): keep one", more.len()));
            Manifest::default()
        }
    };
    for import in &outline.odd_imports {
        problems.push(format!("it imports `{import}`, which is no interface: {HOW_TO_BUILD}"));
    }
    for import in &outline.imports {
        problems.extend(imports::problem(import, manifest.grants.as_deref()));
    }
    if !problems.is_empty() {
        return Err(LoadError { problems });
    }
    let grants: BTreeSet<_> = manifest.grants.into_iter().flatten().collect();
    Ok(Inspection {
        name: manifest.name,
        version: manifest.version,
        imports: outline.imports.into_iter().collect(),
        grants: grants.into_iter().collect(),
    })
}

/// The names on a component's outside, and its manifests wherever they are.
#[derive(Debug, Default)]
struct Outline<'a> {
    /// Imported interfaces.
    imports: BTreeSet<String>,
    /// Imports that are no interface: bare functions, modules, components.
    odd_imports: BTreeSet<String>,
    exports: BTreeSet<String>,
    manifests: Vec<&'a [u8]>,
}

impl<'a> Outline<'a> {
    /// Reads the outline of a component; `Err` says why the bytes have none.
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() > PLUGIN_BYTES_MAX {
            return Err(format!(
                "it has {} bytes, and a component may have {PLUGIN_BYTES_MAX}: build it in release mode, optimised for size, \
                 without debug information",
                bytes.len()
            ));
        }
        if !bytes.starts_with(b"\0asm") {
            return Err(format!(
                "it is no WebAssembly component (these begin with the bytes 00 61 73 6d): {HOW_TO_BUILD}"
            ));
        }
        let mut outline = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| damaged(bytes, &error))?;
            outline.take(&payload, &mut depth).map_err(|problem| match problem {
                Unreadable::CoreModule => format!(
                    "it is a core module, and not a component: {HOW_TO_BUILD}; a core module with an embedded WIT world is \
                     made into a component by `wasm-tools component new`"
                ),
                Unreadable::Damaged(error) => damaged(bytes, &error),
            })?;
        }
        Ok(outline)
    }

    fn take(&mut self, payload: &Payload<'a>, depth: &mut usize) -> Result<(), Unreadable> {
        match payload {
            Payload::Version { encoding, .. } => {
                if *depth == 0 && *encoding == Encoding::Module {
                    return Err(Unreadable::CoreModule);
                }
                *depth += 1;
            }
            Payload::End(_) => *depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if *depth == 1 => {
                for import in section.clone() {
                    let import = import?;
                    let names = match import.ty {
                        ComponentTypeRef::Instance(_) => &mut self.imports,
                        _ => &mut self.odd_imports,
                    };
                    names.insert(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if *depth == 1 => {
                for export in section.clone() {
                    self.exports.insert(export?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if section.name() == SECTION => {
                self.manifests.push(section.data())
            }
            _ => {}
        }
        Ok(())
    }

    fn is_agent(&self) -> bool {
        self.exports.iter().any(|export| match export.split_once('@') {
            Some((interface, version)) => interface == GUEST_INTERFACE && version.starts_with(GUEST_VERSIONS),
            None => false,
        })
    }

    fn not_an_agent(&self) -> String {
        let exports = match self.exports.len() {
            0 => "nothing".to_string(),
            _ => self.exports.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let is_command = self.exports.iter().any(|name| name.starts_with("wasi:cli/run"));
        let hint = if is_command { " (it is a program with a `main`; an agent is a library)" } else { "" };
        format!(
            "it is for another world: it exports {exports}{hint}, and an agent exports `{GUEST_EXPORT}`: {HOW_TO_BUILD}"
        )
    }
}

/// Why an outline can't be read on.
enum Unreadable {
    CoreModule,
    Damaged(wasmparser::BinaryReaderError),
}

impl From<wasmparser::BinaryReaderError> for Unreadable {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Damaged(error)
    }
}

fn damaged(bytes: &[u8], error: &wasmparser::BinaryReaderError) -> String {
    format!(
        "it is truncated or damaged: {} at byte {} of {}: transfer or build it again",
        error.message(),
        error.offset(),
        bytes.len()
    )
}

#[cfg(test)]
mod tests;
