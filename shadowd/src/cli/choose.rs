//! Which part of an answer was asked for, and in which order.

use std::cmp::{Ordering, Reverse};

use super::args::{
    FlowSort, FlowsArguments, Sort, SyscallsArguments, TopArguments, WantedDirection,
    WantedProtocol,
};
use crate::facts::{Direction, Flow, ProcessUse, Protocol, UnitUse};
use crate::serve::protocol::{Flows, Top};

/// Whether `name` is `wanted`; `.service` may be left out.
fn is_unit(name: &str, wanted: &str) -> bool {
    name == wanted || name.strip_suffix(".service") == Some(wanted)
}

/// `answer` in the wanted order and length.
pub(super) fn top(mut answer: Top, wanted: TopArguments, limit: Option<u32>) -> Top {
    let by_cpu = |a: f64, b: f64| -> Ordering { b.total_cmp(&a) };
    match wanted.sort {
        Sort::Cpu => {
            answer.units.sort_by(|a, b| by_cpu(a.cpu, b.cpu));
            answer.processes.sort_by(|a, b| by_cpu(a.cpu, b.cpu));
        }
        Sort::Mem => {
            answer
                .units
                .sort_by_key(|unit: &UnitUse| Reverse(unit.rss_bytes));
            answer
                .processes
                .sort_by_key(|process: &ProcessUse| Reverse(process.rss_bytes));
        }
        Sort::Syscalls => sort_by_calls(&mut answer),
    }
    if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) {
        answer.units.truncate(limit);
        answer.processes.truncate(limit);
    }
    answer
}

fn sort_by_calls(answer: &mut Top) {
    answer
        .units
        .sort_by_key(|unit: &UnitUse| Reverse(unit.syscalls.calls));
    answer
        .processes
        .sort_by_key(|process: &ProcessUse| Reverse(process.syscalls.calls));
}

/// The system calls that were asked for, the busiest first: of units, or of the processes of one
/// unit or number.
pub(super) fn syscalls(mut answer: Top, wanted: &SyscallsArguments) -> Top {
    sort_by_calls(&mut answer);
    let unit = |name: &str| wanted.unit.as_ref().is_none_or(|it| is_unit(name, it));
    answer
        .units
        .retain(|it| wanted.pid.is_none() && unit(&it.unit));
    let pid = |pid| wanted.pid.is_none_or(|wanted| wanted == pid);
    let some = wanted.unit.is_some() || wanted.pid.is_some();
    answer
        .processes
        .retain(|it| some && unit(&it.unit) && pid(it.pid) && it.syscalls.calls > 0);
    answer
}

/// The flows that were asked for, in the wanted order.
pub(super) fn flows(mut answer: Flows, wanted: &FlowsArguments) -> Flows {
    answer.flows.retain(|flow| is_wanted(flow, wanted));
    let both = |rx: u64, tx: u64| rx.saturating_add(tx);
    match wanted.sort {
        FlowSort::Unit => answer.flows.sort_by(|a, b| a.unit.cmp(&b.unit)),
        sort => answer.flows.sort_by_key(|flow| {
            let (total, now) = (&flow.total, &flow.interval);
            Reverse(match sort {
                FlowSort::Bytes | FlowSort::Unit => both(total.rx_bytes, total.tx_bytes),
                FlowSort::Rate => both(now.rx_bytes, now.tx_bytes),
                FlowSort::Connections => both(total.opened, total.adopted),
                FlowSort::Rtt => total.rtt.mean_ns().unwrap_or(0),
                FlowSort::Retransmits => total.retransmits,
                FlowSort::Failed => total.failed,
            })
        }),
    }
    answer
}

fn is_wanted(flow: &Flow, wanted: &FlowsArguments) -> bool {
    let unit = wanted
        .unit
        .as_ref()
        .is_none_or(|unit| is_unit(&flow.unit, unit));
    let remote = wanted.remote.is_none_or(|remote| flow.remote == remote);
    let port = wanted
        .port
        .is_none_or(|port| flow.local_port == port || flow.remote_port == port);
    let protocol = match wanted.proto {
        None => true,
        Some(WantedProtocol::Tcp) => flow.protocol == Protocol::Tcp,
        Some(WantedProtocol::Udp) => flow.protocol == Protocol::Udp,
    };
    let direction = match wanted.direction {
        None => true,
        Some(WantedDirection::In) => flow.direction == Direction::Inbound,
        Some(WantedDirection::Out) => flow.direction == Direction::Outbound,
    };
    unit && remote && port && protocol && direction
}
