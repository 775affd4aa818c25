//! What the tour prints.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};

static SECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Begins a numbered section.
pub(crate) fn section(title: &str) {
    let number = SECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
    println!("\n=== {number}. {title}");
}

/// Prints a line.
pub(crate) fn say(line: impl Display) {
    println!("    {line}");
}
