//! The one module of user space that makes system calls itself: what no crate offers.
//!
//! `maps` and `programs` are bpf(2): operations on many entries at once, iterators and links (aya
//! 0.14 has none of them). `resident` is mincore(2). Here are the boot-time clock, the allocator, inherited descriptors, what
//! a socket dropped, and the runtime's word that a packet socket is ready. Nothing decides; errors go up as the kernel gave them.

mod maps;
mod programs;
mod resident;

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use maps::{call_after, look, read_array, take};
pub use programs::{
    Runs, attach_group, attach_tracing, iterator, iterator_link, program_runs, records,
};
pub use resident::{page_bytes, resident};

use crate::ethernet::socket::PacketSocket;
use crate::facts::BootTime;

/// Now, on CLOCK_BOOTTIME.
pub fn boot_time() -> BootTime {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let nanos = now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs();
    BootTime::from_nanos(nanos)
}

/// By how much the wall clock may be off at most, ns; none while nothing synchronises it
/// (adjtimex(2): STA_UNSYNC).
pub fn clock_error_ns() -> Option<u64> {
    // SAFETY: all zeros are a valid `timex`, and with `modes` 0 the kernel only fills it.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    let synchronised = state >= 0 && timex.status & libc::STA_UNSYNC == 0;
    let micros = u64::try_from(timex.maxerror).ok()?;
    synchronised.then_some(micros.saturating_mul(1_000))
}

/// What a socket's full buffer refused since it was opened (SO_MEMINFO); wraps.
///
/// # Errors
///
/// The kernel's.
pub fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // include/uapi/linux/sock_diag.h: SK_MEMINFO_VARS words, of which SK_MEMINFO_DROPS is the last.
    let mut words = [0_u32; 9];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what the array holds.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut words).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(words[8])
}

/// Registers a socket with the current tokio runtime, for frames and for errors.
///
/// # Errors
///
/// The kernel's.
pub fn register(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    let interest = Interest::READABLE | Interest::ERROR;
    // SAFETY: the socket owns its descriptor, and never closes or replaces it while it lives.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// Registers a descriptor that can be read with the current tokio runtime.
///
/// # Errors
///
/// The kernel's.
pub fn register_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it owns its descriptor, which stays the same while it lives.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Puts the calling thread ahead of every ordinary one of the machine, whatever their control groups
/// weigh: a nice value counts among the threads of one group only. Its children begin as ordinary
/// ones. Real-time policy SCHED_RR with its lowest priority (sched(7)); RLIMIT_RTTIME bounds it.
///
/// # Errors
///
/// The kernel's: without CAP_SYS_NICE, or where real time is rationed by control groups.
pub fn go_first() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; the kernel reads one structure.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const lowest) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
