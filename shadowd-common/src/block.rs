//! Block I/O: requests by process, control group, disk and direction.

/// Most records; one that was idle for long makes room.
pub const BLOCK_MAX: u32 = 4_096;
/// Most requests under way.
pub const REQUESTS_MAX: u32 = 8_192;
/// Buckets of the latency histogram: bucket `i` from 2^(i+7) ns.
pub const BUCKETS: usize = 32;

/// Counters of loss of the `block` object.
pub mod loss {
    /// Requests that completed and that the full table refused.
    pub const BLOCK: u32 = 0;
    /// Requests that the full table of those under way refused, where they could not be counted
    /// without an issuer.
    pub const REQUESTS: u32 = 1;
}

/// `direction` of a [`BlockKey`]: from the disk.
pub const READ: u32 = 0;
/// `direction` of a [`BlockKey`]: to the disk.
pub const WRITE: u32 = 1;
/// `direction` of a [`BlockKey`]: flush, discard.
pub const OTHER: u32 = 2;

/// Offsets in kernel structures, in bytes, and what this kernel's tracepoints and flags mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BlockOffsets {
    /// Whether `block_rq_insert`, `block_rq_issue` and `block_rq_merge` name the queue first.
    pub queue_first: u32,
    /// request: its queue.
    pub request_queue: u32,
    /// request: operation and flags.
    pub request_operation: u32,
    /// request: state flags.
    pub request_flags: u32,
    /// request: bytes left.
    pub request_bytes: u32,
    /// request: its disk, 0 where the queue knows it.
    pub request_disk: u32,
    /// request_queue: its disk, 0 where the request knows it.
    pub queue_disk: u32,
    /// gendisk: major number.
    pub disk_major: u32,
    /// gendisk: first minor number.
    pub disk_minor: u32,
    /// Bit of the state flags: the request is counted in the disk's statistics.
    pub counted: u32,
    /// Bit of the state flags: the request is in one step of a sequence with flushes.
    pub in_sequence: u32,
}

/// Key of a count of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BlockKey {
    /// Control group of the task that issued them; 0 if unknown.
    pub cgroup: u64,
    /// Its process, in the daemon's pid namespace; 0 if unknown.
    pub tgid: u32,
    /// Major number of the disk.
    pub major: u32,
    /// First minor number of the disk.
    pub minor: u32,
    /// [`READ`], [`WRITE`] or [`OTHER`].
    pub direction: u32,
}

/// A count of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BlockValue {
    /// Requests that completed.
    pub operations: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// From issue to completion; a request that only flushes is not issued as it is and has none.
    pub latency: [u64; BUCKETS],
}

/// A request under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// Control group of the task that issued it.
    pub cgroup: u64,
    /// When it was handed to the driver, CLOCK_MONOTONIC, ns; 0 before.
    pub issued: u64,
    /// Process that issued it.
    pub tgid: u32,
    /// Always 0.
    pub reserved: u32,
}

crate::pod!(BlockOffsets, BlockKey, BlockValue, Request);

const _: () = {
    assert!(size_of::<BlockOffsets>() == 44);
    assert!(size_of::<BlockKey>() == 24);
    assert!(size_of::<Request>() == 24);
};
