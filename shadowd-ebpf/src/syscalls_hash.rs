//! Counts system calls, with the state of each thread in a bounded hash table: for kernels without
//! storage in a task (before 5.12).
//!
//! An entry is keyed by the thread's id, so it has to go when the thread does: an id is used again.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod after;
mod calls;
mod context;

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_map_update_elem};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::syscalls::{THREADS_MAX, Thread};

use crate::calls::{Threads, Turn};

#[map]
static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(THREADS_MAX, 0);

/// What a thread begins with; too large for the stack.
#[map]
static EMPTY: Array<Thread> = Array::with_max_entries(1, 0);

struct InTable;

impl Threads for InTable {
    #[inline(always)]
    fn current() -> Option<*mut Thread> {
        let tid = tid();
        if let Some(thread) = THREADS.get_ptr_mut(&tid) {
            return Some(thread);
        }
        put(tid, EMPTY.get_ptr(0)?);
        THREADS.get_ptr_mut(&tid)
    }
}

/// The current thread's id in the initial pid namespace.
#[inline(always)]
fn tid() -> u32 {
    // SAFETY: plain helper call.
    unsafe { bpf_get_current_pid_tgid() as u32 }
}

#[inline(always)]
fn put(tid: u32, thread: *const Thread) {
    // A full table shows when the entry is looked up.
    // SAFETY: the key and the value are of the map's types.
    let _ = unsafe {
        bpf_map_update_elem(
            (&raw const THREADS).cast_mut().cast(),
            (&raw const tid).cast(),
            thread.cast(),
            0,
        )
    };
}

/// `sys_enter(struct pt_regs *regs, long id)`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    calls::entered::<InTable>(ctx.arg(1), Turn::First);
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let ret = ctx.arg(1);
    if let Some(number) = calls::returned::<InTable>(ctx.arg(0), ret, Turn::First)
        && calls::is_followed(number, ret)
    {
        after::go_on(&ctx);
    }
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
///
/// A thread that is not the first one takes over the first one's id when it begins a program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let old: u32 = ctx.arg(1);
    let new = tid();
    if old != new
        && let Some(thread) = THREADS.get_ptr(&old)
    {
        put(new, thread);
        let _ = THREADS.remove(&old);
    }
    0
}

/// `sched_process_exit(struct task_struct *p)`: no thread makes a call after it.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    let _ = THREADS.remove(&tid());
    0
}

/// `cgroup_attach_task(...)`
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn cgroup_attach_task(_ctx: RawTracePointContext) -> i32 {
    calls::moved();
    0
}
