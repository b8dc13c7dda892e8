//! System calls: counts, times and errors by process, number and control group.
//!
//! A process's calls of one number in one control group have a **slot**: a row of counters for
//! each processor. Rows only ever count up; user space keeps what it read last and hands out the
//! difference. A slot is given away by the kernel side and taken back by user space, once its
//! process is gone and its last counts were read.

use crate::BUCKETS;

/// Most slots.
pub const SLOTS_MAX: u32 = 32_768;
/// Most bytes that all rows take together; with many processors there are fewer slots for it.
pub const ROWS_BYTES: u32 = 24 << 20;
/// Most slots' errors by errno; beyond, errors are counted without their errno.
pub const ERRORS_MAX: u32 = 16_384;
/// Most threads followed where the kernel has no storage in a task.
pub const THREADS_MAX: u32 = 16_384;

/// Numbers from here on are counted together, as [`NUMBER_OTHER`]: no kernel has that many calls,
/// and a program that invents numbers must not use up the slots.
pub const NUMBERS: u32 = 1_024;
/// Stands for all numbers that no call has.
pub const NUMBER_OTHER: u32 = u32::MAX - 1;
/// Numbers that [`SyscallOffsets::followed`] knows; all of interest are below, on every architecture.
pub const FOLLOWED: usize = 512;
/// No call: what a number in [`SyscallOffsets`] is that this architecture lacks.
pub const NUMBER_NONE: u32 = u32::MAX;

/// Entries of a thread's cache of slots; a power of two.
pub const CACHED: usize = 64;
/// Bits of a slot in an entry of that cache; its number stands above them.
pub const SLOT_BITS: u32 = 20;

/// Counters of loss of the `syscalls` objects, in calls.
pub mod loss {
    /// No slot was free.
    pub const SLOTS: u32 = 0;
    /// The thread could not be followed.
    pub const THREADS: u32 = 1;
}

/// Offsets in kernel structures, in bytes, and what else the programs need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallOffsets {
    /// pt_regs: number of the system call.
    pub regs_number: u32,
    /// task_struct: pointer to the first thread of the process.
    pub task_leader: u32,
    /// task_struct: when it started, after boot.
    pub task_started: u32,
    /// Slots; rows of one processor.
    pub slots: u32,
    /// Number of exit, which never returns.
    pub exit: u32,
    /// Number of exit_group, which never returns.
    pub exit_group: u32,
    /// Number of rt_sigreturn, whose result is the interrupted call's.
    pub sigreturn: u32,
    /// Number of clone: the child returns from it without having called it.
    pub clone: u32,
    /// Number of clone3.
    pub clone3: u32,
    /// Number of fork.
    pub fork: u32,
    /// Number of vfork.
    pub vfork: u32,
    /// 1 where each program has a second one after it, for what the first one misses.
    pub twice: u32,
    /// 1 for each number after whose success the program in `AFTER` is called.
    pub followed: [u8; FOLLOWED],
}

impl SyscallOffsets {
    /// Before user space has found anything out.
    pub const UNKNOWN: Self = Self {
        regs_number: 0,
        task_leader: 0,
        task_started: 0,
        slots: 0,
        exit: NUMBER_NONE,
        exit_group: NUMBER_NONE,
        sigreturn: NUMBER_NONE,
        clone: NUMBER_NONE,
        clone3: NUMBER_NONE,
        fork: NUMBER_NONE,
        vfork: NUMBER_NONE,
        twice: 0,
        followed: [0; FOLLOWED],
    };
}

impl Default for SyscallOffsets {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// Whose calls a slot counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct SyscallKey {
    /// Control group; 0 in the table of owners: nobody's.
    pub cgroup: u64,
    /// When the process started, ns after boot: a pid that is used again is another process.
    /// 0 together with `tgid` 0.
    pub started: u64,
    /// Process, in the daemon's pid namespace; 0 for all processes of a namespace nested in it.
    pub tgid: u32,
    /// Number of the call.
    pub number: u32,
}

/// What one processor counted for a slot. The small counters wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallRow {
    /// Time from entry to return, ns.
    pub total_ns: u64,
    /// Calls without a time: they never return, or nothing saw their entry.
    pub untimed: u32,
    /// Failed calls whose errno found no place.
    pub errors: u32,
    /// Calls by time, see [`crate::bucket`].
    pub times: [u32; BUCKETS],
}

/// Key of a count of failed calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ErrorKey {
    /// The slot.
    pub slot: u32,
    /// The errno.
    pub errno: u32,
}

/// `call` of a thread whose last entry or return the first of two programs has handled.
pub const HANDLED: u32 = u32::MAX;

/// What is kept for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Thread {
    /// When the call it is in was entered, CLOCK_MONOTONIC ns.
    pub entered: u64,
    /// Control group for which the fields below were found out; 0: none yet.
    pub cgroup: u64,
    /// [`SyscallKey::started`].
    pub started: u64,
    /// [`SyscallKey::tgid`].
    pub tgid: u32,
    /// Number of the call it is in, plus 1; 0: in none; [`HANDLED`].
    pub call: u32,
    /// 1: its calls are counted; 0: it belongs to another host.
    pub ours: u32,
    /// Moves between control groups, of any process, that it knows of; 0: none.
    pub moves: u32,
    /// Slots by number: `number << SLOT_BITS | slot + 1`; 0 is empty.
    pub slots: [u32; CACHED],
}

crate::pod!(SyscallOffsets, SyscallKey, SyscallRow, ErrorKey, Thread);

// A gap between fields would be uninitialised bytes in a map's key or value.
const _: () = {
    assert!(size_of::<SyscallKey>() == 24);
    assert!(size_of::<SyscallRow>() == 144);
    assert!(size_of::<Thread>() == 40 + 4 * CACHED);
    assert!(SLOTS_MAX < 1 << SLOT_BITS && NUMBERS <= 1 << (32 - SLOT_BITS));
    assert!(CACHED.is_power_of_two());
};
