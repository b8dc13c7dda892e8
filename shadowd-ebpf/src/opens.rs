//! Tells which files under the configuration roots were opened: each once per interval and group.
//!
//! The path is put together from the names in the kernel, from the file up to the root directory
//! of the process, across mounts: it is the path of the file that was really opened, as the
//! process sees it, whatever links led there. A table of the files already told keeps a file that
//! is opened often from costing more than a look-up.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod context;
mod descriptors;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str,
};
use aya_ebpf::macros::{fexit, map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::{FExitContext, RawTracePointContext};
use shadowd_common::descriptors::DescriptorOffsets;
use shadowd_common::opens::{
    CALLS_MAX, NAME_BYTES, NAMES_BYTES, OPENS_BYTES, OpenEvent, OpenOffsets, ROOT_NAMES, ROOTS_MAX,
    Root, SEEN_MAX, STEPS_MAX, SeenKey, loss,
};

use crate::context::{current, lost, read, setting};
use crate::descriptors::Table;

// include/uapi/linux/stat.h
const TYPE_MASK: u16 = 0o170_000;
const REGULAR: u16 = 0o100_000;
// include/linux/fs.h
const MODE_READ: u32 = 1;
const MODE_WRITE: u32 = 2;
/// Error codes end here (MAX_ERRNO, include/linux/err.h).
const MAX_ERRNO: i64 = 4095;

/// Written by user space before the load.
#[unsafe(no_mangle)]
static OFFSETS: OpenOffsets = OpenOffsets {
    regs_number: 0,
    descriptors: DescriptorOffsets::UNKNOWN,
    task_fs: 0,
    file_inode: 0,
    file_mode: 0,
    file_mount: 0,
    file_dentry: 0,
    inode_mode: 0,
    inode_number: 0,
    inode_super: 0,
    super_device: 0,
    dentry_parent: 0,
    dentry_name: 0,
    mount_root: 0,
    mount_inner: 0,
    mount_parent: 0,
    mount_point: 0,
    fs_mount: 0,
    fs_dentry: 0,
    calls: [0; CALLS_MAX],
};

/// The number of the interval, counted up by user space.
#[map]
static INTERVAL: Array<u32> = Array::with_max_entries(1, 0);

/// The roots, written by user space: each by its first names.
#[map]
static ROOTS: HashMap<Root, u32> = HashMap::with_max_entries(ROOTS_MAX, 0);

/// The interval in which a file was told last.
#[map]
static SEEN: LruHashMap<SeenKey, u32> = LruHashMap::with_max_entries(SEEN_MAX, 0);

#[map]
static OPENS: RingBuf = RingBuf::with_byte_size(OPENS_BYTES, 0);

/// Too large for the stack.
#[map]
static SCRATCH: PerCpuArray<OpenEvent> = PerCpuArray::with_max_entries(1, 0);

/// `struct file *do_filp_open(int dfd, struct filename *pathname, const struct open_flags *op)`
#[fexit(function = "do_filp_open")]
pub fn do_filp_open(ctx: FExitContext) -> i32 {
    let file: i64 = ctx.arg(3);
    if !(-MAX_ERRNO..=0).contains(&file) {
        let _ = opened(file as u64);
    }
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn opens(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let number: u64 = read(regs, setting!(OFFSETS, regs_number)).unwrap_or(u64::MAX);
    returned(number, ctx.arg(1));
    0
}

#[inline(always)]
fn returned(number: u64, ret: i64) {
    let calls = setting!(OFFSETS, calls);
    let number = number as u32;
    let opens =
        number == calls[0] || number == calls[1] || number == calls[2] || number == calls[3];
    if opens && ret >= 0 {
        let file = Table::current().and_then(|table| table.file(ret as u32));
        if let Some(file) = file {
            let _ = opened(file);
        }
    }
}

#[inline(always)]
fn opened(file: u64) -> Option<()> {
    let inode: u64 = read(file, setting!(OFFSETS, file_inode))?;
    let mode: u32 = read(file, setting!(OFFSETS, file_mode))?;
    let regular = read::<u16>(inode, setting!(OFFSETS, inode_mode))? & TYPE_MASK == REGULAR;
    if !regular || mode & (MODE_READ | MODE_WRITE) == 0 {
        return None;
    }
    let who = current()?;
    let file_system: u64 = read(inode, setting!(OFFSETS, inode_super))?;
    let key = SeenKey {
        cgroup: who.cgroup,
        inode: read(inode, setting!(OFFSETS, inode_number))?,
        device: read(file_system, setting!(OFFSETS, super_device))?,
        write: u32::from(mode & MODE_WRITE != 0),
    };
    let interval = INTERVAL.get(0).copied().unwrap_or(0);
    if let Some(told) = SEEN.get_ptr_mut(&key) {
        // SAFETY: the verifier checked the pointer. Two processors may both tell: user space
        // tells once.
        unsafe {
            if *told == interval {
                return None;
            }
            *told = interval;
        }
    } else {
        let _ = SEEN.insert(&key, &interval, 0);
    }
    let event = SCRATCH.get_ptr_mut(0)?;
    match path(file, event) {
        Path::Under(length) => {
            // SAFETY: the pointer is to this processor's own slot, and no other program of it
            // runs meanwhile.
            unsafe {
                (*event).cgroup = who.cgroup;
                (*event).at = bpf_ktime_get_boot_ns();
                (*event).tgid = who.tgid;
                (*event).write = key.write;
                (*event).length = length;
                (*event).reserved = 0;
            }
            tell(event, length);
        }
        Path::Elsewhere => {}
        Path::Unknown => lost(loss::PATHS, 1),
    }
    Some(())
}

#[inline(always)]
fn tell(event: *mut OpenEvent, length: u32) {
    let head = core::mem::offset_of!(OpenEvent, names);
    // Older verifiers lose the bound that the loop left, and the compiler relies on it.
    let size = head + (core::hint::black_box(length) as usize & (NAMES_BYTES - 1));
    // SAFETY: the bytes are those of the slot; the mask keeps the size within it.
    let bytes = unsafe { core::slice::from_raw_parts(event.cast::<u8>(), size) };
    if OPENS
        .output::<[u8]>(bytes, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        lost(loss::OPENS, 1);
    }
}

enum Path {
    /// Under one of the roots, and how many bytes its names take.
    Under(u32),
    Elsewhere,
    Unknown,
}

/// Writes the names on the path of a file, the last one first.
#[inline(always)]
fn path(file: u64, event: *mut OpenEvent) -> Path {
    let Some((mut mount, mut dentry, root_mount, root_dentry)) = ends(file) else {
        return Path::Unknown;
    };
    // The first names of the path are the last ones that are seen.
    let mut first: Root = [0; ROOT_NAMES];
    let mut used = 0_u64;
    let mut whole = false;
    for _ in 0..STEPS_MAX {
        if dentry == root_dentry && mount == root_mount {
            whole = true;
            break;
        }
        let (Some(top), Some(parent)) = (
            read::<u64>(mount, setting!(OFFSETS, mount_root)),
            read::<u64>(dentry, setting!(OFFSETS, dentry_parent)),
        ) else {
            break;
        };
        if dentry == top || dentry == parent {
            let outer = mount - u64::from(setting!(OFFSETS, mount_inner));
            let (Some(below), Some(point)) = (
                read::<u64>(outer, setting!(OFFSETS, mount_parent)),
                read::<u64>(outer, setting!(OFFSETS, mount_point)),
            ) else {
                break;
            };
            if below == outer {
                whole = true; // the root of all
                break;
            }
            mount = below + u64::from(setting!(OFFSETS, mount_inner));
            dentry = point;
            continue;
        }
        let Some(name) = read::<u64>(dentry, setting!(OFFSETS, dentry_name)) else {
            break;
        };
        let at = core::hint::black_box(used) & (NAMES_BYTES as u64 - 1);
        // SAFETY: the mask and the spare room keep the name within the slot.
        let length = unsafe {
            let to = (&raw mut (*event).names).cast::<u8>().add(at as usize);
            bpf_probe_read_kernel_str(to.cast(), NAME_BYTES as u32, name as *const _)
        };
        if length <= 1 {
            break;
        }
        // Of the same range at every step, or the verifier would follow each range on its own.
        used = core::hint::black_box(used + length as u64) & (2 * NAMES_BYTES as u64 - 1);
        if used >= NAMES_BYTES as u64 {
            break;
        }
        // No branch depends on the name: the verifier would follow both, at every step.
        let mut token = 0_u64;
        // SAFETY: the helper writes at most the word.
        unsafe {
            bpf_probe_read_kernel_str((&raw mut token).cast(), 8, name as *const _);
        }
        first = [token, first[0], first[1], first[2]];
        dentry = parent;
    }
    if !whole {
        return Path::Unknown;
    }
    if under(first) {
        Path::Under(used as u32)
    } else {
        Path::Elsewhere
    }
}

/// Mount and name of a file, and of the root directory of the current task.
#[inline(always)]
fn ends(file: u64) -> Option<(u64, u64, u64, u64)> {
    // SAFETY: plain helper call.
    let task = unsafe { bpf_get_current_task() };
    let fs: u64 = read(task, setting!(OFFSETS, task_fs))?;
    Some((
        read(file, setting!(OFFSETS, file_mount))?,
        read(file, setting!(OFFSETS, file_dentry))?,
        read(fs, setting!(OFFSETS, fs_mount))?,
        read(fs, setting!(OFFSETS, fs_dentry))?,
    ))
}

/// Whether a path that begins so may be under a root of any length.
#[inline(always)]
fn under(first: Root) -> bool {
    let known = |root: Root| ROOTS.get_ptr(&root).is_some();
    known([0; ROOT_NAMES])
        || known([first[0], 0, 0, 0])
        || known([first[0], first[1], 0, 0])
        || known([first[0], first[1], first[2], 0])
        || known(first)
}
