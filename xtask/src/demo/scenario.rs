//! One run of one scenario: a fresh window of the client, a fault at a random moment, recovery.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::lab::{Fault, GROUP, Lab, WARM, boot_ns};
use crate::probe::{Meter, TargetReport, Window};

/// What is done to the active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Scenario {
    /// The whole host stops.
    HostCrash,
    /// The main process of the group's unit is killed.
    UnitDeath,
    /// The daemon is killed.
    DaemonKill,
    /// An operator hands the group over.
    PlannedHandover,
}

impl Scenario {
    /// In the order they run.
    pub const ALL: [Self; 4] = [
        Self::HostCrash,
        Self::UnitDeath,
        Self::DaemonKill,
        Self::PlannedHandover,
    ];

    /// Its name in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostCrash => "host_crash",
            Self::UnitDeath => "unit_death",
            Self::DaemonKill => "daemon_kill",
            Self::PlannedHandover => "planned_handover",
        }
    }

    /// The median outage must not be longer, in milliseconds.
    pub const fn bound_ms(self) -> f64 {
        match self {
            Self::HostCrash | Self::DaemonKill => 60.0,
            Self::UnitDeath => 40.0,
            Self::PlannedHandover => 20.0,
        }
    }

    fn inject(self, lab: &Lab, host: &str) -> Result<u64> {
        match self {
            Self::HostCrash => lab.fault(host, &Fault::Crash),
            Self::UnitDeath => lab.fault(host, &Fault::UnitKill(WARM.into())),
            Self::DaemonKill => lab.fault(host, &Fault::DaemonKill),
            Self::PlannedHandover => {
                let at = boot_ns()?;
                lab.run(host, &["shadowctl", "failover", "handover", GROUP])?;
                Ok(at)
            }
        }
    }
}

/// What one run gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Without a good answer at the IPv4 address.
    pub outage_ms_v4: f64,
    /// Without a good answer at the IPv6 address.
    pub outage_ms_v6: f64,
    /// The client itself did not run for so long: what it saw can be wrong by as much.
    pub client_stall_ms: f64,
    /// From the fault to the new active's claim.
    pub detect_ms: f64,
    /// From the claim to the first announcement.
    pub promote_ms: f64,
    /// Who took over.
    pub new_active: String,
}

/// Runs it once, and leaves both hosts well.
///
/// # Errors
/// A step fails, or the group does not recover.
pub fn run(lab: &Lab, scenario: Scenario, number: u32) -> Result<Run> {
    let old = lab.converge(Duration::from_secs(60))?;
    let hosts = &lab.state().hosts;
    let new = &hosts
        .iter()
        .find(|host| host.name != old)
        .context("a pair has two hosts")?
        .name;
    let seen = lab.newest_event(new)?;
    let mut meter = Meter::start(lab, Window::default())?;
    // A random phase against heartbeats and drains; the clock's low digits are random enough.
    std::thread::sleep(Duration::from_micros(boot_ns()? / 1000 % 100_000));
    let at = scenario.inject(lab, &old)?;
    meter.wait_for(new, Duration::from_secs(20))?;
    let (claimed, announced) = stages(lab, new, seen)?;
    // What comes late (a second owner, a lost address) belongs to the window.
    std::thread::sleep(Duration::from_millis(500));
    let report = meter.finish()?;
    let (v4, v6) = (&report.targets[0], &report.targets[1]);
    println!("\n{} run {number}: host {old} -> {new}", scenario.name());
    print_timeline(at, new, &lab.events(new, seen)?);
    print_outage(at, v4);
    print_outage(at, v6);
    println!(
        "  the client itself stood still for up to {:.1} ms",
        report.stall_ms
    );
    lab.heal(&old)?;
    let active = lab.converge(Duration::from_secs(60))?;
    if active != *new {
        bail!("after the heal host {active} is active instead of {new}");
    }
    Ok(Run {
        outage_ms_v4: v4.outage_ms,
        outage_ms_v6: v6.outage_ms,
        client_stall_ms: report.stall_ms,
        detect_ms: span_ms(at, claimed),
        promote_ms: span_ms(claimed, announced),
        new_active: new.clone(),
    })
}

/// When the new active claimed the group, and when it first announced the addresses.
fn stages(lab: &Lab, new: &str, seen: u64) -> Result<(u64, u64)> {
    let mut found = None;
    lab.wait(
        Duration::from_secs(10),
        "the new active to record its claim",
        || {
            let events = lab.events(new, seen)?;
            let at = |kind: &str| {
                let event = events.iter().find(|event| event["kind"] == kind)?;
                event["boot_ns"].as_u64()
            };
            found = at("claimed").zip(at("announced"));
            Ok(found.is_some())
        },
    )?;
    found.context("found just now")
}

fn print_timeline(at: u64, host: &str, events: &[Value]) {
    println!("  {:>9}  injected", "0.0 ms");
    for event in events.iter().take(40) {
        let time = event["boot_ns"].as_u64().unwrap_or_default();
        let word = |field: &str| event[field].as_str().unwrap_or_default();
        println!(
            "  {:>6.1} ms  {host}: {} {} {}",
            span_ms(at, time),
            word("kind"),
            word("cause"),
            word("detail")
        );
    }
}

fn print_outage(at: u64, report: &TargetReport) {
    let first = report.first_good_ns.map_or("none".to_owned(), |first| {
        format!("{:+.1} ms", span_ms(at, first))
    });
    println!(
        "  {}: outage {:.1} ms (last good {:+.1} ms, first good {first}), {} of {} requests failed",
        report.target,
        report.outage_ms,
        span_ms(at, report.last_good_ns),
        report.failed,
        report.requests
    );
}

fn span_ms(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}
