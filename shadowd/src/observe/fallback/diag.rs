//! Asks the kernel for all sockets of this network namespace: sock_diag(7), which needs no
//! privilege.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};

use crate::facts::Protocol;

/// Most sockets in one look; more are counted as dropped.
const SOCKETS_MAX: usize = 65_536;

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    /// What the kernel calls it, for as long as it lives.
    pub cookie: u64,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its state (include/net/tcp_states.h).
    pub state: u8,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Inode of the descriptor; 0 when nobody holds it any more.
    pub inode: u64,
    /// Bytes that wait to be read; of a listening socket: connections that wait.
    pub receive_queue: u32,
    /// Bytes that wait to be sent; of a listening socket: how many may wait.
    pub send_queue: u32,
    /// What TCP counts of it.
    pub tcp: TcpCounts,
}

/// What TCP counts of one connection, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounts {
    /// Payload received, each byte once; the peer's FIN counts as one.
    pub rx_bytes: u64,
    /// Payload handed to the network, retransmissions not counted.
    pub tx_bytes: u64,
    /// Segments received.
    pub rx_packets: u32,
    /// Segments sent.
    pub tx_packets: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round trip, us; 0 when not known.
    pub rtt_us: u32,
}

/// Every TCP and UDP socket, IPv4 and IPv6, and how many more there were than fit.
///
/// # Errors
///
/// The kernel's.
pub fn sockets() -> io::Result<(Vec<DiagSocket>, u64)> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    let (mut found, mut dropped) = (Vec::new(), 0);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [AF_INET, AF_INET6] {
            ask(&socket, family, protocol)?;
            hear(&socket, &mut |response| {
                if found.len() < SOCKETS_MAX {
                    found.push(DiagSocket::of(protocol, response));
                } else {
                    dropped += 1;
                }
            })?;
        }
    }
    Ok((found, dropped))
}

/// include/net/tcp_states.h
const LISTEN: u8 = 10;

/// How many TCP connections this network namespace has to and from these addresses of its own.
///
/// # Errors
///
/// The kernel's.
pub fn connections(own: &BTreeSet<IpAddr>) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    let mut found = 0;
    for family in [AF_INET, AF_INET6] {
        ask(&socket, family, Protocol::Tcp)?;
        hear(&socket, &mut |response| {
            // A socket of both families has IPv4 addresses in the form of IPv6.
            let local = response.header.socket_id.source_address.to_canonical();
            found += usize::from(response.header.state != LISTEN && own.contains(&local));
        })?;
    }
    Ok(found)
}

fn ask(socket: &Socket, family: u8, protocol: Protocol) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol: match protocol {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
        },
        extensions: ExtensionFlags::INFO,
        // A connection that waits for its end belongs to nobody.
        states: StateFlags::all().difference(StateFlags::TIME_WAIT),
        socket_id: if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(())
}

/// Reads answers until the last one.
fn hear(socket: &Socket, each: &mut impl FnMut(InetResponse)) -> io::Result<()> {
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages begin at multiples of four (NLMSG_ALIGN).
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    each(*response);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

impl DiagSocket {
    fn of(protocol: Protocol, response: InetResponse) -> Self {
        let header = response.header;
        let cookie = header.socket_id.cookie;
        let end = |address: std::net::IpAddr, port| SocketAddr::new(address.to_canonical(), port);
        let id = header.socket_id;
        let info = response.nlas.iter().find_map(|attribute| match attribute {
            Nla::TcpInfo(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        Self {
            cookie: u64::from_ne_bytes(cookie),
            protocol,
            state: header.state,
            local: end(id.source_address, id.source_port),
            remote: end(id.destination_address, id.destination_port),
            inode: u64::from(header.inode),
            receive_queue: header.recv_queue,
            send_queue: header.send_queue,
            tcp: info.map(TcpCounts::of).unwrap_or_default(),
        }
    }
}

impl TcpCounts {
    /// Reads `struct tcp_info` (include/uapi/linux/tcp.h), which grows with each kernel.
    fn of(info: &[u8]) -> Self {
        let four = |at: usize| {
            let part = info.get(at..at + 4).and_then(|part| part.try_into().ok());
            part.map_or(0, u32::from_ne_bytes)
        };
        let eight = |at: usize| {
            let part = info.get(at..at + 8).and_then(|part| part.try_into().ok());
            part.map_or(0, u64::from_ne_bytes)
        };
        Self {
            rx_bytes: eight(128),
            tx_bytes: eight(200).saturating_sub(eight(208)),
            rx_packets: four(140),
            tx_packets: four(136),
            retransmits: four(100),
            rtt_us: four(68),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const ESTABLISHED: u8 = 1;
    const LISTEN: u8 = 10;

    #[test]
    fn a_connection_shows_its_ends_its_state_and_its_bytes() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("loopback");
            let service = listener.local_addr().expect("it is bound");
            let mut client = TcpStream::connect(service).expect("it listens");
            let (mut server, _) = listener.accept().expect("it connects");
            client.write_all(&[7; 3_000]).expect("it is open");
            server.read_exact(&mut [0; 3_000]).expect("it was sent");
            let (all, dropped) = sockets().expect("sock_diag answers");
            assert_eq!(dropped, 0);
            let me = client.local_addr().expect("it is bound");
            let find = |local, remote: SocketAddr| {
                all.iter()
                    .find(|one| one.local == local && one.remote.port() == remote.port())
                    .expect("it is there")
            };
            let (mine, theirs) = (find(me, service), find(service, me));
            assert_eq!((mine.state, theirs.state), (ESTABLISHED, ESTABLISHED));
            assert_eq!(mine.tcp.tx_bytes, 3_000);
            assert_eq!(theirs.tcp.rx_bytes, 3_000);
            assert!(mine.inode != 0 && mine.inode != theirs.inode);
            let listening = all
                .iter()
                .find(|one| one.local == service && one.state == LISTEN);
            assert!(
                listening.is_some_and(|one| one.send_queue > 0),
                "{listening:?}"
            );
        }
    }

    #[test]
    fn a_short_answer_of_an_old_kernel_is_read_as_far_as_it_goes() {
        assert_eq!(TcpCounts::of(&[1; 4]), TcpCounts::default());
        assert_ne!(TcpCounts::of(&[1; 136]).rx_bytes, 0);
        assert_eq!(TcpCounts::of(&[1; 136]).tx_bytes, 0);
    }
}
