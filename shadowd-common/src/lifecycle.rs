//! What is rare and streamed: programs begun, processes ended, control groups made.

/// Bytes of the ring buffer.
pub const EVENTS_BYTES: u32 = 1 << 18;
/// Bytes kept of a control group's path, the closing NUL included.
pub const PATH_BYTES: usize = 256;

/// Most processes chosen to be killed for want of memory that have not ended.
pub const VICTIMS_MAX: u32 = 1_024;
/// Most threads of a process that end together whose processor time is added up one by one.
pub const THREADS_MAX: u32 = 32;

/// Counters of loss of the `lifecycle` object.
pub mod loss {
    /// Records that the full ring buffer refused.
    pub const EVENTS: u32 = 0;
    /// Kills for want of memory that the full table refused.
    pub const VICTIMS: u32 = 1;
}

/// Offsets in kernel structures, in bytes, and what this kernel's tracepoints tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LifecycleOffsets {
    /// Whether `sched_process_exit` tells that the whole group is dead.
    pub exit_tells_group: u32,
    /// task_struct: exit code.
    pub task_exit_code: u32,
    /// cgroup: pointer to its kernfs node.
    pub cgroup_node: u32,
    /// cgroup: pointer to its hierarchy's root.
    pub cgroup_root: u32,
    /// cgroup_root: id of the hierarchy, 0 for cgroup2.
    pub root_hierarchy: u32,
    /// kernfs_node: id.
    pub node_id: u32,
    /// Whether `mark_victim` hands over the task, not its number.
    pub victim_is_task: u32,
    /// task_struct: number of the thread.
    pub task_pid: u32,
    /// task_struct: what all threads of the process share.
    pub task_signal: u32,
    /// task_struct: its place in the list of the process's threads.
    pub task_thread_node: u32,
    /// task_struct: processor time of the thread, ns.
    pub task_runtime: u32,
    /// signal_struct: head of the list of threads.
    pub signal_threads: u32,
    /// signal_struct: processor time of the threads that are gone, ns.
    pub signal_runtime: u32,
    /// signal_struct: threads that have not begun to end, 32 bits.
    pub signal_live: u32,
}

/// `kind` of a [`ProcessEvent`] for execve.
pub const EVENT_EXEC: u32 = 1;
/// `kind` of a [`ProcessEvent`] for the end of a process.
pub const EVENT_EXIT: u32 = 2;
/// `kind` of a [`CgroupEvent`].
pub const EVENT_CGROUP: u32 = 3;
/// `kind` of a [`ProcessEvent`] for a kill for want of memory.
pub const EVENT_OOM: u32 = 4;

/// A process began a program or ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessEvent {
    /// [`EVENT_EXEC`], [`EVENT_EXIT`] or [`EVENT_OOM`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// Control group.
    pub cgroup: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at: u64,
    /// [`EVENT_EXIT`]: processor time of all its threads, ns, up to the kernel's last account of
    /// it, which is at most one timer tick ago for each.
    pub cpu: u64,
    /// Short name, closed by NUL.
    pub command: [u8; 16],
    /// Status as wait(2) gives it.
    pub status: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A control group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CgroupEvent {
    /// [`EVENT_CGROUP`].
    pub kind: u32,
    /// Bytes of `path` that are used, the closing NUL included.
    pub length: u32,
    /// Its id.
    pub id: u64,
    /// Path from the root of the hierarchy, closed by NUL.
    pub path: [u8; PATH_BYTES],
}

crate::pod!(LifecycleOffsets, ProcessEvent, CgroupEvent);

const _: () = {
    assert!(size_of::<LifecycleOffsets>() == 56);
    assert!(size_of::<ProcessEvent>() == 56);
    assert!(size_of::<CgroupEvent>() == 16 + PATH_BYTES);
};
