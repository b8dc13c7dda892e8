//! UDP: datagrams of known sizes, an empty one among them, over connected and other sockets.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::tcp::Ready;
use super::{End, PATIENCE, Report, obey, say};

/// How datagrams move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UdpWay {
    /// connect(2), then send(2) and recv(2).
    Connected,
    /// sendto(2) and recvfrom(2).
    Unconnected,
    /// sendmsg(2) and recvmsg(2) with addresses.
    Message,
    /// sendto(2), and recv(2), which does not ask who sent.
    Addressless,
}

/// What a role is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UdpPlan {
    /// Where a server is bound, where a client sends.
    pub address: SocketAddr,
    /// How.
    pub way: UdpWay,
    /// Datagrams each way; number `i` has `i * 37 % 1,400` bytes, so the first is empty.
    pub rounds: u32,
}

fn size(round: u32) -> usize {
    round as usize * 37 % 1_400
}

fn end(socket: &UdpSocket, remote: SocketAddr) -> Result<End> {
    Ok(End {
        local: socket.local_addr()?,
        remote,
        sent: 0,
        received: 0,
        datagrams_sent: 0,
        datagrams_received: 0,
        info: None,
    })
}

fn send(socket: &UdpSocket, way: UdpWay, end: &mut End, bytes: &[u8]) -> Result<()> {
    let sent = match way {
        UdpWay::Connected => socket.send(bytes)?,
        UdpWay::Unconnected | UdpWay::Addressless => socket.send_to(bytes, end.remote)?,
        UdpWay::Message => {
            let to = SockaddrStorage::from(end.remote);
            let from = [IoSlice::new(bytes)];
            sendmsg(socket.as_raw_fd(), &from, &[], MsgFlags::empty(), Some(&to))?
        }
    };
    ensure!(sent == bytes.len(), "sent {sent} of {}", bytes.len());
    end.sent += sent as u64;
    end.datagrams_sent += 1;
    Ok(())
}

/// Receives one datagram; says who sent it where the way tells.
fn receive(
    socket: &UdpSocket,
    way: UdpWay,
    end: &mut End,
    bytes: &mut [u8],
) -> Result<(usize, Option<SocketAddr>)> {
    let (got, from) = match way {
        UdpWay::Connected | UdpWay::Addressless => (socket.recv(bytes)?, None),
        UdpWay::Unconnected => {
            let (got, from) = socket.recv_from(bytes)?;
            (got, Some(from))
        }
        UdpWay::Message => {
            let mut into = [IoSliceMut::new(bytes)];
            let message =
                recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut into, None, MsgFlags::empty())?;
            let from = message.address.as_ref().and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(*v4));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6)))
            });
            (message.bytes, from)
        }
    };
    end.received += got as u64;
    end.datagrams_received += 1;
    Ok((got, from))
}

/// Echoes each datagram.
///
/// # Errors
/// The client does not do its part.
pub fn serve(plan: &UdpPlan) -> Result<()> {
    let socket = UdpSocket::bind(plan.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let port = socket.local_addr()?.port();
    say(&Ready { port })?;
    // A way that does not tell who sent is told by the first datagram that is only looked at.
    let mut buffer = [0; 2_048];
    let (_, client) = socket.peek_from(&mut buffer)?;
    if plan.way == UdpWay::Connected {
        socket.connect(client)?;
    }
    let mut end = end(&socket, client)?;
    for round in 0..plan.rounds {
        let (got, from) = receive(&socket, plan.way, &mut end, &mut buffer)?;
        ensure!(from.is_none_or(|from| from == client), "from {from:?}");
        ensure!(got == size(round), "datagram {round} has {got} bytes");
        send(&socket, plan.way, &mut end, &buffer[..got])?;
    }
    obey(|| one(end))
}

/// Sends each datagram and waits for its echo.
///
/// # Errors
/// The server does not do its part.
pub fn connect(plan: &UdpPlan) -> Result<()> {
    let any: SocketAddr = if plan.address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    if plan.way == UdpWay::Connected {
        socket.connect(plan.address)?;
    }
    let mut end = end(&socket, plan.address)?;
    let bytes = [b'd'; 1_400];
    let mut buffer = [0; 2_048];
    for round in 0..plan.rounds {
        send(&socket, plan.way, &mut end, &bytes[..size(round)])?;
        let (got, _) = receive(&socket, plan.way, &mut end, &mut buffer).context("no echo came")?;
        ensure!(got == size(round), "echo {round} has {got} bytes");
    }
    obey(|| one(end))
}

fn one(end: End) -> Result<Report> {
    Ok(Report {
        pid: std::process::id(),
        ends: vec![end],
    })
}
