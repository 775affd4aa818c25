//! A door for the fuzz targets, in test builds only.

use std::fmt::Debug;

use crate::plugin::manifest::Manifest;

/// Reads the bytes of a manifest section. Answers what is wrong with it; what was read is shown.
pub fn manifest(section: &[u8], look: &mut dyn FnMut(&dyn Debug)) -> Vec<String> {
    let mut problems = Vec::new();
    let manifest = Manifest::parse(section, &mut problems);
    look(&manifest);
    problems
}
