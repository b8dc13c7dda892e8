//! Counts system calls, with the state of each thread in the kernel's storage for its task: it
//! lives and dies with the thread, and no table of them can be full.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod after;
mod calls;
mod context;

use core::ptr;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE};
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get};
use aya_ebpf::macros::{btf_map, raw_tracepoint};
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::syscalls::Thread;

use crate::calls::{Threads, Turn};

/// A map definition as libbpf has them: the lengths of arrays are the numbers, and nothing is ever
/// read through the pointers. aya has no type for this kind of map.
#[repr(C)]
struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the loader replaces the definition by the map; its fields are never used.
unsafe impl<T> Sync for TaskStorage<T> {}

#[btf_map]
static THREADS: TaskStorage<Thread> = TaskStorage {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

struct InTask;

impl Threads for InTask {
    #[inline(always)]
    fn current() -> Option<*mut Thread> {
        // SAFETY: plain helper calls; the map holds threads.
        let thread = unsafe {
            bpf_task_storage_get(
                ptr::from_ref(&THREADS).cast_mut().cast(),
                bpf_get_current_task_btf(),
                ptr::null_mut(),
                u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE),
            )
        };
        (!thread.is_null()).then_some(thread.cast())
    }
}

/// `sys_enter(struct pt_regs *regs, long id)`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    calls::entered::<InTask>(ctx.arg(1), Turn::First);
    0
}

/// For what `sys_enter` misses.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter_again(ctx: RawTracePointContext) -> i32 {
    calls::entered::<InTask>(ctx.arg(1), Turn::Again);
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    returned(&ctx, Turn::First)
}

/// For what `sys_exit` misses.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_again(ctx: RawTracePointContext) -> i32 {
    returned(&ctx, Turn::Again)
}

#[inline(always)]
fn returned(ctx: &RawTracePointContext, turn: Turn) -> i32 {
    let ret = ctx.arg(1);
    if let Some(number) = calls::returned::<InTask>(ctx.arg(0), ret, turn)
        && calls::is_followed(number, ret)
    {
        after::go_on(ctx);
    }
    0
}

/// `cgroup_attach_task(...)`
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn cgroup_attach_task(_ctx: RawTracePointContext) -> i32 {
    calls::moved();
    0
}
