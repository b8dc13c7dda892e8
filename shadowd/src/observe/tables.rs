//! The kernel side's maps, typed: what is drained, what is seeded, what was lost.
//!
//! Counts live in two generations. The kernel side writes to the one that `GENERATION` names; a
//! drain first turns to the other one and empties the old one later, when no program that began
//! with it can still run. So no count is taken while it is added to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use shadowd_common::{
    CgroupEvent, EVENT_CGROUP, EVENT_EXEC, EVENT_EXIT, EVENTS_BYTES, FlowKey, FlowValue,
    GENERATIONS, INBOUND, LOSSES, ListenerKey, Owner, ProcessEvent, SYSCALLS_MAX, SyscallKey,
    SyscallValue,
};
use thiserror::Error;

use super::{seed, sys};
use crate::facts::{BootTime, Direction, FlowDelta, Lifecycle, LifecycleKind, SyscallCount};

/// Do not replace an entry (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;
/// Most records taken from the ring buffer at once; more wait for the next time.
const EVENTS_MAX: usize = 16_384;

/// How much the tables hold that a test wants to see full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most records of system calls between two drains, at least 1.
    pub syscalls: u32,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub events_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            syscalls: SYSCALLS_MAX,
            events_bytes: EVENTS_BYTES,
        }
    }
}

impl Limits {
    /// The maps whose size they set.
    pub fn of_maps(self) -> [(&'static str, u32); 3] {
        [
            ("SYSCALLS_0", self.syscalls),
            ("SYSCALLS_1", self.syscalls),
            ("EVENTS", self.events_bytes),
        ]
    }
}

/// Why the maps of a loaded object cannot be used.
#[derive(Debug, Error)]
pub enum TablesError {
    /// The object lacks one.
    #[error("the kernel object has no map {0}")]
    Missing(String),
    /// It is of another type.
    #[error("a map cannot be opened")]
    Open(#[from] MapError),
    /// The number of possible CPUs cannot be read.
    #[error("the number of processors cannot be read")]
    Processors(#[source] io::Error),
}

/// The maps.
pub struct Tables {
    generation: Array<MapData, u32>,
    open: usize,
    syscalls: [Map; GENERATIONS],
    flows: [Map; GENERATIONS],
    listeners: HashMap<MapData, ListenerKey, Owner>,
    lost: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    processors: usize,
}

/// One record of the ring buffer.
pub enum Event {
    /// A process began a program or ended.
    Process(Lifecycle),
    /// A control group was made: id and path from the real root.
    Cgroup(u64, String),
}

impl Tables {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    ///
    /// When one is missing or of another type, which only a wrong build can cause.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, TablesError> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .ok_or_else(|| TablesError::Missing(name.to_owned()))
        };
        Ok(Self {
            generation: take("GENERATION")?.try_into()?,
            open: 0,
            syscalls: [take("SYSCALLS_0")?, take("SYSCALLS_1")?],
            flows: [take("FLOWS_0")?, take("FLOWS_1")?],
            listeners: take("LISTENERS")?.try_into()?,
            lost: take("LOST")?.try_into()?,
            events: take("EVENTS")?.try_into()?,
            processors: aya::util::nr_cpus()
                .map_err(|(_, source)| TablesError::Processors(source))?,
        })
    }

    /// Adds listening sockets that were there before; returns how many did not fit.
    pub fn seed(&mut self, owners: impl IntoIterator<Item = (ListenerKey, Owner)>) -> u64 {
        let mut refused = 0;
        for (key, owner) in owners {
            if let Err(error) = self.listeners.insert(key, owner, BPF_NOEXIST) {
                // The kernel side was first: its entry is the better one.
                let known = matches!(&error, MapError::SyscallError(call)
                    if call.io_error.raw_os_error() == Some(libc::EEXIST));
                refused += u64::from(!known);
            }
        }
        refused
    }

    /// Turns the kernel side to the other generation; what it counted until now is drained by
    /// [`Tables::drain`], as late as possible.
    ///
    /// # Errors
    ///
    /// The kernel's; then the open generation stays open.
    pub fn turn(&mut self) -> Result<(), MapError> {
        let next = (self.open + 1) % GENERATIONS;
        self.generation.set(0, next as u32, 0)?;
        self.open = next;
        Ok(())
    }

    /// Empties the generation that is not written to.
    ///
    /// # Errors
    ///
    /// The kernel's; what was taken until then is in the vectors.
    pub fn drain(
        &self,
        syscalls: &mut Vec<SyscallCount>,
        flows: &mut Vec<FlowDelta>,
    ) -> io::Result<()> {
        let old = (self.open + 1) % GENERATIONS;
        sys::drain(
            descriptor(&self.syscalls[old]),
            self.processors,
            |key: &SyscallKey, counts| {
                syscalls.push(syscall_count(key, counts));
            },
        )?;
        sys::drain(
            descriptor(&self.flows[old]),
            1,
            |key: &FlowKey, values: &[FlowValue]| {
                flows.extend(values.first().map(|value| flow_delta(key, value)));
            },
        )
    }

    /// Records that full tables and buffers refused since the object was loaded.
    pub fn lost(&self) -> u64 {
        let of = |index| {
            self.lost
                .get(&index, 0)
                .map_or(0, |values| values.iter().sum::<u64>())
        };
        (0..LOSSES).map(of).sum()
    }

    /// Takes what waits in the ring buffer.
    pub fn events(&mut self, mut each: impl FnMut(Event)) {
        for _ in 0..EVENTS_MAX {
            let Some(item) = self.events.next() else {
                break;
            };
            if let Some(event) = decode(&item) {
                each(event);
            }
        }
    }

    /// What becomes readable when the ring buffer has a record.
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn descriptor(map: &Map) -> BorrowedFd<'_> {
    match map {
        Map::HashMap(data) | Map::PerCpuHashMap(data) => data.fd().as_fd(),
        _ => unreachable!("take() names hash maps only; the build of the object fixes their type"),
    }
}

fn syscall_count(key: &SyscallKey, counts: &[SyscallValue]) -> SyscallCount {
    SyscallCount {
        pid: key.tgid,
        cgroup: key.cgroup,
        number: key.number,
        calls: counts.iter().map(|count| count.calls).sum(),
        errors: counts.iter().map(|count| count.errors).sum(),
    }
}

fn flow_delta(key: &FlowKey, value: &FlowValue) -> FlowDelta {
    let inbound = key.direction == INBOUND;
    let (local_port, remote_port) = if inbound {
        (key.service, 0)
    } else {
        (0, key.service)
    };
    FlowDelta {
        pid: key.tgid,
        cgroup: key.cgroup,
        direction: if inbound {
            Direction::Inbound
        } else {
            Direction::Outbound
        },
        local: (seed::address(key.local), local_port).into(),
        remote: (seed::address(key.remote), remote_port).into(),
        opened: value.opened,
        closed: value.closed,
        failed: value.failed,
        rx_bytes: value.rx_bytes,
        tx_bytes: value.tx_bytes,
    }
}

/// Reads one record; `None` for one that this build does not know.
fn decode(bytes: &[u8]) -> Option<Event> {
    let four = |at: usize| {
        let part = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(part.try_into().ok()?))
    };
    let eight = |at: usize| {
        let part = bytes.get(at..at + 8)?;
        Some(u64::from_ne_bytes(part.try_into().ok()?))
    };
    use std::mem::offset_of;
    let kind = four(offset_of!(ProcessEvent, kind))?;
    match kind {
        EVENT_EXEC | EVENT_EXIT => {
            let name = offset_of!(ProcessEvent, command);
            let status = four(offset_of!(ProcessEvent, status))?.cast_signed();
            Some(Event::Process(Lifecycle {
                pid: four(offset_of!(ProcessEvent, tgid))?,
                cgroup: eight(offset_of!(ProcessEvent, cgroup))?,
                command: text(bytes.get(name..name + 16)?),
                at: BootTime::from_nanos(eight(offset_of!(ProcessEvent, at))?),
                kind: if kind == EVENT_EXEC {
                    LifecycleKind::Exec
                } else {
                    LifecycleKind::Exit { status }
                },
            }))
        }
        EVENT_CGROUP => {
            let length = four(offset_of!(CgroupEvent, length))? as usize;
            let start = offset_of!(CgroupEvent, path);
            let path = bytes.get(start..)?;
            // A path that fills the whole field was cut: the walk finds the group instead.
            let whole = length > 1 && length < path.len();
            whole.then(|| {
                Some(Event::Cgroup(
                    eight(offset_of!(CgroupEvent, id))?,
                    text(&path[..length]),
                ))
            })?
        }
        _ => None,
    }
}

/// Text up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_any_length_and_kind_is_read_or_refused() {
        for kind in 0..5_u32 {
            for length in 0..300 {
                let mut bytes = vec![0xa5; length];
                for (byte, given) in bytes.iter_mut().zip(kind.to_ne_bytes()) {
                    *byte = given;
                }
                let known = decode(&bytes).is_some();
                assert!(
                    !known || (1..=2).contains(&kind),
                    "kind {kind} length {length}"
                );
            }
        }
    }

    #[test]
    fn a_flow_names_the_service_port_only() {
        let key = FlowKey {
            service: 80,
            direction: INBOUND,
            local: seed::kernel_address([192, 0, 2, 1].into()),
            remote: seed::kernel_address([192, 0, 2, 9].into()),
            ..FlowKey::default()
        };
        let delta = flow_delta(&key, &FlowValue::default());
        assert_eq!(delta.local.to_string(), "192.0.2.1:80");
        assert_eq!(delta.remote.to_string(), "192.0.2.9:0");
    }
}
