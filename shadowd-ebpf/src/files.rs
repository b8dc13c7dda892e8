//! Counts reads, writes and opens of regular files by process.
//!
//! Called by the program that counts system calls, for those that may be about files; without it at
//! every return, where the number alone sends the others away. Whether a descriptor is a regular file is looked up
//! in the process's table. Not seen: mapped files, io_uring, and calls of 32-bit programs.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod after;
mod context;
mod descriptors;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::files::{FILES_MAX, FileKey, FileOffsets, FileValue, NUMBERS, kind, loss};

use crate::after::go_on;
use crate::context::{BPF_NOEXIST, current, lost, plus, read, setting};
use crate::descriptors::Table;

// include/uapi/linux/stat.h
const TYPE_MASK: u16 = 0o170_000;
const REGULAR: u16 = 0o100_000;

/// Written by user space before the load.
#[unsafe(no_mangle)]
static OFFSETS: FileOffsets = FileOffsets::UNKNOWN;

#[map]
static FILES: HashMap<FileKey, FileValue> = HashMap::with_max_entries(FILES_MAX, 0);

/// What user space has read of it; no program looks at it.
#[map]
static FILES_TOLD: HashMap<FileKey, FileValue> =
    HashMap::with_max_entries(FILES_MAX, BPF_F_NO_PREALLOC);

const NOTHING: FileValue = FileValue {
    reads: 0,
    read_bytes: 0,
    writes: 0,
    write_bytes: 0,
    opens: 0,
};

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn files(ctx: RawTracePointContext) -> i32 {
    let regs: u64 = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    let number: u64 = read(regs, setting!(OFFSETS, regs_number)).unwrap_or(u64::MAX);
    if let Some(kind) = kind_of(number, ret) {
        let _ = count(regs, ret as u64, kind);
        if kind == kind::OPEN {
            go_on(&ctx);
        }
    }
    0
}

/// What a call that succeeded did, if it is of interest.
#[inline(always)]
fn kind_of(number: u64, ret: i64) -> Option<u8> {
    let number = u64::from(number as u32);
    if number >= NUMBERS as u64 {
        return None;
    }
    // SAFETY: the pointer is to an element of a static; volatile, as for every setting.
    let kind = unsafe {
        (&raw const OFFSETS.kinds)
            .cast::<u8>()
            .add(number as usize)
            .read_volatile()
    };
    (kind != kind::NONE && ret >= 0).then_some(kind)
}

#[inline(always)]
fn count(regs: u64, ret: u64, kind: u8) -> Option<()> {
    let table = Table::current()?;
    let argument = |offset: u32| read::<u32>(regs, offset);
    let mut more = NOTHING;
    match kind {
        kind::OPEN => more.opens = u64::from(is_regular(&table, ret as u32)?),
        kind::READ => reads(
            &mut more,
            &table,
            argument(setting!(OFFSETS, regs_first))?,
            ret,
        ),
        kind::WRITE => writes(
            &mut more,
            &table,
            argument(setting!(OFFSETS, regs_first))?,
            ret,
        ),
        kind::SEND => {
            reads(
                &mut more,
                &table,
                argument(setting!(OFFSETS, regs_second))?,
                ret,
            );
            writes(
                &mut more,
                &table,
                argument(setting!(OFFSETS, regs_first))?,
                ret,
            );
        }
        _ => {
            reads(
                &mut more,
                &table,
                argument(setting!(OFFSETS, regs_first))?,
                ret,
            );
            writes(
                &mut more,
                &table,
                argument(setting!(OFFSETS, regs_third))?,
                ret,
            );
        }
    }
    add(&more)
}

/// Adds to the counts of the current process.
#[inline(always)]
fn add(more: &FileValue) -> Option<()> {
    let operations = more.reads + more.writes + more.opens;
    if operations == 0 {
        return None;
    }
    let who = current()?;
    let key = FileKey {
        cgroup: who.cgroup,
        tgid: who.tgid,
        reserved: 0,
    };
    let Some(value) = entry(&key) else {
        lost(loss::FILES, operations);
        return None;
    };
    // SAFETY: the verifier checked the pointer; the fields are aligned and only added to.
    unsafe {
        plus(&raw mut (*value).reads, more.reads);
        plus(&raw mut (*value).read_bytes, more.read_bytes);
        plus(&raw mut (*value).writes, more.writes);
        plus(&raw mut (*value).write_bytes, more.write_bytes);
        plus(&raw mut (*value).opens, more.opens);
    }
    Some(())
}

/// The counts of a process, made if there is room for them.
#[inline(always)]
fn entry(key: &FileKey) -> Option<*mut FileValue> {
    if let Some(value) = FILES.get_ptr_mut(key) {
        return Some(value);
    }
    // Another processor may be first: then its entry is used.
    let _ = FILES.insert(key, &NOTHING, BPF_NOEXIST);
    FILES.get_ptr_mut(key)
}

#[inline(always)]
fn reads(more: &mut FileValue, table: &Table, descriptor: u32, bytes: u64) {
    if is_regular(table, descriptor) == Some(true) {
        more.reads = 1;
        more.read_bytes = bytes;
    }
}

#[inline(always)]
fn writes(more: &mut FileValue, table: &Table, descriptor: u32, bytes: u64) {
    if is_regular(table, descriptor) == Some(true) {
        more.writes = 1;
        more.write_bytes = bytes;
    }
}

/// Whether a descriptor is a regular file.
#[inline(always)]
fn is_regular(table: &Table, descriptor: u32) -> Option<bool> {
    let file = table.file(descriptor)?;
    let inode: u64 = read(file, setting!(OFFSETS, file_inode))?;
    let mode: u16 = read(inode, setting!(OFFSETS, inode_mode))?;
    Some(mode & TYPE_MASK == REGULAR)
}
