//! What the bench compares the `syscalls` object with; the daemon never loads it.
//!
//! `empty_*`: the least that any pair of programs on system calls costs. `table_*`: the usual
//! design of such tools, a hash table of the times of entry and a hash table of the data, both
//! asked on each call; it counts calls, times, a histogram and errors by process.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod licence;

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::{BUCKETS, bucket};

/// Entries of both tables, as such tools have it by default.
const ENTRIES: u32 = 10_240;

/// Key of the data.
#[derive(Clone, Copy)]
#[repr(C)]
struct Key {
    tgid: u32,
    failed: u32,
}

/// The data.
#[derive(Clone, Copy)]
#[repr(C)]
struct Data {
    calls: u64,
    total_ns: u64,
    times: [u64; BUCKETS],
}

const EMPTY: Data = Data {
    calls: 0,
    total_ns: 0,
    times: [0; BUCKETS],
};

#[map]
static STARTS: HashMap<u64, u64> = HashMap::with_max_entries(ENTRIES, 0);

#[map]
static DATA: HashMap<Key, Data> = HashMap::with_max_entries(ENTRIES, 0);

/// `sys_enter`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn empty_enter(_ctx: RawTracePointContext) -> i32 {
    0
}

/// `sys_exit`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn empty_exit(_ctx: RawTracePointContext) -> i32 {
    0
}

/// `sys_enter(struct pt_regs *regs, long id)`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn table_enter(_ctx: RawTracePointContext) -> i32 {
    // SAFETY: plain helper calls.
    let (task, now) = unsafe { (bpf_get_current_pid_tgid(), bpf_ktime_get_ns()) };
    let _ = STARTS.insert(&task, &now, 0);
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn table_exit(ctx: RawTracePointContext) -> i32 {
    let _ = returned(ctx.arg(1));
    0
}

#[inline(always)]
fn returned(ret: i64) -> Option<()> {
    // SAFETY: plain helper call.
    let task = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: the verifier checked the pointer; plain helper call.
    let time = unsafe { bpf_ktime_get_ns() - *STARTS.get_ptr(&task)? };
    let key = Key {
        tgid: (task >> 32) as u32,
        failed: u32::from((-4095..0).contains(&ret)),
    };
    if DATA.get_ptr(&key).is_none() {
        let _ = DATA.insert(&key, &EMPTY, 1);
    }
    let data = DATA.get_ptr_mut(&key)?;
    // SAFETY: the verifier checked the pointer. Atomic and not, as in syscount of bcc and as its
    // histograms are.
    unsafe {
        plus(&raw mut (*data).calls, 1);
        plus(&raw mut (*data).total_ns, time);
        (*data).times[(bucket(time) & 31) as usize] += 1;
    }
    Some(())
}

#[inline(always)]
unsafe fn plus(sum: *mut u64, more: u64) {
    // SAFETY: the caller's pointer is to an aligned field of a live map value.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({sum} + 0) += {more}",
            sum = in(reg) sum,
            more = in(reg) more,
            options(nostack),
        )
    };
}
