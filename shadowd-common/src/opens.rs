//! Files opened under the configuration roots: each once per interval and control group.

use crate::descriptors::DescriptorOffsets;

/// Files that were opened in the interval and are not told again.
pub const SEEN_MAX: u32 = 16_384;
/// Bytes of the ring buffer.
pub const OPENS_BYTES: u32 = 1 << 19;
/// Bytes that the names on a path may have together, each closed by NUL.
pub const NAMES_BYTES: usize = 2_048;
/// Bytes of one name, the closing NUL included (NAME_MAX).
pub const NAME_BYTES: usize = 256;
/// Names and mounts on the longest path that is followed.
pub const STEPS_MAX: u32 = 40;
/// Most roots.
pub const ROOTS_MAX: u32 = 16;
/// How many names at the beginning of a root are compared by the kernel side.
pub const ROOT_NAMES: usize = 4;
/// System calls that open.
pub const CALLS_MAX: usize = 4;

/// Counters of loss of the `opens` object.
pub mod loss {
    /// Files that the full ring buffer refused.
    pub const OPENS: u32 = 0;
    /// Files whose path is too long, or could not be read.
    pub const PATHS: u32 = 1;
}

/// The beginning of a root: a token of each of its first names, 0 where it has no more.
pub type Root = [u64; ROOT_NAMES];

/// Bytes of a name in its token, then zeros; names that begin alike have the same, and user space
/// compares the whole path again. A word with a closing NUL: what one helper call writes.
pub const TOKEN_BYTES: usize = 7;

/// Offsets in kernel structures, in bytes, and what is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OpenOffsets {
    /// pt_regs: number of the system call.
    pub regs_number: u32,
    /// The process's open files.
    pub descriptors: DescriptorOffsets,
    /// task_struct: root and working directory.
    pub task_fs: u32,
    /// file: inode.
    pub file_inode: u32,
    /// file: how it was opened.
    pub file_mode: u32,
    /// file: mount.
    pub file_mount: u32,
    /// file: name.
    pub file_dentry: u32,
    /// inode: type and mode.
    pub inode_mode: u32,
    /// inode: number.
    pub inode_number: u32,
    /// inode: file system.
    pub inode_super: u32,
    /// super_block: device.
    pub super_device: u32,
    /// dentry: parent.
    pub dentry_parent: u32,
    /// dentry: text of the name.
    pub dentry_name: u32,
    /// vfsmount: root of the mount.
    pub mount_root: u32,
    /// mount: the vfsmount in it.
    pub mount_inner: u32,
    /// mount: the mount it lies on.
    pub mount_parent: u32,
    /// mount: where it lies there.
    pub mount_point: u32,
    /// fs_struct: mount of the root.
    pub fs_mount: u32,
    /// fs_struct: the root.
    pub fs_dentry: u32,
    /// Numbers of the system calls that open; `u32::MAX` stands for none.
    pub calls: [u32; CALLS_MAX],
}

/// Key of what was told in this interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SeenKey {
    /// Control group.
    pub cgroup: u64,
    /// Number of the inode.
    pub inode: u64,
    /// Its device.
    pub device: u32,
    /// Whether it was opened for writing.
    pub write: u32,
}

/// A file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OpenEvent {
    /// Control group.
    pub cgroup: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at: u64,
    /// Process, in the daemon's pid namespace.
    pub tgid: u32,
    /// Whether it was opened for writing.
    pub write: u32,
    /// Bytes of `names` that are used.
    pub length: u32,
    /// Always 0.
    pub reserved: u32,
    /// The names on the path, the last one first, each closed by NUL. The record ends where they
    /// do.
    pub names: [u8; NAMES_BYTES],
    /// Room for one more name while the record is made.
    pub spare: [u8; NAME_BYTES],
}

crate::pod!(OpenOffsets, SeenKey, OpenEvent);

const _: () = {
    assert!(size_of::<OpenOffsets>() == 24 * 4 + CALLS_MAX * 4);
    assert!(size_of::<SeenKey>() == 24);
    assert!(core::mem::offset_of!(OpenEvent, names) == 32);
};
