//! What is rare: programs begun, processes ended or killed, control groups made, through one ring buffer.

use std::os::fd::{AsFd, BorrowedFd};

use aya::include_bytes_aligned;
use aya::maps::{MapData, RingBuf};
use shadowd_common::lifecycle::{
    CgroupEvent, EVENT_CGROUP, EVENT_EXEC, EVENT_EXIT, EVENT_OOM, LifecycleOffsets, ProcessEvent,
    loss,
};

use super::fields::{Field, field, resolve};
use super::limits::Limits;
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use crate::facts::{BootTime, Lifecycle, LifecycleKind};

/// Most records taken from the ring buffer at once; more wait for the next time.
const EVENTS_MAX: usize = 16_384;

const FIELDS: &[Field<LifecycleOffsets>] = &[
    field!("task_struct", ["exit_code"], task_exit_code),
    field!("cgroup", ["kn"], cgroup_node),
    field!("cgroup", ["root"], cgroup_root),
    field!("cgroup_root", ["hierarchy_id"], root_hierarchy),
    field!("kernfs_node", ["id"], node_id),
    field!("task_struct", ["pid"], task_pid),
    field!("task_struct", ["signal"], task_signal),
    field!("task_struct", ["thread_node"], task_thread_node),
    field!("task_struct", ["se", "sum_exec_runtime"], task_runtime),
    field!("signal_struct", ["thread_head"], signal_threads),
    field!("signal_struct", ["sum_sched_runtime"], signal_runtime),
    field!("signal_struct", ["live"], signal_live),
];

/// The probes.
pub struct LifecycleProbes {
    object: Object,
    events: RingBuf<MapData>,
    losses: Losses,
}

/// One record of the ring buffer.
pub enum Event {
    /// A process began a program or ended.
    Process(Lifecycle),
    /// A control group was made: id and path from the real root.
    Cgroup(u64, String),
}

impl LifecycleProbes {
    /// Loads and attaches them.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(prepared: &Prepared, limits: Limits) -> Result<(Self, Vec<Attached>), LoadError> {
        let mut offsets = resolve(&prepared.btf, FIELDS)?;
        let arguments = prepared.btf.tracepoint_arguments("sched_process_exit");
        offsets.exit_tells_group = u32::from(arguments.is_some_and(|count| count >= 2));
        let arguments = prepared.btf.tracepoint_arguments("mark_victim");
        offsets.victim_is_task = u32::from(arguments.is_some_and(|count| count >= 2));
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lifecycle.bpf.o"));
        let sizes = [("EVENTS", limits.events_bytes)];
        let mut object = prepared.object("lifecycle", bytes, &offsets, &sizes)?;
        let attached = [probes::PROCESSES, probes::CGROUPS, probes::OOM]
            .map(|feature| prepared.attach(&mut object, &feature));
        let events = object
            .take_map("EVENTS")
            .ok_or(LoadError::NoMap("EVENTS"))?;
        let mut probes = Self {
            events: events.try_into()?,
            losses: Losses::take(
                &mut object,
                &[
                    (loss::EVENTS, "the ring buffer of events is full"),
                    (
                        loss::VICTIMS,
                        "the table of kills for want of memory is full",
                    ),
                ],
            )?,
            object,
        };
        probes.object.settle();
        Ok((probes, attached.into()))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Records that the full ring buffer refused.
    pub fn lost(&mut self) -> u64 {
        self.losses.total()
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

/// Reads one record; `None` for one that this build does not know.
pub(super) fn decode(bytes: &[u8]) -> Option<Event> {
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
        EVENT_EXEC | EVENT_EXIT | EVENT_OOM => {
            let name = offset_of!(ProcessEvent, command);
            let status = four(offset_of!(ProcessEvent, status))?.cast_signed();
            Some(Event::Process(Lifecycle {
                pid: four(offset_of!(ProcessEvent, tgid))?,
                cgroup: eight(offset_of!(ProcessEvent, cgroup))?,
                command: text(bytes.get(name..name + 16)?),
                at: BootTime::from_nanos(eight(offset_of!(ProcessEvent, at))?),
                kind: match kind {
                    EVENT_EXEC => LifecycleKind::Exec,
                    EVENT_OOM => LifecycleKind::OomKill,
                    _ => LifecycleKind::Exit { status },
                },
                cpu_ns: match kind {
                    EVENT_EXIT => Some(eight(offset_of!(ProcessEvent, cpu))?),
                    _ => None,
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
        for kind in 0..6_u32 {
            for length in 0..300 {
                let mut bytes = vec![0xa5; length];
                for (byte, given) in bytes.iter_mut().zip(kind.to_ne_bytes()) {
                    *byte = given;
                }
                let known = decode(&bytes).is_some();
                assert!(
                    !known || [1, 2, 4].contains(&kind),
                    "kind {kind} length {length}"
                );
            }
        }
    }
}
