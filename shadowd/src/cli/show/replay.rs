//! `replay`: one line for each recorded interval.

use super::super::human::{bytes, clean, count, share};
use crate::facts::Observation;

/// The line of an observation that ended `at`, after the header if it is the `first`.
pub(in super::super) fn replayed(observation: &Observation, at: &str, first: bool) -> String {
    let mut text = String::new();
    if first {
        text = row(
            "TIME",
            [
                "CPU", "SYSCALLS", "ERR", "EXEC", "EXIT", "OPENED", "RX", "TX",
            ]
            .map(str::to_owned),
            "BUSIEST UNIT",
        );
    }
    let units = &observation.units;
    let sum =
        |of: fn(&crate::facts::UnitUse) -> u64| units.iter().map(of).fold(0, u64::saturating_add);
    let cpu = observation
        .host
        .cpu
        .unwrap_or_else(|| units.iter().map(|unit| unit.cpu).sum());
    let busiest = units.iter().max_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let busiest = busiest.map_or_else(String::new, |unit| {
        format!("{} {}", clean(&unit.unit), share(unit.cpu))
    });
    let numbers = [
        share(cpu),
        count(sum(|unit| unit.syscalls.calls)),
        count(sum(|unit| unit.syscalls.failed())),
        count(sum(|unit| unit.execs)),
        count(sum(|unit| unit.exits)),
        count(sum(|unit| unit.network.opened)),
        bytes(sum(|unit| unit.network.rx_bytes)),
        bytes(sum(|unit| unit.network.tx_bytes)),
    ];
    text.push_str(&row(at, numbers, &busiest));
    text
}

fn row(at: &str, numbers: [String; 8], busiest: &str) -> String {
    let [cpu, calls, errors, execs, exits, opened, rx, tx] = numbers;
    let row = format!(
        "{at:<26}  {cpu:>8}  {calls:>12}  {errors:>9}  {execs:>6}  {exits:>6}  {opened:>8}  \
         {rx:>9}  {tx:>9}  {busiest}"
    );
    format!("{}\n", row.trim_end())
}
