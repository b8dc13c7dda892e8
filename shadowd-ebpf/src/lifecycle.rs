//! Streams what is rare: programs begun, processes ended, control groups made.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod context;

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::lifecycle::{
    CgroupEvent, EVENT_CGROUP, EVENT_EXEC, EVENT_EXIT, EVENTS_BYTES, LifecycleOffsets, PATH_BYTES,
    ProcessEvent, loss,
};

use crate::context::{Task, current, lost, read, setting};

/// Written by user space before the load.
#[unsafe(no_mangle)]
static OFFSETS: LifecycleOffsets = LifecycleOffsets {
    exit_tells_group: 0,
    task_exit_code: 0,
    cgroup_node: 0,
    cgroup_root: 0,
    root_hierarchy: 0,
    node_id: 0,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(_ctx: RawTracePointContext) -> i32 {
    if let Some(task) = current() {
        emit(task, EVENT_EXEC, 0, 0);
    }
    0
}

/// `sched_process_exit(struct task_struct *p)`, and newer `(..., bool group_dead)`
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let Some(who) = current() else { return 0 };
    let ended = if setting!(OFFSETS, exit_tells_group) != 0 {
        ctx.arg::<u64>(1) as u8 != 0
    } else {
        // The leader's end stands for the group's, which only differs when it leaves alone.
        who.tgid == who.tid
    };
    if ended {
        let status = read::<u32>(task, setting!(OFFSETS, task_exit_code)).unwrap_or(0);
        // Failover waits for this one: the reader is woken whatever it is doing.
        emit(who, EVENT_EXIT, status, u64::from(BPF_RB_FORCE_WAKEUP));
    }
    0
}

#[inline(always)]
fn emit(task: Task, kind: u32, status: u32, flags: u64) {
    let Some(mut entry) = EVENTS.reserve::<ProcessEvent>(0) else {
        lost(loss::EVENTS, 1);
        return;
    };
    entry.write(ProcessEvent {
        kind,
        tgid: task.tgid,
        cgroup: task.cgroup,
        // SAFETY: plain helper call.
        at: unsafe { bpf_ktime_get_boot_ns() },
        command: bpf_get_current_comm().unwrap_or_default(),
        status,
        reserved: 0,
    });
    entry.submit(flags);
}

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    let _ = made(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn made(cgroup: u64, path: u64) -> Option<()> {
    current()?;
    let root: u64 = read(cgroup, setting!(OFFSETS, cgroup_root))?;
    let hierarchy: u32 = read(root, setting!(OFFSETS, root_hierarchy))?;
    if hierarchy != 0 {
        return None; // cgroup1
    }
    let node: u64 = read(cgroup, setting!(OFFSETS, cgroup_node))?;
    let id: u64 = read(node, setting!(OFFSETS, node_id))?;
    let Some(mut entry) = EVENTS.reserve::<CgroupEvent>(0) else {
        lost(loss::EVENTS, 1);
        return None;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the pointer is to the reserved entry, which is as large as the type; the helper
    // writes at most PATH_BYTES.
    unsafe {
        (*event).kind = EVENT_CGROUP;
        (*event).id = id;
        let length = bpf_probe_read_kernel_str(
            (&raw mut (*event).path).cast(),
            PATH_BYTES as u32,
            path as *const _,
        );
        (*event).length = if length < 0 { 0 } else { length as u32 };
    }
    entry.submit(0);
    Some(())
}
