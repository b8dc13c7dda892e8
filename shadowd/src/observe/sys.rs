//! The one module of user space that makes system calls itself: what no crate offers.
//!
//! bpf(2) map operations on many entries at once (aya 0.14 has none) and the boot-time clock.
//! Nothing here decides; errors go up as the kernel gave them.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya::Pod;
use nix::time::{ClockId, clock_gettime};

use crate::facts::BootTime;

// enum bpf_cmd, include/uapi/linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;

/// Entries that one call takes; more than any hash bucket of our maps holds.
const BATCH: usize = 1024;

/// Now, on CLOCK_BOOTTIME.
pub fn boot_time() -> BootTime {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let nanos = now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs();
    BootTime::from_nanos(nanos)
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

/// `struct { ... } batch` of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The anonymous struct of `union bpf_attr` for operations on one element.
#[derive(Default)]
#[repr(C)]
struct ElementAttributes {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct { ... } raw_tracepoint` of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct TracepointAttributes {
    name: u64,
    prog_fd: u32,
    reserved: u32,
    cookie: u64,
}

/// Attaches a tracing program: to the raw tracepoint `name`, or to where it was loaded for. It runs
/// as long as the link that is returned, or a copy of it, is open.
///
/// # Errors
///
/// The kernel's.
pub fn attach_tracing(program: BorrowedFd<'_>, name: Option<&str>) -> io::Result<OwnedFd> {
    let name = name.map(CString::new).transpose()?;
    let mut attributes = TracepointAttributes {
        name: name.as_ref().map_or(0, |name| name.as_ptr() as u64),
        prog_fd: program.as_raw_fd().unsigned_abs(),
        ..TracepointAttributes::default()
    };
    let descriptor = bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attributes)?;
    // SAFETY: the command returns a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
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

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the attributes are the command's own, of the size given, and their pointers are to
    // buffers that the callers below size by the map's key and value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(RawFd::try_from(result).unwrap_or(0))
    }
}

/// Takes every entry out of a hash map and hands it to `each`, with one value for each possible
/// CPU of a per-CPU map, and one value otherwise (`cpus` = 1).
///
/// `K` and `V` are the map's own types, and `V` is a multiple of 8 bytes. An entry that the kernel
/// side adds meanwhile may be taken or left.
///
/// # Errors
///
/// The kernel's, when neither the batch operation nor the single ones work.
pub fn drain<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    cpus: usize,
    mut each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    debug_assert_eq!(
        size_of::<V>() % 8,
        0,
        "the kernel rounds values of per-CPU maps up to 8"
    );
    let mut keys = vec![K::default(); BATCH];
    let mut values = vec![V::default(); BATCH * cpus];
    let (mut last, mut next) = (0_u64, 0_u64);
    let mut first = true;
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if first { 0 } else { (&raw const last) as u64 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map_fd: map.as_raw_fd().unsigned_abs(),
            ..BatchAttributes::default()
        };
        let done = match bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attributes) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) if first => return drain_singly(map, cpus, each),
            Err(error) => return Err(error),
        };
        let count = (attributes.count as usize).min(BATCH);
        for (key, value) in keys.iter().zip(values.chunks_exact(cpus)).take(count) {
            each(key, value);
        }
        if done {
            return Ok(());
        }
        last = next;
        first = false;
    }
}

/// The same for kernels without the batch operation on this kind of map.
fn drain_singly<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    cpus: usize,
    mut each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    let map_fd = map.as_raw_fd().unsigned_abs();
    let mut key = K::default();
    let mut values = vec![V::default(); cpus];
    loop {
        // Without a key the kernel gives the first one; each is deleted, so the walk ends.
        let mut attributes = ElementAttributes {
            map_fd,
            value: (&raw mut key) as u64,
            ..ElementAttributes::default()
        };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut attributes = ElementAttributes {
            map_fd,
            key: (&raw mut key) as u64,
            value: values.as_mut_ptr() as u64,
            ..ElementAttributes::default()
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
        each(&key, &values);
        attributes.value = 0;
        bpf(BPF_MAP_DELETE_ELEM, &mut attributes)?;
    }
}
