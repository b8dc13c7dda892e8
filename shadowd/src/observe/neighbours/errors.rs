//! Why neighbours are not heard or not asked.

use std::net::IpAddr;

use nix::errno::Errno;
use thiserror::Error;

use super::MAX_VIPS;
use crate::ethernet::socket::SocketError;

/// Why nobody can be heard on an interface.
#[derive(Debug, Error)]
pub enum NeighboursError {
    /// There is no packet socket.
    #[error("the neighbours on an interface cannot be heard")]
    Socket(#[from] SocketError),
    /// An option of the socket was refused.
    #[error("the packet socket on interface {interface} cannot be used: its {what} was refused")]
    Option {
        /// The interface.
        interface: String,
        /// Which option.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There are too many virtual IPs.
    #[error("interface {interface} has {count} virtual IPs; at most {MAX_VIPS} can be watched")]
    TooMany {
        /// The interface.
        interface: String,
        /// How many were given.
        count: usize,
    },
}

/// Why a peer was not probed.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The address is in none of the interface's networks, or is its own.
    #[error(
        "{address} is no neighbour on interface {interface}: give the interface an address in its \
         network, or name the peer by an address on this link"
    )]
    OffLink {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
    },
    /// The address is a virtual IP, whose answer would not tell which host is alive.
    #[error("{0} is a virtual IP: probe the peer's own address")]
    VirtualIp(IpAddr),
    /// 64 probes wait for their answers.
    #[error("too many probes wait on interface {0}: ask again after 2 s")]
    TooMany(String),
    /// The interface's own addresses could not be read.
    #[error("the addresses of interface {interface} could not be read")]
    Addresses {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The interface is gone, or there is no new socket for it.
    #[error("there is no socket to ask {address}")]
    Socket {
        /// The address.
        address: IpAddr,
        /// Why.
        #[source]
        source: NeighboursError,
    },
    /// The frame was refused.
    #[error("{address} was not asked on interface {interface}; see whether its link is up")]
    Send {
        /// The interface.
        interface: String,
        /// The address.
        address: IpAddr,
        /// Why.
        #[source]
        source: Errno,
    },
}
