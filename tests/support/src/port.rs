//! Ports of hosts: one that dies comes back at its own, however many sockets others have opened meanwhile.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result};

use crate::random::Random;

/// Below those that Linux gives to whoever asks for any port, or calls from one.
const PORTS: Range<u16> = 10_000..32_000;

/// A port for TCP and UDP that no other test takes while this lives, on whatever address.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// A name that one socket of the machine can have; it is free again when its process ends, however.
    _claim: UnixListener,
}

impl Port {
    /// Takes one that nobody listens at.
    ///
    /// # Errors
    /// When none is free.
    pub fn take() -> Result<Self> {
        let many = u64::from(PORTS.end - PORTS.start);
        let mut random = Random::unprinted();
        let numbers = (0..many).map(|_| PORTS.start + random.below(many) as u16);
        numbers.flat_map(Self::claim).next().context("no port is free")
    }

    /// Takes this one, unless it is taken.
    fn claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("godwit-test-port-{number}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        let address = (Ipv4Addr::LOCALHOST, number);
        let is_free = TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
        is_free.then_some(Self { number, _claim: claim })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_and_not_from_whoever_listens() {
        let port = Port::take().unwrap();
        let number = port.number();
        assert!(Port::claim(number).is_none(), "it is taken");
        drop(port);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(Port::claim(number).is_none(), "somebody listens there");
        drop(listener);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(Port::claim(number).is_none(), "somebody else is there");
        drop(socket);
        assert_eq!(Port::claim(number).unwrap().number(), number);
    }
}
