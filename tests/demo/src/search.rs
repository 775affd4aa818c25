//! Scene: an `index` agent reads this repository, and answers as a plain search over the same files does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use godwit_support::binaries;
use godwit_support::cluster::Cluster;
use godwit_support::stats::Latencies;
use serde_json::{Value, json};

use crate::screen::{say, section};

const AGENT: &str = "library";
const FILES_MAX: usize = 150;
const FILE_BYTES_MAX: u64 = 200 * 1024;
const QUERIES: [&str; 10] = [
    "license",
    "WARRANTY merchantability",
    "fencing token",
    "lease guard deadline",
    "snapshot restore",
    "async fn",
    "wasm component",
    "Idempotency key",
    "pub struct Counter",
    "zebra xylophone",
];

/// A file of the repository: its name below the root, and its text.
struct Document {
    name: String,
    text: String,
}

/// Plays the scene.
pub(crate) async fn run(pair: &Cluster) -> Result<()> {
    section("An agent that reads: this repository, file by file, in a full-text index");
    let documents = documents(&binaries::workspace())?;
    let (near, far) = (pair.a.client(), pair.b.client());
    near.create(AGENT, "index").await?;
    let began = Instant::now();
    let mut asks = Vec::new();
    for document in &documents {
        let put = json!({ "put": { "doc": document.name, "text": document.text } });
        let asked = Instant::now();
        near.reply(AGENT, &put.to_string()).await?;
        asks.push(asked.elapsed());
    }
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    say(format!(
        "{} files, {} KiB of text indexed in {:.1} s, each durable before the next: {}",
        documents.len(),
        bytes / 1024,
        began.elapsed().as_secs_f64(),
        Latencies::of(asks)
    ));
    for (number, query) in QUERIES.iter().enumerate() {
        // Every second query goes through the host that is not the agent's home.
        let door = if number % 2 == 0 { &near } else { &far };
        let reply = door.reply(AGENT, &json!({ "query": query }).to_string()).await?;
        let reply: Value = serde_json::from_str(&reply)?;
        let plain = plain_search(&documents, query);
        ensure!(reply["docs"] == json!(plain), "{query:?}: the index says {reply}, a plain search {plain:?}");
        say(format!("{query:<26} {:>3} files, as the plain search says", plain.len()));
    }
    Ok(())
}

/// The names of the documents that hold all words, sorted; word by word and file by file.
fn plain_search<'a>(documents: &'a [Document], query: &str) -> Vec<&'a str> {
    let wanted = words(query);
    let hits = documents.iter().filter(|document| wanted.is_subset(&words(&document.text)));
    let mut names: Vec<_> = hits.map(|document| document.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn words(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_alphanumeric() {
            word.push(letter);
        } else if !word.is_empty() {
            found.insert(std::mem::take(&mut word).to_lowercase());
        }
    }
    found
}

/// Licences, documents and sources below `root`, without what is built.
fn documents(root: &Path) -> Result<Vec<Document>> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    let mut documents = Vec::new();
    for path in paths {
        let is_small = path.metadata().is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
        if is_small && documents.len() < FILES_MAX {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            documents.push(Document { name, text });
        }
    }
    Ok(documents)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                walk(&path, found)?;
            }
        } else if name.ends_with(".rs")
            || name.starts_with("LICENSE-")
            || matches!(name.as_ref(), "README.md" | "ARCHITECTURE.md")
        {
            found.push(path);
        }
    }
    Ok(())
}
