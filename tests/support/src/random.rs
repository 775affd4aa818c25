//! Random numbers that a seed replays: the seed is printed, and `GODWIT_SEED` sets it.

use std::hash::{BuildHasher, RandomState};

/// A small generator (SplitMix64): good enough to choose moments and amounts.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers from a known seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers that nobody needs again.
    pub fn unprinted() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// Numbers from `GODWIT_SEED`, or from a new seed; prints which.
    pub fn printed(what: &str) -> Self {
        let given = std::env::var("GODWIT_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(what));
        println!("{what}: GODWIT_SEED={seed} replays it");
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}
