//! Counts system calls, their times and their errors, wherever the state of a thread is kept.
//!
//! `sys_enter` notes number and time, `sys_exit` counts. What is looked up by process is looked up
//! once and kept with the thread: who it is, and the slot of each number it calls. So the usual
//! call asks no hash table, and nothing about a call under way can be evicted.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, Stack};
use shadowd_common::bucket;
use shadowd_common::syscalls::{
    CACHED, ERRORS_MAX, ErrorKey, FOLLOWED, HANDLED, NUMBER_OTHER, NUMBERS, SLOT_BITS, SLOTS_MAX,
    SyscallKey, SyscallOffsets, SyscallRow, Thread, loss,
};

use crate::context::{BPF_NOEXIST, current, lost, one_more, plus, read, setting};

/// Written by user space before the load.
#[unsafe(no_mangle)]
pub static OFFSETS: SyscallOffsets = SyscallOffsets::UNKNOWN;

/// The slots nobody has. User space fills it, and gives back what the dead leave.
#[map]
static FREE: Stack<u32> = Stack::with_max_entries(SLOTS_MAX, 0);

/// The slot of each owner.
#[map]
static SLOTS: HashMap<SyscallKey, u32> = HashMap::with_max_entries(SLOTS_MAX, 0);

/// The owner of each slot. A reader may see half of it: `SLOTS` has the last word.
#[map]
static OWNERS: Array<SyscallKey> = Array::with_max_entries(SLOTS_MAX, 0);

/// The rows: all slots of the first processor, then all of the next. Looking up an array takes no
/// call on any kernel, a per-CPU array only does so on new ones.
#[map]
static ROWS: Array<SyscallRow> = Array::with_max_entries(SLOTS_MAX, 0);

/// Failed calls.
#[map]
static ERRORS: HashMap<ErrorKey, u64> = HashMap::with_max_entries(ERRORS_MAX, 0);

/// What user space read last, for its successor: no program touches these two.
#[map]
static ROWS_READ: Array<SyscallRow> = Array::with_max_entries(SLOTS_MAX, 0);

/// The same of the failed calls.
#[map]
static ERRORS_READ: HashMap<ErrorKey, u64> = HashMap::with_max_entries(ERRORS_MAX, 0);

/// Goes up whenever a process is moved to another control group. A thread compares it with what it
/// knows: asking for the control group on each call would cost four times as much.
#[unsafe(no_mangle)]
static mut MOVES: u32 = 1;

/// Error codes end here (MAX_ERRNO, include/linux/err.h).
const MAX_ERRNO: i64 = 4095;

/// Where the state of threads is kept.
pub trait Threads {
    /// The current thread's, made if there is none; `None` when there is no room.
    fn current() -> Option<*mut Thread>;
}

/// Which of two programs at one tracepoint. Where a kernel can interrupt a program in its middle, it
/// leaves out the runs of that program on the same processor until the first one has ended: of all
/// tasks. The second program is then at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    First,
    /// Handles what the first one did not.
    Again,
}

/// `sys_enter(struct pt_regs *regs, long id)`
#[inline(always)]
pub fn entered<T: Threads>(id: i64, turn: Turn) {
    // Negative is no call: a tracer skipped it.
    if id < 0 {
        return;
    }
    let number = if id < i64::from(NUMBERS) {
        id as u32
    } else {
        NUMBER_OTHER
    };
    let leaves = number == setting!(OFFSETS, exit) || number == setting!(OFFSETS, exit_group);
    let Some(thread) = T::current() else {
        if leaves && turn == Turn::First && current().is_some() {
            lost(loss::THREADS, 1);
        }
        return; // any other call is counted when it returns
    };
    // SAFETY: the verifier checked the pointer; only this thread's calls use it.
    let call = unsafe { (*thread).call };
    if turn == Turn::Again && call == if leaves { HANDLED } else { number + 1 } {
        return;
    }
    if leaves {
        // SAFETY: as above.
        unsafe { (*thread).call = HANDLED };
        count(thread, number, None, 0);
        return;
    }
    // SAFETY: as above; plain helper call.
    unsafe {
        (*thread).call = number + 1;
        (*thread).entered = bpf_ktime_get_ns();
    }
}

/// `sys_exit(struct pt_regs *regs, long ret)`; the number of the call, if one returned.
#[inline(always)]
pub fn returned<T: Threads>(regs: u64, ret: i64, turn: Turn) -> Option<u32> {
    let Some(thread) = T::current() else {
        let number = unseen(regs, ret)?;
        if turn == Turn::Again {
            return None;
        }
        if current().is_some() {
            lost(loss::THREADS, 1);
        }
        return Some(number);
    };
    let twice = setting!(OFFSETS, twice) != 0;
    // SAFETY: the verifier checked the pointer; only this thread's calls use it.
    let call = unsafe { (*thread).call };
    if turn == Turn::Again && call == HANDLED {
        // SAFETY: as above.
        unsafe { (*thread).call = 0 };
        return None;
    }
    let after = if turn == Turn::First && twice {
        HANDLED
    } else {
        0
    };
    // Two ways, each to its end: older verifiers lose what is in a value that both would make.
    if call == 0 || call == HANDLED {
        let number = unseen(regs, ret)?;
        // SAFETY: as above.
        unsafe { (*thread).call = after };
        count(thread, number, None, ret);
        return Some(number);
    }
    // SAFETY: as above; plain helper call.
    let time = unsafe {
        (*thread).call = after;
        bpf_ktime_get_ns() - (*thread).entered
    };
    count(thread, call - 1, Some(time), ret);
    Some(call - 1)
}

/// The number of a call that returns and whose entry was not seen: it was entered before these
/// programs were attached, or seccomp refused it before the tracepoint.
#[inline(always)]
fn unseen(regs: u64, ret: i64) -> Option<u32> {
    let number: i32 = read(regs, setting!(OFFSETS, regs_number))?;
    if number < 0 {
        return None; // a signal's return, or a call that a tracer skipped
    }
    let number = number as u32;
    let forks = number == setting!(OFFSETS, clone)
        || number == setting!(OFFSETS, clone3)
        || number == setting!(OFFSETS, fork)
        || number == setting!(OFFSETS, vfork);
    if forks && ret == 0 {
        return None; // the child's first return: the call is its parent's
    }
    Some(if number < NUMBERS {
        number
    } else {
        NUMBER_OTHER
    })
}

/// Whether another program wants to see a call that returned.
#[inline(always)]
pub fn is_followed(number: u32, ret: i64) -> bool {
    if number as usize >= FOLLOWED || ret < 0 {
        return false;
    }
    // SAFETY: the pointer is to an element of a static; volatile, as for every setting.
    unsafe {
        (&raw const OFFSETS.followed)
            .cast::<u8>()
            .add(number as usize)
            .read_volatile()
            != 0
    }
}

/// `cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task,
/// bool threadgroup)`: a process or a thread was moved.
#[inline(always)]
pub fn moved() {
    let moves = &raw mut MOVES;
    // Two at once may count as one: who moved looks at its group either way, as the count differs.
    // SAFETY: the pointer is to a static.
    unsafe { moves.write_volatile(moves.read_volatile().wrapping_add(1)) };
}

#[inline(always)]
fn count(thread: *mut Thread, number: u32, time: Option<u64>, ret: i64) {
    // SAFETY: the pointer is to a static.
    let moves = unsafe { (&raw const MOVES).read_volatile() };
    // SAFETY: the verifier checked the pointer; only this thread's calls use it.
    if unsafe { (*thread).moves } != moves {
        identify(thread, moves);
    }
    // SAFETY: as above.
    if unsafe { (*thread).ours } == 0 {
        return;
    }
    let Some(slot) = slot_of(thread, number) else {
        lost(loss::SLOTS, 1);
        return;
    };
    let slots = setting!(OFFSETS, slots);
    // SAFETY: plain helper call.
    let index = unsafe { bpf_get_smp_processor_id() } * slots + slot;
    let Some(row) = ROWS.get_ptr_mut(index) else {
        lost(loss::SLOTS, 1);
        return;
    };
    // SAFETY: the verifier checked the pointer, and the index is within the array.
    unsafe {
        match time {
            // The row belongs to this processor, but for the two programs that may share it.
            Some(time) if setting!(OFFSETS, twice) != 0 => {
                plus(&raw mut (*row).total_ns, time);
                one_more(&raw mut (*row).times[(bucket(time) & 31) as usize]);
            }
            Some(time) => {
                (*row).total_ns += time;
                (*row).times[(bucket(time) & 31) as usize] += 1;
            }
            None => one_more(&raw mut (*row).untimed),
        }
    }
    if (-MAX_ERRNO..0).contains(&ret) && number != setting!(OFFSETS, sigreturn) {
        failed(slot, -ret as u32, row);
    }
}

/// Counts an error; errors are rare enough for a hash table.
#[inline(always)]
fn failed(slot: u32, errno: u32, row: *mut SyscallRow) {
    let key = ErrorKey { slot, errno };
    if ERRORS.get_ptr(&key).is_none() {
        // Fails when full, and when another processor was first: the lookup tells.
        let _ = ERRORS.insert(&key, &0, BPF_NOEXIST);
    }
    if let Some(errors) = ERRORS.get_ptr_mut(&key) {
        // SAFETY: the verifier checked the pointer.
        unsafe { plus(errors, 1) };
    } else {
        // SAFETY: as in `count`.
        unsafe { (*row).errors += 1 };
    }
}

/// Finds out who the thread is, when it is new and after it changed its control group.
#[inline(always)]
fn identify(thread: *mut Thread, moves: u32) {
    // SAFETY: plain helper call.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the verifier checked the pointer; only this thread's calls use it.
    let same = unsafe {
        (*thread).moves = moves;
        (*thread).cgroup == cgroup
    };
    if same {
        return; // another one was moved
    }
    let task = current();
    // SAFETY: as above.
    unsafe {
        (*thread).cgroup = cgroup;
        (*thread).ours = u32::from(task.is_some());
        (*thread).tgid = task.map_or(0, |task| task.tgid);
        (*thread).started = if (*thread).tgid == 0 { 0 } else { started() };
        (*thread).slots = [0; CACHED];
    }
}

/// When the current process started.
#[inline(always)]
fn started() -> u64 {
    // SAFETY: plain helper call.
    let task = unsafe { bpf_get_current_task() };
    read(task, setting!(OFFSETS, task_leader))
        .and_then(|leader| read(leader, setting!(OFFSETS, task_started)))
        .unwrap_or(0)
}

/// The slot of the thread's calls of a number.
#[inline(always)]
fn slot_of(thread: *mut Thread, number: u32) -> Option<u32> {
    let place = ((number ^ (number >> 6)) & (CACHED as u32 - 1)) as usize;
    // SAFETY: the verifier checked the pointer, and the index is below the length.
    let cached = unsafe { &raw mut (*thread).slots[place] };
    // SAFETY: as above.
    let entry = unsafe { *cached };
    if entry != 0 && entry >> SLOT_BITS == number {
        return Some((entry & ((1 << SLOT_BITS) - 1)) - 1);
    }
    // SAFETY: as above.
    let key = unsafe {
        SyscallKey {
            cgroup: (*thread).cgroup,
            started: (*thread).started,
            tgid: (*thread).tgid,
            number,
        }
    };
    let slot = match SLOTS.get_ptr(&key) {
        // SAFETY: the verifier checked the pointer.
        Some(slot) => unsafe { *slot },
        None => take(&key)?,
    };
    if number < NUMBERS {
        // SAFETY: as above.
        unsafe { *cached = number << SLOT_BITS | (slot + 1) };
    }
    Some(slot)
}

/// Takes a free slot for a new owner. Inlined: where programs of several functions call others in
/// their place, not every kernel takes them.
#[inline(always)]
fn take(key: &SyscallKey) -> Option<u32> {
    let slot = FREE.pop().ok()??;
    if SLOTS.insert(key, &slot, BPF_NOEXIST).is_ok() {
        let _ = OWNERS.set(slot, key, 0);
        return Some(slot);
    }
    // Another thread of the process was first. There is room for what was just taken.
    let _ = FREE.push(slot, 0);
    // SAFETY: the verifier checked the pointer.
    SLOTS.get_ptr(key).map(|slot| unsafe { *slot })
}
