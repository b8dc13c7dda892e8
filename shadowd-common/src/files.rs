//! File I/O: reads, writes and opens of regular files by process and control group.

use crate::descriptors::DescriptorOffsets;

/// Most records; one that was idle for long makes room.
pub const FILES_MAX: u32 = 8_192;
/// System call numbers that are looked at.
pub const NUMBERS: usize = crate::syscalls::FOLLOWED;

/// Counters of loss of the `files` object.
pub mod loss {
    /// Operations that the full table refused.
    pub const FILES: u32 = 0;
}

/// What a system call does with files: one of these for each number.
pub mod kind {
    /// Nothing of interest.
    pub const NONE: u8 = 0;
    /// Reads from its first argument.
    pub const READ: u8 = 1;
    /// Writes to its first argument.
    pub const WRITE: u8 = 2;
    /// Returns an open file.
    pub const OPEN: u8 = 3;
    /// Reads from its second argument and writes to its first (sendfile).
    pub const SEND: u8 = 4;
    /// Reads from its first argument and writes to its third (copy_file_range, splice).
    pub const COPY: u8 = 5;
}

/// Offsets in kernel structures, in bytes, and what each system call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FileOffsets {
    /// pt_regs: number of the system call.
    pub regs_number: u32,
    /// pt_regs: first argument.
    pub regs_first: u32,
    /// pt_regs: second argument.
    pub regs_second: u32,
    /// pt_regs: third argument.
    pub regs_third: u32,
    /// The process's open files.
    pub descriptors: DescriptorOffsets,
    /// file: inode.
    pub file_inode: u32,
    /// inode: type and mode.
    pub inode_mode: u32,
    /// One of [`kind`] for each number.
    pub kinds: [u8; NUMBERS],
}

impl FileOffsets {
    /// Before user space has found anything out.
    pub const UNKNOWN: Self = Self {
        regs_number: 0,
        regs_first: 0,
        regs_second: 0,
        regs_third: 0,
        descriptors: DescriptorOffsets::UNKNOWN,
        file_inode: 0,
        inode_mode: 0,
        kinds: [kind::NONE; NUMBERS],
    };
}

impl Default for FileOffsets {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// Key of a count of file I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FileKey {
    /// Control group.
    pub cgroup: u64,
    /// Process, in the daemon's pid namespace.
    pub tgid: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A count of file I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileValue {
    /// Reads that succeeded.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Files opened.
    pub opens: u64,
}

crate::pod!(FileOffsets, FileKey, FileValue);

const _: () = {
    assert!(size_of::<FileOffsets>() == 12 * 4 + NUMBERS);
    assert!(size_of::<FileKey>() == 16);
};
