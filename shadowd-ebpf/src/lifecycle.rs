//! Streams what is rare: programs begun, processes ended or killed, control groups made.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod context;

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str,
};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{HashMap, LruHashMap, RingBuf};
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::lifecycle::{
    CgroupEvent, EVENT_CGROUP, EVENT_EXEC, EVENT_EXIT, EVENT_OOM, EVENTS_BYTES, LifecycleOffsets,
    PATH_BYTES, ProcessEvent, THREADS_MAX, VICTIMS_MAX, loss,
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
    victim_is_task: 0,
    task_pid: 0,
    task_signal: 0,
    task_thread_node: 0,
    task_runtime: 0,
    signal_threads: 0,
    signal_runtime: 0,
    signal_live: 0,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Threads that are to die for want of memory, by number in the initial pid namespace, and since
/// when.
#[map]
static VICTIMS: HashMap<u32, u64> = HashMap::with_max_entries(VICTIMS_MAX, 0);

/// What the first of two programs at one tracepoint has told and the second one has not seen yet, by
/// thread. Where another task meets a program in its middle the kernel leaves out its runs until it
/// has ended: then the second one tells.
#[map]
static TOLD: LruHashMap<u64, u32> = LruHashMap::with_max_entries(TOLD_MAX, 0);

/// Threads that can be between two programs at one time, and as many again.
const TOLD_MAX: u32 = 1_024;

#[inline(always)]
fn thread() -> u64 {
    // SAFETY: plain helper call.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The first program is about to tell of `kind`.
#[inline(always)]
fn tells(kind: u32) {
    let _ = TOLD.insert(&thread(), &kind, 0);
}

/// Whether the first program has told of `kind`.
#[inline(always)]
fn is_told(kind: u32) -> bool {
    let thread = thread();
    // SAFETY: the verifier checked the pointer.
    let told = TOLD
        .get_ptr(&thread)
        .is_some_and(|at| unsafe { *at } == kind);
    if told {
        let _ = TOLD.remove(&thread);
    }
    told
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(_ctx: RawTracePointContext) -> i32 {
    tells(EVENT_EXEC);
    begun()
}

/// For what `sched_process_exec` misses.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec_again(_ctx: RawTracePointContext) -> i32 {
    if is_told(EVENT_EXEC) { 0 } else { begun() }
}

#[inline(always)]
fn begun() -> i32 {
    if let Some(task) = current() {
        emit(task, event(EVENT_EXEC), 0);
    }
    0
}

/// `sched_process_exit(struct task_struct *p)`, and newer `(..., bool group_dead)`
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    tells(EVENT_EXIT);
    ended(&ctx)
}

/// For what `sched_process_exit` misses.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit_again(ctx: RawTracePointContext) -> i32 {
    if is_told(EVENT_EXIT) { 0 } else { ended(&ctx) }
}

#[inline(always)]
fn ended(ctx: &RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let thread = thread() as u32;
    let marked = VICTIMS.get_ptr(&thread);
    // SAFETY: the verifier checked the pointer.
    let chosen = marked.map(|at| unsafe { *at });
    if chosen.is_some() {
        let _ = VICTIMS.remove(&thread);
    }
    let Some(who) = current() else { return 0 };
    if let Some(at) = chosen {
        let kill = ProcessEvent {
            at,
            ..event(EVENT_OOM)
        };
        emit(who, kill, 0);
    }
    let ended = if setting!(OFFSETS, exit_tells_group) != 0 {
        ctx.arg::<u64>(1) as u8 != 0
    } else {
        // The leader may leave alone, and does when another thread begins a program. Of two that
        // end at once both may see the last one gone: then the end is told twice.
        nobody_lives(task).unwrap_or(who.tgid == who.tid)
    };
    if ended {
        let exit = ProcessEvent {
            status: read::<u32>(task, setting!(OFFSETS, task_exit_code)).unwrap_or(0),
            cpu: runtime(task).unwrap_or(0),
            ..event(EVENT_EXIT)
        };
        // Failover waits for this one: the reader is woken whatever it is doing.
        emit(who, exit, u64::from(BPF_RB_FORCE_WAKEUP));
    }
    0
}

/// `mark_victim(int pid)`, from 6.8 `mark_victim(struct task_struct *task, uid_t uid)`
///
/// Runs in whoever asked for memory. The victim tells who it is when it dies, which it does next.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    let thread = if setting!(OFFSETS, victim_is_task) != 0 {
        read::<u32>(ctx.arg(0), setting!(OFFSETS, task_pid)).unwrap_or(0)
    } else {
        ctx.arg(0)
    };
    if VICTIMS.insert(&thread, &now(), 0).is_err() {
        lost(loss::VICTIMS, 1);
    }
    0
}

/// Whether every thread of the task's process has begun to end.
#[inline(always)]
fn nobody_lives(task: u64) -> Option<bool> {
    let signal: u64 = read(task, setting!(OFFSETS, task_signal))?;
    let live: u32 = read(signal, setting!(OFFSETS, signal_live))?;
    Some(live == 0)
}

/// Processor time of a process, by its last living thread: of the threads that are gone, and of
/// those that ended and are still in the list.
#[inline(always)]
fn runtime(task: u64) -> Option<u64> {
    let signal: u64 = read(task, setting!(OFFSETS, task_signal))?;
    let mut sum: u64 = read(signal, setting!(OFFSETS, signal_runtime))?;
    let head = signal + u64::from(setting!(OFFSETS, signal_threads));
    let mut node: u64 = read(head, 0)?;
    for _ in 0..THREADS_MAX {
        if node == head {
            break;
        }
        let thread = node - u64::from(setting!(OFFSETS, task_thread_node));
        sum += read::<u64>(thread, setting!(OFFSETS, task_runtime))?;
        node = read(node, 0)?;
    }
    Some(sum)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: plain helper call.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// An event of now, of nobody yet.
#[inline(always)]
fn event(kind: u32) -> ProcessEvent {
    ProcessEvent {
        kind,
        tgid: 0,
        cgroup: 0,
        at: now(),
        cpu: 0,
        command: [0; 16],
        status: 0,
        reserved: 0,
    }
}

#[inline(always)]
fn emit(task: Task, event: ProcessEvent, flags: u64) {
    let Some(mut entry) = EVENTS.reserve::<ProcessEvent>(0) else {
        lost(loss::EVENTS, 1);
        return;
    };
    entry.write(ProcessEvent {
        tgid: task.tgid,
        cgroup: task.cgroup,
        command: bpf_get_current_comm().unwrap_or_default(),
        ..event
    });
    entry.submit(flags);
}

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    tells(EVENT_CGROUP);
    let _ = made(ctx.arg(0), ctx.arg(1));
    0
}

/// For what `cgroup_mkdir` misses.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir_again(ctx: RawTracePointContext) -> i32 {
    if is_told(EVENT_CGROUP) {
        return 0;
    }
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
