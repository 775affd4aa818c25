//! Handshakes of others under way, before it is known whose they are: bounded in all, and for each network address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX, HANDSHAKES_SPARE};
use crate::peers::lock;

/// How many there are, by address. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshakes(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

impl Handshakes {
    /// Whether so many are under way that an address must first prove that it receives what is sent to it.
    pub(super) fn are_pressed(&self) -> bool {
        let under_way: usize = lock(&self.0).values().sum();
        HANDSHAKES_MAX - under_way.min(HANDSHAKES_MAX) < HANDSHAKES_SPARE
    }

    /// Room for one more, given back when dropped; `None` when there is none.
    pub(super) fn try_begin(&self, address: IpAddr) -> Option<Handshake> {
        let mut counts = lock(&self.0);
        let (all, own) = (counts.values().sum::<usize>(), counts.get(&address).copied().unwrap_or(0));
        if all >= HANDSHAKES_MAX || own >= HANDSHAKES_OF_ADDRESS_MAX {
            return None;
        }
        counts.insert(address, own + 1);
        Some(Handshake { all: self.clone(), address })
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Handshakes,
    address: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = lock(&self.all.0);
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests;
