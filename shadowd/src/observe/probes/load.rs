//! Loads a kernel object and attaches the best way that this kernel takes.

use std::error::Error;

use aya::maps::{MapData, MapError, PerCpuArray};
use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, ProgramError, RawTracePoint};
use aya::{Btf as KernelBtf, Ebpf, EbpfError, EbpfLoader, Pod};
use shadowd_common::{LOSSES, ScopeSettings};
use thiserror::Error;

use super::{Feature, Hook, Need, PROCFS, Program, Way};
use crate::facts::ProbeStatus;
use crate::observe::btf::Btf;
use crate::observe::scope::Scope;

/// Longest reason shown.
const REASON_MAX: usize = 400;

/// What all objects need to know before they are loaded.
pub struct Prepared {
    /// The kernel's types, as this crate reads them.
    pub btf: Btf,
    /// The same, as aya reads them.
    kernel_btf: KernelBtf,
    /// This host's extent.
    pub scope: Scope,
    settings: ScopeSettings,
}

/// Why an object cannot be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel refused its maps, or the object is broken.
    #[error("the kernel object cannot be loaded")]
    Object(#[from] EbpfError),
    /// A map is of another type.
    #[error("a map cannot be opened")]
    Map(#[from] MapError),
    /// The object lacks a map.
    #[error("the kernel object has no map {0}")]
    NoMap(&'static str),
    /// The kernel lacks a field.
    #[error("{0}")]
    NoField(String),
    /// The number of possible processors cannot be read.
    #[error("the number of processors cannot be read")]
    Processors(#[source] std::io::Error),
}

impl Prepared {
    /// Looks at the kernel and at what belongs to this host.
    ///
    /// # Errors
    ///
    /// When the kernel has no BTF, or this host's extent cannot be told.
    pub fn new() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let scope = Scope::find()?;
        let mut settings = ScopeSettings::default();
        scope.write(&mut settings);
        Ok(Self {
            btf: Btf::of_kernel()?,
            kernel_btf: KernelBtf::from_sys_fs()?,
            scope,
            settings,
        })
    }

    /// Counts only what one control group and those below it do, in place of all that is visible.
    pub fn restrict(&mut self, cgroup: u64, level: u32) {
        self.settings.root_cgroup = cgroup;
        self.settings.root_level = level;
    }

    /// Loads an object: makes its maps, with the sizes given for some, and writes its settings.
    ///
    /// # Errors
    ///
    /// The kernel's or the object's.
    pub fn object<O: Pod>(
        &self,
        bytes: &[u8],
        offsets: &O,
        sizes: &[(&str, u32)],
    ) -> Result<Ebpf, LoadError> {
        let mut loader = EbpfLoader::new();
        loader
            .override_global("SCOPE", &self.settings, true)
            .override_global("OFFSETS", offsets, true)
            // Task storage: aya makes such a map but has no type to use it from user space.
            .allow_unsupported_maps();
        for (map, size) in sizes {
            loader.map_max_entries(map, *size);
        }
        Ok(loader.load(bytes)?)
    }

    /// Attaches the first way of a feature that this kernel takes.
    pub fn attach(&self, object: &mut Ebpf, feature: &Feature) -> Attached {
        let mut refused = Vec::new();
        for way in feature.ways {
            match self.take(object, way) {
                Ok(hook) => return Attached::on(feature, hook, refused),
                Err(why) => refused.push(format!("{}: {why}", way.describe())),
            }
        }
        Attached::off(feature, refused)
    }

    fn take(&self, object: &mut Ebpf, way: &Way) -> Result<String, String> {
        for need in way.needs {
            self.meets(need)?;
        }
        for program in way.programs {
            self.load(object, program)
                .map_err(|error| format!("{}: {}", program.name, reason(&error)))?;
        }
        for program in way.programs {
            attach(object, program)
                .map_err(|error| format!("{}: {}", program.name, reason(&error)))?;
        }
        Ok(way.describe())
    }

    fn meets(&self, need: &Need) -> Result<(), String> {
        match need {
            Need::Arguments(tracepoint, least) => match self.btf.tracepoint_arguments(tracepoint) {
                None => Err(format!("the kernel has no tracepoint {tracepoint}")),
                Some(count) if count < *least => Err(format!(
                    "the kernel's tracepoint {tracepoint} has {count} arguments, {least} are needed"
                )),
                Some(_) => Ok(()),
            },
            Need::Field(structure, path) => (self.btf.offset(structure, path))
                .map(|_| ())
                .map_err(|error| error.to_string()),
        }
    }

    fn load(&self, object: &mut Ebpf, program: &Program) -> Result<(), ProgramError> {
        let loaded = object
            .program_mut(program.name)
            .expect("the object is built with every program of the table");
        match program.hook {
            Hook::RawTracepoint(_) => <&mut RawTracePoint>::try_from(loaded)?.load(),
            Hook::BtfTracepoint(name) => {
                <&mut BtfTracePoint>::try_from(loaded)?.load(name, &self.kernel_btf)
            }
            Hook::FunctionEntry(name) => {
                <&mut FEntry>::try_from(loaded)?.load(name, &self.kernel_btf)
            }
            Hook::FunctionExit(name) => {
                <&mut FExit>::try_from(loaded)?.load(name, &self.kernel_btf)
            }
            Hook::Iterator(name) => <&mut Iter>::try_from(loaded)?.load(name, &self.kernel_btf),
        }
    }
}

fn attach(object: &mut Ebpf, program: &Program) -> Result<(), ProgramError> {
    let loaded = object
        .program_mut(program.name)
        .expect("the object is built with every program of the table");
    match program.hook {
        Hook::RawTracepoint(name) => {
            <&mut RawTracePoint>::try_from(loaded)?.attach(name)?;
        }
        Hook::BtfTracepoint(_) => {
            <&mut BtfTracePoint>::try_from(loaded)?.attach()?;
        }
        Hook::FunctionEntry(_) => {
            <&mut FEntry>::try_from(loaded)?.attach()?;
        }
        Hook::FunctionExit(_) => {
            <&mut FExit>::try_from(loaded)?.attach()?;
        }
        Hook::Iterator(_) => {}
    }
    Ok(())
}

impl Way {
    /// The hooks, as the status shows them.
    fn describe(&self) -> String {
        let hooks: Vec<String> = self
            .programs
            .iter()
            .map(|program| match program.hook {
                Hook::RawTracepoint(name) => format!("raw_tp {name}"),
                Hook::BtfTracepoint(name) => format!("tp_btf {name}"),
                Hook::FunctionEntry(name) => format!("fentry {name}"),
                Hook::FunctionExit(name) => format!("fexit {name}"),
                Hook::Iterator(name) => format!("iter {name}"),
            })
            .collect();
        hooks.join(", ")
    }
}

/// How one feature is fed.
pub struct Attached {
    /// Its line in the table of probes.
    pub status: ProbeStatus,
}

impl Attached {
    fn on(feature: &Feature, hook: String, refused: Vec<String>) -> Self {
        let status = ProbeStatus {
            name: feature.name.to_owned(),
            feeds: feature.feeds.to_owned(),
            hook: Some(hook),
            refused,
            ..ProbeStatus::default()
        };
        Self { status }
    }

    fn off(feature: &Feature, refused: Vec<String>) -> Self {
        let why = refused.join("; ");
        let mut attached = Self::without(feature, &why);
        attached.status.refused = refused;
        attached
    }

    /// A feature that nothing feeds.
    pub fn without(feature: &Feature, why: &str) -> Self {
        let status = ProbeStatus {
            name: feature.name.to_owned(),
            feeds: feature.feeds.to_owned(),
            degraded: Some(why.to_owned()),
            ..ProbeStatus::default()
        };
        Self { status }
    }

    /// The line of what needs no eBPF.
    pub fn procfs() -> ProbeStatus {
        let (name, feeds, hook) = PROCFS;
        ProbeStatus {
            name: name.to_owned(),
            feeds: feeds.to_owned(),
            hook: Some(hook.to_owned()),
            ..ProbeStatus::default()
        }
    }

    /// Whether something feeds it.
    pub fn is_on(&self) -> bool {
        self.status.hook.is_some()
    }
}

/// An object's counters of loss.
pub struct Losses {
    counters: PerCpuArray<MapData, u64>,
    names: &'static [(u32, &'static str)],
    logged: u32,
}

impl Losses {
    /// Takes them out of an object; `names` gives each counter the sentence that is logged when it
    /// leaves 0.
    ///
    /// # Errors
    ///
    /// When the object has none, which only a wrong build can cause.
    pub fn take(
        object: &mut Ebpf,
        names: &'static [(u32, &'static str)],
    ) -> Result<Self, LoadError> {
        let map = object.take_map("LOST").ok_or(LoadError::NoMap("LOST"))?;
        Ok(Self {
            counters: map.try_into()?,
            names,
            logged: 0,
        })
    }

    /// One counter, since the object was loaded.
    pub fn of(&self, index: u32) -> u64 {
        let values = self.counters.get(&index, 0);
        values.map_or(0, |values| values.iter().sum())
    }

    /// All of them together; logs each the first time it is not 0.
    pub fn total(&mut self) -> u64 {
        let mut total = 0;
        for index in 0..LOSSES {
            let count = self.of(index);
            total += count;
            if count > 0 && self.logged & (1 << index) == 0 {
                self.logged |= 1 << index;
                let name = self.names.iter().find(|(known, _)| *known == index);
                let sentence = name.map_or("a table is full", |(_, sentence)| sentence);
                tracing::warn!(count, "{sentence}");
            }
        }
        total
    }
}

/// An error with its causes, in one line of bounded length.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(REASON_MAX) {
        // The end of a verifier's log says what was wrong.
        Some((head, _)) if line.len() > head => {
            let from = line
                .char_indices()
                .rev()
                .nth(REASON_MAX / 2)
                .map_or(0, |(at, _)| at);
            let to = line
                .char_indices()
                .nth(REASON_MAX / 2)
                .map_or(head, |(at, _)| at);
            format!("{} ... {}", &line[..to], &line[from..])
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_keeps_its_head_and_its_end() {
        let error = std::io::Error::other(format!("head {} the end", "é ".repeat(2_000)));
        let text = reason(&error);
        assert!(text.starts_with("head") && text.ends_with("the end"));
        assert!(text.chars().count() <= REASON_MAX + 10);
    }
}
