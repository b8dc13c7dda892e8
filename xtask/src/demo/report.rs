//! Medians, bounds, and the two ways to show them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::scenario::{Run, Scenario};

/// IPv6 must recover within this of IPv4, in milliseconds.
const APART_MS: f64 = 20.0;

/// Every run of every scenario.
#[derive(Debug, Default)]
pub struct Results {
    runs: BTreeMap<Scenario, Vec<Run>>,
}

impl Results {
    /// Adds one run.
    pub fn add(&mut self, scenario: Scenario, run: Run) {
        self.runs.entry(scenario).or_default().push(run);
    }

    /// A table of medians.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<18}{:>5}{:>11}{:>11}{:>9}{:>10}{:>10}\n",
            "medians, ms", "runs", "IPv4 out", "IPv6 out", "bound", "detect", "promote"
        );
        for (scenario, runs) in &self.runs {
            let median = |field: fn(&Run) -> f64| median(runs.iter().map(field).collect());
            let _ = writeln!(
                text,
                "{:<18}{:>5}{:>11.1}{:>11.1}{:>9.0}{:>10.1}{:>10.1}",
                scenario.name(),
                runs.len(),
                median(|run| run.outage_ms_v4),
                median(|run| run.outage_ms_v6),
                scenario.bound_ms(),
                median(|run| run.detect_ms),
                median(|run| run.promote_ms),
            );
        }
        text
    }

    /// Medians and single runs, by scenario.
    pub fn json(&self) -> Value {
        let scenarios = self.runs.iter().map(|(scenario, runs)| {
            let median = |field: fn(&Run) -> f64| median(runs.iter().map(field).collect());
            let value = json!({
                "outage_ms_v4": median(|run| run.outage_ms_v4),
                "outage_ms_v6": median(|run| run.outage_ms_v6),
                "detect_ms": median(|run| run.detect_ms),
                "promote_ms": median(|run| run.promote_ms),
                "new_active": runs.last().map(|run| run.new_active.as_str()),
                "runs": runs,
            });
            (scenario.name().to_owned(), value)
        });
        Value::Object(scenarios.collect())
    }

    /// A sentence for each bound that is broken.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (scenario, runs) in &self.runs {
            let v4 = median(runs.iter().map(|run| run.outage_ms_v4).collect());
            let v6 = median(runs.iter().map(|run| run.outage_ms_v6).collect());
            let (name, bound) = (scenario.name(), scenario.bound_ms());
            for (family, outage) in [("IPv4", v4), ("IPv6", v6)] {
                // The comparison is so written that NaN breaks the bound.
                if !matches!(outage.partial_cmp(&bound), Some(o) if o.is_le()) {
                    broken.push(format!(
                        "BROKEN {name}: median {family} outage {outage:.1} ms, bound {bound} ms"
                    ));
                }
            }
            if (v6 - v4).abs() > APART_MS {
                broken.push(format!(
                    "BROKEN {name}: IPv6 {v6:.1} ms and IPv4 {v4:.1} ms are more than \
                     {APART_MS} ms apart"
                ));
            }
        }
        broken
    }
}

/// The median; of an even number the mean of the middle two; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => (values[middle - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(v4: f64, v6: f64) -> Run {
        Run {
            outage_ms_v4: v4,
            outage_ms_v6: v6,
            client_stall_ms: 2.0,
            detect_ms: 30.0,
            promote_ms: 1.0,
            new_active: "b".into(),
        }
    }

    #[test]
    fn a_median_outage_over_its_bound_is_named() {
        let mut results = Results::default();
        for outage in [10.0, 500.0, 19.0] {
            results.add(Scenario::PlannedHandover, run(outage, outage));
        }
        assert_eq!(results.broken(), Vec::<String>::new());
        results.add(Scenario::PlannedHandover, run(22.0, 50.0));
        let broken = results.broken();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(
            broken[0].contains("planned_handover") && broken[0].contains("20.5"),
            "{broken:?}"
        );
        assert_eq!(
            results.json()["planned_handover"]["runs"][1]["outage_ms_v4"],
            500.0
        );
    }

    #[test]
    fn ipv6_far_from_ipv4_is_named_although_both_are_within_the_bound() {
        let mut results = Results::default();
        results.add(Scenario::HostCrash, run(20.0, 45.0));
        assert!(results.broken()[0].contains("apart"));
    }
}
