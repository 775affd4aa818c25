//! One question: does a host that dies, anywhere, lose or double anything? Real processes, clients that keep a journal
//! outside of them, and a checker that shares no code with the product (`godwit_support::judge`).
#![forbid(unsafe_code)]

mod controls;
mod disk;
mod jobs;
mod journeys;
mod matrix;
mod pairs;
mod poison;
mod runs;
mod scene;
mod sign_in;
mod soak;
mod wander;
