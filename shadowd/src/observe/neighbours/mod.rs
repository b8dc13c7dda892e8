//! What the neighbours of an interface say: that they have a virtual IP, and that they are alive.
//!
//! - A **claim**: somebody else on the link says that a virtual IP is at its own MAC (RFC 5227,
//!   section 2.4; the same for IPv6 by RFC 4861). Heard from who announces, asks or answers.
//! - An **answer**: a peer's kernel answers ARP or neighbour discovery for the peer's own address. It
//!   does so from its interrupt handlers, also when all its processes are starved or stopped; a host
//!   that is dead, frozen or off the link does not.
//!
//! Nothing here is authenticated: anybody on the link can claim and answer. So a claim is a reason to
//! announce again, and an answer or its absence is evidence beside others, never proof.
//!
//! The sockets hear what the interface's traffic control lets through: while the guard silences a
//! virtual IP here, claims of it are not heard. This module never announces and never answers.

mod errors;
mod filter;
mod hearing;
mod networks;
mod sockets;

use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

pub use errors::{NeighboursError, ProbeError};
pub use hearing::NeighbourCounts;

use super::sys::boot_time;
use crate::ethernet::socket::SocketError;
use crate::ethernet::{Mac, frames};
use crate::facts::{BootTime, Vip};
use hearing::Hearing;
use sockets::Sockets;

/// Virtual IPs of one interface: 16 groups with 32 each. The filters of more would exceed what
/// older kernels give a socket (net.core.optmem_max, 20 KiB).
const MAX_VIPS: usize = 512;
/// A longer frame is cut off, and then malformed.
const FRAME: usize = 2048;
/// Frames that are read without letting others run.
const TURN: usize = 64;
/// Frames that are read in one second, so that a flood cannot take the thread from the heartbeats.
const FRAMES_PER_SECOND: usize = 4_096;
/// Errors of the sockets, one after the other, before the next look is waited for.
const ERRORS: usize = 4;
/// Between two looks whether the interface was made anew. The kernel tells a socket that its
/// interface went down, but not that it was removed then: so this looks, which takes less than a
/// microsecond.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the neighbours of an interface said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody else says that it has a virtual IP.
    Claim(Claim),
    /// A peer's kernel has answered a probe.
    Answer(Answer),
}

/// Another host says that a virtual IP is at its MAC. The same claim is told once a second, and at
/// most four claimants of one virtual IP in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The virtual IP.
    pub vip: Vip,
    /// Where it is said to be; not this interface's own. It may be another interface of this host on
    /// the same link, which answers for all the host's addresses unless `arp_ignore` is set.
    pub mac: Mac,
    /// When it was read.
    pub at: BootTime,
}

/// A peer's kernel has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address that was probed.
    pub address: IpAddr,
    /// Where it is.
    pub mac: Mac,
    /// From the first probe that was not answered until this was read: an upper bound, in which this
    /// thread's own delay is contained.
    pub round_trip: Duration,
    /// When it was read.
    pub at: BootTime,
}

/// The neighbours of one interface.
#[derive(Debug)]
pub struct Neighbours {
    interface: String,
    hearing: Hearing,
    sockets: Sockets,
    buffer: Vec<u8>,
    /// What the sockets before these had dropped.
    dropped_before: u64,
    look_at: Instant,
    /// Of the sockets, since the last frame or look.
    errors: usize,
    second: Instant,
    in_second: usize,
}

impl Neighbours {
    /// Opens the sockets in the calling thread's network namespace and registers them with the
    /// current tokio runtime, on which all calls must be made. Claims of `vips` are told.
    ///
    /// # Errors
    /// If the interface is not there or not Ethernet, the sockets are refused (they need
    /// CAP_NET_RAW), or there are more than 512 virtual IPs.
    pub fn open(interface: &str, vips: &[Vip]) -> Result<Self, NeighboursError> {
        if vips.len() > MAX_VIPS {
            return Err(NeighboursError::TooMany {
                interface: interface.to_owned(),
                count: vips.len(),
            });
        }
        let hearing = Hearing::new(vips);
        let sockets = Sockets::open(interface, &hearing)?;
        Ok(Self {
            interface: interface.to_owned(),
            hearing,
            sockets,
            buffer: vec![0; FRAME],
            dropped_before: 0,
            look_at: Instant::now() + LOOK_EVERY,
            errors: 0,
            second: Instant::now(),
            in_second: 0,
        })
    }

    /// Those of `peers` that this interface cannot probe: they are not on its link, as far as its
    /// addresses tell now.
    ///
    /// # Errors
    /// [`ProbeError::Addresses`].
    pub fn off_link(&self, peers: &[IpAddr]) -> Result<Vec<IpAddr>, ProbeError> {
        let own = self.own_addresses()?;
        let mut off = peers.to_vec();
        off.retain(|peer| self.hearing.is_vip(*peer) || networks::source(&own, *peer).is_none());
        Ok(off)
    }

    /// Asks the kernel of the host with `address` for a sign of life, with one ARP request or
    /// neighbour solicitation from the interface's own address. The answer comes out of
    /// [`Self::recv`], if it comes within 2 s. Never blocks; costs some 40 us where the host has few
    /// addresses (`costs` in tests/neighbours/probes.rs), most of it for reading them: a question from
    /// an address that has moved would mislead the link.
    ///
    /// # Errors
    /// When nothing was sent. An interface that was made anew is opened again here too.
    pub fn probe(&mut self, address: IpAddr) -> Result<(), ProbeError> {
        if self.hearing.is_vip(address) {
            return Err(ProbeError::VirtualIp(address));
        }
        if !self.hearing.has_room(address, boot_time()) {
            return Err(ProbeError::TooMany(self.interface.clone()));
        }
        let own = self.own_addresses()?;
        let source = networks::source(&own, address).ok_or_else(|| ProbeError::OffLink {
            interface: self.interface.clone(),
            address,
        })?;
        let mac = self
            .mac()
            .map_err(|source| ProbeError::Socket { address, source })?;
        let now = boot_time();
        let mut sent = self.ask(mac, source, address);
        if sent == Err(Errno::ENETDOWN) {
            // A socket says once that its interface went down, also after it came up again.
            sent = self.ask(mac, source, address);
        }
        sent.map_err(|source| ProbeError::Send {
            interface: self.interface.clone(),
            address,
            source,
        })?;
        self.hearing.asked(address, source, now);
        Ok(())
    }

    fn ask(&self, mac: Mac, source: IpAddr, target: IpAddr) -> Result<(), Errno> {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let frame = frames::request(mac, source, target);
                self.sockets.arp.get_ref().send(&frame)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let frame = frames::solicitation(mac, source, target);
                self.sockets.discovery.get_ref().send(&frame)
            }
            // They share a network, so they are of one family.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(Errno::EAFNOSUPPORT)
            }
        }
    }

    /// The next thing that is heard. While the interface is down or gone nothing is; when it comes
    /// back the sockets are opened again within half a second.
    ///
    /// Cancel-safe: what was read is told by this call or was counted, never lost between two calls.
    pub async fn recv(&mut self) -> Heard {
        loop {
            for _ in 0..TURN {
                self.keep_to_the_rate().await;
                if let Some(heard) = self.turn().await {
                    return heard;
                }
            }
            yield_now().await;
        }
    }

    /// What was heard, dropped and withheld since the start.
    pub fn counts(&self) -> NeighbourCounts {
        NeighbourCounts {
            dropped: self.dropped_before + self.sockets.dropped(),
            ..self.hearing.counts
        }
    }

    /// One frame, or one look at an interface that was down. Waiting for either loses nothing; what
    /// follows does not wait.
    async fn turn(&mut self) -> Option<Heard> {
        let received = tokio::select! {
            received = self.sockets.receive(&mut self.buffer), if self.errors < ERRORS => received,
            () = sleep_until(self.look_at) => {
                self.look();
                return None;
            }
        };
        // The usual error says that the interface went down; the kernel listens again by itself
        // when it comes up.
        let Ok(length) = received else {
            self.errors += 1;
            return None;
        };
        self.in_second += 1;
        self.errors = 0;
        // Without an address of its own the interface is gone, and so is what it received.
        let own = self.sockets.mac().ok()?;
        self.hearing.hear(&self.buffer[..length], own, boot_time())
    }

    /// A flood is left to the kernel, which drops and counts what the buffers do not hold.
    async fn keep_to_the_rate(&mut self) {
        let ends = self.second + Duration::from_secs(1);
        if self.in_second >= FRAMES_PER_SECOND {
            sleep_until(ends).await;
        }
        if Instant::now() >= ends {
            self.second = Instant::now();
            self.in_second = 0;
        }
    }

    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
        self.errors = 0;
        // While there is no interface there is nothing to hear, and the next look comes.
        let _ = self.mac();
    }

    /// The interface's MAC now, after opening the sockets again if it was made anew.
    fn mac(&mut self) -> Result<Mac, NeighboursError> {
        match self.sockets.mac() {
            Err(SocketError::NoInterface(_)) => {
                let sockets = Sockets::open(&self.interface, &self.hearing)?;
                self.dropped_before += self.sockets.dropped();
                self.sockets = sockets;
                self.hearing.counts.reopened += 1;
                Ok(self.sockets.mac()?)
            }
            other => Ok(other?),
        }
    }

    fn own_addresses(&self) -> Result<Vec<networks::Own>, ProbeError> {
        let mut own = networks::own(&self.interface).map_err(|source| ProbeError::Addresses {
            interface: self.interface.clone(),
            source,
        })?;
        own.retain(|(address, _)| !self.hearing.is_vip(*address));
        Ok(own)
    }
}
