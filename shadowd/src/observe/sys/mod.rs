//! The one module of user space that makes system calls itself: what no crate offers.
//!
//! `maps` and `programs` are bpf(2): operations on many entries at once, iterators and links (aya
//! 0.14 has none of them). Here are the boot-time clock, the allocator, inherited descriptors and a
//! packet socket. Nothing decides; errors go up as the kernel gave them.

mod maps;
mod programs;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::time::{ClockId, clock_gettime};
use socket2::{SockFilter, SockRef};

pub use maps::{look, read_array, take};
pub use programs::{
    Runs, attach_group, attach_tracing, iterator, iterator_link, program_runs, records,
};

use crate::facts::BootTime;

/// Now, on CLOCK_BOOTTIME.
pub fn boot_time() -> BootTime {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let nanos = now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs();
    BootTime::from_nanos(nanos)
}

/// A packet socket (packet(7)) that takes what `filter` accepts, on every interface of this network
/// namespace, without link-layer headers. Nothing reaches it before the filter stands.
///
/// # Errors
///
/// The kernel's; it needs CAP_NET_RAW.
pub fn packet_socket(filter: &[SockFilter]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // Protocol 0 receives nothing until bind(2) names one.
    let packets = socket(AddressFamily::Packet, SockType::Datagram, flags, None)?;
    SockRef::from(&packets).attach_filter(filter)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a whole sockaddr_ll and lives until the call returns.
    let bound = unsafe {
        libc::bind(
            packets.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(packets)
}

/// Packets that a packet socket had no room for since the last call (PACKET_STATISTICS).
///
/// # Errors
///
/// The kernel's.
pub fn packet_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // struct tpacket_stats: packets, drops.
    let mut statistics = [0_u32; 2];
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what the array holds.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(statistics[1]))
}

/// Has the allocator return large pieces to the kernel when they are freed. Left to itself it
/// raises its thresholds with every large piece that is freed, and keeps what the start needed.
pub fn return_large_allocations() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both only set a number; called before other threads allocate.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 512 * 1024);
    }
}

/// Gives memory that was freed back to the kernel. Reading the kernel's types takes some 20 MiB for
/// a moment, in pieces so small that the allocator would keep them.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes over a descriptor that this process was started with; none when it is not open.
///
/// Call it once for each number, before anything else in the process could own it.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: asking for the flags of any number does no harm.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // SAFETY: it is open, and the caller vouches that nobody else owns it.
    (flags >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}
