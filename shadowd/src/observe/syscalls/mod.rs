//! Reads the counts of system calls.
//!
//! The kernel side only counts up. Each tick reads what stands there, hands out the difference to
//! the reading before, and gives the slots of processes that are gone back to the kernel side.

mod table;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::include_bytes_aligned;
use aya::maps::{Array, HashMap, Map, MapData, MapError, Stack};
use shadowd_common::syscalls::{
    ErrorKey, NUMBER_NONE, ROWS_BYTES, SyscallKey, SyscallOffsets, SyscallRow, loss,
};

use self::table::Table;
use super::fields::{Field, field, resolve};
use super::files;
use super::limits::Limits;
use super::probes::{self, Attached, Feature, LoadError, Losses, Object, Prepared, reason};
use super::sys;
use crate::facts::Sample;

const FIELDS: &[Field<SyscallOffsets>] = &[
    field!("pt_regs", ["orig_ax"] | ["syscallno"], regs_number),
    field!("task_struct", ["group_leader"], task_leader),
    field!(
        "task_struct",
        ["start_boottime"] | ["real_start_time"],
        task_started
    ),
];

const SENTENCES: &[(u32, &str)] = &[
    (loss::SLOTS, "the table of system calls is full"),
    (
        loss::THREADS,
        "the table of threads in system calls is full",
    ),
];

/// Slots read at once; also more than there can be processors that are just taking one.
const CHUNK: usize = 1_024;

/// The probe and its maps.
pub struct SyscallProbe {
    object: Object,
    maps: Maps,
    losses: Losses,
    /// Slots there are.
    slots: u32,
    /// Slots from here on were never taken.
    used: u32,
    table: Table,
}

struct Maps {
    free: Map,
    slots: Map,
    owners: Map,
    rows: Map,
    errors: Map,
    /// What was read and handed out last, for a daemon that goes on with these maps.
    rows_read: Map,
    errors_read: Map,
    processors: u32,
}

impl SyscallProbe {
    /// Loads and attaches it, with the state of threads where this kernel can keep it best.
    ///
    /// # Errors
    ///
    /// When no object can be used at all.
    pub fn start(prepared: &Prepared, limits: Limits) -> Result<(Self, Attached), LoadError> {
        let in_task = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.bpf.o"));
        let in_table = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls_hash.bpf.o"));
        let load = |name, bytes, feature| Self::load(prepared, limits, name, bytes, feature);
        let refused = match load("syscalls", in_task, &probes::SYSCALLS) {
            Ok((probe, attached)) if attached.is_on() => return Ok((probe, attached)),
            Ok((probe, attached)) if attached.status.refused.is_empty() => {
                return Ok((probe, attached)); // switched off
            }
            Ok((_, attached)) => attached.status.degraded.unwrap_or_default(),
            Err(LoadError::Object(error)) => reason(&error),
            Err(error) => return Err(error),
        };
        let (probe, mut attached) = load("syscalls_hash", in_table, &probes::SYSCALLS_IN_TABLE)?;
        let refused = format!("state of threads in task storage: {refused}");
        if let Some(hook) = &mut attached.status.hook {
            hook.push_str(" (state of threads in a hash table)");
        }
        attached.status.refused.insert(0, refused);
        Ok((probe, attached))
    }

    fn load(
        prepared: &Prepared,
        limits: Limits,
        name: &'static str,
        bytes: &[u8],
        feature: &Feature,
    ) -> Result<(Self, Attached), LoadError> {
        let processors =
            aya::util::nr_cpus().map_err(|(_, source)| LoadError::Processors(source))?;
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        let slots = slots_for(processors, limits.syscalls);
        let offsets = offsets(prepared, slots)?;
        let sizes = [
            ("FREE", slots),
            ("SLOTS", slots),
            ("OWNERS", slots),
            ("ROWS", slots * processors),
            ("ROWS_READ", slots),
        ];
        let mut object = prepared.object(name, bytes, &offsets, &sizes)?;
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let mut maps = Maps {
            free: take("FREE")?,
            slots: take("SLOTS")?,
            owners: take("OWNERS")?,
            rows: take("ROWS")?,
            errors: take("ERRORS")?,
            rows_read: take("ROWS_READ")?,
            errors_read: take("ERRORS_READ")?,
            processors,
        };
        let losses = Losses::take(&mut object, SENTENCES)?;
        if !object.is_kept() {
            // The first one taken is 0, so that those in use lie close together.
            maps.give_back((0..slots).rev())?;
        }
        let attached = prepared.attach(&mut object, feature);
        object.settle();
        let mut probe = Self {
            object,
            maps,
            losses,
            slots,
            used: 0,
            table: Table::default(),
        };
        if probe.object.is_kept() {
            probe.go_on().map_err(LoadError::Kept)?;
        }
        Ok((probe, attached))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Begins where the daemon before this one ended.
    fn go_on(&mut self) -> io::Result<()> {
        self.find_owners()?;
        let mut rows = vec![SyscallRow::default(); self.used as usize];
        sys::read_array(descriptor(&self.maps.rows_read)?, 0, &mut rows)?;
        for (slot, row) in (0..).zip(&rows) {
            self.table.restore_row(slot, row);
        }
        let Self { maps, table, .. } = self;
        sys::look(
            descriptor(&maps.errors_read)?,
            |key: &ErrorKey, count: &u64| {
                table.restore_errors(*key, *count);
            },
        )
    }

    /// Adds what was counted since the last time to a sample. `gone` tells whether a control group
    /// is no more.
    ///
    /// # Errors
    ///
    /// The kernel's; what was not taken is in the next sample.
    pub fn drain(&mut self, sample: &mut Sample, gone: impl Fn(u64) -> bool) -> io::Result<()> {
        self.find_owners()?;
        // Who is dead now has made its last call: what is read below is all of it.
        let living = sample.processes.iter().map(|process| process.pid);
        let living: HashSet<u32> = living.collect();
        let dead = self.table.dead(|key| match key.tgid {
            0 => gone(key.cgroup),
            pid => !living.contains(&pid) && has_ended(pid),
        });
        // First the errors: none is ever handed out before its call.
        let Self { maps, table, .. } = self;
        sys::look(maps.errors()?, |key: &ErrorKey, count: &u64| {
            table.errors(*key, *count);
        })?;
        self.read_rows()?;
        let (rows, errors) = self.table.hand_out(&mut sample.syscalls);
        self.maps
            .remember(&rows, &errors)
            .map_err(io::Error::other)?;
        self.free(&dead)
    }

    /// Calls that found no place.
    pub fn lost(&mut self) -> u64 {
        self.losses.total()
    }

    /// Learns who owns the slots that were taken since the last time.
    fn find_owners(&mut self) -> io::Result<()> {
        let mut owners = vec![SyscallKey::default(); CHUNK];
        let mut first = 0;
        while first < self.slots {
            let length = CHUNK.min((self.slots - first) as usize);
            let owners = &mut owners[..length];
            sys::read_array(self.maps.owners()?, first, owners)?;
            let mut any = false;
            for (slot, owner) in (first..).zip(owners.iter()) {
                if owner.cgroup == 0 {
                    continue;
                }
                any = true;
                // The table of slots is asked because this key may be half written.
                if self.table.owner(slot) != Some(owner) && self.maps.slot(owner) == Some(slot) {
                    self.table.own(slot, *owner);
                }
            }
            first += length as u32;
            self.used = self.used.max(if any { first } else { 0 });
            if !any && first > self.used {
                break; // they are taken in order
            }
        }
        Ok(())
    }

    fn read_rows(&mut self) -> io::Result<()> {
        let mut rows = vec![SyscallRow::default(); CHUNK];
        let mut sums = vec![SyscallRow::default(); CHUNK];
        let mut first = 0;
        while first < self.used {
            let length = CHUNK.min((self.used - first) as usize);
            if self.table.owns_any(first, length) {
                let (rows, sums) = (&mut rows[..length], &mut sums[..length]);
                sums.fill(SyscallRow::default());
                for processor in 0..self.maps.processors {
                    sys::read_array(self.maps.rows()?, processor * self.slots + first, rows)?;
                    for (sum, row) in sums.iter_mut().zip(rows.iter()) {
                        table::add(sum, row);
                    }
                }
                for (slot, sum) in (first..).zip(sums.iter()) {
                    self.table.row(slot, sum);
                }
            }
            first += length as u32;
        }
        Ok(())
    }

    /// Gives the slots of the dead back. Their rows are left as they are: the last reading is
    /// where the next owner's counts begin.
    fn free(&mut self, dead: &[u32]) -> io::Result<()> {
        for slot in dead {
            let Some((owner, errors)) = self.table.forget(*slot) else {
                continue;
            };
            self.maps
                .forget(*slot, &owner, &errors)
                .map_err(io::Error::other)?;
        }
        self.maps
            .give_back(dead.iter().copied())
            .map_err(io::Error::other)
    }
}

/// What was not there needs no removal. The library has two errors for that.
fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        result => result,
    }
}

impl Maps {
    fn owners(&self) -> io::Result<BorrowedFd<'_>> {
        descriptor(&self.owners)
    }

    fn rows(&self) -> io::Result<BorrowedFd<'_>> {
        descriptor(&self.rows)
    }

    fn errors(&self) -> io::Result<BorrowedFd<'_>> {
        descriptor(&self.errors)
    }

    /// The slot of an owner.
    fn slot(&self, owner: &SyscallKey) -> Option<u32> {
        let slots = HashMap::<&MapData, SyscallKey, u32>::try_from(&self.slots).ok()?;
        slots.get(owner, 0).ok()
    }

    /// Removes all that the kernel side knows of a slot's owner.
    fn forget(&mut self, slot: u32, owner: &SyscallKey, errnos: &[u32]) -> Result<(), MapError> {
        for map in [&mut self.errors, &mut self.errors_read] {
            let mut errors = HashMap::<&mut MapData, ErrorKey, u64>::try_from(map)?;
            for errno in errnos {
                let errno = *errno;
                // None may have been handed out yet.
                removed(errors.remove(&ErrorKey { slot, errno }))?;
            }
        }
        let mut owners = Array::<&mut MapData, SyscallKey>::try_from(&mut self.owners)?;
        owners.set(slot, SyscallKey::default(), 0)?;
        let mut slots = HashMap::<&mut MapData, SyscallKey, u32>::try_from(&mut self.slots)?;
        removed(slots.remove(owner))
    }

    /// Notes what was read.
    fn remember(
        &mut self,
        rows: &[(u32, SyscallRow)],
        errors: &[(ErrorKey, u64)],
    ) -> Result<(), MapError> {
        let mut read = Array::<&mut MapData, SyscallRow>::try_from(&mut self.rows_read)?;
        for (slot, row) in rows {
            read.set(*slot, row, 0)?;
        }
        let mut read = HashMap::<&mut MapData, ErrorKey, u64>::try_from(&mut self.errors_read)?;
        for (key, count) in errors {
            read.insert(key, count, 0)?;
        }
        Ok(())
    }

    fn give_back(&mut self, slots: impl Iterator<Item = u32>) -> Result<(), MapError> {
        let mut free = Stack::<&mut MapData, u32>::try_from(&mut self.free)?;
        for slot in slots {
            free.push(slot, 0)?;
        }
        Ok(())
    }
}

fn descriptor(map: &Map) -> io::Result<BorrowedFd<'_>> {
    match map {
        Map::Array(data) | Map::HashMap(data) => Ok(data.fd().as_fd()),
        _ => Err(io::Error::other(
            "a map is of another type than it was built",
        )),
    }
}

/// As many slots as there is memory for.
fn slots_for(processors: u32, most: u32) -> u32 {
    const ROW: u32 = size_of::<SyscallRow>() as u32;
    let fit = ROWS_BYTES / ROW.saturating_mul(processors.max(1));
    most.min(fit).max(1)
}

fn offsets(prepared: &Prepared, slots: u32) -> Result<SyscallOffsets, LoadError> {
    let mut offsets = resolve(&prepared.btf, FIELDS)?;
    offsets.slots = slots;
    offsets.twice = u32::from(probes::preempts_programs());
    for (number, call) in [
        (&mut offsets.exit, libc::SYS_exit),
        (&mut offsets.exit_group, libc::SYS_exit_group),
        (&mut offsets.sigreturn, libc::SYS_rt_sigreturn),
        (&mut offsets.clone, libc::SYS_clone),
        (&mut offsets.clone3, libc::SYS_clone3),
        #[cfg(target_arch = "x86_64")]
        (&mut offsets.fork, libc::SYS_fork),
        #[cfg(target_arch = "x86_64")]
        (&mut offsets.vfork, libc::SYS_vfork),
    ] {
        *number = u32::try_from(call).unwrap_or(NUMBER_NONE);
    }
    for (number, _) in files::calls() {
        offsets.followed[number] = 1;
    }
    Ok(offsets)
}

/// Whether a process has ended and was waited for: only then no thread of it is left.
fn has_ended(pid: u32) -> bool {
    // An error is no proof.
    std::fs::exists(format!("/proc/{pid}")).is_ok_and(|exists| !exists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Histogram;
    use proptest::prelude::*;
    use shadowd_common::{BUCKETS, bucket, syscalls::SLOTS_MAX};

    #[test]
    fn what_is_not_there_is_removed_and_a_refusal_is_an_error() {
        let told = |errno| {
            Err(MapError::SyscallError(aya::sys::SyscallError {
                call: "bpf_map_delete_elem",
                io_error: io::Error::from_raw_os_error(errno),
            }))
        };
        assert!(removed(told(libc::ENOENT)).is_ok());
        assert!(removed(Err(MapError::KeyNotFound)).is_ok());
        assert!(removed(told(libc::EPERM)).is_err());
    }

    #[test]
    fn rows_stay_within_their_memory_whatever_the_processors() {
        for processors in [1, 2, 64, 4_096, 100_000, u32::MAX] {
            let slots = slots_for(processors, SLOTS_MAX);
            let bytes = u64::from(slots) * u64::from(processors) * 144;
            assert!(slots == 1 || bytes <= u64::from(ROWS_BYTES), "{processors}");
        }
        assert_eq!(slots_for(2, SLOTS_MAX), SLOTS_MAX);
    }

    #[test]
    fn a_process_that_runs_has_not_ended() {
        assert!(!has_ended(std::process::id()));
        assert!(has_ended(u32::MAX));
    }

    proptest! {
        #[test]
        fn the_kernel_side_has_the_buckets_of_the_histogram(nanos: u64, shift in 0_u32..64) {
            let nanos = nanos >> shift;
            prop_assert_eq!(bucket(nanos) as usize, Histogram::bucket(nanos));
            prop_assert_eq!(BUCKETS, Histogram::BUCKETS);
        }
    }
}
