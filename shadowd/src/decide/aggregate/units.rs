//! Units: what each did in the interval, and its totals, which never go back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::groups::Groups;
use super::recent::Recent;
use super::{FORGOTTEN, NOBODY, share, size};
use crate::decide::unit_names::unit_of;
use crate::facts::{UnitTotals, UnitUse};

#[derive(Debug, Default)]
struct Unit {
    total: UnitTotals,
    /// In this interval; processor time and context switches as its processes told.
    interval: UnitUse,
    cpu: Duration,
    switches: u64,
    /// Kills for want of memory that processes told of, that the group counted, and that were
    /// told on: two sources that count the same, at different times.
    killed: u64,
    group_killed: u64,
    told_killed: u64,
}

/// Every unit that is known.
#[derive(Debug)]
pub struct Units {
    known: Recent<Arc<str>, Unit>,
    /// Totals of units that had to make room.
    forgotten: UnitTotals,
}

/// The unit that the group at `path` belongs to, [`NOBODY`] for none.
pub fn unit_name(path: &str) -> Arc<str> {
    unit_of(path).map_or_else(|| NOBODY.into(), Into::into)
}

impl Units {
    pub fn new(limit: usize) -> Self {
        Self {
            known: Recent::new(limit),
            forgotten: UnitTotals::default(),
        }
    }

    /// Entries, entries at most, evicted.
    pub fn size(&self) -> (usize, usize, u64) {
        size(&self.known)
    }

    fn unit(&mut self, name: &Arc<str>) -> &mut Unit {
        let (unit, gone) = self.known.entry(name, Unit::default);
        if let Some((_, gone)) = gone {
            let mut total = gone.total;
            let cpu = u64::try_from(gone.cpu.as_nanos()).unwrap_or(u64::MAX);
            total.add_interval(cpu, &gone.interval);
            self.forgotten.add(&total);
        }
        unit
    }

    /// What `name` did in this interval, to add to.
    pub fn of(&mut self, name: &Arc<str>) -> &mut UnitUse {
        &mut self.unit(name).interval
    }

    /// A process of `name` used so much in this interval.
    pub fn used(&mut self, name: &Arc<str>, cpu: Duration, switches: u64) {
        let unit = self.unit(name);
        unit.cpu += cpu;
        unit.switches += switches;
    }

    /// A process of `name` was chosen to be killed for want of memory.
    pub fn killed(&mut self, name: &Arc<str>) {
        self.unit(name).killed += 1;
    }

    /// Ends the interval: every unit, by name, with what its control group tells.
    pub fn end(&mut self, groups: &mut Groups, interval: Duration) -> Vec<UnitUse> {
        for name in groups.names() {
            self.unit(&name);
        }
        let mut uses = Vec::with_capacity(self.known.len() + 1);
        self.known.change_while(|name, unit| {
            uses.push(unit.end(name, groups, interval));
            true
        });
        if self.forgotten != UnitTotals::default() {
            uses.push(UnitUse {
                unit: FORGOTTEN.to_owned(),
                total: self.forgotten.clone(),
                ..UnitUse::default()
            });
        }
        uses.sort_unstable_by(|a, b| a.unit.cmp(&b.unit));
        uses
    }

    pub fn totals(&self) -> BTreeMap<String, UnitTotals> {
        let known = self.known.iter();
        let mut totals: BTreeMap<String, UnitTotals> = known
            .map(|(name, unit)| (name.to_string(), unit.total.clone()))
            .collect();
        if self.forgotten != UnitTotals::default() {
            totals.insert(FORGOTTEN.to_owned(), self.forgotten.clone());
        }
        totals
    }

    /// Adds totals of an earlier life.
    pub fn restore(&mut self, totals: BTreeMap<String, UnitTotals>) {
        for (name, total) in totals {
            if name == FORGOTTEN {
                self.forgotten.add(&total);
            } else {
                self.unit(&name.into()).total.add(&total);
            }
        }
    }
}

impl Unit {
    fn end(&mut self, name: &str, groups: &Groups, interval: Duration) -> UnitUse {
        let mut use_ = std::mem::take(&mut self.interval);
        use_.unit = name.to_owned();
        let mut cpu = std::mem::take(&mut self.cpu);
        use_.context_switches = std::mem::take(&mut self.switches);
        if let Some(group) = groups.of(name) {
            // The group counts without rounding, and those that came and went too.
            cpu = group.cpu.unwrap_or(cpu);
            use_.context_switches = group.context_switches.unwrap_or(use_.context_switches);
            use_.memory_bytes = group.memory_bytes;
            use_.cpu_pressure = group.cpu_pressure;
            use_.memory_pressure = group.memory_pressure;
            use_.io_pressure = group.io_pressure;
            self.group_killed += group.oom_kills;
        }
        let killed = self.killed.max(self.group_killed);
        use_.oom_kills = killed.saturating_sub(self.told_killed);
        self.told_killed = killed;
        use_.cpu = share(cpu, interval);
        let cpu_ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        self.total.add_interval(cpu_ns, &use_);
        use_.total = self.total.clone();
        use_
    }
}
