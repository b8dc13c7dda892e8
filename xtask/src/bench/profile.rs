//! What learning, comparing and keeping profiles cost, by the number of a group's units.
//!
//! The peer is the group of five units: a cost for each unit that does not grow with their number is 1.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{Metric, Outcome};
use crate::command::{capture, run as run_command, target};

/// Units of a group, up to as many as a learner follows; the others are compared with the first.
const UNITS: [usize; 3] = [5, 50, 256];
const FEW: usize = UNITS[0];
const MIB: f64 = 1_048_576.0;

#[derive(Deserialize)]
struct Cost {
    units: usize,
    digest_us: f64,
    inventory_us: f64,
    compare_us: f64,
    owner_us_per_s: f64,
    shadow_us_per_s: f64,
    memory_bytes: f64,
    version_bytes: f64,
}

/// Runs it so many times and prints the table.
///
/// # Errors
/// The program does not build or fails.
pub fn run(rounds: u32) -> Result<Outcome> {
    let package = ["build", "--release", "--package", "shadowd-tests"];
    run_command(
        Command::new("cargo")
            .args(package)
            .args(["--bin", "profile-cost"]),
    )?;
    let program = target().join("release/profile-cost");
    let mut all = Vec::new();
    for _ in 0..rounds {
        for units in UNITS {
            let text = capture(Command::new(&program).arg(units.to_string()))?;
            let cost: Value = serde_json::from_str(&text).context("profile-cost wrote no JSON")?;
            all.push(cost);
        }
    }
    let details = Value::Array(all);
    let costs: Vec<Cost> = serde_json::from_value(details.clone()).context("an unknown report")?;
    println!("{}", table(&costs)?);
    let mut outcome = Outcome::from(metrics(&costs)?);
    outcome.details = details;
    Ok(outcome)
}

/// The median of all rounds with so many units.
fn median(costs: &[Cost], units: usize, of: fn(&Cost) -> f64) -> Result<f64> {
    let mut values: Vec<f64> = costs
        .iter()
        .filter(|cost| cost.units == units)
        .map(of)
        .collect();
    values.sort_by(f64::total_cmp);
    match values.get(values.len() / 2) {
        Some(median) => Ok(*median),
        None => bail!("nothing was measured with {units} units"),
    }
}

fn numbers(costs: &[Cost]) -> std::collections::BTreeSet<usize> {
    costs.iter().map(|cost| cost.units).collect()
}

fn table(costs: &[Cost]) -> Result<String> {
    let mut text = format!(
        "{:>6} {:>10} {:>12} {:>11} {:>12} {:>13} {:>10} {:>12}\n",
        "units",
        "digest us",
        "inventory us",
        "compare us",
        "owner ppm",
        "shadow ppm",
        "MiB",
        "version KiB"
    );
    for units in numbers(costs) {
        let of = |of| median(costs, units, of);
        text.push_str(&format!(
            "{units:>6} {:>10.0} {:>12.0} {:>11.0} {:>12.1} {:>13.1} {:>10.1} {:>12.1}\n",
            of(|cost| cost.digest_us)?,
            of(|cost| cost.inventory_us)?,
            of(|cost| cost.compare_us)?,
            of(|cost| cost.owner_us_per_s)?,
            of(|cost| cost.shadow_us_per_s)?,
            of(|cost| cost.memory_bytes)? / MIB,
            of(|cost| cost.version_bytes)? / 1_024.0,
        ));
    }
    text.push_str(
        "ppm: microseconds of a processor each second, without reading procfs, files and tools",
    );
    Ok(text)
}

/// Costs for each unit with the most units, against those with few.
fn metrics(costs: &[Cost]) -> Result<Vec<Metric>> {
    let many = numbers(costs).last().copied().unwrap_or(FEW);
    type Part = (&'static str, &'static str, fn(&Cost) -> f64);
    let parts: [Part; 4] = [
        ("owner_per_unit", "us/s", |cost| {
            cost.owner_us_per_s / cost.units as f64
        }),
        ("shadow_per_unit", "us/s", |cost| {
            cost.shadow_us_per_s / cost.units as f64
        }),
        ("memory_per_unit", "KiB", |cost| {
            cost.memory_bytes / cost.units as f64 / 1_024.0
        }),
        ("version_per_unit", "bytes", |cost| {
            cost.version_bytes / cost.units as f64
        }),
    ];
    let each = parts.map(|(name, unit, of)| {
        let (value, few) = (median(costs, many, of)?, median(costs, FEW, of)?);
        Ok(Metric {
            name,
            value,
            unit,
            peer: "5 units",
            ratio: value / few,
            spread: 0.0,
        })
    });
    each.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_grows_with_the_units_alone_is_the_same_for_each() {
        let cost = |units: usize, owner: f64| Cost {
            units,
            digest_us: 1.0,
            inventory_us: 1.0,
            compare_us: 1.0,
            owner_us_per_s: owner,
            shadow_us_per_s: owner,
            memory_bytes: owner * 1_024.0,
            version_bytes: owner,
        };
        let costs = [cost(5, 10.0), cost(256, 512.0), cost(5, 12.0), cost(5, 8.0)];
        let metrics = metrics(&costs).unwrap();
        assert_eq!((metrics[0].value, metrics[0].ratio), (2.0, 1.0));
        assert!(table(&costs).unwrap().contains("256"));
        assert!(super::metrics(&costs[1..2]).is_err(), "a peer is needed");
    }
}
