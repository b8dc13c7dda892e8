//! A packet socket on one interface.
//!
//! Opened at start, because opening one costs a thousand times what a frame costs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrStorage, bind, getsockname, recvfrom, send};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::Mac;

/// Ethernet in the kernel's list of hardware types (linux/if_arp.h).
const ARPHRD_ETHER: u16 = 1;

/// What a [`PacketSocket`] receives. Both kinds come after what the traffic control of the
/// interface let through, and neither is shown what this host sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receives {
    /// Nothing: it only sends.
    Nothing,
    /// ARP (EtherType 0x0806).
    Arp,
    /// IPv6 (EtherType 0x86dd).
    Ipv6,
}

impl Receives {
    const fn ethertype(self) -> u16 {
        match self {
            Self::Nothing => 0,
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
        }
    }
}

/// Why there is no packet socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// There is no such interface.
    #[error("interface {0} is not there")]
    NoInterface(String),
    /// The interface has no Ethernet addresses, so nobody keeps neighbour entries for it.
    #[error("interface {0} is not an Ethernet interface")]
    NotEthernet(String),
    /// The socket was refused; it needs CAP_NET_RAW.
    #[error("the packet socket on interface {interface} could not be opened")]
    Open {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A packet socket that is bound to one interface and never blocks.
#[derive(Debug)]
pub struct PacketSocket {
    interface: String,
    index: usize,
    socket: Socket,
}

impl PacketSocket {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the interface is not there or not Ethernet, or the socket is refused.
    pub fn open(interface: &str, receives: Receives) -> Result<Self, SocketError> {
        let refused = |source| SocketError::Open {
            interface: interface.to_owned(),
            source,
        };
        let link = link(interface)
            .map_err(|errno| refused(errno.into()))?
            .ok_or_else(|| SocketError::NoInterface(interface.to_owned()))?;
        // Until it is bound it receives from all interfaces: `receive` tells those frames apart.
        let protocol = Protocol::from(i32::from(receives.ethertype().to_be()));
        let kind = Type::RAW.cloexec().nonblocking();
        let socket = Socket::new_raw(Domain::PACKET, kind, Some(protocol)).map_err(refused)?;
        bind(socket.as_raw_fd(), &link).map_err(|errno| refused(errno.into()))?;
        let opened = Self {
            interface: interface.to_owned(),
            index: link.ifindex(),
            socket,
        };
        opened.mac()?;
        Ok(opened)
    }

    /// The interface's name when the socket was opened.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The interface's hardware address now, which of a bond changes with its ports. packet(7): the
    /// name of a bound packet socket carries it, which is one system call and always speaks of the
    /// socket's own namespace.
    ///
    /// # Errors
    /// [`SocketError::NoInterface`] when the interface was removed: the socket is of no more use,
    /// also when another of the same name comes.
    pub fn mac(&self) -> Result<Mac, SocketError> {
        let name: SockaddrStorage =
            getsockname(self.socket.as_raw_fd()).map_err(|errno| SocketError::Open {
                interface: self.interface.clone(),
                source: errno.into(),
            })?;
        let Some(name) = name.as_link_addr() else {
            return Err(SocketError::NotEthernet(self.interface.clone()));
        };
        match name.addr() {
            // An interface that is gone leaves a name without an address.
            _ if name.halen() == 0 && name.hatype() == 0 => {
                Err(SocketError::NoInterface(self.interface.clone()))
            }
            Some(mac) if name.halen() == mac.len() && name.hatype() == ARPHRD_ETHER => Ok(mac),
            _ => Err(SocketError::NotEthernet(self.interface.clone())),
        }
    }

    /// Sends one whole frame without waiting.
    ///
    /// # Errors
    /// The kernel's: EAGAIN or ENOBUFS when the queue is full, ENETDOWN or ENXIO when the interface
    /// is down or gone.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(|_| ())
    }

    /// Reads one frame into `buffer` and gives its length; what does not fit is cut off.
    ///
    /// # Errors
    /// The kernel's: EAGAIN when none waits, once ENETDOWN after the interface went down.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            let (length, from) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer)?;
            // Frames of other interfaces wait only from the moment between opening and binding.
            if from.is_some_and(|from| from.ifindex() == self.index) {
                return Ok(length);
            }
        }
    }

    /// The socket, for its options.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The interface's link-layer address in the very form that bind takes; its protocol is zero, which
/// leaves that of the socket.
fn link(interface: &str) -> Result<Option<LinkAddr>, Errno> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    Ok(entries.find_map(|entry| entry.address?.as_link_addr().copied()))
}
