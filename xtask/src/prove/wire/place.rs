//! Threads and packet sockets inside a lab's network namespaces.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{LinkAddr, bind};
// The outer one is made of the other two.
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use super::frames::Mac;

/// Every protocol (linux/if_ether.h).
const ETH_P_ALL: u16 = 0x0003;

/// What the kernel counts for a packet socket (linux/if_packet.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Those that it got, and those that it dropped.
    pub packets: u32,
    /// Those that it dropped.
    pub drops: u32,
}

sockopt_impl!(
    /// Frames that the socket got and that it dropped since this was read last.
    PacketStatistics,
    GetOnly,
    libc::SOL_PACKET,
    libc::PACKET_STATISTICS,
    Statistics
);
sockopt_impl!(
    /// Whether what the interfaces send is left out.
    IgnoreOutgoing,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    i32
);

/// Runs `work` in a thread of its own that is inside the named network namespace.
///
/// # Errors
/// The namespace is not there. What happens later is the thread's result.
pub fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let path = Path::new("/run/netns").join(namespace);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let thread = std::thread::Builder::new().name("proof".to_owned());
    let spawned = thread.spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        work()
    });
    spawned.context("cannot start a thread")
}

/// Index and hardware address of an interface of the calling thread's namespace.
///
/// # Errors
/// It is not there.
pub fn link(interface: &str) -> Result<LinkAddr> {
    let found = getifaddrs()
        .context("cannot list interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied());
    found.with_context(|| format!("interface {interface} is not there"))
}

/// A packet socket that receives what every interface of the calling thread's namespace receives.
///
/// # Errors
/// The kernel refuses.
pub fn receiver() -> io::Result<Socket> {
    packet(ETH_P_ALL)
}

/// A packet socket that sends through one interface, and the interface's address.
///
/// # Errors
/// The kernel refuses, or the interface is not Ethernet.
pub fn sender(interface: &str) -> Result<(Socket, Mac)> {
    let link = link(interface)?;
    let mac = link.addr().context("the interface has no address")?;
    let socket = packet(0).context("no packet socket")?;
    bind(socket.as_raw_fd(), &link).context("cannot bind the packet socket")?;
    Ok((socket, mac))
}

fn packet(protocol: u16) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let kind = Type::RAW.cloexec().nonblocking();
    Socket::new_raw(Domain::PACKET, kind, Some(protocol))
}
