//! Counts block I/O: requests, bytes, errors and latency by process, disk and direction.
//!
//! Counts what the disk's own statistics count (/proc/diskstats): a request when it completes, its
//! bytes as they complete. The process is the one that made the request; what is written back
//! later is the kernel's own. Disks without requests (device mapper, md, zram) are not seen, but
//! what they do to the disks below them is.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod context;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::block::{
    BLOCK_MAX, BUCKETS, BlockKey, BlockOffsets, BlockValue, OTHER, READ, REQUESTS_MAX, Request,
    WRITE, loss,
};

use crate::context::{BPF_NOEXIST, SCOPE, Task, current, lost, plus, read, setting};

// enum req_op, include/linux/blk_types.h
const OPERATION_MASK: u32 = 0xff;
const FLUSH: u32 = 2;
const DISCARD: u32 = 3;

/// Bucket 0 of the histogram ends at 2^(FIRST + 1) ns.
const FIRST: u32 = 7;

/// Written by user space before the load.
#[unsafe(no_mangle)]
static OFFSETS: BlockOffsets = BlockOffsets {
    queue_first: 0,
    request_queue: 0,
    request_operation: 0,
    request_flags: 0,
    request_bytes: 0,
    request_disk: 0,
    queue_disk: 0,
    disk_major: 0,
    disk_minor: 0,
    counted: 0,
    in_sequence: 0,
};

#[map]
static BLOCK: HashMap<BlockKey, BlockValue> = HashMap::with_max_entries(BLOCK_MAX, 0);

/// What user space has read of it; no program looks at it.
#[map]
static BLOCK_TOLD: HashMap<BlockKey, BlockValue> =
    HashMap::with_max_entries(BLOCK_MAX, BPF_F_NO_PREALLOC);

/// By the request's address, which the kernel uses again: an entry is replaced when it does.
#[map]
static REQUESTS: HashMap<u64, Request> = HashMap::with_max_entries(REQUESTS_MAX, 0);

/// Too large for the stack.
static NOTHING: BlockValue = BlockValue {
    operations: 0,
    bytes: 0,
    errors: 0,
    latency: [0; BUCKETS],
};

/// `block_io_start(struct request *rq)`: in the context of whoever submits.
#[raw_tracepoint(tracepoint = "block_io_start")]
pub fn block_io_start(ctx: RawTracePointContext) -> i32 {
    begin(ctx.arg(0), 0);
    0
}

/// `block_rq_insert(struct request *rq)`, before 5.11 with the queue first: into a scheduler.
#[raw_tracepoint(tracepoint = "block_rq_insert")]
pub fn block_rq_insert(ctx: RawTracePointContext) -> i32 {
    let request = request(&ctx);
    // A request that comes back for another try keeps its issuer.
    // SAFETY: the verifier checked the pointer.
    let again = REQUESTS
        .get_ptr(&request)
        .is_some_and(|known| unsafe { (*known).issued } != 0);
    if !again {
        begin(request, 0);
    }
    0
}

/// `block_rq_issue(struct request *rq)`, before 5.11 with the queue first: to the driver.
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn block_rq_issue(ctx: RawTracePointContext) -> i32 {
    let request = request(&ctx);
    let Some(known) = REQUESTS.get_ptr_mut(&request) else {
        begin(request, now());
        return 0;
    };
    // SAFETY: the verifier checked the pointer; one processor issues a request.
    unsafe {
        if (*known).issued == 0 {
            (*known).issued = now();
        }
    }
    0
}

/// `block_rq_merge(struct request *rq)`, before 5.11 with the queue first: it is part of another
/// one now and will not complete by itself.
#[raw_tracepoint(tracepoint = "block_rq_merge")]
pub fn block_rq_merge(ctx: RawTracePointContext) -> i32 {
    let _ = REQUESTS.remove(&request(&ctx));
    0
}

/// `block_rq_complete(struct request *rq, blk_status_t error, unsigned int nr_bytes)`, perhaps
/// several times for one request.
#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn block_rq_complete(ctx: RawTracePointContext) -> i32 {
    let request: u64 = ctx.arg(0);
    let error: u32 = ctx.arg(1);
    let bytes: u32 = ctx.arg(2);
    let _ = complete(request, error & 0xff != 0, bytes);
    0
}

#[inline(always)]
fn request(ctx: &RawTracePointContext) -> u64 {
    if setting!(OFFSETS, queue_first) != 0 {
        ctx.arg(1)
    } else {
        ctx.arg(0)
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: plain helper call.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn begin(request: u64, issued: u64) {
    let Some(Task { tgid, cgroup, .. }) = current() else {
        // The address may stand for an older request, of this host.
        let _ = REQUESTS.remove(&request);
        return;
    };
    let entry = Request {
        cgroup,
        issued,
        tgid,
        reserved: 0,
    };
    // Without an entry a host counts it as nobody's; a container cannot tell whose it is.
    if REQUESTS.insert(&request, &entry, 0).is_err() && setting!(SCOPE, root_level) != 0 {
        lost(loss::REQUESTS, 1);
    }
}

#[inline(always)]
fn complete(request: u64, failed: bool, bytes: u32) -> Option<()> {
    let flags: u32 = read(request, setting!(OFFSETS, request_flags))?;
    let left: u32 = read(request, setting!(OFFSETS, request_bytes))?;
    let operation = read::<u32>(request, setting!(OFFSETS, request_operation))? & OPERATION_MASK;
    let counted = flags & setting!(OFFSETS, counted) != 0;
    let in_sequence = flags & setting!(OFFSETS, in_sequence) != 0;
    // The kernel's own flush is one step of a sequence; the request that asked for it completes
    // once more after the last step.
    let flush = operation == FLUSH;
    let last = bytes >= left && (!in_sequence || flush);
    let known = REQUESTS.get_ptr(&request);
    let who = match known {
        // SAFETY: the verifier checked the pointer.
        Some(known) => unsafe { *known },
        None if setting!(SCOPE, root_level) != 0 => return None,
        None => Request {
            cgroup: 0,
            issued: 0,
            tgid: 0,
            reserved: 0,
        },
    };
    if counted || flush {
        add(request, &who, operation, bytes, last, failed);
    }
    if last && known.is_some() {
        let _ = REQUESTS.remove(&request);
    }
    Some(())
}

#[inline(always)]
fn add(
    request: u64,
    who: &Request,
    operation: u32,
    bytes: u32,
    last: bool,
    failed: bool,
) -> Option<()> {
    let disk: u64 = if setting!(OFFSETS, queue_disk) != 0 {
        let queue: u64 = read(request, setting!(OFFSETS, request_queue))?;
        read(queue, setting!(OFFSETS, queue_disk))?
    } else {
        read(request, setting!(OFFSETS, request_disk))?
    };
    let key = BlockKey {
        cgroup: who.cgroup,
        tgid: who.tgid,
        major: read(disk, setting!(OFFSETS, disk_major))?,
        minor: read(disk, setting!(OFFSETS, disk_minor))?,
        direction: match operation {
            FLUSH | DISCARD => OTHER,
            odd if odd & 1 != 0 => WRITE,
            _ => READ,
        },
    };
    if BLOCK.get_ptr(&key).is_none() {
        // Another processor may be first: then its entry is used.
        let _ = BLOCK.insert(&key, &NOTHING, BPF_NOEXIST);
    }
    let Some(value) = BLOCK.get_ptr_mut(&key) else {
        lost(loss::BLOCK, u64::from(last));
        return None;
    };
    // SAFETY: the verifier checked the pointer; the fields are aligned and only added to.
    unsafe {
        plus(&raw mut (*value).bytes, u64::from(bytes));
        if last {
            plus(&raw mut (*value).operations, 1);
            plus(&raw mut (*value).errors, u64::from(failed));
            if who.issued != 0 {
                let bucket = bucket(now().saturating_sub(who.issued));
                plus(&raw mut (*value).latency[bucket], 1);
            }
        }
    }
    Some(())
}

/// `Histogram::bucket`, without the instruction that this target lacks.
#[inline(always)]
fn bucket(nanos: u64) -> usize {
    let mut rest = nanos >> FIRST;
    let mut log = 0_usize;
    if rest >> 32 != 0 {
        return BUCKETS - 1;
    }
    if rest >> 16 != 0 {
        log += 16;
        rest >>= 16;
    }
    if rest >> 8 != 0 {
        log += 8;
        rest >>= 8;
    }
    if rest >> 4 != 0 {
        log += 4;
        rest >>= 4;
    }
    if rest >> 2 != 0 {
        log += 2;
        rest >>= 2;
    }
    log += (rest >> 1) as usize & 1;
    log & (BUCKETS - 1)
}
