//! Everything that was measured, and the bounds it is held against.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::case::Case;
use super::figures::Figures;
use super::run::{Endured, Run};
use super::system::System;
use crate::bench::Metric;

/// Runs and stretches of both systems, by case.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// What has an outage.
    pub runs: BTreeMap<Case, BTreeMap<System, Vec<Run>>>,
    /// What has none, unless a system makes one.
    pub endured: BTreeMap<Case, BTreeMap<System, Vec<Endured>>>,
    /// Runs that gave no result, and why.
    pub lost: Vec<Lost>,
}

/// A run without a result.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// What was done.
    pub case: Case,
    /// To whom.
    pub system: System,
    /// What went wrong.
    pub why: String,
    /// The newest events of each member; shadowd only.
    pub events: Vec<Value>,
}

/// A bound, and whether it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// What is bound, and by what.
    pub what: String,
    /// What was measured.
    pub value: String,
    /// Whether it is kept.
    pub kept: bool,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.kept { "kept" } else { "NOT KEPT" };
        write!(f, "{:<9} {:<62} {}", word, self.what, self.value)
    }
}

impl Results {
    /// Adds a run.
    pub fn add_run(&mut self, case: Case, system: System, run: Run) {
        let systems = self.runs.entry(case).or_default();
        systems.entry(system).or_default().push(run);
    }

    /// Adds a stretch.
    pub fn add_endured(&mut self, case: Case, system: System, endured: Endured) {
        let systems = self.endured.entry(case).or_default();
        systems.entry(system).or_default().push(endured);
    }

    /// The runs of one system in one case.
    pub fn runs_of(&self, case: Case, system: System) -> &[Run] {
        let systems = self.runs.get(&case);
        systems
            .and_then(|systems| systems.get(&system))
            .map_or(&[], Vec::as_slice)
    }

    /// One number of each run.
    pub fn figures(
        &self,
        case: Case,
        system: System,
        value: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Figures> {
        Figures::of(self.runs_of(case, system).iter().filter_map(value))
    }

    /// Outages at the IPv4 address, ours and the ratio to the peer's.
    pub fn metrics(&self) -> Vec<Metric> {
        let outage = |run: &Run| Some(run.outage_ms);
        let mut metrics = Vec::new();
        for case in Case::ALL {
            let (Some(names), Some(ours), Some(theirs)) = (
                case.metrics(),
                self.figures(case, System::Shadowd, outage),
                self.figures(case, System::Keepalived, outage),
            ) else {
                continue;
            };
            let pairs = [
                (ours.p50, theirs.p50),
                (ours.p99, theirs.p99),
                (ours.max, theirs.max),
            ];
            for (name, (value, peer)) in names.into_iter().zip(pairs) {
                metrics.push(Metric {
                    name,
                    value,
                    unit: "ms",
                    peer: System::Keepalived.name(),
                    ratio: value / peer,
                    spread: ours.quartiles / ours.p50,
                });
            }
        }
        metrics
    }

    /// Every single run.
    pub fn json(&self) -> Value {
        json!(self)
    }

    /// What shadowd is to keep, of what was measured.
    pub fn bounds(&self) -> Vec<Bound> {
        let mut bounds = Vec::new();
        let figures = |case, system| self.figures(case, system, |run| Some(run.outage_ms));
        let mut most = |what: String, value: f64, limit: f64| {
            bounds.push(Bound {
                what,
                value: format!("{value:.1}"),
                kept: value <= limit,
            });
        };
        if let Some(ours) = figures(Case::HostCrash, System::Shadowd) {
            if let Some(theirs) = figures(Case::HostCrash, System::Keepalived) {
                let limit = theirs.p50;
                let what = format!("host_crash: p50 at most keepalived's, {limit:.1} ms");
                most(what, ours.p50, limit);
            }
            most("host_crash: p99 at most 60 ms".to_owned(), ours.p99, 60.0);
        }
        if let Some(ours) = figures(Case::UnitDeath, System::Shadowd) {
            most("unit_death: p50 at most 15 ms".to_owned(), ours.p50, 15.0);
            most("unit_death: p99 at most 50 ms".to_owned(), ours.p99, 50.0);
        }
        if let Some(ours) = figures(Case::Handover, System::Shadowd) {
            let runs = self.runs_of(Case::Handover, System::Shadowd);
            most(
                "handover: outage p99 at most 20 ms".to_owned(),
                ours.p99,
                20.0,
            );
            let nowhere = Figures::of(runs.iter().map(|run| run.no_holder_ms));
            let nowhere = nowhere.map_or(f64::NAN, |nowhere| nowhere.p99);
            most(
                "handover: address nowhere, p99 at most 20 ms".to_owned(),
                nowhere,
                20.0,
            );
            let failed: u64 = runs.iter().map(|run| run.failed).sum();
            most(
                "handover: no failed connection".to_owned(),
                failed as f64,
                0.0,
            );
            let broken: u64 = runs.iter().map(|run| run.broken).sum();
            most(
                "handover: no broken held connection".to_owned(),
                broken as f64,
                0.0,
            );
        }
        for (case, systems) in &self.endured {
            for endured in systems.get(&System::Shadowd).into_iter() {
                let promotions: usize = endured.iter().map(|one| one.promotions.len()).sum();
                let minutes: f64 = endured.iter().map(|one| one.minutes).sum();
                let what = format!("{}: no false promotion in {minutes:.1} min", case.name());
                most(what, promotions as f64, 0.0);
            }
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(case: Case, theirs: &[f64], ours: &[f64]) -> Results {
        let mut results = Results::default();
        for (system, outages) in System::BOTH.into_iter().zip([theirs, ours]) {
            for outage in outages {
                results.add_run(case, system, Run::with_outage(*outage));
            }
        }
        results
    }

    fn kept(results: &Results) -> Vec<bool> {
        results.bounds().iter().map(|bound| bound.kept).collect()
    }

    #[test]
    fn ratios_are_ours_to_theirs() {
        let metrics = results(Case::UnitDeath, &[2000.0, 1000.0], &[10.0, 4.0]).metrics();
        let named: Vec<_> = metrics.iter().map(|one| (one.name, one.ratio)).collect();
        assert_eq!(
            named,
            [
                ("unit_death_p50", 0.004),
                ("unit_death_p99", 0.005),
                ("unit_death_max", 0.005)
            ]
        );
        assert!(results(Case::UnitDeath, &[], &[1.0]).metrics().is_empty());
    }

    #[test]
    fn a_bound_is_named_only_for_what_was_measured() {
        assert!(Results::default().bounds().is_empty());
        let slower = results(Case::HostCrash, &[29.0, 33.0], &[30.0, 61.0]);
        assert_eq!(kept(&slower), [false, false]);
        assert_eq!(kept(&results(Case::HostCrash, &[29.0], &[29.0])), [true; 2]);
        assert_eq!(
            kept(&results(Case::Handover, &[5.0], &[21.0])),
            [false, true, true, true]
        );
    }

    #[test]
    fn one_false_promotion_is_one_too_many() {
        let mut results = Results::default();
        let quiet = Endured {
            minutes: 2.5,
            promotions: Vec::new(),
            regains: 0,
            no_holder_ms: 0.0,
            two_holders_ms: 0.0,
            outage_ms: 4.0,
            connects: 1000,
            failed: 0,
            client_stall_ms: 2.0,
        };
        results.add_endured(Case::Loss, System::Shadowd, quiet.clone());
        assert_eq!(kept(&results), [true]);
        let promotions = vec![crate::bench::failover::watch::Gain {
            after_ms: 40.0,
            host: "b".to_owned(),
        }];
        results.add_endured(
            Case::Loss,
            System::Shadowd,
            Endured {
                promotions,
                ..quiet
            },
        );
        assert_eq!(kept(&results), [false]);
    }
}
