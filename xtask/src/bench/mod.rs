//! `cargo xtask bench`: measurements that stay true on another machine, because each is a ratio to
//! a peer measured in the same run, turn by turn.

mod daemon;
mod failover;
mod forecast;
mod load;
mod measure;
mod profile;
mod promotion;
mod report;
mod syscalls;
pub mod ticks;
mod web;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

pub use measure::{Plan, Side, Turn, compare, timed};
pub use report::{Metric, Report};

/// What `cargo xtask bench` accepts.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(after_long_help = failover::HELP)]
pub struct Args {
    /// The bench to run
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// Print the benches there are, and do nothing else
    #[arg(long)]
    pub list: bool,
    /// Also write {bench: {metric: {value, unit, peer, ratio}}} to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Options of failover")]
    failover: failover::Args,
}

/// What a bench found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The numbers.
    pub metrics: Vec<Metric>,
    /// What the JSON file holds beside them, under `details`; null for nothing.
    pub details: serde_json::Value,
    /// What stopped it before its end.
    pub stopped: Option<anyhow::Error>,
}

impl From<Vec<Metric>> for Outcome {
    fn from(metrics: Vec<Metric>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }
}

/// A bench: a name, what it answers, and the measurement.
pub struct Bench {
    /// What a person types.
    pub name: &'static str,
    /// The question it answers and the peer it is compared with.
    pub about: &'static str,
    /// Measures; may build, and may need root.
    pub run: fn(&Args) -> Result<Outcome>,
}

/// Every bench. One is added here with the code that it measures.
pub const BENCHES: &[Bench] = &[
    Bench {
        name: "syscalls",
        about: "what counting a system call costs: shadowd, empty programs, bcc's design, bpftrace",
        run: |_| syscalls::run().map(Outcome::from),
    },
    Bench {
        name: "web",
        about: "requests that nginx answers with all probes attached, against none",
        run: |_| web::run().map(Outcome::from),
    },
    Bench {
        name: "load",
        about: "processor time and memory of the daemon under 200,000 calls and 5,000 connections/s",
        run: |_| load::load().map(Outcome::from),
    },
    Bench {
        name: "churn",
        about: "the same for half an hour: does its memory grow",
        run: |_| load::churn().map(Outcome::from),
    },
    Bench {
        name: "ticks",
        about: "processor time of a tick with 1,000, 10,000 and 100,000 live flows",
        run: |_| ticks::run().map(Outcome::from),
    },
    Bench {
        name: "forecast",
        about: "forecasts and anomalies on series of real servers: the day before, a windowed Gaussian",
        run: |_| forecast::run(),
    },
    Bench {
        name: "promotion",
        about: "from a crash to the first answer of a slow cold unit: lacking, provisioned, warmed",
        run: |args| {
            let runs = args.failover.runs(5, 1);
            promotion::run(runs, args.failover.pick(256, 64), args.failover.is_built())
        },
    },
    Bench {
        name: "profile",
        about: "what learning and comparing cost, by the number of units: time, memory, bytes stored",
        run: |args| profile::run(args.failover.pick(5, 1)),
    },
    Bench {
        name: "failover",
        about: "outages by crash, unit death, stall and handover, and false promotions: keepalived",
        run: |args| failover::run(&args.failover),
    },
];

/// Names that stand for several benches, one after the other. `churn` takes half an hour and is run
/// when it is named.
const GROUPS: &[(&str, &[&str])] = &[("capture", &["syscalls", "web", "load", "ticks"])];

/// Runs one bench, or all of a group, and prints their metrics.
///
/// # Errors
/// The bench is unknown, a measurement fails, or the file cannot be written.
pub fn run(args: Args) -> Result<()> {
    if args.list {
        println!("{}", list(BENCHES));
        return Ok(());
    }
    let name = args.name.clone().unwrap_or_default();
    let few = matches!(name.as_str(), "promotion" | "profile");
    let others = match few {
        true => args.failover.is_short(),
        false => args.failover == failover::Args::default(),
    };
    if name != "failover" && !others {
        bail!("`{name}` takes not all of these options: see `cargo xtask bench --help`");
    }
    let members = GROUPS.iter().find(|(group, _)| *group == name);
    let names = members.map_or_else(|| vec![name.as_str()], |(_, names)| names.to_vec());
    let benches: Vec<&Bench> = names
        .into_iter()
        .map(|name| find(BENCHES, name))
        .collect::<Result<_>>()?;
    let mut whole = serde_json::Map::new();
    for bench in benches {
        println!("{}: {}", bench.name, bench.about);
        let outcome = (bench.run)(&args)?;
        let report = Report {
            bench: bench.name,
            metrics: outcome.metrics,
            details: outcome.details,
        };
        println!("{report}");
        if let serde_json::Value::Object(part) = report.to_json() {
            whole.extend(part);
        }
        // Written after each, so that a later one that fails costs none before it.
        if let Some(path) = &args.json {
            let text = serde_json::to_string_pretty(&whole).context("JSON")?;
            std::fs::write(path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("written: {}", path.display());
        }
        if let Some(error) = outcome.stopped {
            return Err(error.context(format!("{} was not measured to its end", bench.name)));
        }
    }
    Ok(())
}

fn find<'a>(benches: &'a [Bench], name: &str) -> Result<&'a Bench> {
    match benches.iter().find(|bench| bench.name == name) {
        Some(bench) => Ok(bench),
        None => bail!("there is no bench `{name}`; there are:\n{}", list(benches)),
    }
}

fn list(benches: &[Bench]) -> String {
    let mut lines: Vec<String> = benches
        .iter()
        .map(|bench| format!("{:<12} {}", bench.name, bench.about))
        .collect();
    let groups = GROUPS.iter();
    lines.extend(groups.map(|(name, members)| format!("{name:<12} all of {}", members.join(", "))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_answered_with_the_known_ones() {
        let benches = [Bench {
            name: "seal",
            about: "against ring",
            run: |_| Ok(Outcome::default()),
        }];
        assert!(find(&benches, "seal").is_ok());
        for (_, members) in GROUPS {
            assert!(members.iter().all(|name| find(BENCHES, name).is_ok()));
        }
        let error = find(&benches, "open").err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("against ring")));
    }
}
