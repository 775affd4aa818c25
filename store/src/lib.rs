//! `RuntimeStore` on real engines.
//!
//! `SqliteStore` keeps everything in one SQLite file: by default for one process, with `?shared` for several processes of
//! one machine. What an input or a snapshot means is not known here.
#![forbid(unsafe_code)]

mod sqlite;

pub use sqlite::{OpenError, SealKey, SqliteMode, SqliteStore, UrlError, parse_url};
