//! Telling the neighbours of an interface that virtual IPs live here now.
//!
//! Without it a client keeps sending to the old owner until its neighbour entry times out. The
//! packet socket is opened at start, because opening it costs a thousand times what a frame costs.
//! [`Announcer`] only sends; when to send again is [`Repeats`], which reads no clock.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

use crate::ethernet::Mac;
use crate::ethernet::frames::{self, ArpForm};
use crate::ethernet::socket::{PacketSocket, Receives, SocketError};
use crate::facts::{BootTime, Vip};

/// Why virtual IPs could not be announced.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// There is no such interface.
    #[error("interface {0} is not there")]
    NoInterface(String),
    /// The interface has no Ethernet addresses, so nobody keeps neighbour entries for it.
    #[error("interface {0} is not an Ethernet interface")]
    NotEthernet(String),
    /// The packet socket could not be opened; it needs CAP_NET_RAW.
    #[error("the packet socket on interface {interface} could not be opened")]
    Open {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Frames were refused; all others were tried.
    #[error("{vip} was not announced on interface {interface}")]
    Send {
        /// The interface.
        interface: String,
        /// The first virtual IP whose frame was refused.
        vip: Vip,
        /// How many frames left nevertheless.
        sent: usize,
        /// Why the first one was refused.
        #[source]
        source: Errno,
    },
}

impl From<SocketError> for AnnounceError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::NoInterface(interface) => Self::NoInterface(interface),
            SocketError::NotEthernet(interface) => Self::NotEthernet(interface),
            SocketError::Open { interface, source } => Self::Open { interface, source },
        }
    }
}

/// A packet socket on one interface, ready to announce.
#[derive(Debug)]
pub struct Announcer {
    socket: PacketSocket,
}

impl Announcer {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the interface is not there or not Ethernet, or the socket is refused.
    pub fn open(interface: &str) -> Result<Self, AnnounceError> {
        let socket = PacketSocket::open(interface, Receives::Nothing)?;
        Ok(Self { socket })
    }

    /// Sends two gratuitous ARP frames (request and reply form) for each IPv4 address and one
    /// neighbour advertisement for each IPv6 address; gives the number of frames sent.
    ///
    /// Never blocks: a full queue is an error, and the next repeat tries again. The hardware
    /// address is read each time (0.7 us, beside 3 us for each frame: `costs` in
    /// tests/neighbours/probes.rs), because that of a bond changes with its ports. When the interface
    /// was removed and made again, the socket is opened again (once, which costs a millisecond).
    ///
    /// # Errors
    /// [`AnnounceError::Send`] after all frames were tried, or any error of [`Announcer::open`].
    pub fn announce(&mut self, vips: &[Vip]) -> Result<usize, AnnounceError> {
        match self.socket.mac() {
            Ok(mac) => self.send_all(mac, vips),
            Err(SocketError::NoInterface(interface)) => {
                self.socket = PacketSocket::open(&interface, Receives::Nothing)?;
                self.send_all(self.socket.mac()?, vips)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn send_all(&self, mac: Mac, vips: &[Vip]) -> Result<usize, AnnounceError> {
        let mut sent = 0;
        let mut refused = None;
        let mut send_one = |vip: Vip, frame: &[u8]| match self.socket.send(frame) {
            Ok(()) => sent += 1,
            Err(source) => {
                refused.get_or_insert((vip, source));
            }
        };
        for vip in vips {
            match vip.address {
                IpAddr::V4(address) => {
                    send_one(*vip, &frames::arp(ArpForm::Request, mac, address));
                    send_one(*vip, &frames::arp(ArpForm::Reply, mac, address));
                }
                IpAddr::V6(address) => send_one(*vip, &frames::advertisement(mac, address)),
            }
        }
        match refused {
            None => Ok(sent),
            Some((vip, source)) => Err(AnnounceError::Send {
                interface: self.socket.interface().to_owned(),
                vip,
                sent,
                source,
            }),
        }
    }
}

/// When to announce again.
///
/// The first announcements go out close together, because a switch may still be learning and a
/// frame may be lost; the last of them comes after the second for which Linux neighbours refuse to
/// change a fresh entry (neigh/default/locktime). After that a refresh repairs what a silent fault
/// made wrong.
///
/// ```text
/// since promotion: 0  50 ms  100 ms  200 ms  500 ms  1 s  2 s   then every 60 s
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    started: BootTime,
    next: BootTime,
}

impl Repeats {
    /// Offsets of the announcements from the first.
    pub const OFFSETS: [Duration; 7] = [
        Duration::ZERO,
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(200),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_secs(2),
    ];
    /// Between two refreshes after the last offset.
    pub const REFRESH: Duration = Duration::from_secs(60);

    /// Starts a series; the first announcement is due now. Start a new one to announce again after
    /// a heal or when somebody else claimed the address.
    pub const fn new(now: BootTime) -> Self {
        Self {
            started: now,
            next: now,
        }
    }

    /// When the next announcement is due.
    pub const fn next_deadline(&self) -> BootTime {
        self.next
    }

    /// Whether to announce now. Announcements that were missed are not made up for.
    pub fn poll(&mut self, now: BootTime) -> bool {
        if now < self.next {
            return false;
        }
        let due = |offset: &Duration| self.started.after(*offset);
        self.next = Self::OFFSETS
            .iter()
            .map(due)
            .find(|deadline| *deadline > now)
            .unwrap_or_else(|| now.after(Self::REFRESH));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn repeats_back_off_and_then_refresh() {
        let mut repeats = Repeats::new(at(0));
        let mut sent = Vec::new();
        while sent.len() < 9 {
            let deadline = repeats.next_deadline();
            assert!(repeats.poll(deadline));
            assert!(!repeats.poll(deadline), "one announcement a deadline");
            sent.push(deadline.since(at(0)).as_millis());
        }
        assert_eq!(sent, [0, 50, 100, 200, 500, 1_000, 2_000, 62_000, 122_000]);
    }

    #[test]
    fn a_late_poll_announces_once_and_skips_what_it_missed() {
        let mut repeats = Repeats::new(at(0));
        assert!(repeats.poll(at(0)));
        assert!(!repeats.poll(at(49)));
        assert!(repeats.poll(at(300)));
        assert_eq!(repeats.next_deadline(), at(500));
        assert!(repeats.poll(at(100_000)));
        assert_eq!(repeats.next_deadline(), at(160_000));
    }

    #[test]
    fn an_unknown_interface_is_named() {
        let error = Announcer::open("no-such-link").expect_err("there is no such interface");
        assert_eq!(error.to_string(), "interface no-such-link is not there");
    }
}
