//! One UDP socket: the end of one path to each peer.
//!
//! Its kernel reports what other kernels answered to what was sent (IP_RECVERR), with the
//! beginning of the datagram that they answer to. Whoever reads that decides what to believe.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tracing::debug;

/// Class selector 6, network control (RFC 4594, section 3.1), with the two ECN bits zero.
const TRAFFIC_CLASS: u32 = 48 << 2;
/// Room for what comes while the thread is busy. The kernel accounts some 768 bytes for a small
/// datagram: 5,000 of them, which is what a flood of 200,000 a second sends in 25 ms.
const RECEIVE_BYTES: usize = 4 << 20;
/// A send that meets the report of an earlier one's error is tried again so often.
const TRIES: u32 = 4;
/// Room for one report about a datagram.
const REPORT_BYTES: usize = 256;
/// Destination unreachable, port unreachable (RFC 792), and the same of RFC 4443.
const PORT_UNREACHABLE_V4: (u8, u8) = (3, 3);
const PORT_UNREACHABLE_V6: (u8, u8) = (1, 4);

/// The socket of one path.
#[derive(Debug)]
pub(super) struct PathSocket {
    socket: UdpSocket,
    /// The same socket, used directly: tokio would refuse a send until it has once seen the socket
    /// writable, and would not see what has arrived here while another socket keeps it busy.
    direct: std::net::UdpSocket,
    ipv6: bool,
}

/// What the error queue holds.
pub(super) enum Report {
    /// The kernel at an address answered that nobody listens on the port there, to a datagram that
    /// was sent to that address. So many bytes of the datagram were quoted.
    NobodyListens(usize),
    /// Something else.
    Other,
}

impl PathSocket {
    /// Binds `listen`. `missing`: also while this host does not have the address.
    pub(super) fn bind(listen: SocketAddr, missing: bool) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(listen),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        // A network that ignores the class, or a kernel that refuses it, only costs priority; a
        // kernel that does not report errors leaves silence as the evidence.
        let (marked, reported) = if listen.is_ipv4() {
            let reported = setsockopt(&socket, sockopt::Ipv4RecvErr, &true);
            (socket.set_tos_v4(TRAFFIC_CLASS), reported)
        } else {
            let reported = setsockopt(&socket, sockopt::Ipv6RecvErr, &true);
            (socket.set_tclass_v6(TRAFFIC_CLASS), reported)
        };
        if let Err(error) = marked {
            debug!(%error, "heartbeats go without network control class");
        }
        if let Err(error) = reported {
            debug!(%error, "what peers' kernels answer is not reported");
        }
        // Beyond net.core.rmem_max with CAP_NET_ADMIN only; else as much as there is.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
        }
        if missing {
            free_bind(&socket, listen)?;
        }
        socket.bind(&SockAddr::from(listen))?;
        let direct = socket.try_clone()?.into();
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            direct,
            ipv6: listen.is_ipv6(),
        })
    }

    /// The address it is bound to.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next datagram and where it came from.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        inbox: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut into = ReadBuf::new(inbox);
        let polled = self.socket.poll_recv_from(cx, &mut into);
        polled.map(|source| source.map(|source| (into.filled().len(), source)))
    }

    /// The next datagram, if it is there already; none if one has to be waited for.
    pub(super) fn receive_now(&self, inbox: &mut [u8]) -> Option<io::Result<(usize, SocketAddr)>> {
        match self.direct.recv_from(inbox) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            received => Some(received),
        }
    }

    /// Sends at once, or not at all; says whether it went.
    pub(super) fn send(&self, to: SocketAddr, sealed: &[u8]) -> bool {
        let to = reachable(to, self.ipv6);
        for _ in 0..TRIES {
            match self.direct.send_to(sealed, to) {
                Ok(_) => return true,
                // This reports the fate of an earlier datagram, perhaps to another peer, and
                // clears it: this one may go.
                Err(error) if is_of_network(&error) => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Waits until there is something to be read with [`Self::report`]. Cancel-safe.
    pub(super) async fn reports(&self) {
        // A socket that cannot even be waited for is found out by receiving.
        if self.socket.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The next report about a datagram, with what it quotes of it at the start of `quoted`; none
    /// if there is no further one.
    pub(super) fn report(&self, quoted: &mut [u8]) -> Option<Report> {
        let read = || read_report(self.direct.as_raw_fd(), quoted);
        self.socket.try_io(Interest::ERROR, read).ok()
    }
}

fn read_report(socket: std::os::fd::RawFd, quoted: &mut [u8]) -> io::Result<Report> {
    let mut control = vec![0; REPORT_BYTES];
    let mut quoted = [IoSliceMut::new(quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let read = recvmsg::<SockaddrStorage>(socket, &mut quoted, Some(&mut control), flags)?;
    let sent_to = read.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|to| IpAddr::V4(to.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|to| IpAddr::V6(to.ip())))
    });
    let Ok(mut messages) = read.cmsgs() else {
        return Ok(Report::Other);
    };
    let said = messages.find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, Some(by)) => {
            let by = IpAddr::from(u32::from_be(by.sin_addr.s_addr).to_be_bytes());
            let refused = error.ee_origin == libc::SO_EE_ORIGIN_ICMP
                && (error.ee_type, error.ee_code) == PORT_UNREACHABLE_V4;
            Some((by, refused))
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(by)) => {
            let by = IpAddr::from(by.sin6_addr.s6_addr);
            let refused = error.ee_origin == libc::SO_EE_ORIGIN_ICMP6
                && (error.ee_type, error.ee_code) == PORT_UNREACHABLE_V6;
            Some((by, refused))
        }
        _ => None,
    });
    // A firewall on the way knows nothing about who listens.
    Ok(match (said, sent_to) {
        (Some((by, true)), Some(to)) if by == to => Report::NobodyListens(read.bytes),
        _ => Report::Other,
    })
}

/// Lets `socket` bind an address that this host does not have now (ip(7), `IP_FREEBIND`).
pub(super) fn free_bind(socket: &Socket, listen: SocketAddr) -> io::Result<()> {
    if listen.is_ipv4() {
        socket.set_freebind_v4(true)
    } else {
        socket.set_freebind_v6(true)
    }
}

/// Whether the network reports something, such as an ICMP error about an earlier datagram: that is
/// a peer's trouble and never ends receiving.
pub(super) fn is_of_network(error: &io::Error) -> bool {
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
