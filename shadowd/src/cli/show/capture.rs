//! `top`, `units` and `flows`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::human::{bytes, count, share, span};
use super::super::table::{Cell, Paint, Table, Tone};
use super::status::losses;
use crate::facts::{Direction, Losses, ProcessUse, UnitUse};
use crate::serve::protocol::{Flows, Top, Units};

/// Units, then processes.
pub(in super::super) fn top(answer: &Top, paint: Paint) -> String {
    let mut text = headline(answer.interval_ns, answer.losses, paint);
    text.push_str(&unit_table(&answer.units).render(paint));
    if !answer.units.is_empty() && !answer.processes.is_empty() {
        text.push('\n');
    }
    text.push_str(&process_table(&answer.processes).render(paint));
    text
}

/// Units with all that is known of them.
pub(in super::super) fn units(answer: &Units, paint: Paint) -> String {
    let mut text = headline(answer.interval_ns, answer.losses, paint);
    text.push_str(&unit_table(&answer.units).render(paint));
    text
}

/// Flows, the busiest first.
pub(in super::super) fn flows(answer: &Flows, paint: Paint) -> String {
    if answer.flows.is_empty() {
        return "no flows\n".to_owned();
    }
    let mut table = Table::new(
        0,
        [
            "UNIT", ">PID", "COMMAND", "LOCAL", "", "REMOTE", ">OPENED", ">OPEN", ">FAILED", ">RX",
            ">TX",
        ],
    );
    for flow in &answer.flows {
        table.row([
            flow.unit.as_str().into(),
            if flow.pid == 0 {
                "?".into()
            } else {
                flow.pid.to_string().into()
            },
            flow.command.as_str().into(),
            end(flow.local, flow.local_port).into(),
            match flow.direction {
                Direction::Outbound => "->",
                Direction::Inbound => "<-",
            }
            .into(),
            end(flow.remote, flow.remote_port).into(),
            count(flow.total.opened).into(),
            count(flow.open).into(),
            failures(flow.total.failed),
            bytes(flow.total.rx_bytes).into(),
            bytes(flow.total.tx_bytes).into(),
        ]);
    }
    table.render(paint)
}

/// An address and its port; `*` stands for any ephemeral port.
fn end(address: IpAddr, port: u16) -> String {
    match (address, port) {
        (IpAddr::V4(address), 0) => format!("{address}:*"),
        (IpAddr::V6(address), 0) => format!("[{address}]:*"),
        (address, port) => SocketAddr::new(address, port).to_string(),
    }
}

fn failures(value: u64) -> Cell {
    Cell::new(
        count(value),
        if value > 0 {
            Tone::Warning
        } else {
            Tone::Plain
        },
    )
}

fn headline(interval_ns: u64, lost: Losses, paint: Paint) -> String {
    if interval_ns == 0 {
        return "nothing was observed yet: the first interval is not over\n".to_owned();
    }
    format!(
        "in the last {}; {}",
        span(Duration::from_nanos(interval_ns)),
        losses(lost, paint)
    )
}

fn unit_table(units: &[UnitUse]) -> Table {
    let mut table = Table::new(
        0,
        [
            "UNIT",
            ">PROCS",
            ">CPU",
            ">MEMORY",
            ">SYSCALLS",
            ">ERR",
            ">EXEC",
            ">EXIT",
            ">CONNS",
            ">RX",
            ">TX",
        ],
    );
    for unit in units {
        table.row([
            unit.unit.as_str().into(),
            count(unit.processes.into()).into(),
            share(unit.cpu).into(),
            bytes(unit.rss_bytes).into(),
            count(unit.syscalls.calls).into(),
            count(unit.syscalls.failed()).into(),
            count(unit.execs).into(),
            count(unit.exits).into(),
            count(unit.network.opened).into(),
            bytes(unit.network.rx_bytes).into(),
            bytes(unit.network.tx_bytes).into(),
        ]);
    }
    table
}

fn process_table(processes: &[ProcessUse]) -> Table {
    let mut table = Table::new(
        0,
        [
            ">PID",
            "COMMAND",
            "UNIT",
            ">CPU",
            ">MEMORY",
            ">SYSCALLS",
            ">ERR",
            "STATE",
        ],
    );
    for process in processes {
        table.row([
            process.pid.to_string().into(),
            process.command.as_str().into(),
            process.unit.as_str().into(),
            share(process.cpu).into(),
            bytes(process.rss_bytes).into(),
            count(process.syscalls.calls).into(),
            count(process.syscalls.failed()).into(),
            if process.ended { "ended" } else { "" }.into(),
        ]);
    }
    table
}
