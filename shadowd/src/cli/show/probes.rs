//! `probes`: how each feature of capture is fed, what it lost, what it costs.

use super::super::human::{bytes, clean, count, share};
use super::super::table::{Cell, Paint, Table, Tone};
use super::status::losses;
use crate::facts::{CaptureCost, ProbeStatus};
use crate::serve::protocol::Probes;

/// A line for each feature, then what its hook lacks, then what capture itself costs.
pub(in super::super) fn probes(answer: &Probes, paint: Paint) -> String {
    let capture = &answer.capture;
    if capture.probes.is_empty() {
        return "nothing was observed yet: the first interval is not over\n".to_owned();
    }
    let mut table = Table::new(
        0,
        [
            "PROBE",
            "STATE",
            ">RUNS/S",
            ">NS/RUN",
            ">CPU",
            ">SEEN",
            ">DROPPED",
            ">UNATTR",
            ">FILTERED",
            "HOOK",
        ],
    );
    for probe in &capture.probes {
        table.row(row(probe));
    }
    let mut text = table.render(paint);
    for probe in &capture.probes {
        let name = clean(&probe.name);
        for why in &probe.refused {
            text.push_str(&format!("  {name}: not by {}\n", clean(why)));
        }
        if probe.losses.missed > 0 {
            let most = count(probe.losses.missed);
            let line =
                format!("  {name}: up to {most} missed, where the kernel left a program out");
            text.push_str(&paint.apply(Tone::Warning, &line));
            text.push('\n');
        }
        if let Some(why) = &probe.degraded {
            let line = format!("  {name}: {}", clean(why));
            text.push_str(&paint.apply(Tone::Warning, &line));
            text.push('\n');
        }
    }
    text.push_str(&losses(capture.losses, paint));
    text.push_str(&cost(&capture.cost, &capture.probes));
    text
}

fn row(probe: &ProbeStatus) -> [Cell; 10] {
    let known =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
    let bad = |value: u64| {
        let tone = if value > 0 {
            Tone::Warning
        } else {
            Tone::Plain
        };
        Cell::new(count(value), tone)
    };
    let lost = probe.losses;
    [
        probe.name.as_str().into(),
        match (&probe.degraded, &probe.hook) {
            (None, Some(_)) => Cell::new("on", Tone::Good),
            (Some(_), Some(_)) => Cell::new("reduced", Tone::Warning),
            (_, None) => Cell::new("off", Tone::Warning),
        },
        known(probe.events_per_second).into(),
        known(probe.cost_ns).into(),
        probe
            .cpu_share
            .map_or_else(|| "-".to_owned(), fine_share)
            .into(),
        count(lost.seen).into(),
        bad(lost.dropped),
        count(lost.unattributed).into(),
        count(lost.filtered).into(),
        probe.hook.as_deref().unwrap_or("-").into(),
    ]
}

/// A share of one processor that may be very small.
fn fine_share(value: f64) -> String {
    format!("{:.3} %", value * 100.0)
}

fn cost(cost: &CaptureCost, probes: &[ProbeStatus]) -> String {
    let known = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), share);
    let programs: Vec<f64> = probes.iter().filter_map(|probe| probe.cpu_share).collect();
    let programs = if programs.is_empty() {
        "?".to_owned()
    } else {
        fine_share(programs.iter().sum())
    };
    format!(
        "cost, of one processor: programs {programs}, daemon {} (of that the capturing thread {}); \
         resident {}\nprograms measured: {}\n",
        known(cost.cpu_share),
        known(cost.capture_cpu_share),
        cost.rss_bytes.map_or_else(|| "?".to_owned(), bytes),
        clean(&cost.measured),
    )
}
