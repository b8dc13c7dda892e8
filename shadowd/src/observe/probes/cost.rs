//! What the programs cost and what they miss: the kernel's own statistics.
//!
//! Those of time are switched on for a moment now and then.
//!
//! While they are on, every program of the whole host takes 50 to 75 ns longer, so a window is
//! short and seldom. Never sleeps: whoever waits anyway calls [`CostMeter::step`], which opens a
//! window, closes it at the first call after its time, or does nothing.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::sys::{Stats, enable_stats};

use super::{AGAIN, reason};
use crate::config::settings::CostMeasurement;
use crate::facts::{BootTime, ProbeStatus};
use crate::observe::sys::{self, Runs};

/// The statistics stay on for this long, or until the first step after it.
const WINDOW: Duration = Duration::from_millis(200);
/// From the start to the first window, and between windows of the start.
const FIRST: Duration = Duration::from_secs(2);
/// Between windows afterwards.
const EVERY: Duration = Duration::from_secs(60);
/// Windows of the start: one alone may meet a host that does nothing.
const FIRST_WINDOWS: u32 = 4;

/// One program that is measured.
struct Program {
    feature: String,
    name: &'static str,
    fd: OwnedFd,
}

/// What is known of one feature's programs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    /// Mean time of a run; none before the first run in a window.
    cost_ns: Option<f64>,
    /// Runs per second in the last window.
    runs_per_second: f64,
    /// What the feature told of per second around the last window; none when not known yet.
    told_per_second: Option<f64>,
    /// All runs in all windows, and their time, ns.
    total: Runs,
}

enum Phase {
    /// Until then nothing is measured.
    Waiting(BootTime),
    /// The statistics are on while the descriptor is open.
    Counting {
        stats: OwnedFd,
        since: BootTime,
        before: Vec<Runs>,
    },
    /// Nothing is measured any more.
    Done,
}

/// Up to so many runs for each thing told, the number of runs follows what is told.
const RUNS_FOR_ONE: f64 = 8.0;

/// Measures the programs of all features.
pub struct CostMeter {
    programs: Vec<Program>,
    phase: Phase,
    windows: u32,
    wanted: CostMeasurement,
    readings: BTreeMap<String, Reading>,
    refused: Option<String>,
}

impl CostMeter {
    /// A meter without programs; `now` is the start.
    pub fn new(wanted: CostMeasurement, now: BootTime) -> Self {
        Self {
            programs: Vec::new(),
            phase: match wanted {
                CostMeasurement::Off => Phase::Done,
                CostMeasurement::Start | CostMeasurement::Always => {
                    Phase::Waiting(now.after(FIRST))
                }
            },
            windows: 0,
            wanted,
            readings: BTreeMap::new(),
            refused: None,
        }
    }

    /// Measures these programs too, as the feature's.
    pub fn watch(&mut self, feature: &str, programs: Vec<(&'static str, OwnedFd)>) {
        let of_feature = |(name, fd)| Program {
            feature: feature.to_owned(),
            name,
            fd,
        };
        self.programs.extend(programs.into_iter().map(of_feature));
    }

    /// Whether it will open another window, for which it needs CAP_SYS_ADMIN.
    pub fn is_measuring(&self) -> bool {
        !matches!(self.phase, Phase::Done)
    }

    /// Whether the kernel answers about the programs; true when there are none.
    pub fn answers(&self) -> bool {
        self.read().is_ok()
    }

    /// How many runs of each feature's programs the kernel left out since the load. Each is at most
    /// one happening that is not counted. Of two programs at one tracepoint both would have to miss
    /// it: the second one's are told.
    pub fn missed(&self) -> Vec<(&str, u64)> {
        let missed = |program| sys::program_runs(program).map_or(0, |runs| runs.missed);
        let has_another = |program: &&Program| {
            let rest = |other: &Program| other.name.strip_suffix(AGAIN) == Some(program.name);
            (self.programs.iter()).any(|other| other.feature == program.feature && rest(other))
        };
        (self.programs.iter())
            .filter(|program| !has_another(program))
            .map(|program| (program.feature.as_str(), missed(program.fd.as_fd())))
            .filter(|(_, missed)| *missed > 0)
            .collect()
    }

    /// Opens or closes a window if it is time to.
    pub fn step(&mut self, now: BootTime) {
        match &self.phase {
            Phase::Waiting(due) if now >= *due => self.open(now),
            Phase::Counting { since, .. } if now.since(*since) >= WINDOW => self.close(now),
            Phase::Waiting(_) | Phase::Counting { .. } | Phase::Done => {}
        }
    }

    fn open(&mut self, now: BootTime) {
        if self.programs.is_empty() {
            self.phase = Phase::Done;
            return;
        }
        let opened = enable_stats(Stats::RunTime)
            .map_err(|error| reason(&error))
            .and_then(|stats| Ok((stats, self.read()?)));
        self.phase = match opened {
            Ok((stats, before)) => Phase::Counting {
                stats,
                since: now,
                before,
            },
            Err(why) => {
                self.refused = Some(why);
                Phase::Done
            }
        };
    }

    fn close(&mut self, now: BootTime) {
        let next = match self.wanted {
            CostMeasurement::Off => None,
            CostMeasurement::Start => (self.windows + 1 < FIRST_WINDOWS).then_some(FIRST),
            CostMeasurement::Always if self.windows + 1 < FIRST_WINDOWS => Some(FIRST),
            CostMeasurement::Always => Some(EVERY),
        };
        let phase = next.map_or(Phase::Done, |wait| Phase::Waiting(now.after(wait)));
        let Phase::Counting {
            stats,
            since,
            before,
        } = mem::replace(&mut self.phase, phase)
        else {
            return;
        };
        let after = self.read();
        drop(stats);
        self.windows += 1;
        match after {
            Ok(after) => self.learn(&before, &after, now.since(since)),
            Err(why) => self.refused = Some(why),
        }
    }

    fn read(&self) -> Result<Vec<Runs>, String> {
        self.programs
            .iter()
            .map(|program| sys::program_runs(program.fd.as_fd()))
            .collect::<Result<_, _>>()
            .map_err(|error| reason(&error))
    }

    fn learn(&mut self, before: &[Runs], after: &[Runs], window: Duration) {
        let mut by_feature = BTreeMap::<&str, Runs>::new();
        for ((program, before), after) in self.programs.iter().zip(before).zip(after) {
            let sum = by_feature.entry(&program.feature).or_default();
            sum.count += after.count.saturating_sub(before.count);
            sum.time_ns += after.time_ns.saturating_sub(before.time_ns);
        }
        for (feature, runs) in by_feature {
            let reading = self.readings.entry(feature.to_owned()).or_default();
            reading.learn(runs, window);
        }
    }

    /// Tells what each feature told of per second in the interval that has just ended.
    pub fn follow(&mut self, told_per_second: &BTreeMap<String, f64>) {
        for (feature, reading) in &mut self.readings {
            if reading.told_per_second.is_none() {
                reading.told_per_second = told_per_second.get(feature).copied();
            }
        }
    }

    /// Fills in what is known; `told_per_second` is of the last interval.
    pub fn fill(&self, status: &mut ProbeStatus, told_per_second: Option<f64>) {
        let Some(reading) = self.readings.get(&status.name) else {
            return;
        };
        let rate = reading.rate_at(told_per_second);
        status.cost_ns = reading.cost_ns;
        status.events_per_second = Some(rate);
        status.cpu_share = reading.cost_ns.map(|cost| cost * rate / 1e9);
    }

    /// When it is measured, or why it is not.
    pub fn describe(&self) -> String {
        if let Some(why) = &self.refused {
            return format!("not measured: {why}");
        }
        if self.programs.is_empty() {
            return "nothing to measure: no eBPF program runs".to_owned();
        }
        match self.wanted {
            CostMeasurement::Off => "not measured: switched off in the configuration".to_owned(),
            CostMeasurement::Start => {
                format!(
                    "in {} of {FIRST_WINDOWS} windows of {} ms after the start",
                    self.windows,
                    WINDOW.as_millis()
                )
            }
            CostMeasurement::Always => format!(
                "in {} windows of {} ms, one each {} s",
                self.windows,
                WINDOW.as_millis(),
                EVERY.as_secs()
            ),
        }
    }
}

impl Reading {
    fn learn(&mut self, runs: Runs, window: Duration) {
        self.total.count = self.total.count.saturating_add(runs.count);
        self.total.time_ns = self.total.time_ns.saturating_add(runs.time_ns);
        // A window without a run says nothing of what a run costs.
        if runs.count > 0 {
            self.cost_ns = Some(runs.time_ns as f64 / runs.count as f64);
        }
        self.runs_per_second = runs.count as f64 / window.as_secs_f64().max(f64::EPSILON);
        self.told_per_second = None;
    }

    /// Runs per second when the feature tells of so much: as in the window, in proportion. Where
    /// most runs tell nothing, they do not follow what is told: the window's rate stands.
    fn rate_at(&self, told_per_second: Option<f64>) -> f64 {
        let follows = |then: f64| then > 0.0 && self.runs_per_second <= RUNS_FOR_ONE * then;
        match (self.told_per_second, told_per_second) {
            (Some(then), Some(now)) if follows(then) => self.runs_per_second * now / then,
            _ => self.runs_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_tells_the_mean_time_and_the_rate() {
        let mut reading = Reading::default();
        let runs = Runs {
            count: 50,
            time_ns: 5_000,
            ..Runs::default()
        };
        reading.learn(runs, Duration::from_millis(250));
        assert_eq!(reading.cost_ns, Some(100.0));
        assert_eq!(reading.rate_at(None), 200.0);
        reading.told_per_second = Some(100.0);
        assert_eq!(reading.rate_at(Some(300.0)), 600.0, "twice what it tells");
        reading.told_per_second = Some(1.0);
        assert_eq!(
            reading.rate_at(Some(300.0)),
            200.0,
            "most runs tell nothing"
        );
        reading.learn(Runs::default(), WINDOW);
        assert_eq!(
            reading.cost_ns,
            Some(100.0),
            "a quiet window changes no cost"
        );
        assert_eq!(reading.rate_at(None), 0.0);
    }

    #[test]
    fn without_programs_or_when_off_nothing_is_opened_and_it_says_why() {
        let start = BootTime::from_nanos(0);
        let mut off = CostMeter::new(CostMeasurement::Off, start);
        assert!(!off.is_measuring());
        off.step(start.after(EVERY));
        let mut empty = CostMeter::new(CostMeasurement::Always, start);
        assert!(empty.is_measuring());
        empty.step(start.after(FIRST));
        assert!(!empty.is_measuring());
        assert!(empty.describe().starts_with("nothing to measure"));
    }
}
