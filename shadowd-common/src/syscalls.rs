//! System calls: counts by process, number and control group.

/// Most records between two drains.
pub const SYSCALLS_MAX: u32 = 16_384;

/// Counters of loss of the `syscalls` object.
pub mod loss {
    /// System calls that the full table refused.
    pub const SYSCALLS: u32 = 0;
}

/// Offsets in kernel structures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallOffsets {
    /// pt_regs: number of the system call.
    pub regs_number: u32,
}

/// Key of a count of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallKey {
    /// Control group.
    pub cgroup: u64,
    /// Process, in the daemon's pid namespace.
    pub tgid: u32,
    /// Number of the call.
    pub number: u32,
}

/// A count of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallValue {
    /// Calls that returned.
    pub calls: u64,
    /// Of these, with an error.
    pub errors: u64,
}

crate::pod!(SyscallOffsets, SyscallKey, SyscallValue);

// A gap between fields would be uninitialised bytes in a map's key.
const _: () = assert!(size_of::<SyscallKey>() == 16);
