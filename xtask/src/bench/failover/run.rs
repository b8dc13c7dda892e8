//! One run: a fresh window of the client, something done at a random moment, and both hosts well
//! again afterwards.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::case::Case;
use super::stages::Stages;
use super::system::{System, standby};
use super::watch::{Gain, Watch};
use crate::lab::Lab;
use crate::probe::{Meter, Report};
use crate::random::Random;

/// From the first answers on: the client's own start is not what is measured.
const WARM_UP: Duration = Duration::from_millis(100);
/// The phase: a hundred adverts, and one interval of the script that looks at the service.
const PHASE: Duration = Duration::from_secs(1);
/// A takeover that takes longer is none: the outage then lasts to the end of the window.
const TO_TAKE_OVER: Duration = Duration::from_secs(10);
/// A client that sends every 2 ms and stands still for longer than this measures the machine.
const DISTURBED_MS: f64 = 10.0;
/// A takeover that took longer than this tells why.
const SLOW_MS: f64 = 60.0;
/// How long a daemon may take to write its events down.
const TO_RECORD: Duration = Duration::from_secs(10);

/// What all runs share.
pub struct Bench<'a> {
    /// The hosts and the client.
    pub lab: &'a Lab,
    /// Who holds the virtual IP.
    pub watch: &'a Watch,
    /// Where the random moments come from.
    pub random: Random,
    /// Share of a processor that a starved host gets, in percent.
    pub starve_percent: u8,
}

/// What one run gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Who was active.
    pub from: String,
    /// Within the phase.
    pub offset_ms: f64,
    /// Without a good answer at the IPv4 address.
    pub outage_ms: f64,
    /// Without a good answer at the IPv6 address.
    pub outage_v6_ms: f64,
    /// Nobody took over within the window.
    pub dark: bool,
    /// The client itself did not run for so long: what it saw can be wrong by as much.
    pub client_stall_ms: f64,
    /// Who got the IPv4 address, and when after the fault.
    pub gains: Vec<Gain>,
    /// How long no host's kernel had it.
    pub no_holder_ms: f64,
    /// New connections asked for, of both families.
    pub connects: u64,
    /// Those that were refused, reset, or not answered in time.
    pub failed: u64,
    /// Those that were answered after more than half a second.
    pub late: u64,
    /// Connections held open, of both families.
    pub held: u64,
    /// Those that broke.
    pub broken: u64,
    /// Where the time went; shadowd only.
    pub stages: Option<Stages>,
}

impl Bench<'_> {
    /// Runs it once, from a pair that is well to a pair that is well.
    ///
    /// # Errors
    /// A step fails, or the pair does not become well.
    pub fn run(&mut self, system: System, case: Case) -> Result<Run> {
        let lab = self.lab;
        let old = system.settle(lab)?;
        let new = standby(lab, &old)?;
        let seen = Seen::begin(lab, system, &old, &new)?;
        let mut holding = self.watch.begin(lab)?;
        let mut meter = Meter::start(lab, case.window())?;
        let offset = self.random.below(PHASE);
        std::thread::sleep(WARM_UP + offset);
        self.watch.update(&mut holding)?;
        if let Some(gain) = holding.gains_since(0).first() {
            // Done to the wrong host, it would show nothing; that it moved is worth telling.
            system.explain(lab, &gain.host, "moved with nothing done")?;
            bail!(
                "the address moved to host {} before anything was done",
                gain.host
            );
        }
        let at = case.inject(lab, system, &old, self.starve_percent)?;
        let taken = meter.answered_by(&new, TO_TAKE_OVER)?;
        meter.measure_for(case.tail())?;
        let report = meter.finish()?;
        self.watch.update(&mut holding)?;
        let stages = match taken {
            true => seen.stages(lab, case, at, gap(&report))?,
            false => None,
        };
        system.heal(lab, &old)?;
        let run = Run {
            gains: holding.gains_since(at),
            no_holder_ms: holding.no_holder_ms(),
            dark: !taken,
            offset_ms: offset.as_secs_f64() * 1e3,
            stages,
            ..Run::of(&report, old)
        };
        if taken && run.outage_ms > SLOW_MS {
            system.explain(lab, &new, &format!("{:.1} ms", run.outage_ms))?;
        }
        Ok(run)
    }
}

impl Run {
    fn of(report: &Report, from: String) -> Self {
        let sum = |field: fn(&crate::probe::TargetReport) -> u64| report.targets.iter().map(field);
        let outage = |target: usize| report.targets[target].outage_ms;
        Self {
            from,
            offset_ms: 0.0,
            outage_ms: outage(0),
            outage_v6_ms: outage(1),
            dark: false,
            client_stall_ms: report.stall_ms,
            gains: Vec::new(),
            no_holder_ms: 0.0,
            connects: sum(|target| target.requests).sum(),
            failed: sum(|target| target.failed).sum(),
            late: sum(|target| target.late).sum(),
            held: sum(|target| target.held.connections).sum(),
            broken: sum(|target| target.held.broken).sum(),
            stages: None,
        }
    }

    /// Whether the client stood still for so long that its figures are the machine's.
    pub fn is_disturbed(&self) -> bool {
        self.client_stall_ms > DISTURBED_MS
    }

    /// From the fault to the moment at which another host's kernel had the IPv4 address.
    pub fn address_after_ms(&self) -> Option<f64> {
        let gain = self.gains.iter().find(|gain| gain.host != self.from);
        gain.map(|gain| gain.after_ms)
    }
}

/// The longest time without a good answer at the IPv4 address, if it ended.
fn gap(report: &Report) -> Option<(u64, u64)> {
    let target = &report.targets[0];
    Some((target.last_good_ns, target.first_good_ns?))
}

/// How far the records of the two daemons were before.
struct Seen {
    old: (String, u64),
    new: (String, u64),
    records: bool,
}

impl Seen {
    fn begin(lab: &Lab, system: System, old: &str, new: &str) -> Result<Self> {
        let records = system == System::Shadowd;
        let newest = |host: &str| -> Result<(String, u64)> {
            let number = if records { lab.newest_event(host)? } else { 0 };
            Ok((host.to_owned(), number))
        };
        Ok(Self {
            old: newest(old)?,
            new: newest(new)?,
            records,
        })
    }

    fn stages(
        &self,
        lab: &Lab,
        case: Case,
        at: u64,
        gap: Option<(u64, u64)>,
    ) -> Result<Option<Stages>> {
        if !self.records {
            return Ok(None);
        }
        let mut found = None;
        let waited = lab.wait(TO_RECORD, "the takeover's events", || {
            let old: Vec<Value> = match case.old_can_tell() {
                true => lab.events(&self.old.0, self.old.1)?,
                false => Vec::new(),
            };
            let new = lab.events(&self.new.0, self.new.1)?;
            found = Stages::of(at, &old, &new, gap);
            Ok(found.is_some())
        });
        if let Err(error) = waited {
            // The run has its outage all the same, and shows that its stages are missing.
            crate::lab::interrupt::check()?;
            println!("no stages: {error:#}");
        }
        Ok(found)
    }
}

/// What one stretch of time gave in which nobody died.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endured {
    /// How long.
    pub minutes: f64,
    /// Every time a host got the IPv4 address from another one: each is a false promotion.
    pub promotions: Vec<Gain>,
    /// How often its owner gave it up and took it again: nobody was promoted, and nobody answered.
    pub regains: u32,
    /// How long no host held it.
    pub no_holder_ms: f64,
    /// How long two hosts held it.
    pub two_holders_ms: f64,
    /// The longest time without a good answer at the IPv4 address.
    pub outage_ms: f64,
    /// Requests, of both families.
    pub connects: u64,
    /// Those without a good answer.
    pub failed: u64,
    /// The client itself did not run for so long.
    pub client_stall_ms: f64,
}

impl Bench<'_> {
    /// Lets the pair live with something for so long.
    ///
    /// # Errors
    /// A step fails, or the pair does not become well afterwards.
    pub fn endure(&mut self, system: System, case: Case, time: Duration) -> Result<Endured> {
        ensure!(case.is_endured(), "{} is over in a moment", case.name());
        let lab = self.lab;
        let active = system.settle(lab)?;
        let mut holding = self.watch.begin(lab)?;
        let mut meter = Meter::start(lab, case.window())?;
        let at = case.inject(lab, system, &active, self.starve_percent)?;
        meter.measure_for(time)?;
        self.watch.update(&mut holding)?;
        let report = meter.finish()?;
        for host in super::system::member_names(lab) {
            system.heal(lab, &host)?;
        }
        let promotions = holding.gains_since(at);
        if let Some(last) = promotions.last() {
            system.explain(lab, &last.host, "promoted though nobody died")?;
        }
        let run = Run::of(&report, active);
        Ok(Endured {
            minutes: time.as_secs_f64() / 60.0,
            promotions,
            regains: holding.regains(),
            no_holder_ms: holding.no_holder_ms(),
            two_holders_ms: holding.two_holders_ms(),
            outage_ms: run.outage_ms,
            connects: run.connects,
            failed: run.failed,
            client_stall_ms: run.client_stall_ms,
        })
    }
}

#[cfg(test)]
impl Run {
    /// A run with this outage in both families.
    pub fn with_outage(outage_ms: f64) -> Self {
        Self {
            from: "a".to_owned(),
            offset_ms: 0.0,
            outage_ms,
            outage_v6_ms: outage_ms,
            dark: false,
            client_stall_ms: 2.0,
            gains: Vec::new(),
            no_holder_ms: 0.0,
            connects: 1000,
            failed: 0,
            late: 0,
            held: 20,
            broken: 0,
            stages: None,
        }
    }
}
