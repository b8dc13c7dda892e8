//! Entries of maps: many at once where the kernel can, else one by one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;

use super::programs::bpf;

// enum bpf_cmd, include/uapi/linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Entries that one call takes; more than any hash bucket of our maps holds.
const BATCH: usize = 1024;

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
    let mut keys = vec![K::default(); BATCH];
    let mut values = vec![V::default(); BATCH];
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
        let done = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(_) if first => return look_singly(map, each),
            Err(error) => return Err(error),
        };
        let count = (attributes.count as usize).min(BATCH);
        for (key, value) in keys.iter().zip(&values).take(count) {
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
fn look_singly<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    let map_fd = map.as_raw_fd().unsigned_abs();
    let (mut key, mut next, mut value) = (K::default(), K::default(), V::default());
    let mut first = true;
    loop {
        // Without a key the kernel gives the first one.
        let mut attributes = ElementAttributes {
            map_fd,
            key: if first { 0 } else { (&raw const key) as u64 },
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
            key: (&raw const key) as u64,
            value: (&raw mut value) as u64,
            ..ElementAttributes::default()
        };
        match bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) {
            Ok(_) => each(&key, &value),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
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

/// Makes `program` the one in the first place of a map of programs.
///
/// # Errors
///
/// The kernel's, such as when the map belongs to programs of another type.
pub fn call_after(map: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let first = 0_u32;
    let program = program.as_raw_fd().unsigned_abs();
    let mut attributes = ElementAttributes {
        map_fd: map.as_raw_fd().unsigned_abs(),
        key: (&raw const first) as u64,
        value: (&raw const program) as u64,
        ..ElementAttributes::default()
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(|_| ())
}
