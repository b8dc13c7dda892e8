//! Runs the forecaster and the anomaly detector over labelled series, each in one pass, and writes
//! how good they were as JSON: `forecast FOLDER`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shadowd::decide::anomaly::{ANOMALY, Surprise};
use shadowd::decide::forecast::{DAY, Forecaster};
use shadowd_tests::series::{Labelled, Scored, WindowedGaussian, best, read_all, score_at};

/// Forecasts count from the third day on: before that there is nothing to compare with.
const FIRST: usize = 2 * DAY;

/// How good the forecasts of a series were, a day ahead.
#[derive(Default)]
struct Forecasts {
    count: f64,
    absolute: f64,
    naive: f64,
    within_80: f64,
    within_95: f64,
}

fn forecasts(series: &Labelled) -> Forecasts {
    let mut forecaster = Forecaster::default();
    let mut sum = Forecasts::default();
    for (place, value) in series.values.iter().enumerate() {
        let slot = series.first_slot + place as u64;
        if let Some(said) = forecaster.said_of(slot).filter(|_| place >= FIRST) {
            let within = |[low, high]: [f64; 2]| f64::from(u8::from((low..=high).contains(value)));
            sum.count += 1.0;
            sum.absolute += (value - said.median).abs();
            sum.naive += (value - series.values[place - DAY]).abs();
            sum.within_80 += within(said.within_80);
            sum.within_95 += within(said.within_95);
        }
        forecaster.observe(slot, *value);
    }
    sum
}

fn surprises(series: &Labelled) -> Vec<f64> {
    let mut surprise = Surprise::default();
    series
        .values
        .iter()
        .map(|value| surprise.score(*value))
        .collect()
}

fn gaussian(series: &Labelled) -> Vec<f64> {
    let mut peer = WindowedGaussian::default();
    series
        .values
        .iter()
        .map(|value| peer.score(*value))
        .collect()
}

fn scored(scored: Scored) -> Value {
    json!({
        "score": scored.score,
        "threshold": scored.threshold,
        "found": scored.found,
        "windows": scored.windows,
        "false_positives": scored.false_positives,
    })
}

fn with_scores<'a>(all: &'a [Labelled], scores: &'a [Vec<f64>]) -> Vec<(&'a Labelled, &'a [f64])> {
    all.iter().zip(scores.iter().map(Vec::as_slice)).collect()
}

fn report(all: &[Labelled]) -> Value {
    let series = all.iter().map(|series| {
        let sum = forecasts(series);
        json!({
            "name": series.name,
            "readings": series.values.len(),
            "mase": sum.absolute / sum.naive,
            "within_80": sum.within_80 / sum.count,
            "within_95": sum.within_95 / sum.count,
        })
    });
    let series: Vec<Value> = series.collect();
    let mine: Vec<Vec<f64>> = all.iter().map(surprises).collect();
    let peer: Vec<Vec<f64>> = all.iter().map(gaussian).collect();
    let (mine, peer) = (with_scores(all, &mine), with_scores(all, &peer));
    json!({
        "series": series,
        "anomalies": {
            "shadowd": scored(score_at(&mine, ANOMALY)),
            "shadowd, best threshold": scored(best(&mine)),
            "windowed Gaussian, best threshold": scored(best(&peer)),
        },
    })
}

fn run() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: forecast FOLDER")?;
    let all = read_all(Path::new(&folder))?;
    println!("{}", serde_json::to_string_pretty(&report(&all))?);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
