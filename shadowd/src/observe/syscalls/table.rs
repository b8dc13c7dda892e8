//! What was read of the kernel side's counters so far, and what is new since.
//!
//! Pure: it is fed readings, in any order and as often as one likes. Whatever was counted is
//! handed out once.

use std::collections::{BTreeMap, HashMap};

use shadowd_common::syscalls::{ErrorKey, SyscallKey, SyscallRow};

use crate::facts::{Histogram, SyscallCounts, SyscallDelta};

/// Readings of rows by slot, and of counts of errors.
pub type Readings = (Vec<(u32, SyscallRow)>, Vec<(ErrorKey, u64)>);

/// The slots that were ever used.
#[derive(Default)]
pub struct Table {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    /// Nobody's: its rows stand still.
    owner: Option<SyscallKey>,
    /// The last reading; it stays when the owner goes.
    last: SyscallRow,
    /// The last reading of each errno.
    errors: BTreeMap<u32, u64>,
    /// Not handed out yet; most slots stand still, and they are many.
    fresh: Option<Box<SyscallCounts>>,
    /// The errnos among these.
    changed: Vec<u32>,
}

impl Table {
    /// A slot's owner.
    pub fn owner(&self, slot: u32) -> Option<&SyscallKey> {
        self.slots.get(slot as usize)?.owner.as_ref()
    }

    /// Whether any of `length` slots from `first` on has an owner.
    pub fn owns_any(&self, first: u32, length: usize) -> bool {
        let slots = self.slots.iter().skip(first as usize).take(length);
        slots.into_iter().any(|slot| slot.owner.is_some())
    }

    /// A slot has a new owner.
    pub fn own(&mut self, slot: u32, owner: SyscallKey) {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        self.slots[index].owner = Some(owner);
    }

    /// What a daemon before this one read last of a row.
    pub fn restore_row(&mut self, slot: u32, row: &SyscallRow) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.last = *row;
        }
    }

    /// What a daemon before this one read last of a count of errors.
    pub fn restore_errors(&mut self, key: ErrorKey, count: u64) {
        if let Some(slot) = self.slots.get_mut(key.slot as usize) {
            slot.errors.insert(key.errno, count);
        }
    }

    /// Takes a reading of a row, all processors together. Rows of nobody wait: who took the slot
    /// just now is known at the next reading.
    pub fn row(&mut self, slot: u32, row: &SyscallRow) {
        let Some(slot) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if slot.owner.is_none() {
            return;
        }
        let last = std::mem::replace(&mut slot.last, *row);
        if last == *row {
            return;
        }
        let times = Histogram::from_counts(
            (row.times.iter().zip(last.times)).map(|(now, then)| u64::from(now.wrapping_sub(then))),
        );
        let untimed = row.untimed.wrapping_sub(last.untimed);
        let unknown = row.errors.wrapping_sub(last.errors);
        slot.fresh.get_or_insert_default().add(&SyscallCounts {
            calls: times.count() + u64::from(untimed),
            errors: counted(0, u64::from(unknown)),
            total_ns: row.total_ns.wrapping_sub(last.total_ns),
            latency: times,
        });
    }

    /// Takes a reading of a count of errors.
    pub fn errors(&mut self, key: ErrorKey, count: u64) {
        let Some(slot) = self.slots.get_mut(key.slot as usize) else {
            return;
        };
        if slot.owner.is_none() {
            return;
        }
        let last = slot.errors.insert(key.errno, count).unwrap_or(0);
        if count == last {
            return;
        }
        slot.changed.push(key.errno);
        let errno = u16::try_from(key.errno).unwrap_or(0);
        slot.fresh.get_or_insert_default().add(&SyscallCounts {
            errors: counted(errno, count.saturating_sub(last)),
            ..SyscallCounts::default()
        });
    }

    /// Adds what is new to `deltas`; returns the readings up to which all is handed out now.
    pub fn hand_out(&mut self, deltas: &mut Vec<SyscallDelta>) -> Readings {
        let mut readings = Readings::default();
        for (index, slot) in (0_u32..).zip(&mut self.slots) {
            let Some(owner) = slot.owner else { continue };
            // An error that is ahead of its call waits for it.
            let Some(fresh) = slot.fresh.take_if(|fresh| fresh.calls > 0) else {
                continue;
            };
            deltas.push(SyscallDelta {
                pid: owner.tgid,
                cgroup: owner.cgroup,
                number: owner.number,
                counts: *fresh,
            });
            readings.0.push((index, slot.last));
            for errno in slot.changed.drain(..) {
                let count = slot.errors.get(&errno).copied().unwrap_or(0);
                readings.1.push((ErrorKey { slot: index, errno }, count));
            }
        }
        readings
    }

    /// The slots whose owners are dead: those that `ended` says, and those whose pid is another
    /// process's by now. `ended` is asked once for each process and control group.
    pub fn dead(&self, ended: impl Fn(&SyscallKey) -> bool) -> Vec<u32> {
        let owned = || {
            (0_u32..)
                .zip(&self.slots)
                .filter_map(|(index, slot)| Some((index, slot.owner?)))
        };
        let mut newest: HashMap<u32, u64> = HashMap::new();
        for (_, owner) in owned() {
            let started = newest.entry(owner.tgid).or_default();
            *started = owner.started.max(*started);
        }
        let mut known: HashMap<(u32, u64), bool> = HashMap::new();
        owned()
            .filter(|(_, owner)| {
                let older = newest
                    .get(&owner.tgid)
                    .is_some_and(|at| owner.started < *at);
                let group = if owner.tgid == 0 { owner.cgroup } else { 0 };
                older
                    || *known
                        .entry((owner.tgid, group))
                        .or_insert_with(|| ended(owner))
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// A slot is nobody's from now on; returns who had it and the errnos that are counted for it.
    pub fn forget(&mut self, slot: u32) -> Option<(SyscallKey, Vec<u32>)> {
        let slot = self.slots.get_mut(slot as usize)?;
        let owner = slot.owner.take()?;
        slot.fresh = None;
        slot.changed = Vec::new();
        let errnos = std::mem::take(&mut slot.errors).into_keys().collect();
        Some((owner, errnos))
    }
}

fn counted(errno: u16, count: u64) -> BTreeMap<u16, u64> {
    (count > 0).then_some((errno, count)).into_iter().collect()
}

/// Adds a processor's row; the small counters wrap around as they do in the kernel.
pub fn add(sum: &mut SyscallRow, row: &SyscallRow) {
    sum.total_ns = sum.total_ns.wrapping_add(row.total_ns);
    sum.untimed = sum.untimed.wrapping_add(row.untimed);
    sum.errors = sum.errors.wrapping_add(row.errors);
    for (sum, count) in sum.times.iter_mut().zip(row.times) {
        *sum = sum.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shadowd_common::BUCKETS;

    fn owner(tgid: u32, started: u64) -> SyscallKey {
        SyscallKey {
            cgroup: 1,
            started,
            tgid,
            number: 39,
        }
    }

    fn all(deltas: &[SyscallDelta]) -> SyscallCounts {
        let mut sum = SyscallCounts::default();
        for delta in deltas {
            sum.add(&delta.counts);
        }
        sum
    }

    proptest! {
        /// Counters start anywhere, also just before they wrap; two processors count.
        #[test]
        fn what_is_counted_is_handed_out_once(
            start: u32,
            steps in prop::collection::vec(
                (0..2_usize, 0..BUCKETS, 1_u32..2_000_000_000, any::<bool>()), 0..40),
        ) {
            let mut rows = [SyscallRow { times: [start; BUCKETS], untimed: start, ..SyscallRow::default() }; 2];
            let mut table = Table::default();
            let mut deltas = Vec::new();
            table.own(3, owner(7, 1));
            let read = |rows: &[SyscallRow; 2]| {
                let mut sum = SyscallRow::default();
                rows.iter().for_each(|row| add(&mut sum, row));
                sum
            };
            table.row(3, &read(&rows));
            deltas.clear();
            table.hand_out(&mut Vec::new());
            let (mut calls, mut nanos) = (0_u64, 0_u64);
            for (processor, bucket, count, look) in steps {
                let row = &mut rows[processor];
                row.times[bucket] = row.times[bucket].wrapping_add(count);
                row.untimed = row.untimed.wrapping_add(1);
                row.total_ns = row.total_ns.wrapping_add(u64::from(count) << bucket);
                calls += u64::from(count) + 1;
                nanos = nanos.wrapping_add(u64::from(count) << bucket);
                // A bucket may not wrap twice between two readings: 2^32 calls.
                if look || count > 1_000_000_000 {
                    table.row(3, &read(&rows));
                    table.row(3, &read(&rows));
                    table.hand_out(&mut deltas);
                } else {
                    table.row(3, &read(&rows));
                }
            }
            table.hand_out(&mut deltas);
            let sum = all(&deltas);
            prop_assert_eq!(sum.calls, calls);
            prop_assert_eq!(sum.total_ns, nanos);
        }
    }

    #[test]
    fn a_slot_that_changes_hands_begins_at_the_last_reading() {
        let mut table = Table::default();
        let mut row = SyscallRow::default();
        table.own(0, owner(7, 1));
        row.times[2] = 5;
        table.row(0, &row);
        let mut deltas = Vec::new();
        table.hand_out(&mut deltas);
        assert_eq!(table.forget(0), Some((owner(7, 1), vec![])));
        // Read while nobody is known to own it: kept for whoever it turns out to be.
        row.times[2] = 6;
        table.row(0, &row);
        table.own(0, owner(8, 2));
        row.times[2] = 7;
        table.row(0, &row);
        table.hand_out(&mut deltas);
        let counts: Vec<_> = deltas
            .iter()
            .map(|one| (one.pid, one.counts.calls))
            .collect();
        assert_eq!(counts, [(7, 5), (8, 2)]);
    }

    #[test]
    fn errors_keep_their_errno_and_wait_for_their_call() {
        let mut table = Table::default();
        table.own(0, owner(7, 1));
        let mut deltas = Vec::new();
        table.errors(ErrorKey { slot: 0, errno: 2 }, 4);
        table.hand_out(&mut deltas);
        assert_eq!(deltas, []);
        let row = SyscallRow {
            untimed: 9,
            errors: 1,
            ..SyscallRow::default()
        };
        table.row(0, &row);
        table.errors(ErrorKey { slot: 0, errno: 2 }, 6);
        table.hand_out(&mut deltas);
        assert_eq!(all(&deltas).errors, [(0, 1), (2, 6)].into());
        assert_eq!(table.forget(0), Some((owner(7, 1), vec![2])));
    }

    #[test]
    fn the_dead_are_those_that_ended_and_those_whose_pid_is_used_again() {
        let mut table = Table::default();
        for (slot, key) in [owner(7, 1), owner(8, 1), owner(9, 5), owner(9, 6)]
            .into_iter()
            .enumerate()
        {
            table.own(slot as u32, key);
        }
        assert_eq!(table.dead(|key| key.tgid == 8), [1, 2]);
    }
}
