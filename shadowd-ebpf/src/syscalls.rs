//! Counts system calls and their errors by process, number and control group.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod context;

use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{Array, PerCpuHashMap};
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::syscalls::{SYSCALLS_MAX, SyscallKey, SyscallOffsets, SyscallValue, loss};

use crate::context::{current, lost, read, setting};

/// Written by user space before the load.
#[unsafe(no_mangle)]
static OFFSETS: SyscallOffsets = SyscallOffsets { regs_number: 0 };

#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

type Counts = PerCpuHashMap<SyscallKey, SyscallValue>;

#[map]
static SYSCALLS_0: Counts = Counts::with_max_entries(SYSCALLS_MAX, 0);

#[map]
static SYSCALLS_1: Counts = Counts::with_max_entries(SYSCALLS_MAX, 0);

/// Error codes end here (MAX_ERRNO, include/linux/err.h).
const MAX_ERRNO: i64 = 4095;

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    let _ = count(regs, ret);
    0
}

#[inline(always)]
fn count(regs: u64, ret: i64) -> Option<()> {
    let task = current()?;
    let number: i32 = read(regs, setting!(OFFSETS, regs_number))?;
    if number < 0 {
        // No call: a signal's return, or one that a tracer skipped.
        return None;
    }
    let key = SyscallKey {
        cgroup: task.cgroup,
        tgid: task.tgid,
        number: number as u32,
    };
    let failed = u64::from((-MAX_ERRNO..0).contains(&ret));
    let counts = if GENERATION.get(0).copied().unwrap_or(0) == 0 {
        &SYSCALLS_0
    } else {
        &SYSCALLS_1
    };
    if let Some(value) = counts.get_ptr_mut(&key) {
        // SAFETY: the verifier checked the pointer; the slot belongs to this CPU.
        unsafe {
            (*value).calls += 1;
            (*value).errors += failed;
        }
    } else if counts
        .insert(
            &key,
            &SyscallValue {
                calls: 1,
                errors: failed,
            },
            0,
        )
        .is_err()
    {
        lost(loss::SYSCALLS, 1);
    }
    Some(())
}
