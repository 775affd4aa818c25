//! An agent that finds documents by their words.
//!
//! `{"put": {"doc": NAME, "text": T}}` takes in a document, or replaces it, and answers `{"docs": N}`, the number of documents.
//! `{"query": "word word"}` answers `{"docs": [names]}`: those that hold all the words, sorted. Words are runs of letters and
//! digits, in lower case. It is a good turn, and works as a query as well, which takes none.
//!
//! The state is an inverted index that grows to megabytes and is part of every snapshot, so it is compact (`postings.rs`).

#![forbid(unsafe_code)]

mod postings;

use godwit_guest::{Agent, AgentError, Host, Input, Map, Query, ReadHost, Reply, Set};
use serde::{Deserialize, Deserializer, Serialize};

use postings::Postings;

/// The documents, and for each word the documents that hold it.
#[derive(Default, Serialize, Deserialize)]
pub struct Index {
    /// Each document's number. A document that is replaced gets a new one, so numbers only grow.
    documents: Map<String, u64>,
    /// How many numbers were given out.
    numbered: u64,
    #[serde(deserialize_with = "in_order")]
    words: Map<String, Postings>,
}

/// Reads a map whose keys are in order, as a snapshot has them: building it at once is quicker than key by key.
fn in_order<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Postings>, D::Error> {
    Vec::deserialize(from).map(Map::from_iter)
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Put { doc: String, text: String },
    Query(String),
}

#[derive(Serialize)]
struct Answer<T> {
    docs: T,
}

impl Agent for Index {
    fn handle(&mut self, input: &Input, _host: &mut impl Host) -> Result<Reply, AgentError> {
        match input.json() {
            None => Ok(Reply::refused("malformed")),
            Some(Request::Put { doc, text }) => {
                self.put(doc, &text);
                let docs = self.documents.len();
                Ok(Reply::json(&Answer { docs }))
            }
            Some(Request::Query(query)) => Ok(self.found(&query)),
        }
    }
}

impl Query for Index {
    fn query(&self, payload: &[u8], _host: &mut impl ReadHost) -> Result<Reply, AgentError> {
        match Input::message(payload).json() {
            None => Ok(Reply::refused("malformed")),
            Some(Request::Put { .. }) => Ok(Reply::refused("read-only")),
            Some(Request::Query(query)) => Ok(self.found(&query)),
        }
    }
}

impl Index {
    fn put(&mut self, name: String, text: &str) {
        self.numbered += 1;
        if let Some(old) = self.documents.insert(name, self.numbered) {
            self.words.retain(|_, postings| {
                postings.remove(old);
                !postings.is_empty()
            });
        }
        for word in words(text) {
            self.words.entry(word).or_default().push(self.numbered);
        }
    }

    fn found(&self, query: &str) -> Reply {
        Reply::json(&Answer { docs: self.search(query) })
    }

    fn search(&self, query: &str) -> Vec<&str> {
        let holders = |word: String| match self.words.get(&word) {
            Some(postings) => postings.iter().collect(),
            None => Set::new(),
        };
        let wanted: Vec<Set<u64>> = words(query).into_iter().map(holders).collect();
        let is_hit = |number: &u64| wanted.iter().all(|numbers| numbers.contains(number));
        let hits = self.documents.iter().filter(|(_, number)| is_hit(number));
        hits.map(|(name, _)| name.as_str()).collect()
    }
}

/// The different words of a text.
fn words(text: &str) -> Set<String> {
    let runs = text.split(|c: char| !c.is_alphanumeric());
    runs.filter(|run| !run.is_empty()).map(str::to_lowercase).collect()
}

godwit_guest::export!(Index: Query);

#[cfg(test)]
mod tests;
