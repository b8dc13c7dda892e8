//! Finds the level of the control group that is this host's root.
//!
//! In a container the daemon sees its root's id but not how deep it lies. Attached for a moment,
//! this program looks, in the daemon's own next system call, at which level its ancestor is that
//! group, and writes level + 1 to `LEVEL`. It looks at no other task.
#![no_std]
#![no_main]

mod licence;

use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_ns_current_pid_tgid,
};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::{LEVELS_MAX, LocateSettings};

/// Written by user space before the load.
#[unsafe(no_mangle)]
static LOCATE: LocateSettings = LocateSettings {
    root_cgroup: 0,
    pidns_device: 0,
    pidns_inode: 0,
    tgid: 0,
};

macro_rules! setting {
    ($field:ident) => {
        // SAFETY: the pointer is to a field of a static.
        unsafe { core::ptr::read_volatile(&raw const LOCATE.$field) }
    };
}

#[map]
static LEVEL: Array<u32> = Array::with_max_entries(1, 0);

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn locate(_ctx: RawTracePointContext) -> i32 {
    let (device, inode) = (setting!(pidns_device), setting!(pidns_inode));
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the buffer is as large as the size given.
    let failed = unsafe {
        bpf_get_ns_current_pid_tgid(
            device,
            inode,
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    if failed != 0 || u64::from(ids.tgid) != setting!(tgid) {
        return 0;
    }
    for level in 0..LEVELS_MAX {
        // SAFETY: plain helper call.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if ancestor == setting!(root_cgroup) {
            let _ = LEVEL.set(0, level + 1, 0);
            break;
        }
    }
    0
}
