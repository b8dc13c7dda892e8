//! Listening sockets: their queues now, and what these refused in the interval.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::facts::{Listener, ListenerReading};

/// A process listens at an address, maybe with several sockets (SO_REUSEPORT, socket(7)).
type Key = (SocketAddr, u32);

/// The sockets of the last sample.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Refused since each socket was made.
    last: BTreeMap<Key, u64>,
    now: BTreeMap<Key, Listener>,
    first: bool,
}

impl Listeners {
    pub fn begin(&mut self, first: bool) {
        self.first = first;
        self.now.clear();
    }

    pub fn add(&mut self, reading: &ListenerReading, unit: &str, command: String) {
        let key = (reading.local, reading.pid);
        let listener = self.now.entry(key).or_insert_with(|| Listener {
            unit: unit.to_owned(),
            pid: reading.pid,
            command,
            local: reading.local.ip(),
            local_port: reading.local.port(),
            backlog: 0,
            backlog_max: 0,
            overflows: 0,
            overflows_total: 0,
        });
        listener.backlog = listener.backlog.saturating_add(reading.backlog);
        listener.backlog_max = listener.backlog_max.saturating_add(reading.backlog_max);
        listener.overflows_total = listener.overflows_total.saturating_add(reading.overflows);
    }

    /// Every socket, by address.
    pub fn end(&mut self) -> Vec<Listener> {
        let mut last = BTreeMap::new();
        for (key, listener) in &mut self.now {
            let total = listener.overflows_total;
            // A socket that was not there before was made since, so all is this interval's.
            let fallback = if self.first { total } else { 0 };
            let before = self.last.get(key).copied().unwrap_or(fallback);
            listener.overflows = total.saturating_sub(before);
            last.insert(*key, total);
        }
        self.last = last;
        std::mem::take(&mut self.now).into_values().collect()
    }
}
