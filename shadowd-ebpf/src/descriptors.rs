//! The open files of the current process, by descriptor.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf};

use crate::OFFSETS;
use crate::context::{read, setting};

/// A 32-bit system call (TS_COMPAT, arch/x86/include/asm/thread_info.h).
const COMPAT: u32 = 2;

/// What a process's descriptors stand for.
pub struct Table {
    files: u64,
    size: u32,
}

impl Table {
    /// The current process's; none within a 32-bit system call, whose number is another.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let status = setting!(OFFSETS, descriptors.task_status);
        if setting!(OFFSETS, descriptors.typed) == 0 {
            // SAFETY: plain helper call.
            let task = unsafe { bpf_get_current_task() };
            if status != 0 && read::<u32>(task, status)? & COMPAT != 0 {
                return None;
            }
            let files: u64 = read(task, setting!(OFFSETS, descriptors.task_files))?;
            let table: u64 = read(files, setting!(OFFSETS, descriptors.files_table))?;
            return Some(Self {
                files: read(table, setting!(OFFSETS, descriptors.table_files))?,
                size: read(table, setting!(OFFSETS, descriptors.table_size))?,
            });
        }
        let task_files = setting!(OFFSETS, descriptors.task_files);
        let files_table = setting!(OFFSETS, descriptors.files_table);
        let table_files = setting!(OFFSETS, descriptors.table_files);
        let table_size = setting!(OFFSETS, descriptors.table_size);
        // SAFETY: the verifier knows the type of the task and of all that it leads to; a bad
        // address reads as 0.
        unsafe {
            let task = bpf_get_current_task_btf() as u64;
            if status != 0 && follow::<u32>(task, status) & COMPAT != 0 {
                return None;
            }
            let files: u64 = follow(task, task_files);
            if files == 0 {
                return None;
            }
            let table: u64 = follow(files, files_table);
            if table == 0 {
                return None;
            }
            Some(Self {
                files: follow(table, table_files),
                size: follow(table, table_size),
            })
        }
    }

    /// The file behind a descriptor.
    #[inline(always)]
    pub fn file(&self, descriptor: u32) -> Option<u64> {
        if descriptor >= self.size {
            return None;
        }
        read(self.files + u64::from(descriptor) * 8, 0)
    }
}

/// The field at `offset` behind a typed pointer.
///
/// # Safety
///
/// `base` is a pointer of which the verifier knows the type.
#[inline(always)]
unsafe fn follow<T: Copy>(base: u64, offset: u32) -> T {
    // SAFETY: the verifier checks the access.
    unsafe { ((base + u64::from(offset)) as *const T).read_volatile() }
}
