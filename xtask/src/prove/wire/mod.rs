//! No two hosts answer for a virtual IP at the same instant, shown by the frames on the bridge.
//!
//! Two members and a witness, a client that asks all of them all the time, random faults from a
//! seed, and a capture of everything that enters the bridge, on the kernel's own clock. Lost frames
//! make it fail: what was not seen shows nothing.

mod answer;
mod ask;
mod capture;
mod clock;
mod fault;
mod frames;
mod judge;
pub mod place;
mod plan;
mod record;
mod report;
mod round;
mod surroundings;

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::lab::{Lab, Options, boot_ns, interrupt, port_name, target};
use ask::Asker;
use capture::{Capture, Port};
use frames::Mac;
use judge::{Verdict, judge};
use plan::Step;
use report::Asked;
pub use report::Report;
use round::{Round, Rounds};

/// Arguments of `cargo xtask prove wire`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// How many faults
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faults: u32,
    /// Seed of the faults and their moments; without it one is taken from the clock and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Without the kernel's guard two hosts do answer: succeeds only if that is found
    #[arg(long)]
    without_guard: bool,
    /// Take the binaries that are there
    #[arg(long)]
    no_build: bool,
}

const HELP: &str = "\
Needs root. Boots two members, a witness and a client in namespaces of their own; a fault takes some
two seconds. What was seen is printed also when it is interrupted. A violation is written to
target/prove with the frames and events around it.

  cargo xtask prove wire                                 200 faults
  cargo xtask prove wire --faults 20 --seed 7            the same 20 faults again
  cargo xtask prove wire --faults 20 --without-guard     is it able to find two owners?";

/// Runs the proof on a lab of its own.
///
/// # Errors
/// The proof does not hold, or the lab leaves something behind.
pub fn run(arguments: &Args) -> Result<()> {
    if !arguments.no_build {
        build::run(build::Args { release: true })?;
    }
    interrupt::install()?;
    let seed = arguments.seed.map_or_else(boot_ns, Ok)?;
    let begin = Instant::now();
    let lab = Lab::up(&Options {
        binaries: Some(target().join("release")),
        unguarded: arguments.without_guard,
        ..Options::witnessed()?
    })?;
    let took = begin.elapsed().as_secs_f64();
    println!("lab {} is up after {took:.1} s", lab.state().id);
    let shown = on(&lab, seed, arguments.faults as usize);
    let left = lab.down()?;
    let report = shown?;
    println!("\n{}", report.text());
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    println!("seed {seed}, {:.0} s", begin.elapsed().as_secs_f64());
    match arguments.without_guard {
        true => control(&report),
        false => conclude(&report),
    }
}

/// Says whether it holds.
///
/// # Errors
/// It does not.
pub fn conclude(report: &Report) -> Result<()> {
    let objections = report.objections();
    if !objections.is_empty() {
        bail!("not shown: {}", objections.join("; "));
    }
    let (faults, transitions) = (report.done().count(), report.verdict.transitions.len());
    println!(
        "0 violations, 0 frames lost: through {faults} faults and {transitions} transitions no two \
         hosts answered at the same instant"
    );
    Ok(())
}

/// Without the guard the contrary has to be found.
fn control(report: &Report) -> Result<()> {
    let (overlaps, frames) = report.overlaps();
    let all = report.verdict.violations.len();
    println!(
        "without the guard: {all} violations; {overlaps} times two owners, in {frames} frames"
    );
    if let Some(why) = &report.stopped {
        bail!("stopped: {why}");
    }
    if overlaps == 0 {
        bail!("two owners were not found: the proof is blind, or no fault made any");
    }
    Ok(())
}

/// Runs so many faults on a lab that is up, with a witness and a client.
///
/// # Errors
/// The capture or the client cannot be started, or the group is not well at the beginning. What
/// stops it later is part of the report.
pub fn on(lab: &Lab, seed: u64, faults: usize) -> Result<Report> {
    let macs = addresses(lab)?;
    let capture = Capture::start(&lab.state().switch, ports(lab, &macs)?)?;
    let members = lab.state().members().count();
    let asker = Asker::start(lab.client()?, macs[..members].to_vec())?;
    let mut rounds = Rounds::start(lab, &capture)?;
    println!("{faults} faults, seed {seed}");
    let mut done: Vec<Round> = Vec::new();
    let mut stopped = None;
    for (number, step) in plan::plan(seed, faults).into_iter().enumerate() {
        match rounds.run(step) {
            Ok((round, verdict)) => {
                tell(number + 1, faults, &round, &verdict);
                done.push(round);
            }
            Err(error) => {
                let why = format!("fault {}, {step}: {error:#}", number + 1);
                println!("stopped: {why}");
                stopped = Some(why);
                break;
            }
        }
    }
    let asked = asked(&asker);
    let ended = asker.finish().and_then(|()| capture.sync());
    let Rounds { record, events, .. } = rounds;
    let seen = capture.finish()?;
    let verdict = judge(&seen.answers, &record);
    let hosts: Vec<String> = lab
        .state()
        .hosts
        .iter()
        .map(|host| host.name.clone())
        .collect();
    let report = Report {
        seed,
        wanted: faults,
        hosts,
        rounds: done,
        verdict,
        seen,
        asked,
        stopped: stopped.or(ended.err().map(|error| format!("{error:#}"))),
    };
    surroundings::write(&report, &events)?;
    Ok(report)
}

fn asked(asker: &Asker) -> Asked {
    let tally = &asker.tally;
    Asked {
        frames: tally.sent.load(Ordering::Relaxed),
        refused: tally.refused.load(Ordering::Relaxed),
        pages: tally.pages.load(Ordering::Relaxed),
        good: tally.good.load(Ordering::Relaxed),
    }
}

fn tell(number: usize, of: usize, round: &Round, verdict: &Verdict) {
    let Step { lasts, .. } = round.step;
    let mut said = format!(
        "{number:>5}/{of}  {:<40} active {}",
        round.step.to_string(),
        round.active.0
    );
    if let Some(why) = &round.refused {
        said.push_str(&format!(": did not happen: {why}"));
    }
    for moved in &verdict.transitions {
        said.push_str(&format!(
            ", {:?} moved after {:.2} ms",
            moved.vip,
            moved.gap_ns() as f64 / 1e6
        ));
    }
    if round.asked_beside > 0 {
        said.push_str(&format!(
            ", asked {} times beside its successor",
            round.asked_beside
        ));
    }
    if round.both_held == Some(false) {
        said.push_str(", whose addresses were gone from it");
    }
    if !round.taken && !round.step.until_takeover() {
        said.push_str(&format!(", for {} ms", lasts.as_millis()));
    }
    println!("{said}");
    for violation in &verdict.violations {
        println!("       VIOLATION {violation:?}");
    }
}

/// The hosts' Ethernet addresses, members first, as the lab numbers them.
fn addresses(lab: &Lab) -> Result<Vec<Mac>> {
    let hosts = lab.state().hosts.iter().map(|host| host.namespace.as_str());
    hosts.chain([lab.client()?]).map(address).collect()
}

fn address(namespace: &str) -> Result<Mac> {
    let asked = place::inside(namespace, || {
        let link = place::link("eth0")?;
        link.addr().context("eth0 has no address")
    })?;
    match asked.join() {
        Ok(address) => address,
        Err(_) => bail!("the thread panicked"),
    }
}

fn ports(lab: &Lab, macs: &[Mac]) -> Result<Vec<Port>> {
    let hosts = lab.state().hosts.iter().map(|host| host.name.as_str());
    let names = hosts.chain(["client"]);
    let port = |(name, mac): (&str, &Mac)| Port {
        name: port_name(name),
        mac: *mac,
    };
    Ok(names.zip(macs).map(port).collect())
}
