//! What a bench found, as a table for people and as JSON for machines.

use std::fmt;

use serde_json::{Map, Value, json};

/// One number and the peer that gives it a meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// What was measured.
    pub name: &'static str,
    /// Ours, the median of all rounds.
    pub value: f64,
    /// The unit of `value`.
    pub unit: &'static str,
    /// Who was measured beside it.
    pub peer: &'static str,
    /// Ours divided by the peer's.
    pub ratio: f64,
    /// Distance of the quartiles of ours divided by its median: how much to trust it.
    pub spread: f64,
}

/// All metrics of one bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The bench's name.
    pub bench: &'static str,
    /// Its metrics, in the order they were measured.
    pub metrics: Vec<Metric>,
    /// What else it found, for the file alone; null for nothing.
    pub details: Value,
}

impl Report {
    /// `{bench: {metric: {value, unit, peer, ratio}}}`, and `details` beside the metrics.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut metrics: Map<String, Value> = self
            .metrics
            .iter()
            .map(|metric| {
                let fields = json!({
                    "value": metric.value,
                    "unit": metric.unit,
                    "peer": metric.peer,
                    "ratio": metric.ratio,
                });
                (metric.name.to_owned(), fields)
            })
            .collect();
        if !self.details.is_null() {
            metrics.insert("details".to_owned(), self.details.clone());
        }
        json!({ self.bench: metrics })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<24} {:>14} {:<8} {:>8} {:>8}  peer",
            "metric", "value", "unit", "ratio", "spread"
        )?;
        for metric in &self.metrics {
            write!(
                f,
                "\n{:<24} {:>14.1} {:<8} {:>8.3} {:>7.1}%  {}",
                metric.name,
                metric.value,
                metric.unit,
                metric.ratio,
                metric.spread * 100.0,
                metric.peer
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_documented_shape() {
        let metric = Metric {
            name: "seal_100B",
            value: 310.5,
            unit: "ns/call",
            peer: "ring",
            ratio: 1.25,
            spread: 0.02,
        };
        let report = Report {
            bench: "seal",
            metrics: vec![metric],
            details: Value::Null,
        };
        let expected = json!({"seal": {"seal_100B":
            {"value": 310.5, "unit": "ns/call", "peer": "ring", "ratio": 1.25}}});
        assert_eq!(report.to_json(), expected);
        assert!(report.to_string().contains("1.250"), "{report}");
    }
}
