//! The open files behind a process's descriptors.

/// Offsets in kernel structures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DescriptorOffsets {
    /// 1 where the kernel gives the current task as a typed pointer, whose fields need no helper.
    pub typed: u32,
    /// task_struct: flags that tell a 32-bit system call, whose numbers are others; 0 if the kernel
    /// has none.
    pub task_status: u32,
    /// task_struct: open files.
    pub task_files: u32,
    /// files_struct: their table.
    pub files_table: u32,
    /// fdtable: how many it has room for.
    pub table_size: u32,
    /// fdtable: the files by number.
    pub table_files: u32,
}

impl DescriptorOffsets {
    /// Before user space has found anything out.
    pub const UNKNOWN: Self = Self {
        typed: 0,
        task_status: 0,
        task_files: 0,
        files_table: 0,
        table_size: 0,
        table_files: 0,
    };
}

crate::pod!(DescriptorOffsets);
