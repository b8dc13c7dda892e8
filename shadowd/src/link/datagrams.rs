//! The UDP side of the links: sealed datagrams out, authentic ones in.
//!
//! For one thread, the one that fails over. Sending never waits; receiving never answers, so what
//! does not authenticate has no effect but a count.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tracing::{debug, error};

use super::admission::{Admission, Rate};
use super::keyring::{Keyring, NotSealed};
use super::seal::Buffer;
use crate::facts::{Datagram, Name};

/// Class selector 6, network control (RFC 4594, section 3.1), with the two ECN bits zero.
const TRAFFIC_CLASS: u32 = 48 << 2;
/// Bad datagrams read in a row before other tasks of the thread get their turn.
const BAD_IN_A_ROW: u32 = 32;
/// Errors of the socket in a row that mean it will not recover.
const ERRORS_IN_A_ROW: u32 = 64;

/// Room for what comes while the thread is busy. The kernel accounts some 768 bytes for a small
/// datagram: 5,000 of them, which is what a flood of 200,000 a second sends in 25 ms.
const RECEIVE_BYTES: usize = 4 << 20;
/// Datagrams from addresses of no peer that are decrypted because they name a key of a peer, which
/// anybody on the way can read. One that is authentic makes its source a peer's.
const UNKNOWN_SOURCE: Rate = Rate {
    burst: 32,
    pause: Duration::from_millis(20),
};
const UNKNOWN_SOURCES: Rate = Rate {
    burst: 1_000,
    pause: Duration::from_millis(1),
};

/// The datagram socket.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    /// The same socket, sent on directly: tokio would refuse a send until it has once seen the
    /// socket writable.
    sender: Socket,
    ipv6: bool,
    keyring: Arc<Keyring>,
    admission: Admission,
    /// One byte more than the bound, so that a longer datagram shows.
    inbox: [u8; Datagram::MAX_BYTES + 1],
    outbox: Box<Buffer>,
    /// A datagram that cannot be sealed was reported: once is enough, heartbeats are many.
    reported: bool,
}

impl Datagrams {
    /// Binds `listen`, for peers that are at `peers` and may be elsewhere too. Must be called within
    /// the tokio runtime that will receive.
    pub fn bind(
        listen: SocketAddr,
        peers: impl IntoIterator<Item = IpAddr>,
        keyring: Arc<Keyring>,
    ) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(listen),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        // A network that ignores the class, or a kernel that refuses it, only costs priority.
        let marked = if listen.is_ipv4() {
            socket.set_tos_v4(TRAFFIC_CLASS)
        } else {
            socket.set_tclass_v6(TRAFFIC_CLASS)
        };
        if let Err(error) = marked {
            debug!(%error, "heartbeats go without network control class");
        }
        // Beyond net.core.rmem_max with CAP_NET_ADMIN only; else as much as there is.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
        }
        socket.bind(&SockAddr::from(listen))?;
        let sender = socket.try_clone()?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            sender,
            ipv6: listen.is_ipv6(),
            keyring,
            admission: Admission::new(peers, UNKNOWN_SOURCE, UNKNOWN_SOURCES),
            inbox: [0; Datagram::MAX_BYTES + 1],
            outbox: Box::new([0; Datagram::MAX_BYTES]),
            reported: false,
        })
    }

    /// The address it is bound to.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next authentic datagram and its sender. What is not authentic is counted and skipped.
    /// Cancel-safe. Errors only when the socket itself has failed for good.
    pub async fn recv(&mut self) -> io::Result<(Name, Datagram)> {
        let mut errors = 0;
        let mut bad = 0;
        loop {
            match self.socket.recv_from(&mut self.inbox).await {
                Ok((length, source)) => {
                    errors = 0;
                    if let Some(opened) = self.open(length, source.ip()) {
                        return Ok(opened);
                    }
                }
                Err(error) => {
                    errors += u32::from(!is_of_network(&error));
                    if errors >= ERRORS_IN_A_ROW {
                        return Err(error);
                    }
                    debug!(%error, "a datagram could not be received");
                }
            }
            bad += 1;
            if bad % BAD_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn open(&mut self, length: usize, source: IpAddr) -> Option<(Name, Datagram)> {
        if length > Datagram::MAX_BYTES {
            self.keyring.count_oversized();
            return None;
        }
        let admission = &mut self.admission;
        let may_cost = || admission.admits(source, Instant::now());
        let opened = self.keyring.open(&mut self.inbox[..length], may_cost)?;
        self.admission.learn(source);
        Some(opened)
    }

    /// Seals `datagram` and sends it to the peer `to` at `address`. Never waits: what cannot go at
    /// once is counted as unsent.
    pub fn send(&mut self, to: &Name, address: SocketAddr, datagram: &Datagram) {
        let sent = match self.keyring.seal(to, datagram, &mut self.outbox) {
            Ok(length) => self.transmit(address, length),
            Err(NotSealed::NoKey) => false,
            Err(NotSealed::Seal(cause)) => {
                if !self.reported {
                    error!(peer = %to, %cause, "heartbeats cannot be sealed");
                    self.reported = true;
                }
                false
            }
        };
        self.keyring.count_sent(to, sent);
    }

    fn transmit(&self, address: SocketAddr, length: usize) -> bool {
        let address = SockAddr::from(reachable(address, self.ipv6));
        let sealed = &self.outbox[..length];
        match self.sender.send_to(sealed, &address) {
            // This reports an ICMP error of an earlier datagram and clears it: this one may go.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.sender.send_to(sealed, &address).is_ok()
            }
            sent => sent.is_ok(),
        }
    }
}

/// Whether the network reports something, such as an ICMP error about an earlier datagram: that is
/// a peer's trouble and never ends receiving.
fn is_of_network(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let raw = [
        libc::EHOSTDOWN,
        libc::ENOPROTOOPT,
        libc::EPROTO,
        libc::EMSGSIZE,
    ];
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::PermissionDenied
    ) || error.raw_os_error().is_some_and(|code| raw.contains(&code))
}

/// `to` as the socket must write it: an IPv6 socket reaches IPv4 by mapped addresses.
fn reachable(to: SocketAddr, ipv6_socket: bool) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) if ipv6_socket => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
        _ => to,
    }
}
