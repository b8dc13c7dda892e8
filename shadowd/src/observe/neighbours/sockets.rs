//! The two packet sockets of an interface.

use std::future::pending;
use std::os::fd::AsFd;

use nix::errno::Errno;
use socket2::SockFilter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::hearing::Hearing;
use super::{NeighboursError, filter};
use crate::ethernet::Mac;
use crate::ethernet::socket::{PacketSocket, Receives, SocketError};
use crate::observe::sys::{register, socket_drops};

/// Bytes that wait in each socket; above that the kernel drops and counts.
const BUFFER: usize = 64 * 1024;

/// One socket for each protocol: a socket for all of them would see every packet of the host.
#[derive(Debug)]
pub(super) struct Sockets {
    pub arp: AsyncFd<PacketSocket>,
    pub discovery: AsyncFd<PacketSocket>,
}

impl Sockets {
    pub fn open(interface: &str, hearing: &Hearing) -> Result<Self, NeighboursError> {
        Ok(Self {
            arp: listen(interface, Receives::Arp, &filter::arp(hearing.vips()))?,
            discovery: listen(
                interface,
                Receives::Ipv6,
                &filter::discovery(hearing.vips()),
            )?,
        })
    }

    /// Cancel-safe: a frame is read only when this returns at once.
    pub async fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let wanted = Interest::READABLE | Interest::ERROR;
        loop {
            let ready = tokio::select! {
                ready = self.arp.ready(wanted) => ready,
                ready = self.discovery.ready(wanted) => ready,
            };
            let Ok(mut ready) = ready else {
                // The runtime is shutting down: nobody waits for this any more.
                return pending().await;
            };
            let read = ready.try_io(|socket| Ok(socket.get_ref().receive(buffer)?));
            match read {
                Ok(Ok(length)) => return Ok(length),
                Ok(Err(error)) => {
                    return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
                }
                Err(_nothing_waits) => {}
            }
        }
    }

    pub fn mac(&self) -> Result<Mac, SocketError> {
        self.arp.get_ref().mac()
    }

    pub fn dropped(&self) -> u64 {
        [&self.arp, &self.discovery]
            .into_iter()
            .filter_map(|socket| socket_drops(socket.get_ref().as_fd()).ok())
            .map(u64::from)
            .sum()
    }
}

fn listen(
    interface: &str,
    receives: Receives,
    filter: &[SockFilter],
) -> Result<AsyncFd<PacketSocket>, NeighboursError> {
    let refused = |what| {
        let interface = interface.to_owned();
        move |source| NeighboursError::Option {
            interface,
            what,
            source,
        }
    };
    let socket = PacketSocket::open(interface, receives)?;
    let options = socket.socket();
    options.attach_filter(filter).map_err(refused("filter"))?;
    options
        .set_recv_buffer_size(BUFFER)
        .map_err(refused("buffer"))?;
    register(socket).map_err(refused("registration"))
}
