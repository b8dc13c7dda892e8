//! Reads series and their labels from files: `NAME.csv` with a time and a value each line, and
//! `windows.json` with begin and end of each anomaly by file name.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Seconds between two readings of every series.
const STEP_S: i64 = 300;

/// A series, one reading each five minutes.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The file's name without its ending.
    pub name: String,
    /// Number of the first reading's five minutes since the Unix epoch.
    pub first_slot: u64,
    /// The readings; a time that is missing has the reading before it.
    pub values: Vec<f64>,
    /// First and last reading of each labelled anomaly.
    pub windows: Vec<RangeInclusive<usize>>,
}

/// All series of a folder, by name.
///
/// # Errors
/// A file cannot be read or is not as described.
pub fn read_all(folder: &Path) -> Result<Vec<Labelled>> {
    let labels = folder.join("windows.json");
    let text = std::fs::read_to_string(&labels)
        .with_context(|| format!("cannot read {}", labels.display()))?;
    let windows: BTreeMap<String, Vec<[String; 2]>> =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", labels.display()))?;
    let mut all = Vec::new();
    for (file, windows) in windows {
        let path = folder.join(&file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let series = series(&file, &text, &windows);
        all.push(series.with_context(|| format!("{} is damaged", path.display()))?);
    }
    ensure!(!all.is_empty(), "{} names no series", labels.display());
    Ok(all)
}

fn series(file: &str, text: &str, windows: &[[String; 2]]) -> Result<Labelled> {
    let mut times = Vec::new();
    let mut values = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let Some((time, value)) = line.split_once(',') else {
            bail!("line {}: no comma", number + 1);
        };
        let value: f64 = value.trim().parse().context("a value is no number")?;
        times.push(seconds(time)?);
        values.push(value);
    }
    let first = *times.first().context("no readings")?;
    let place = |time: i64| times.partition_point(|at| *at < time);
    let windows = windows.iter().map(|[begin, end]| -> Result<_> {
        let (begin, end) = (place(seconds(begin)?), place(seconds(end)? + 1));
        ensure!(begin < end, "an anomaly without a reading");
        Ok(begin..=end - 1)
    });
    Ok(Labelled {
        name: file.trim_end_matches(".csv").to_owned(),
        first_slot: u64::try_from(first / STEP_S).context("before 1970")?,
        windows: windows.collect::<Result<_>>()?,
        values,
    })
}

/// Seconds since 1970 of `2014-02-26 13:45:00`, with or without a fraction.
fn seconds(text: &str) -> Result<i64> {
    let time: DateTime = text.parse().with_context(|| format!("{text} is no time"))?;
    Ok(TimeZone::UTC.to_timestamp(time)?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970() {
        assert_eq!(seconds("1970-01-01 00:00:00").unwrap(), 0);
        assert_eq!(
            seconds("2014-02-26 13:45:00.000000").unwrap(),
            1_393_422_300
        );
        assert_eq!(seconds("2016-03-01 00:00:01").unwrap(), 1_456_790_401);
        assert!(seconds("2014-02-31 00:00:00").is_err());
    }

    #[test]
    fn windows_are_the_readings_within_their_times() {
        let text = "timestamp,value\n2014-02-26 13:45:00,1\n2014-02-26 13:50:00,2\n2014-02-26 13:55:00,3\n";
        let window = ["2014-02-26 13:46:00.0", "2014-02-26 13:55:00.0"].map(str::to_owned);
        let series = series("a.csv", text, &[window]).unwrap();
        assert_eq!(series.windows, [1..=2]);
        assert_eq!(series.values, [1.0, 2.0, 3.0]);
        assert_eq!(series.name, "a");
    }
}
