//! A line between two hosts' meshes that loses, repeats, damages and delays what passes, as a seed says; or passes nothing.
//!
//! It forwards datagrams. QUIC refuses a damaged one and sends anew what was lost: so nothing of this may ever be seen above it,
//! except that it takes longer.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::random::Random;

/// The largest datagram.
const DATAGRAM_MAX: usize = 65_536;

/// What happens to a datagram, each in a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noise {
    /// Nothing passes.
    pub is_cut: bool,
    /// It is lost.
    pub lost: u64,
    /// A bit of it is turned over.
    pub damaged: u64,
    /// It comes twice.
    pub repeated: u64,
    /// It takes up to so long, and others overtake it.
    pub delayed: u64,
    /// How long that is at most, in milliseconds.
    pub delay_ms: u64,
}

/// What has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Datagrams that came, from either side.
    pub datagrams: u64,
    /// Of those, how many were lost, on a cut line or otherwise.
    pub lost: u64,
    /// Were damaged.
    pub damaged: u64,
    /// Came twice.
    pub repeated: u64,
    /// Were delayed.
    pub delayed: u64,
}

#[derive(Debug)]
struct State {
    noise: Noise,
    passed: Passed,
    random: Random,
    /// Who has dialled last.
    dialler: Option<SocketAddr>,
}

/// A line from whoever dials it to one host. It ends when it is dropped.
#[derive(Debug)]
pub struct Line {
    /// Where it is dialled.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _ends: JoinSet<()>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Opens a line that is dialled at `near`, by a host on that side, and leads to a mesh from `far`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn open(near: IpAddr, far: IpAddr, mesh: SocketAddr, seed: u64) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind((near, 0)).await.context("near end")?);
        let far = Arc::new(UdpSocket::bind((far, 0)).await.context("far end")?);
        let address = near.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            noise: Noise::default(),
            passed: Passed::default(),
            random: Random::from_seed(seed),
            dialler: None,
        }));
        let mut ends = JoinSet::new();
        let (there, back) = (state.clone(), state.clone());
        let (near_in, far_in) = (near.clone(), far.clone());
        ends.spawn(async move {
            forward(&near_in, &far, &there, |state, from| {
                state.dialler = Some(from);
                Some(mesh)
            })
            .await;
        });
        ends.spawn(async move { forward(&far_in, &near, &back, |state, _| state.dialler).await });
        Ok(Self { address, state, _ends: ends })
    }

    /// Says what happens from now on.
    pub fn set(&self, noise: Noise) {
        lock(&self.state).noise = noise;
    }

    /// What has passed so far.
    pub fn passed(&self) -> Passed {
        lock(&self.state).passed
    }
}

/// Takes datagrams at one end, for as long as the line is there.
async fn forward(
    from: &UdpSocket,
    to: &Arc<UdpSocket>,
    state: &Mutex<State>,
    whom: impl Fn(&mut State, SocketAddr) -> Option<SocketAddr>,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut late = JoinSet::new();
    loop {
        // An error is of an earlier datagram, which nobody was there to take.
        let Ok((length, sender)) = from.recv_from(&mut buffer).await else { continue };
        let mut datagram = buffer[..length].to_vec();
        let (receiver, copies) = {
            let mut state = lock(state);
            let receiver = whom(&mut state, sender);
            (receiver, state.pass(&mut datagram))
        };
        let Some(receiver) = receiver else { continue };
        for delay in copies {
            if delay.is_zero() {
                // A datagram that can't be sent is a lost one.
                drop(to.send_to(&datagram, receiver).await);
            } else {
                let (to, datagram) = (to.clone(), datagram.clone());
                late.spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(to.send_to(&datagram, receiver).await);
                });
            }
        }
        while late.try_join_next().is_some() {}
    }
}

impl State {
    fn strikes(&mut self, per_mille: u64) -> bool {
        self.random.below(1_000) < per_mille
    }

    /// What becomes of a datagram: it may be damaged; when each copy of it leaves.
    fn pass(&mut self, datagram: &mut [u8]) -> Vec<Duration> {
        let noise = self.noise;
        self.passed.datagrams += 1;
        if noise.is_cut || self.strikes(noise.lost) {
            self.passed.lost += 1;
            return Vec::new();
        }
        if self.strikes(noise.damaged) && !datagram.is_empty() {
            self.passed.damaged += 1;
            let bit = self.random.below(datagram.len() as u64 * 8);
            datagram[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let copies = if self.strikes(noise.repeated) { 2 } else { 1 };
        self.passed.repeated += copies - 1;
        let each = (0..copies).map(|_| {
            if !self.strikes(noise.delayed) {
                return Duration::ZERO;
            }
            self.passed.delayed += 1;
            Duration::from_millis(1 + self.random.below(noise.delay_ms.max(1)))
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests;
