//! Doubles for tests and simulation: never for a claim about the product.
//!
//! Fault model of `ScriptedGuest`: it faults exactly when its input says so, and never otherwise.

pub mod mesh;
pub mod scripted;

pub use mesh::{SimMesh, SimNetwork};
pub use scripted::{PICKY, ScriptedLoader, script_plugin};
