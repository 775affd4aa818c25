//! Makes the saved corpora: `GODWIT_RECORD=FOLDER cargo xtask test cluster --only false_peer`, then
//! `cargo run -p godwit-fuzz --example seeds -- FOLDER`. What that suite's false peer was sent by a real host in real migrations,
//! and the deliveries that it sent itself, become messages, frames, rows, snapshots and journal entries; manifests are those of
//! the plugins.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use godwit_core::store::{Row, RowFrame};

/// Larger ones are cut to their first rows.
const SEED_BYTES_MAX: usize = 16 << 10;
const MANIFEST_SECTION: &[u8] = b"godwit:manifest";

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("which folder?")?);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = package.join("corpus");
    let save = |target: &str, bytes: &[u8]| -> Result<()> {
        let place = corpus.join(target);
        fs::create_dir_all(&place)?;
        let name = blake3::hash(bytes).to_hex();
        Ok(fs::write(place.join(&name[..16]), bytes)?)
    };
    for file in fs::read_dir(&folder)? {
        let file = file?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&file)?;
        match name.split('-').next() {
            Some("request") => {
                save("messages", &[&[0][..], &bytes].concat())?;
                save("frames", &frame(2, 6, &bytes))?;
            }
            Some("header") => {
                save("messages", &[&[2][..], &bytes].concat())?;
                let open = ([7_u8; 16], 9_u64, &bytes[..], false);
                save("frames", &frame(2, 8, &postcard::to_stdvec(&open)?))?;
            }
            Some("rows") => of_rows(&bytes, &save)?,
            _ => {}
        }
    }
    greetings(&save)?;
    let recorded = package.join("../../host/src/runtime/wire/tests/version1.txt");
    for line in fs::read_to_string(recorded)?.lines() {
        let hex = line.rsplit(' ').next().unwrap_or_default().as_bytes().chunks(2);
        let bytes: Vec<u8> =
            hex.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        save("messages", &[&[u8::from(line.starts_with("answer"))][..], &bytes].concat())?;
    }
    for plugin in fs::read_dir(package.join("../../target/guests"))? {
        let plugin = plugin?.path();
        if plugin.extension().is_some_and(|extension| extension == "wasm") {
            let component = fs::read(plugin)?;
            let at = component.windows(MANIFEST_SECTION.len()).position(|window| window == MANIFEST_SECTION);
            let rest = at.and_then(|at| component.get(at + MANIFEST_SECTION.len()..)).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
            save("manifest", &rest[..end])?;
        }
    }
    save(
        "manifest",
        b"name = \"a\"\nversion = \"1\"\n\n[limits]\nturn-ms-max = 5\nmemory-bytes-max = 1048576\n",
    )
}

/// A bundle of rows, and what is in it.
fn of_rows(bytes: &[u8], save: &dyn Fn(&str, &[u8]) -> Result<()>) -> Result<()> {
    let (version, body) = bytes.split_first().context("an empty bundle")?;
    let frames: Vec<RowFrame> = postcard::from_bytes(body)?;
    let written = |frames: &[RowFrame]| -> Result<Vec<u8>> {
        Ok([&[*version][..], &postcard::to_stdvec(frames)?].concat())
    };
    let fitting = (0..=frames.len()).rev().map(|count| written(&frames[..count]));
    for bundle in fitting {
        let bundle = bundle?;
        if bundle.len() <= SEED_BYTES_MAX {
            save("rows", &bundle)?;
            break;
        }
    }
    for frame in &frames {
        let alone = written(std::slice::from_ref(frame))?;
        if alone.len() <= SEED_BYTES_MAX {
            save("rows", &alone)?;
        }
        match &frame.row {
            Row::Snapshot { snapshot, .. } => {
                let envelope = snapshot.to_envelope();
                if envelope.len() <= SEED_BYTES_MAX {
                    save("snapshot", &envelope)?;
                }
            }
            Row::Journal { entry, .. } => {
                save("journal", &[&[0][..], &postcard::to_stdvec(entry)?].concat())?
            }
            Row::Receipt(receipt) => save("journal", &[&[1][..], &receipt.to_bytes()].concat())?,
            _ => {}
        }
    }
    Ok(())
}

/// What hosts say before they know each other.
fn greetings(save: &dyn Fn(&str, &[u8]) -> Result<()>) -> Result<()> {
    let hello = [&[1, 2][..], &[7; 16], &[0]].concat();
    let welcome = [&[2][..], &[7; 16]].concat();
    let chunk = [&3_u64.to_le_bytes()[..], b"the next bytes"].concat();
    let frames = [
        frame(0, 1, &hello),
        frame(0, 2, &welcome),
        frame(0, 3, &[0, 1, 2]),
        [frame(2, 4, &[]), frame(2, 5, &[])].concat(),
        [frame(2, 9, &[0]), frame(2, 10, &chunk), frame(2, 7, &[2, 4, 0])].concat(),
    ];
    frames.iter().try_for_each(|frame| save("frames", frame))
}

fn frame(version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut frame = [b"gdwm", &[version, kind, 0, 0][..], &length, &[0; 32], body].concat();
    godwit_mesh::fuzzing::reseal(&mut frame);
    frame
}
