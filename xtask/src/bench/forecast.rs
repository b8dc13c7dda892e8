//! Forecasts a day ahead and anomalies, over labelled series of real servers, each in one pass.
//!
//! The peers are the reading a day before, for forecasts, and a windowed Gaussian, for anomalies.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Metric, Outcome};
use crate::command::run as run_command;

/// Where series are looked for, from the project's folder on.
const FOLDER: &str = "../shared/data/nab";
/// Another folder.
const VARIABLE: &str = "SHADOWD_SERIES";
/// Shares of readings that an 80 % interval may hold.
const COVERAGE: [f64; 2] = [0.75, 0.88];

#[derive(Deserialize)]
struct Found {
    series: Vec<Series>,
    anomalies: std::collections::BTreeMap<String, Scored>,
}

#[derive(Deserialize)]
struct Series {
    name: String,
    readings: usize,
    mase: f64,
    within_80: f64,
    within_95: f64,
}

#[derive(Deserialize)]
struct Scored {
    score: f64,
    threshold: f64,
    found: usize,
    windows: usize,
    false_positives: usize,
}

/// Runs it and prints the table.
///
/// # Errors
/// There are no series, the program fails, or a bound is not kept.
pub fn run() -> Result<Outcome> {
    let folder = folder()?;
    run_command(Command::new("cargo").args([
        "build",
        "--release",
        "--package",
        "shadowd-tests",
        "--bin",
        "forecast",
    ]))?;
    let output = Command::new("target/release/forecast")
        .arg(&folder)
        .output()
        .context("cannot run target/release/forecast")?;
    ensure!(
        output.status.success(),
        "forecast failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let details: Value =
        serde_json::from_slice(&output.stdout).context("forecast wrote no JSON")?;
    let found: Found = serde_json::from_value(details.clone()).context("an unknown report")?;
    table(&found);
    let mut outcome = Outcome::from(metrics(&found)?);
    outcome.details = details;
    Ok(outcome)
}

fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os(VARIABLE).map_or_else(|| FOLDER.into(), PathBuf::from);
    if !folder.join("windows.json").is_file() {
        bail!(
            "{} has no series: name a folder with NAME.csv and windows.json in {VARIABLE}",
            folder.display()
        );
    }
    Ok(Path::new(&folder).to_owned())
}

fn mean(series: &[Series], of: fn(&Series) -> f64) -> f64 {
    series.iter().map(of).sum::<f64>() / series.len().max(1) as f64
}

fn table(found: &Found) {
    println!(
        "{:<40} {:>9} {:>7} {:>7} {:>7}",
        "a day ahead", "readings", "MASE", "80 %", "95 %"
    );
    let line = |name: &str, readings: usize, mase: f64, within: [f64; 2]| {
        let [within_80, within_95] = within.map(|share| share * 100.0);
        println!("{name:<40} {readings:>9} {mase:>7.3} {within_80:>7.1} {within_95:>7.1}");
    };
    for one in &found.series {
        line(
            &one.name,
            one.readings,
            one.mase,
            [one.within_80, one.within_95],
        );
    }
    let all = &found.series;
    let within = [
        mean(all, |one| one.within_80),
        mean(all, |one| one.within_95),
    ];
    let readings = all.iter().map(|one| one.readings).sum();
    line("mean", readings, mean(all, |one| one.mase), within);
    println!(
        "\n{:<40} {:>7} {:>9} {:>7} {:>16}",
        "anomalies", "score", "threshold", "found", "false positives"
    );
    for (name, one) in &found.anomalies {
        let windows = format!("{}/{}", one.found, one.windows);
        println!(
            "{name:<40} {:>7.1} {:>9.3} {windows:>7} {:>16}",
            one.score, one.threshold, one.false_positives
        );
    }
    println!();
}

fn metrics(found: &Found) -> Result<Vec<Metric>> {
    let score = |name: &str| -> Result<f64> {
        let scored = found
            .anomalies
            .get(name)
            .with_context(|| format!("no score of {name}"))?;
        Ok(scored.score)
    };
    let (mine, peer) = (
        score("shadowd")?,
        score("windowed Gaussian, best threshold")?,
    );
    let mase = mean(&found.series, |one| one.mase);
    let within = mean(&found.series, |one| one.within_80);
    let metric = |name, value, unit, peer, ratio| Metric {
        name,
        value,
        unit,
        peer,
        ratio,
        spread: 0.0,
    };
    let [low, high] = COVERAGE;
    let kept = if (low..=high).contains(&within) {
        "kept"
    } else {
        "MISSED"
    };
    println!("{kept:<8} 80 % intervals hold 75 to 88 % of the readings");
    let kept = if mase < 1.0 { "kept" } else { "MISSED" };
    println!("{kept:<8} the mean MASE is below 1");
    let kept = if mine > peer { "kept" } else { "MISSED" };
    println!("{kept:<8} anomalies are scored above the windowed Gaussian\n");
    Ok(vec![
        metric("mase", mase, "", "the reading a day before", mase),
        metric("within_80", within * 100.0, "%", "80 %", within / 0.8),
        metric(
            "anomalies",
            mine,
            "points",
            "windowed Gaussian",
            mine / peer,
        ),
    ])
}
