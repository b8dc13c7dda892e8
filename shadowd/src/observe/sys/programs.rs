//! Programs: attaching them, running iterators, reading how often they ran.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya::Pod;

// enum bpf_cmd, include/uapi/linux/bpf.h
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
/// An enum bpf_attach_type.
const BPF_TRACE_ITER: u32 = 28;

/// Bytes read from a walk at once.
const WALK_BYTES: usize = 1 << 16;

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

pub(super) fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
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

/// What the kernel counted of one program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs while statistics were on.
    pub count: u64,
    /// Their time, ns.
    pub time_ns: u64,
    /// Runs that the kernel left out since the load: the program was at work on this processor
    /// already, interrupted in its middle. Before 5.12 they are not counted.
    pub missed: u64,
}

/// `struct { ... } info` of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct InfoAttributes {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// How often a program ran, for how long, and how often it did not, all processors together; needs no privilege.
///
/// # Errors
///
/// The kernel's.
pub fn program_runs(program: BorrowedFd<'_>) -> io::Result<Runs> {
    // struct bpf_prog_info, include/uapi/linux/bpf.h: run_time_ns is its 25th word of 64 bits and
    // run_cnt and recursion_misses the ones after it. The words before ask for nothing while they
    // are 0.
    let mut info = [0_u64; 27];
    let mut attributes = InfoAttributes {
        bpf_fd: program.as_raw_fd().unsigned_abs(),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(Runs {
        count: info[25],
        time_ns: info[24],
        missed: info[26],
    })
}
