//! Flows of TCP and UDP, and listening sockets: has the kernel side look at what is open, and takes
//! what came since the last time.
//!
//! The kernel side keeps the sums and what was told of them, so nothing is lost between two ticks
//! or two daemons. This side holds no flow.

mod convert;
mod fields;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::include_bytes_aligned;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use shadowd_common::sockets::{
    FLOW_COUNT, FLOWS_MAX, FlowNews, IDLE_SINCE, LISTENERS_MAX, ListenerKey, Listening, Owner,
    PHASE, PHASE_CONNECTIONS, PHASE_LISTENERS, PHASE_RUNNING, SOCKETS_MAX, TICK, loss,
};

use super::limits::Limits;
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use super::{cgroups::Cgroups, seed, sys};
use crate::facts::Sample;

/// Do not replace an entry (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// A flow without an open connection is forgotten by the kernel side when nothing happened on it
/// for so long.
const IDLE: Duration = Duration::from_secs(600);
/// The same when the table is more than three quarters full.
const IDLE_WHEN_FULL: Duration = Duration::from_secs(30);

/// The tables take this share of the memory, at most.
const MEMORY_SHARE: u64 = 200;
/// Bytes of a flow and of a socket in the kernel, with what its hash table adds.
const ENTRY_BYTES: u64 = 920;
/// Fewest entries.
pub const ENTRIES_MIN: u32 = 1_024;

const SENTENCES: &[(u32, &str)] = &[
    (loss::FLOWS, "the table of flows is full"),
    (loss::DATAGRAMS, "the table of flows is full for datagrams"),
    (loss::FLOW_BYTES, "bytes of flows were refused"),
    (loss::SOCKET_BYTES, "bytes of sockets were refused"),
    (loss::SOCKETS, "the table of sockets is full"),
    (loss::LISTENERS, "the table of listening sockets is full"),
    (loss::PEERS, "the table of datagrams' remotes is full"),
];

/// The probes and their maps.
pub struct SocketProbes {
    object: Object,
    state: Array<MapData, u64>,
    listeners: HashMap<MapData, ListenerKey, Owner>,
    connections: OwnedFd,
    flows: OwnedFd,
    queues: Option<OwnedFd>,
    losses: Losses,
    capacity: u32,
}

/// Entries of a table that may have `most`, on this machine.
pub fn entries(most: u32) -> u32 {
    use procfs::Current;
    let memory = procfs::Meminfo::current().map_or(0, |memory| memory.mem_total);
    let entries = memory / MEMORY_SHARE / ENTRY_BYTES;
    u32::try_from(entries).map_or(most, |entries| entries.clamp(ENTRIES_MIN, most))
}

impl SocketProbes {
    /// Loads and attaches them, and takes over what there is; `cgroups` names the groups where
    /// procfs has to serve for that.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(
        prepared: &Prepared,
        limits: Limits,
        cgroups: &Cgroups,
    ) -> Result<(Self, Vec<Attached>), LoadError> {
        let offsets = fields::offsets(&prepared.btf)?;
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.bpf.o"));
        let sizes = [
            ("FLOWS", limits.flows),
            ("SOCKETS", limits.sockets),
            ("LISTENERS", limits.listeners),
            ("LISTENING", limits.listeners),
        ];
        let mut object = prepared.object("sockets", bytes, &offsets, &sizes)?;
        let mut attached = vec![prepared.attach(&mut object, &probes::TCP)];
        let io = prepared.attach(&mut object, &probes::UDP);
        let remotes = if io.is_on() {
            prepared.attach(&mut object, &probes::REMOTES)
        } else {
            Attached::without(&probes::REMOTES, "nothing tells of datagrams")
        };
        attached.extend([io, remotes]);
        attached.push(prepared.attach(&mut object, &probes::LISTENING));
        attached.push(prepared.attach(&mut object, &probes::BEFORE));
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let (flows, sockets, listening) = (take("FLOWS")?, take("SOCKETS")?, take("LISTENING")?);
        let (state, listeners) = (take("STATE")?, take("LISTENERS")?);
        let mut probes = Self {
            state: state.try_into()?,
            listeners: listeners.try_into()?,
            connections: walk(&object, "look_at_connections", Some(&sockets))?,
            flows: walk(&object, "report_flows", Some(&flows))?,
            queues: walk(&object, "look_at_listeners", Some(&listening)).ok(),
            losses: Losses::take(&mut object, SENTENCES)?,
            capacity: limits.flows,
            object,
        };
        probes.adopt(prepared.scope.netns, cgroups)?;
        probes.object.settle();
        Ok((probes, attached))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Takes over what was there before the programs were attached.
    fn adopt(&mut self, netns: u32, cgroups: &Cgroups) -> Result<(), LoadError> {
        if self.state.get(&PHASE, 0)? == PHASE_RUNNING {
            return Ok(()); // the daemon before this one did
        }
        match walk(&self.object, "adopt_files", None) {
            Ok(files) => {
                for phase in [PHASE_LISTENERS, PHASE_CONNECTIONS] {
                    self.state.set(PHASE, phase, 0)?;
                    run(files.as_fd()).map_err(LoadError::Attach)?;
                }
            }
            Err(_) => self.seed(seed::listeners(netns, cgroups)),
        }
        self.state.set(PHASE, PHASE_RUNNING, 0)?;
        Ok(())
    }

    /// Adds listening sockets that were there before.
    fn seed(&mut self, owners: impl IntoIterator<Item = (ListenerKey, Owner)>) {
        let mut refused: u64 = 0;
        for (key, owner) in owners {
            if let Err(error) = self.listeners.insert(key, owner, BPF_NOEXIST) {
                // The kernel side was first: its entry is the better one.
                let known = matches!(&error, MapError::SyscallError(call)
                    if call.io_error.raw_os_error() == Some(libc::EEXIST));
                refused += u64::from(!known);
            }
        }
        if refused > 0 {
            tracing::warn!(refused, "the table of listening sockets is full");
        }
    }

    /// Looks at what is open and adds what came since the last time to a sample.
    ///
    /// # Errors
    ///
    /// The kernel's; what was taken until then is in the sample, the rest in the next one.
    pub fn drain(&mut self, sample: &mut Sample) -> io::Result<()> {
        let now = sample.at.as_nanos();
        let full = self.state.get(&FLOW_COUNT, 0).unwrap_or(0) > u64::from(self.capacity) * 3 / 4;
        let idle = if full { IDLE_WHEN_FULL } else { IDLE };
        let idle = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
        for (index, value) in [
            (TICK, now),
            (IDLE_SINCE, now.saturating_sub(idle)),
            (FLOW_COUNT, 0),
        ] {
            self.state.set(index, value, 0).map_err(io::Error::other)?;
        }
        run(self.connections.as_fd())?;
        sys::records(sys::iterator(self.flows.as_fd())?, |news: &FlowNews| {
            sample.flows.push(convert::flow_delta(news));
        })?;
        if let Some(queues) = &self.queues {
            sys::records(sys::iterator(queues.as_fd())?, |one: &Listening| {
                sample.listeners.push(convert::listener_reading(one));
            })?;
        }
        sample.flow_bytes_dropped =
            self.losses.of(loss::FLOW_BYTES) + self.losses.of(loss::SOCKET_BYTES);
        Ok(())
    }

    /// What full tables refused: happenings on connections, and datagrams.
    pub fn lost(&mut self) -> (u64, u64) {
        self.losses.total(); // logs
        let of = |what| self.losses.of(what);
        (
            of(loss::FLOWS) + of(loss::SOCKETS) + of(loss::LISTENERS),
            of(loss::DATAGRAMS),
        )
    }
}

/// What walks a map, or the files of all processes.
fn walk(object: &Object, program: &'static str, map: Option<&Map>) -> Result<OwnedFd, LoadError> {
    let loaded = object.program(program).ok_or(LoadError::NoMap(program))?;
    let map = map.and_then(descriptor);
    sys::iterator_link(loaded, map).map_err(LoadError::Attach)
}

fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::HashMap(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

/// Walks to the end; the programs write nothing.
fn run(link: BorrowedFd<'_>) -> io::Result<()> {
    sys::records(sys::iterator(link)?, |_: &u64| {})
}

/// Most flows and sockets that this machine's memory allows.
pub fn limits() -> (u32, u32, u32) {
    (entries(FLOWS_MAX), entries(SOCKETS_MAX), LISTENERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_the_memory_and_their_bounds() {
        let entries = entries(FLOWS_MAX);
        assert!((ENTRIES_MIN..=FLOWS_MAX).contains(&entries), "{entries}");
    }
}
