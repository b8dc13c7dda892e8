//! What is counted: the same shapes serve as what happened in an interval and as totals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Histogram;

/// Times of which only the sum is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// How many.
    pub count: u64,
    /// Their sum, ns.
    pub sum_ns: u64,
}

impl Timing {
    /// Adds all of `more`.
    pub fn add(&mut self, more: Self) {
        self.count = self.count.saturating_add(more.count);
        self.sum_ns = self.sum_ns.saturating_add(more.sum_ns);
    }

    /// Their mean, ns; none when there were none.
    pub fn mean_ns(self) -> Option<u64> {
        self.sum_ns.checked_div(self.count)
    }
}

/// What happened on flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowCounts {
    /// TCP: connections that became established. UDP: 0.
    pub opened: u64,
    /// TCP: connections that were there before capture began.
    pub adopted: u64,
    /// TCP: connections that ended.
    pub closed: u64,
    /// TCP: connects that never became established (refused, timed out).
    pub failed: u64,
    /// TCP: of the connections that ended, those that a reset ended, of either side.
    pub resets: u64,
    /// Payload bytes received, also on connections that are open. TCP: in order, each byte once.
    pub rx_bytes: u64,
    /// Payload bytes sent. TCP: handed to the network, retransmissions not counted.
    pub tx_bytes: u64,
    /// TCP: segments received. UDP: datagrams received.
    pub rx_packets: u64,
    /// TCP: segments sent. UDP: datagrams sent.
    pub tx_packets: u64,
    /// TCP: segments sent again.
    pub retransmits: u64,
    /// TCP: smoothed round trips, read when a connection is looked at or ends.
    pub rtt: Timing,
    /// TCP, outbound: from connect to established.
    pub connect: Timing,
    /// TCP, inbound: from the last receive to the first send after it, one for each answer.
    pub response: Histogram,
}

impl FlowCounts {
    /// Adds all of `more`.
    pub fn add(&mut self, more: &Self) {
        let Self {
            opened,
            adopted,
            closed,
            failed,
            resets,
            rx_bytes,
            tx_bytes,
            rx_packets,
            tx_packets,
            retransmits,
            rtt,
            connect,
            response,
        } = self;
        for (mine, theirs) in [
            (opened, more.opened),
            (adopted, more.adopted),
            (closed, more.closed),
            (failed, more.failed),
            (resets, more.resets),
            (rx_bytes, more.rx_bytes),
            (tx_bytes, more.tx_bytes),
            (rx_packets, more.rx_packets),
            (tx_packets, more.tx_packets),
            (retransmits, more.retransmits),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        rtt.add(more.rtt);
        connect.add(more.connect);
        response.merge(&more.response);
    }
}

/// System calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyscallCounts {
    /// Calls that returned.
    pub calls: u64,
    /// Failed calls by errno.
    pub errors: BTreeMap<u16, u64>,
    /// Time from entry to return, ns, of all calls that returned.
    pub total_ns: u64,
    /// The same, one by one.
    pub latency: Histogram,
}

impl SyscallCounts {
    /// Adds all of `more`.
    pub fn add(&mut self, more: &Self) {
        self.calls = self.calls.saturating_add(more.calls);
        for (errno, count) in &more.errors {
            let mine = self.errors.entry(*errno).or_default();
            *mine = mine.saturating_add(*count);
        }
        self.total_ns = self.total_ns.saturating_add(more.total_ns);
        self.latency.merge(&more.latency);
    }

    /// Failed calls.
    pub fn failed(&self) -> u64 {
        self.errors
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Which way data moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoDirection {
    /// From the device.
    Read,
    /// To the device.
    Write,
    /// Neither: flush, discard.
    Other,
}

/// Block I/O, one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockCounts {
    /// Requests completed.
    pub operations: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Of these, failed.
    pub errors: u64,
    /// From issue to completion.
    pub latency: Histogram,
}

impl BlockCounts {
    /// Adds all of `more`.
    pub fn add(&mut self, more: &Self) {
        self.operations = self.operations.saturating_add(more.operations);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.errors = self.errors.saturating_add(more.errors);
        self.latency.merge(&more.latency);
    }
}

/// File I/O: what processes read from and wrote to regular files, whether or not a device moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileCounts {
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Files opened.
    pub opens: u64,
}

impl FileCounts {
    /// Adds all of `more`.
    pub fn add(&mut self, more: &Self) {
        self.reads = self.reads.saturating_add(more.reads);
        self.read_bytes = self.read_bytes.saturating_add(more.read_bytes);
        self.writes = self.writes.saturating_add(more.writes);
        self.write_bytes = self.write_bytes.saturating_add(more.write_bytes);
        self.opens = self.opens.saturating_add(more.opens);
    }
}

/// Pressure stall information, totals since boot (Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Time in which some task waited, ns.
    pub some_ns: u64,
    /// Time in which every task waited, ns.
    pub full_ns: u64,
}

/// What a control group or the host used, totals since it was made. None: the kernel does not
/// tell (no controller, no PSI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Processor time, ns.
    pub cpu_ns: Option<u64>,
    /// Time in which it was not let run by its limit, ns.
    pub throttled_ns: Option<u64>,
    /// Memory charged now, bytes.
    pub memory_bytes: Option<u64>,
    /// Context switches, voluntary or not.
    pub context_switches: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Pressure for a processor.
    pub cpu_pressure: Option<Pressure>,
    /// Pressure for memory.
    pub memory_pressure: Option<Pressure>,
    /// Pressure for I/O.
    pub io_pressure: Option<Pressure>,
}
