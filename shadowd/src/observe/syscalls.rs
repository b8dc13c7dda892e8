//! Drains the counts of system calls.

use std::io;

use aya::include_bytes_aligned;
use aya::maps::{Array, Map, MapData};
use shadowd_common::syscalls::{SyscallKey, SyscallOffsets, SyscallValue, loss};

use super::fields::{Field, field, resolve};
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use super::sampler::Limits;
use super::sys;
use crate::facts::{Sample, SyscallCounts, SyscallDelta};

const FIELDS: &[Field<SyscallOffsets>] =
    &[field!("pt_regs", ["orig_ax"] | ["syscallno"], regs_number)];

/// The probe and its maps.
pub struct SyscallProbe {
    object: Object,
    generation: Array<MapData, u32>,
    open: usize,
    counts: [Map; 2],
    losses: Losses,
    processors: usize,
}

impl SyscallProbe {
    /// Loads and attaches it.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(prepared: &Prepared, limits: Limits) -> Result<(Self, Attached), LoadError> {
        let offsets = resolve(&prepared.btf, FIELDS)?;
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.bpf.o"));
        let sizes = [
            ("SYSCALLS_0", limits.syscalls),
            ("SYSCALLS_1", limits.syscalls),
        ];
        let mut object = prepared.object("syscalls", bytes, &offsets, &sizes)?;
        let attached = prepared.attach(&mut object, &probes::SYSCALLS);
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let mut probe = Self {
            generation: take("GENERATION")?.try_into()?,
            open: 0,
            counts: [take("SYSCALLS_0")?, take("SYSCALLS_1")?],
            losses: Losses::take(
                &mut object,
                &[(loss::SYSCALLS, "the table of system calls is full")],
            )?,
            processors: aya::util::nr_cpus()
                .map_err(|(_, source)| LoadError::Processors(source))?,
            object,
        };
        probe.object.settle();
        Ok((probe, attached))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Turns the kernel side to the other generation, before the rest of the sample is taken.
    pub fn turn(&mut self) {
        let next = (self.open + 1) % 2;
        if self.generation.set(0, next as u32, 0).is_ok() {
            self.open = next;
        }
    }

    /// Adds what was counted to a sample.
    ///
    /// # Errors
    ///
    /// The kernel's; what was taken until then is in the sample.
    pub fn drain(&mut self, sample: &mut Sample) -> io::Result<()> {
        let (Map::HashMap(map) | Map::PerCpuHashMap(map)) = &self.counts[(self.open + 1) % 2]
        else {
            return Ok(()); // the build of the object fixes its type
        };
        use std::os::fd::AsFd;
        sys::drain(
            map.fd().as_fd(),
            self.processors,
            |key: &SyscallKey, values: &[SyscallValue]| {
                let errors: u64 = values.iter().map(|value| value.errors).sum();
                sample.syscalls.push(SyscallDelta {
                    pid: key.tgid,
                    cgroup: key.cgroup,
                    number: key.number,
                    counts: SyscallCounts {
                        calls: values.iter().map(|value| value.calls).sum(),
                        errors: (errors > 0).then_some((0, errors)).into_iter().collect(),
                        ..SyscallCounts::default()
                    },
                });
            },
        )
    }

    /// Calls that the full table refused.
    pub fn lost(&mut self) -> u64 {
        self.losses.total()
    }
}
