//! Readings of control groups -> what the group of each unit used in the interval.
//!
//! A group counts for itself and for all groups below it. So processor time and context switches
//! are taken from groups that have no other unit below them; for slices and for managers of users
//! the sum of their own processes stands. Memory and pressure are the whole group's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::share;
use super::units::unit_name;
use crate::facts::{GroupReading, Pressure, Resources};

/// What the group of one unit used in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupUse {
    pub cpu: Option<Duration>,
    pub context_switches: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub oom_kills: u64,
    pub cpu_pressure: Option<f64>,
    pub memory_pressure: Option<f64>,
    pub io_pressure: Option<f64>,
}

/// The last reading of every group, and what came since the one before.
#[derive(Debug, Default)]
pub struct Groups {
    /// By path: the group's id and its reading. As many as the sample has.
    last: HashMap<String, (u64, Resources)>,
    uses: HashMap<Arc<str>, GroupUse>,
}

impl Groups {
    /// Units that have a group now.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.uses.keys().cloned().collect()
    }

    pub fn of(&self, unit: &str) -> Option<&GroupUse> {
        self.uses.get(unit)
    }

    /// Takes the readings of a sample; `first` says that there was none before it.
    pub fn read(&mut self, readings: &[GroupReading], interval: Duration, first: bool) {
        self.uses.clear();
        let mut last = HashMap::with_capacity(readings.len());
        let mut sorted: Vec<&GroupReading> = readings.iter().collect();
        // A group stands right before all that is below it.
        sorted.sort_unstable_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        // The groups around the one that is looked at, and their units.
        let mut above: Vec<(&str, Arc<str>)> = Vec::new();
        for (index, reading) in sorted.iter().enumerate() {
            let now = reading.resources;
            let before = match self.last.get(&reading.path) {
                Some((id, before)) if *id == reading.cgroup => *before,
                // It was made since the sample before, so all of it is this interval's.
                _ if !first => Resources::default(),
                _ => now,
            };
            last.insert(reading.path.clone(), (reading.cgroup, now));
            let unit = unit_name(&reading.path);
            let below = |other: &&&GroupReading| is_below(&other.path, &reading.path);
            let has_units_below = sorted[index + 1..]
                .iter()
                .take_while(below)
                .any(|other| unit_name(&other.path) != unit);
            above.retain(|(path, _)| is_below(&reading.path, path));
            let is_inner = above.last().is_some_and(|(_, outer)| *outer == unit);
            above.push((&reading.path, Arc::clone(&unit)));
            if is_inner {
                continue; // its unit's outer group has counted it
            }
            let whole = use_of(before, now, interval);
            let own = !has_units_below && !unit.ends_with(".slice");
            let use_ = GroupUse {
                cpu: whole.cpu.filter(|_| own),
                context_switches: whole.context_switches.filter(|_| own),
                oom_kills: if own { whole.oom_kills } else { 0 },
                ..whole
            };
            self.uses.entry(unit).or_insert(use_);
        }
        self.last = last;
    }
}

fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

fn use_of(before: Resources, now: Resources, interval: Duration) -> GroupUse {
    let since =
        |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before.unwrap_or(0)));
    GroupUse {
        cpu: since(now.cpu_ns, before.cpu_ns).map(Duration::from_nanos),
        context_switches: since(now.context_switches, before.context_switches),
        memory_bytes: now.memory_bytes,
        oom_kills: since(now.oom_kills, before.oom_kills).unwrap_or(0),
        cpu_pressure: pressure(before.cpu_pressure, now.cpu_pressure, interval),
        memory_pressure: pressure(before.memory_pressure, now.memory_pressure, interval),
        io_pressure: pressure(before.io_pressure, now.io_pressure, interval),
    }
}

/// Share of the interval in which some task waited.
pub fn pressure(
    before: Option<Pressure>,
    now: Option<Pressure>,
    interval: Duration,
) -> Option<f64> {
    let waited = now?
        .some_ns
        .saturating_sub(before.unwrap_or_default().some_ns);
    // PSI is summed up every two seconds, so a short interval may be told more than itself.
    Some(share(Duration::from_nanos(waited), interval).min(1.0))
}
