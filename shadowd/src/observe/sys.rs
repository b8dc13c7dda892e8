//! The one module of user space that makes system calls itself: what no crate offers.
//!
//! bpf(2) map operations on many entries at once and iterators over a map (aya 0.14 has neither)
//! and the boot-time clock.
//! Nothing here decides; errors go up as the kernel gave them.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Pod;
use nix::time::{ClockId, clock_gettime};

use crate::facts::BootTime;

// enum bpf_cmd, include/uapi/linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
/// enum bpf_attach_type
const BPF_TRACE_ITER: u32 = 28;

/// Entries that one call takes; more than any hash bucket of our maps holds.
const BATCH: usize = 1024;

/// Now, on CLOCK_BOOTTIME.
pub fn boot_time() -> BootTime {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let nanos = now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs();
    BootTime::from_nanos(nanos)
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

/// `struct { ... } link_create` of `union bpf_attr`, as far as iterators use it.
#[derive(Default)]
#[repr(C)]
struct LinkAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// `union bpf_iter_link_info` for an iterator over a map.
#[derive(Default)]
#[repr(C)]
struct IteratorTarget {
    map_fd: u32,
}

/// `struct { ... } iter_create` of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct IteratorAttributes {
    link_fd: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<()> {
    call(command, attributes).map(|_| ())
}

/// A call that returns a descriptor.
fn bpf_descriptor<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let number = call(command, attributes)?;
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for the caller, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
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
        Ok(result)
    }
}

/// Ties an iterator program to the map it walks, or to nothing for one that walks no map.
///
/// # Errors
///
/// The kernel's, which knows iterators over maps from 5.9 on.
pub fn iterator_link(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let target = IteratorTarget {
        map_fd: map.map_or(0, |map| map.as_raw_fd().unsigned_abs()),
    };
    let mut attributes = LinkAttributes {
        prog_fd: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_TRACE_ITER,
        ..LinkAttributes::default()
    };
    if map.is_some() {
        attributes.iter_info = (&raw const target) as u64;
        attributes.iter_info_len = size_of::<IteratorTarget>() as u32;
    }
    bpf_descriptor(BPF_LINK_CREATE, &mut attributes)
}

/// Begins a walk: the program runs for each element while the file is read, and what it writes is
/// what the file holds.
///
/// # Errors
///
/// The kernel's.
pub fn iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    let mut attributes = IteratorAttributes {
        link_fd: link.as_raw_fd().unsigned_abs(),
        flags: 0,
    };
    bpf_descriptor(BPF_ITER_CREATE, &mut attributes).map(File::from)
}

/// Takes one entry out of a hash map; none if there is none.
///
/// Kernels before 5.14 need two calls for it, and lose what the kernel side adds between them.
///
/// # Errors
///
/// The kernel's.
pub fn take<K: Pod, V: Pod + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd().unsigned_abs(),
        key: std::ptr::from_ref(key) as u64,
        value: (&raw mut value) as u64,
        ..ElementAttributes::default()
    };
    let taken = match bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attributes) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
            bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes).and_then(|()| {
                attributes.value = 0;
                bpf(BPF_MAP_DELETE_ELEM, &mut attributes)
            })
        }
        result => result,
    };
    match taken {
        Ok(()) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
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
    each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    batches(BPF_MAP_LOOKUP_AND_DELETE_BATCH, map, cpus, each)
}

/// As [`drain`], and leaves the entries in the map.
///
/// # Errors
///
/// The kernel's, when it has no batch operation.
pub fn read_all<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    cpus: usize,
    each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    batches(BPF_MAP_LOOKUP_BATCH, map, cpus, each)
}

fn batches<K: Pod + Default, V: Pod + Default>(
    command: libc::c_int,
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
        let done = match bpf(command, &mut attributes) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) if first && command == BPF_MAP_LOOKUP_AND_DELETE_BATCH => {
                return drain_singly(map, cpus, each);
            }
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
            Ok(()) => {}
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
