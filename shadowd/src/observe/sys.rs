//! The one module of user space that makes system calls itself: what no crate offers.
//!
//! bpf(2) map operations on many entries at once and iterators over a map (aya 0.14 has neither),
//! the boot-time clock, and a packet socket of any protocol.
//! Nothing here decides; errors go up as the kernel gave them.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya::Pod;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::time::{ClockId, clock_gettime};
use socket2::{SockFilter, SockRef};

use crate::facts::BootTime;

// enum bpf_cmd, include/uapi/linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
/// An enum bpf_attach_type.
const BPF_TRACE_ITER: u32 = 28;

/// Entries that one call takes; more than any hash bucket of our maps holds.
const BATCH: usize = 1024;

/// Bytes read from a walk at once; the kernel hands out up to 32 KiB.
const WALK_BYTES: usize = 1 << 16;

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

/// `struct { ... } link_create` of `union bpf_attr`, as far as iterators and groups use it.
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
    reserved: [u32; 3],
}

/// `struct { ... } iter_create` of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct IteratorAttributes {
    link_fd: u32,
    flags: u32,
}

/// Ties an iterator program to the map it walks, or to nothing for one that walks no map.
///
/// # Errors
///
/// The kernel's, which knows iterators over maps from 5.9 on.
pub fn iterator_link(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let target = IteratorTarget {
        map_fd: map.map_or(0, |map| map.as_raw_fd().unsigned_abs()),
        ..IteratorTarget::default()
    };
    let mut attributes = LinkAttributes {
        prog_fd: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_TRACE_ITER,
        ..LinkAttributes::default()
    };
    if map.is_some() {
        attributes.iter_info = (&raw const target) as u64;
        // Older kernels know the first word only, and take more when it is 0.
        attributes.iter_info_len = size_of::<IteratorTarget>() as u32;
    }
    let descriptor = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the command returns a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches a program to a control group and all below it, beside the programs of others.
///
/// # Errors
///
/// The kernel's, which knows such links from 5.7 on.
pub fn attach_group(
    program: BorrowedFd<'_>,
    group: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkAttributes {
        prog_fd: program.as_raw_fd().unsigned_abs(),
        target_fd: group.as_raw_fd().unsigned_abs(),
        attach_type,
        ..LinkAttributes::default()
    };
    let descriptor = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the command returns a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
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
    let descriptor = bpf(BPF_ITER_CREATE, &mut attributes)?;
    // SAFETY: the command returns a new descriptor that nobody else knows.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// Reads what the program of a walk writes, to its end: records of type `T`.
///
/// # Errors
///
/// The kernel's; the records until then were handed to `each`.
pub fn records<T: Pod>(mut walk: File, mut each: impl FnMut(&T)) -> io::Result<()> {
    let mut buffer = vec![0_u8; WALK_BYTES];
    let mut filled = 0;
    loop {
        let count = match walk.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            // A million elements passed without a record.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        let whole = filled - filled % size_of::<T>();
        for bytes in buffer[..whole].chunks_exact(size_of::<T>()) {
            // SAFETY: the bytes are as many as the type has, and any bytes are a value of it.
            each(&unsafe { bytes.as_ptr().cast::<T>().read_unaligned() });
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
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

/// What the kernel counted of one program while its statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs.
    pub count: u64,
    /// Their time, ns.
    pub time_ns: u64,
}

/// `struct { ... } info` of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct InfoAttributes {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// How often a program ran and for how long, all processors together; needs no privilege.
///
/// # Errors
///
/// The kernel's.
pub fn program_runs(program: BorrowedFd<'_>) -> io::Result<Runs> {
    // struct bpf_prog_info, include/uapi/linux/bpf.h: run_time_ns is its 25th word of 64 bits and
    // run_cnt the one after it. The words before ask for nothing while they are 0.
    let mut info = [0_u64; 26];
    let mut attributes = InfoAttributes {
        bpf_fd: program.as_raw_fd().unsigned_abs(),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(Runs {
        count: info[25],
        time_ns: info[24],
    })
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
    walk(map, cpus, true, each)
}

/// Hands every entry of a hash map, not a per-CPU one, to `each` and leaves it there.
///
/// `K` and `V` are the map's own types. An entry that the kernel side adds meanwhile may be
/// missed, and one whose neighbours are removed meanwhile may be given twice.
///
/// # Errors
///
/// The kernel's, when neither the batch operation nor the single ones work.
pub fn look<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    walk(map, 1, false, |key, values: &[V]| {
        values.iter().for_each(|value| each(key, value));
    })
}

fn walk<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    cpus: usize,
    remove: bool,
    mut each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    debug_assert_eq!(
        size_of::<V>() % 8,
        0,
        "the kernel rounds values of per-CPU maps up to 8"
    );
    let command = if remove {
        BPF_MAP_LOOKUP_AND_DELETE_BATCH
    } else {
        BPF_MAP_LOOKUP_BATCH
    };
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
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) if first => return walk_singly(map, cpus, remove, each),
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
fn walk_singly<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    cpus: usize,
    remove: bool,
    mut each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    let map_fd = map.as_raw_fd().unsigned_abs();
    let (mut key, mut next) = (K::default(), K::default());
    let mut values = vec![V::default(); cpus];
    let mut first = true;
    loop {
        // Without a key the kernel gives the first one; where each is deleted, that ends too.
        let from_start = first || remove;
        let mut attributes = ElementAttributes {
            map_fd,
            key: if from_start {
                0
            } else {
                (&raw const key) as u64
            },
            value: (&raw mut next) as u64,
            ..ElementAttributes::default()
        };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
        (key, first) = (next, false);
        let mut attributes = ElementAttributes {
            map_fd,
            key: (&raw mut key) as u64,
            value: values.as_mut_ptr() as u64,
            ..ElementAttributes::default()
        };
        match bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) {
            Ok(_) => each(&key, &values),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && !remove => continue,
            Err(error) => return Err(error),
        }
        if remove {
            attributes.value = 0;
            bpf(BPF_MAP_DELETE_ELEM, &mut attributes)?;
        }
    }
}

/// Reads `values.len()` elements of an array map from index `first` on. The kernel side may write
/// to them meanwhile; words of 8 bytes are whole.
///
/// `V` is the map's own type, of a multiple of 8 bytes.
///
/// # Errors
///
/// The kernel's; `first + values.len()` beyond the map's end is one.
pub fn read_array<V: Pod>(map: BorrowedFd<'_>, first: u32, values: &mut [V]) -> io::Result<()> {
    let map_fd = map.as_raw_fd().unsigned_abs();
    let mut keys = vec![0_u32; values.len()];
    let before = first.wrapping_sub(1);
    let mut last = 0_u32;
    let mut attributes = BatchAttributes {
        in_batch: if first == 0 {
            0
        } else {
            (&raw const before) as u64
        },
        out_batch: (&raw mut last) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(values.len()).map_err(io::Error::other)?,
        map_fd,
        ..BatchAttributes::default()
    };
    let whole = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => true,
        // The last element of the map was among them.
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    };
    if whole && attributes.count as usize == values.len() {
        return Ok(());
    }
    for (index, value) in (first..).zip(values) {
        let mut attributes = ElementAttributes {
            map_fd,
            key: (&raw const index) as u64,
            value: std::ptr::from_mut(value) as u64,
            ..ElementAttributes::default()
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
    }
    Ok(())
}

/// Takes one entry out of a hash map, not a per-CPU one; `None` if it is not there.
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
        // Before 5.14 hash maps have no such operation.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
            bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes).and_then(|_| {
                attributes.value = 0;
                bpf(BPF_MAP_DELETE_ELEM, &mut attributes)
            })
        }
        result => result,
    };
    match taken {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
