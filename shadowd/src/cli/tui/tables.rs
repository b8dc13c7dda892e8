//! What each list shows: its columns, and its rows out of the newest answer.

use super::value::Value;
use crate::cli::show::{direction, end, protocol, remote_end};
use crate::facts::{
    BlockCounts, DeviceUse, FileUse, Flow, FlowCounts, Listener, Observation, ProbeStatus,
    ProcessUse, UnitUse, errno_name,
};

/// The lists there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Units,
    Processes,
    Flows,
    Listeners,
    Devices,
    Probes,
    UnitProcesses,
    UnitFlows,
    UnitFiles,
    UnitErrors,
}

impl List {
    /// How many there are.
    pub(super) const COUNT: usize = 10;
    /// Those of the whole host.
    pub(super) const TABS: [Self; 6] = [
        Self::Units,
        Self::Processes,
        Self::Flows,
        Self::Listeners,
        Self::Devices,
        Self::Probes,
    ];
    /// Those of one unit.
    pub(super) const PARTS: [Self; 4] = [
        Self::UnitProcesses,
        Self::UnitFlows,
        Self::UnitFiles,
        Self::UnitErrors,
    ];

    /// Its name.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Units => "Units",
            Self::Processes | Self::UnitProcesses => "Processes",
            Self::Flows | Self::UnitFlows => "Flows",
            Self::Listeners => "Listeners",
            Self::Devices => "Devices",
            Self::Probes => "Probes",
            Self::UnitFiles => "Files",
            Self::UnitErrors => "Errors",
        }
    }

    /// Its columns.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Units => UNITS,
            Self::Processes | Self::UnitProcesses => PROCESSES,
            Self::Flows | Self::UnitFlows => FLOWS,
            Self::Listeners => LISTENERS,
            Self::Devices => DEVICES,
            Self::Probes => PROBES,
            Self::UnitFiles => FILES,
            Self::UnitErrors => ERRORS,
        }
    }

    /// The column it is sorted by at first.
    pub(super) fn first_sort(self) -> usize {
        let wanted = match self {
            Self::Units | Self::Processes | Self::UnitProcesses => "CPU%",
            Self::Flows | Self::UnitFlows => "RX/s",
            Self::Listeners => "UNIT",
            Self::Devices => "READ/s",
            Self::Probes => "PROBE",
            Self::UnitFiles => "PATH",
            Self::UnitErrors => "FAILED/s",
        };
        let at = self
            .columns()
            .iter()
            .position(|column| column.title == wanted);
        at.unwrap_or(0)
    }
}

/// A column: its head, its width, and whether it takes what room is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    pub(super) grows: bool,
}

const fn number(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width,
        grows: false,
    }
}

const fn words(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width,
        grows: true,
    }
}

const UNITS: &[Column] = &[
    words("UNIT", 14),
    number("CPU%", 6),
    number("MEMORY", 8),
    number("PROCS", 5),
    number("CALLS/s", 8),
    number("ERR/s", 6),
    number("P99", 8),
    number("RX/s", 8),
    number("TX/s", 8),
    number("CONN/s", 6),
    number("RTT", 8),
    number("RETR", 5),
    number("BLOCK/s", 8),
    number("FILE/s", 8),
    number("IO%", 5),
    number("EXEC/s", 6),
];

const PROCESSES: &[Column] = &[
    number("PID", 7),
    words("COMMAND", 12),
    number("CPU%", 6),
    number("MEMORY", 8),
    words("UNIT", 14),
    number("CALLS/s", 8),
    number("ERR/s", 6),
    number("P99", 8),
    number("RX/s", 8),
    number("TX/s", 8),
    number("BLOCK/s", 8),
    number("FILE/s", 8),
    number("STATE", 5),
];

const FLOWS: &[Column] = &[
    words("UNIT", 12),
    number("PROTO", 5),
    number("DIR", 3),
    words("REMOTE", 18),
    number("RX/s", 8),
    number("TX/s", 8),
    number("OPEN", 5),
    number("CONN/s", 6),
    number("RTT", 8),
    number("RETR", 5),
    number("FAILED", 6),
    words("LOCAL", 16),
    number("PID", 7),
    number("COMMAND", 15),
];

const LISTENERS: &[Column] = &[
    words("UNIT", 14),
    words("LOCAL", 16),
    number("WAITING", 7),
    number("MAX", 6),
    number("REFUSED", 8),
    number("PID", 7),
    number("COMMAND", 15),
];

const DEVICES: &[Column] = &[
    words("DEVICE", 8),
    number("READ/s", 8),
    number("WRITE/s", 8),
    number("READS/s", 7),
    number("WRITES/s", 8),
    number("R P99", 8),
    number("W P99", 8),
    number("R P50", 8),
    number("W P50", 8),
    number("FAILED", 6),
];

const PROBES: &[Column] = &[
    words("PROBE", 10),
    number("STATE", 7),
    number("EVENTS/s", 9),
    number("COST", 8),
    number("CPU%", 6),
    number("DROPPED", 9),
    words("HOOK", 20),
    number("SEEN", 13),
    number("NO UNIT", 9),
];

const FILES: &[Column] = &[
    words("PATH", 24),
    number("OPENED", 7),
    number("PID", 7),
    number("COMMAND", 15),
];

const ERRORS: &[Column] = &[
    words("ERROR", 12),
    number("FAILED/s", 10),
    number("TOTAL", 14),
];

/// One line of a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What stays the same from answer to answer.
    pub(super) key: String,
    /// The unit it belongs to.
    pub(super) unit: Option<String>,
    /// A value for each column.
    pub(super) values: Vec<Value>,
}

/// The rows of `list`, unsorted; those of one unit need its name.
pub(super) fn rows(
    list: List,
    seen: &Observation,
    probes: &[ProbeStatus],
    unit: Option<&str>,
) -> Vec<Row> {
    let seconds = match seen.interval_ns {
        0 => 1.0,
        nanos => nanos as f64 / 1e9,
    };
    let mine = |name: &str| unit.is_none_or(|unit| unit == name);
    match list {
        List::Units => seen
            .units
            .iter()
            .map(|unit| of_unit(unit, seconds))
            .collect(),
        List::Processes | List::UnitProcesses => seen
            .processes
            .iter()
            .filter(|process| mine(&process.unit))
            .map(|process| of_process(process, seconds))
            .collect(),
        List::Flows | List::UnitFlows => seen
            .flows
            .iter()
            .filter(|flow| mine(&flow.unit))
            .map(|flow| of_flow(flow, seconds))
            .collect(),
        List::Listeners => seen.listeners.iter().map(of_listener).collect(),
        List::Devices => seen
            .devices
            .iter()
            .map(|it| of_device(it, seconds))
            .collect(),
        List::Probes => probes.iter().map(of_probe).collect(),
        List::UnitFiles => seen
            .files
            .iter()
            .filter(|file| mine(&file.unit))
            .map(of_file)
            .collect(),
        List::UnitErrors => seen
            .units
            .iter()
            .filter(|it| mine(&it.unit))
            .flat_map(|unit| of_errors(unit, seconds))
            .collect(),
    }
}

fn rate(count: u64, seconds: f64) -> Value {
    Value::Rate(count as f64 / seconds)
}

fn bytes(bytes: u64, seconds: f64) -> Value {
    Value::Bytes(bytes as f64 / seconds)
}

fn rtt(counts: &FlowCounts) -> Value {
    Value::known(counts.rtt.mean_ns(), |nanos| Value::Span(nanos as f64))
}

fn of_unit(unit: &UnitUse, seconds: f64) -> Row {
    let network = &unit.network;
    let block = unit.block_read.bytes.saturating_add(unit.block_write.bytes);
    let file = unit.files.read_bytes.saturating_add(unit.files.write_bytes);
    Row {
        key: unit.unit.clone(),
        unit: Some(unit.unit.clone()),
        values: vec![
            Value::text(&unit.unit),
            Value::Share(unit.cpu),
            Value::Bytes(unit.memory_bytes.unwrap_or(unit.rss_bytes) as f64),
            Value::Count(unit.processes.into()),
            rate(unit.syscalls.calls, seconds),
            rate(unit.syscalls.failed(), seconds),
            Value::span(unit.syscalls.latency.quantile(0.99)),
            bytes(network.rx_bytes, seconds),
            bytes(network.tx_bytes, seconds),
            rate(network.opened, seconds),
            rtt(network),
            Value::Count(network.retransmits),
            bytes(block, seconds),
            bytes(file, seconds),
            Value::known(unit.io_pressure, Value::Share),
            rate(unit.execs, seconds),
        ],
    }
}

fn of_process(process: &ProcessUse, seconds: f64) -> Row {
    let block = process
        .block_read
        .bytes
        .saturating_add(process.block_write.bytes);
    let file = process
        .files
        .read_bytes
        .saturating_add(process.files.write_bytes);
    Row {
        key: process.pid.to_string(),
        unit: Some(process.unit.clone()),
        values: vec![
            Value::Count(process.pid.into()),
            Value::text(&process.command),
            Value::Share(process.cpu),
            Value::Bytes(process.rss_bytes as f64),
            Value::text(&process.unit),
            rate(process.syscalls.calls, seconds),
            rate(process.syscalls.failed(), seconds),
            Value::span(process.syscalls.latency.quantile(0.99)),
            bytes(process.network.rx_bytes, seconds),
            bytes(process.network.tx_bytes, seconds),
            bytes(block, seconds),
            bytes(file, seconds),
            Value::text(if process.ended { "ended" } else { "" }),
        ],
    }
}

fn of_flow(flow: &Flow, seconds: f64) -> Row {
    let (local, remote) = (end(flow.local, flow.local_port), remote_end(flow));
    let now = &flow.interval;
    Row {
        key: format!(
            "{} {} {local} {remote} {:?}",
            flow.unit, flow.pid, flow.protocol
        ),
        unit: Some(flow.unit.clone()),
        values: vec![
            Value::text(&flow.unit),
            Value::text(protocol(flow.protocol)),
            Value::text(direction(flow.direction)),
            Value::Text(remote),
            bytes(now.rx_bytes, seconds),
            bytes(now.tx_bytes, seconds),
            Value::Count(flow.open),
            rate(now.opened, seconds),
            rtt(&flow.total),
            Value::Count(flow.total.retransmits),
            Value::Count(flow.total.failed),
            Value::Text(local),
            Value::Count(flow.pid.into()),
            Value::text(&flow.command),
        ],
    }
}

fn of_listener(listener: &Listener) -> Row {
    let local = end(listener.local, listener.local_port);
    Row {
        key: format!("{} {local}", listener.pid),
        unit: Some(listener.unit.clone()),
        values: vec![
            Value::text(&listener.unit),
            Value::Text(local),
            Value::Count(listener.backlog.into()),
            Value::Count(listener.backlog_max.into()),
            Value::Count(listener.overflows_total),
            Value::Count(listener.pid.into()),
            Value::text(&listener.command),
        ],
    }
}

fn of_device(device: &DeviceUse, seconds: f64) -> Row {
    let quantile = |counts: &BlockCounts, share| Value::span(counts.latency.quantile(share));
    let (read, write) = (&device.read, &device.write);
    Row {
        key: device.device.clone(),
        unit: None,
        values: vec![
            Value::text(&device.device),
            bytes(read.bytes, seconds),
            bytes(write.bytes, seconds),
            rate(read.operations, seconds),
            rate(write.operations, seconds),
            quantile(read, 0.99),
            quantile(write, 0.99),
            quantile(read, 0.5),
            quantile(write, 0.5),
            Value::Count(read.errors + write.errors + device.other.errors),
        ],
    }
}

fn of_probe(probe: &ProbeStatus) -> Row {
    let state = match (&probe.degraded, &probe.hook) {
        (None, Some(_)) => "on",
        (Some(_), Some(_)) => "reduced",
        (_, None) => "off",
    };
    Row {
        key: probe.name.clone(),
        unit: None,
        values: vec![
            Value::text(&probe.name),
            Value::text(state),
            Value::known(probe.events_per_second, Value::Rate),
            Value::known(probe.cost_ns, Value::Span),
            Value::known(probe.cpu_share, Value::Share),
            Value::Count(probe.losses.dropped),
            Value::text(probe.hook.as_deref().unwrap_or("-")),
            Value::Count(probe.losses.seen),
            Value::Count(probe.losses.unattributed),
        ],
    }
}

fn of_file(file: &FileUse) -> Row {
    Row {
        key: format!("{} {} {}", file.path, file.pid, file.write),
        unit: Some(file.unit.clone()),
        values: vec![
            Value::text(&file.path),
            Value::text(if file.write { "write" } else { "read" }),
            Value::Count(file.pid.into()),
            Value::text(&file.command),
        ],
    }
}

fn of_errors(unit: &UnitUse, seconds: f64) -> Vec<Row> {
    let now = &unit.syscalls.errors;
    let mut totals = unit.total.syscalls.errors.clone();
    for (errno, count) in now {
        let total = totals.entry(*errno).or_default();
        *total = (*total).max(*count);
    }
    let row = |(errno, total): (u16, u64)| Row {
        key: errno.to_string(),
        unit: None,
        values: vec![
            Value::text(errno_name(errno)),
            rate(now.get(&errno).copied().unwrap_or(0), seconds),
            Value::Count(total),
        ],
    };
    totals.into_iter().map(row).collect()
}
