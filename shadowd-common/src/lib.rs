#![no_std]
//! Types that the kernel side and the daemon share: keys, values, records and load-time settings.
//!
//! One module for each kernel object. Every type is `repr(C)` without implicit padding, so both
//! compilers lay it out alike and no uninitialised byte crosses the border. This crate has no
//! behaviour beyond that.

/// Marks types as plain old data for user space: any bytes are a value of them.
macro_rules! pod {
    ($($name:ident),* $(,)?) => {
        $(
            // SAFETY: repr(C), Copy, only integers and arrays of integers, no padding.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $name {}
        )*
    };
}
pub(crate) use pod;

pub mod block;
pub mod descriptors;
pub mod files;
pub mod guard;
pub mod lifecycle;
pub mod opens;
pub mod sockets;
pub mod syscalls;

/// An IPv6 address in network order; IPv4 is written as ::ffff:a.b.c.d.
pub type Address = [u32; 4];

/// The third word of an IPv4-mapped address: bytes 00 00 ff ff.
pub const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Buckets of a histogram of times.
pub const BUCKETS: usize = 32;

/// The bucket of a time: bucket `i` counts from 2^(i+7) ns to below 2^(i+8) ns; the first one also
/// all that is shorter, the last one all that is longer.
#[inline(always)]
#[must_use]
pub const fn bucket(nanos: u64) -> u32 {
    let longest = (1 << (BUCKETS - 2)) as u64;
    let mut rest = nanos >> 8;
    if rest == 0 {
        return 0;
    }
    if rest > longest {
        rest = longest;
    }
    // No processor of the kernel's virtual machine counts leading zeros: halve, five times.
    let mut log = 0;
    let mut width = 16;
    while width > 0 {
        if rest >> width != 0 {
            rest >>= width;
            log += width;
        }
        width /= 2;
    }
    log + 1
}

/// How many counters of loss every object has; each names its own.
pub const LOSSES: u32 = 16;

/// Deepest level of a control group that `locate` looks at.
pub const LEVELS_MAX: u32 = 24;

/// What belongs to this host, told to every object before it is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ScopeSettings {
    /// Id of the control group whose subtree is this host.
    pub root_cgroup: u64,
    /// Device of the daemon's pid namespace.
    pub pidns_device: u64,
    /// Inode of the daemon's pid namespace; 0 in the initial one, where nothing is translated.
    pub pidns_inode: u64,
    /// Level of `root_cgroup`; 0 is the real root, where nothing is filtered.
    pub root_level: u32,
    /// Inode of the daemon's network namespace.
    pub netns: u32,
}

/// What user space tells `locate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LocateSettings {
    /// Id of the control group to find among the ancestors of the daemon's.
    pub root_cgroup: u64,
    /// Device of the daemon's pid namespace.
    pub pidns_device: u64,
    /// Inode of the daemon's pid namespace.
    pub pidns_inode: u64,
    /// The daemon's pid there.
    pub tgid: u64,
}

pod!(ScopeSettings, LocateSettings);

const _: () = assert!(size_of::<ScopeSettings>() == 32);
