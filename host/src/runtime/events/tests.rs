//! Tests of gaps and cursors.
