//! What all programs share: settings, counters of loss, and who the current task is.

use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
    bpf_get_ns_current_pid_tgid,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_log_ebpf::warn;
use shadowd_common::{LOSSES, Loss, Settings};

/// Written by user space before the load and frozen then, so the verifier sees constants and
/// drops the branches that this kernel and this host do not need.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    root_cgroup: 0,
    pidns_device: 0,
    pidns_inode: 0,
    root_level: 0,
    netns: 0,
    exit_tells_group: 0,
    regs_number: 0,
    sk_protocol: 0,
    sk_family: 0,
    sk_daddr: 0,
    sk_rcv_saddr: 0,
    sk_v6_daddr: 0,
    sk_v6_rcv_saddr: 0,
    sk_dport: 0,
    sk_num: 0,
    sk_flags: 0,
    sk_net: 0,
    sk_cgroup: 0,
    inet_sport: 0,
    net_inum: 0,
    tcp_bytes_sent: 0,
    tcp_bytes_retrans: 0,
    tcp_bytes_received: 0,
    task_exit_code: 0,
    cgroup_node: 0,
    cgroup_root: 0,
    root_hierarchy: 0,
    node_id: 0,
    reserved: 0,
};

/// Reads one setting; volatile, or the compiler would take the zero above for its value.
macro_rules! setting {
    ($field:ident) => {
        // SAFETY: the pointer is to a field of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::context::SETTINGS.$field) }
    };
}
pub(crate) use setting;

#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES, 0);

/// The counters of loss whose first count was logged.
#[map]
static LOGGED: HashMap<u32, u32> = HashMap::with_max_entries(LOSSES, 0);

/// Of several processors that add one key, only the first succeeds.
pub const BPF_NOEXIST: u64 = 1;

/// Which of the two generations of counting maps is open for writing: 0 or 1.
#[inline(always)]
pub fn generation() -> u32 {
    GENERATION.get(0).copied().unwrap_or(0)
}

/// Counts one record that a full table or buffer refused; the first of its kind is logged too.
#[inline(always)]
pub fn lost(what: Loss) {
    let Some(count) = LOST.get_ptr_mut(what as u32) else {
        return;
    };
    // SAFETY: the verifier checked the pointer; the slot belongs to this CPU.
    let first = unsafe {
        *count += 1;
        *count == 1
    };
    if first {
        log_once(what);
    }
}

/// Logs that a table or buffer is full: once since the load, whatever the number of processors.
/// Each of them asks at most once, when its own counter leaves 0.
#[cold]
#[inline(never)]
fn log_once(what: Loss) {
    if LOGGED.insert(what as u32, 1, BPF_NOEXIST).is_err() {
        return;
    }
    match what {
        Loss::Syscalls => warn!((), "the table of system calls is full"),
        Loss::Flows => warn!((), "the table of flows is full"),
        Loss::Sockets => warn!((), "the table of sockets is full"),
        Loss::Listeners => warn!((), "the table of listening sockets is full"),
        Loss::Events => warn!((), "the ring buffer of events is full"),
    }
}

/// The value at `offset` of the kernel object at `base`.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    let address = (base + u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address itself and fails on a bad one; T is made of integers.
    unsafe { bpf_probe_read_kernel(address) }.ok()
}

/// A task of this host.
#[derive(Clone, Copy)]
pub struct Task {
    /// Process id in the daemon's pid namespace; 0 in a namespace nested in it.
    pub tgid: u32,
    /// Thread id there.
    pub tid: u32,
    /// Control group.
    pub cgroup: u64,
}

/// The current task, if it belongs to this host.
#[inline(always)]
pub fn current() -> Option<Task> {
    let level = setting!(root_level);
    if level != 0 {
        // SAFETY: plain helper call. Kernels before 5.14 lack it; there the branch is dead.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if ancestor != setting!(root_cgroup) {
            return None;
        }
    }
    // SAFETY: plain helper call.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let inode = setting!(pidns_inode);
    if inode == 0 {
        // SAFETY: plain helper call.
        let both = unsafe { bpf_get_current_pid_tgid() };
        return Some(Task {
            tgid: (both >> 32) as u32,
            tid: both as u32,
            cgroup,
        });
    }
    let device = setting!(pidns_device);
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the buffer is as large as the size given. On failure the helper zeroes it.
    unsafe {
        bpf_get_ns_current_pid_tgid(
            device,
            inode,
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    Some(Task {
        tgid: ids.tgid,
        tid: ids.pid,
        cgroup,
    })
}
