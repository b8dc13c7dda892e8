//! What all objects share: scope, counters of loss, and who the current task is.
#![allow(dead_code, reason = "each object uses its part of what all share")]

#[path = "atomic.rs"]
mod atomic;
#[path = "licence.rs"]
mod licence;

pub use atomic::{one_more, plus};

use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
    bpf_get_ns_current_pid_tgid,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use shadowd_common::{LOSSES, ScopeSettings};

/// Written by user space before the load and frozen then, so the verifier sees constants and
/// drops the branches that this host does not need.
#[unsafe(no_mangle)]
pub static SCOPE: ScopeSettings = ScopeSettings {
    root_cgroup: 0,
    pidns_device: 0,
    pidns_inode: 0,
    root_level: 0,
    netns: 0,
};

/// Reads a field of one of the statics that user space writes before the load; volatile, or the
/// compiler would take the zero in the source for its value.
macro_rules! setting {
    ($settings:path, $($field:ident).+) => {
        // SAFETY: the pointer is to a field of a static.
        unsafe { core::ptr::read_volatile(&raw const $settings.$($field).+) }
    };
}
pub(crate) use setting;

#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES, 0);

/// Counts `count` records that a full table or buffer refused; `what` is one of the object's
/// `loss` constants. The daemon logs the first.
#[inline(always)]
pub fn lost(what: u32, count: u64) {
    if let Some(sum) = LOST.get_ptr_mut(what) {
        // SAFETY: the verifier checked the pointer; the slot belongs to this CPU.
        unsafe { *sum += count };
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
    let level = setting!(SCOPE, root_level);
    if level != 0 {
        // SAFETY: plain helper call. Kernels before 5.14 lack it; there the branch is dead.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if ancestor != setting!(SCOPE, root_cgroup) {
            return None;
        }
    }
    // SAFETY: plain helper call.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let inode = setting!(SCOPE, pidns_inode);
    if inode == 0 {
        // SAFETY: plain helper call.
        let both = unsafe { bpf_get_current_pid_tgid() };
        return Some(Task {
            tgid: (both >> 32) as u32,
            tid: both as u32,
            cgroup,
        });
    }
    let device = setting!(SCOPE, pidns_device);
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

/// Of several processors that add one key, only the first succeeds.
pub const BPF_NOEXIST: u64 = 1;
