//! `top`, `units`, `flows` and `syscalls`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::human::{bytes, clean, count, share, span};
use super::super::table::{Cell, Paint, Table, Tone};
use super::status::losses;
use crate::facts::{
    BlockCounts, Direction, FileCounts, Flow, Histogram, Losses, ProcessUse, Protocol,
    SyscallCounts, Timing, UnitUse, errno_name,
};
use crate::serve::protocol::{Flows, Top, Units};

/// A column: its header, whether only a wide table has it, and its cells.
struct Column<T> {
    title: &'static str,
    wide: bool,
    cell: fn(&T) -> Cell,
}

const fn column<T>(title: &'static str, cell: fn(&T) -> Cell) -> Column<T> {
    Column {
        title,
        wide: false,
        cell,
    }
}

const fn wide<T>(title: &'static str, cell: fn(&T) -> Cell) -> Column<T> {
    Column {
        title,
        wide: true,
        cell,
    }
}

fn table<T>(columns: &[Column<T>], rows: &[T], is_wide: bool) -> Table {
    let shown: Vec<&Column<T>> = columns.iter().filter(|it| is_wide || !it.wide).collect();
    let mut table = Table::of(shown.iter().map(|column| column.title).collect());
    for row in rows {
        table.push(shown.iter().map(|column| (column.cell)(row)).collect());
    }
    table
}

/// Units, then processes.
pub(in super::super) fn top(answer: &Top, is_wide: bool, paint: Paint) -> String {
    let mut text = headline(answer.interval_ns, answer.losses, paint);
    text.push_str(&table(UNITS, &answer.units, is_wide).render(paint));
    if !answer.units.is_empty() && !answer.processes.is_empty() {
        text.push('\n');
    }
    text.push_str(&table(PROCESSES, &answer.processes, is_wide).render(paint));
    text
}

/// Units with all that is known of them.
pub(in super::super) fn units(answer: &Units, is_wide: bool, paint: Paint) -> String {
    let mut text = headline(answer.interval_ns, answer.losses, paint);
    text.push_str(&table(UNITS, &answer.units, is_wide).render(paint));
    text
}

/// Flows, as they come.
pub(in super::super) fn flows(answer: &Flows, is_wide: bool, paint: Paint) -> String {
    if answer.flows.is_empty() {
        return "no flows\n".to_owned();
    }
    table(FLOWS, &answer.flows, is_wide).render(paint)
}

/// System calls of units, then of processes.
pub(in super::super) fn syscalls(answer: &Top, paint: Paint) -> String {
    if answer.units.is_empty() && answer.processes.is_empty() {
        return "no system calls\n".to_owned();
    }
    let mut text = headline(answer.interval_ns, answer.losses, paint);
    text.push_str(&table(UNIT_CALLS, &answer.units, false).render(paint));
    if !answer.units.is_empty() && !answer.processes.is_empty() {
        text.push('\n');
    }
    text.push_str(&table(PROCESS_CALLS, &answer.processes, false).render(paint));
    text
}

const UNITS: &[Column<UnitUse>] = &[
    column("UNIT", |unit| unit.unit.as_str().into()),
    column(">PROCS", |unit| count(unit.processes.into()).into()),
    column(">CPU", |unit| share(unit.cpu).into()),
    column(">MEMORY", |unit| bytes(unit.rss_bytes).into()),
    wide(">CHARGED", |unit| known(unit.memory_bytes.map(bytes))),
    column(">SYSCALLS", |unit| count(unit.syscalls.calls).into()),
    column(">ERR", |unit| count(unit.syscalls.failed()).into()),
    wide(">P50", |unit| quantile(&unit.syscalls.latency, 0.5)),
    column(">P99", |unit| quantile(&unit.syscalls.latency, 0.99)),
    wide(">EXEC", |unit| count(unit.execs).into()),
    wide(">EXIT", |unit| count(unit.exits).into()),
    wide(">OOM", |unit| warned(unit.oom_kills)),
    wide(">CONNS", |unit| count(unit.network.opened).into()),
    wide(">FAIL", |unit| warned(unit.network.failed)),
    wide(">RTT", |unit| mean(unit.network.rtt)),
    wide(">RETR", |unit| count(unit.network.retransmits).into()),
    wide(">ANSWER P99", |unit| quantile(&unit.network.response, 0.99)),
    column(">RX", |unit| bytes(unit.network.rx_bytes).into()),
    column(">TX", |unit| bytes(unit.network.tx_bytes).into()),
    column(">BLOCK", |unit| block(&unit.block_read, &unit.block_write)),
    wide(">READ P99", |unit| quantile(&unit.block_read.latency, 0.99)),
    wide(">WRITE P99", |unit| {
        quantile(&unit.block_write.latency, 0.99)
    }),
    column(">FILE", |unit| file(&unit.files)),
];

const PROCESSES: &[Column<ProcessUse>] = &[
    column(">PID", |process| process.pid.to_string().into()),
    column("COMMAND", |process| process.command.as_str().into()),
    column("UNIT", |process| process.unit.as_str().into()),
    column(">CPU", |process| share(process.cpu).into()),
    column(">MEMORY", |process| bytes(process.rss_bytes).into()),
    column(">SYSCALLS", |process| count(process.syscalls.calls).into()),
    column(">ERR", |process| count(process.syscalls.failed()).into()),
    wide(">P50", |process| quantile(&process.syscalls.latency, 0.5)),
    column(">P99", |process| quantile(&process.syscalls.latency, 0.99)),
    column(">RX", |process| bytes(process.network.rx_bytes).into()),
    column(">TX", |process| bytes(process.network.tx_bytes).into()),
    wide(">RETR", |process| count(process.network.retransmits).into()),
    wide(">BLOCK", |process| {
        block(&process.block_read, &process.block_write)
    }),
    wide(">FILE", |process| file(&process.files)),
    wide(">SWITCHES", |process| {
        count(process.context_switches).into()
    }),
    column("STATE", |process| {
        if process.ended { "ended" } else { "" }.into()
    }),
];

const FLOWS: &[Column<Flow>] = &[
    column("UNIT", |flow| flow.unit.as_str().into()),
    column(">PID", |flow| pid(flow.pid).into()),
    wide("COMMAND", |flow| flow.command.as_str().into()),
    column("PROTO", |flow| protocol(flow.protocol).into()),
    column("LOCAL", |flow| end(flow.local, flow.local_port).into()),
    column("", |flow| direction(flow.direction).into()),
    column("REMOTE", |flow| end(flow.remote, flow.remote_port).into()),
    column(">CONNS", |flow| {
        count(flow.total.opened.saturating_add(flow.total.adopted)).into()
    }),
    column(">OPEN", |flow| count(flow.open).into()),
    column(">FAIL", |flow| warned(flow.total.failed)),
    wide(">RESET", |flow| count(flow.total.resets).into()),
    column(">RTT", |flow| mean(flow.total.rtt)),
    wide(">CONNECT", |flow| mean(flow.total.connect)),
    wide(">ANSWER P99", |flow| quantile(&flow.total.response, 0.99)),
    column(">RETR", |flow| count(flow.total.retransmits).into()),
    column(">RX", |flow| bytes(flow.total.rx_bytes).into()),
    column(">TX", |flow| bytes(flow.total.tx_bytes).into()),
    column("NAME", |flow| {
        flow.remote_name.as_deref().unwrap_or("").into()
    }),
];

const UNIT_CALLS: &[Column<UnitUse>] = &[
    column("UNIT", |unit| unit.unit.as_str().into()),
    column(">SYSCALLS", |unit| count(unit.syscalls.calls).into()),
    column(">ERR", |unit| count(unit.syscalls.failed()).into()),
    column(">P50", |unit| quantile(&unit.syscalls.latency, 0.5)),
    column(">P99", |unit| quantile(&unit.syscalls.latency, 0.99)),
    column("ERRORS", |unit| errors(&unit.syscalls).into()),
];

const PROCESS_CALLS: &[Column<ProcessUse>] = &[
    column(">PID", |process| process.pid.to_string().into()),
    column("COMMAND", |process| process.command.as_str().into()),
    column(">SYSCALLS", |process| count(process.syscalls.calls).into()),
    column(">ERR", |process| count(process.syscalls.failed()).into()),
    column(">P50", |process| quantile(&process.syscalls.latency, 0.5)),
    column(">P99", |process| quantile(&process.syscalls.latency, 0.99)),
    column("ERRORS", |process| errors(&process.syscalls).into()),
];

/// Errors by name, the most frequent first.
fn errors(calls: &SyscallCounts) -> String {
    const SHOWN: usize = 6;
    let mut errors: Vec<(u16, u64)> = calls.errors.iter().map(|(no, n)| (*no, *n)).collect();
    errors.retain(|(_, times)| *times > 0);
    errors.sort_by_key(|(errno, times)| (std::cmp::Reverse(*times), *errno));
    let words = errors.iter().take(SHOWN);
    let words = words.map(|(errno, times)| format!("{} {}", errno_name(*errno), count(*times)));
    let mut text = words.collect::<Vec<_>>().join(", ");
    if errors.len() > SHOWN {
        text.push_str(&format!(", {} more", errors.len() - SHOWN));
    }
    text
}

/// An address and its port; `*` stands for any ephemeral port.
pub(in super::super) fn end(address: IpAddr, port: u16) -> String {
    match (address, port) {
        (IpAddr::V4(address), 0) => format!("{address}:*"),
        (IpAddr::V6(address), 0) => format!("[{address}]:*"),
        (address, port) => SocketAddr::new(address, port).to_string(),
    }
}

/// The other end of `flow`, by name where DNS gave one.
pub(in super::super) fn remote_end(flow: &Flow) -> String {
    match &flow.remote_name {
        Some(name) if flow.remote_port == 0 => clean(name),
        Some(name) => format!("{}:{}", clean(name), flow.remote_port),
        None => end(flow.remote, flow.remote_port),
    }
}

/// `tcp` or `udp`.
pub(in super::super) const fn protocol(protocol: Protocol) -> &'static str {
    protocol.as_str()
}

/// An arrow from who opened it.
pub(in super::super) const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "->",
        Direction::Inbound => "<-",
    }
}

fn pid(pid: u32) -> String {
    if pid == 0 {
        "?".to_owned()
    } else {
        pid.to_string()
    }
}

fn known(text: Option<String>) -> Cell {
    text.unwrap_or_else(|| "-".to_owned()).into()
}

fn quantile(times: &Histogram, share: f64) -> Cell {
    known(times.quantile(share).map(span))
}

fn mean(timing: Timing) -> Cell {
    known(timing.mean_ns().map(|ns| span(Duration::from_nanos(ns))))
}

fn block(read: &BlockCounts, write: &BlockCounts) -> Cell {
    bytes(read.bytes.saturating_add(write.bytes)).into()
}

fn file(counts: &FileCounts) -> Cell {
    bytes(counts.read_bytes.saturating_add(counts.write_bytes)).into()
}

fn warned(value: u64) -> Cell {
    let tone = if value > 0 {
        Tone::Warning
    } else {
        Tone::Plain
    };
    Cell::new(count(value), tone)
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
