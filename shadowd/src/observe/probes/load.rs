//! Loads a kernel object and attaches the best way that this kernel takes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{MapData, MapError, PerCpuArray};
use aya::programs::{CgroupSockAddr, FEntry, FExit, Iter, ProgramError, RawTracePoint};
use aya::{Btf as KernelBtf, EbpfError, EbpfLoader, Pod};
use shadowd_common::{LOSSES, ScopeSettings};
use thiserror::Error;

use super::needs::meets;
use super::object::{self, Descriptors, Object};
use super::room::with_room;
use super::{Feature, Hook, PROCFS, Program, Way};
use crate::facts::ProbeStatus;
use crate::observe::btf::Btf;
use crate::observe::scope::Scope;
use crate::observe::sys;

/// Why a feature that the configuration switches off is off.
pub const SWITCHED_OFF: &str = "switched off in the configuration";
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
    /// Features that the configuration switches off.
    off: BTreeSet<String>,
    /// What the daemon before this one left and nobody has claimed yet.
    left: RefCell<Descriptors>,
    /// Where the next program goes that wants to see system calls return; none before one does.
    after: RefCell<Option<OwnedFd>>,
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
    Processors(#[source] io::Error),
    /// What the daemon before this one left cannot be read.
    #[error("what was counted before cannot be read")]
    Kept(#[source] io::Error),
    /// A descriptor cannot be duplicated.
    #[error("a descriptor cannot be duplicated")]
    Descriptors(#[source] io::Error),
    /// The kernel refused a program.
    #[error("the program is refused")]
    Program(#[from] ProgramError),
    /// The kernel refused to attach a program.
    #[error("the program cannot be attached")]
    Attach(#[source] io::Error),
}

impl Prepared {
    /// Looks at the kernel and at what belongs to this host; `left` is what the daemon before this
    /// one left.
    ///
    /// # Errors
    ///
    /// When the kernel has no BTF, or this host's extent cannot be told.
    pub fn new(
        left: Descriptors,
        off: &BTreeSet<String>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let scope = Scope::find()?;
        let mut settings = ScopeSettings::default();
        scope.write(&mut settings);
        Ok(Self {
            btf: Btf::of_kernel()?,
            kernel_btf: KernelBtf::from_sys_fs()?,
            scope,
            settings,
            off: off.clone(),
            left: RefCell::new(left),
            after: RefCell::new(None),
        })
    }

    /// Counts only what one control group and those below it do, in place of all that is visible.
    pub fn restrict(&mut self, cgroup: u64, level: u32) {
        self.settings.root_cgroup = cgroup;
        self.settings.root_level = level;
    }

    /// An object that the daemon before this one left, if its build and settings were the same;
    /// else loads it: makes its maps, with the sizes given for some, and writes its settings.
    ///
    /// # Errors
    ///
    /// The kernel's or the object's.
    pub fn object<O: Pod + Debug>(
        &self,
        name: &str,
        bytes: &[u8],
        offsets: &O,
        sizes: &[(&str, u32)],
    ) -> Result<Object, LoadError> {
        let told = format!("{offsets:?} {:?} {sizes:?} {:?}", self.settings, self.off);
        let prefix = object::prefix(name, &[bytes, told.as_bytes()]);
        match Object::kept(prefix.clone(), &mut self.left.borrow_mut()) {
            Ok(Some(object)) => return Ok(object),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(object = name, error = %reason(&error), "what was left cannot be used: it is loaded anew")
            }
        }
        let (loaded, reduced) = with_room(sizes, |sizes| {
            let mut loader = EbpfLoader::new();
            loader
                .override_global("SCOPE", &self.settings, true)
                .override_global("OFFSETS", offsets, true)
                // Task storage: aya makes such a map but has no type to use it from user space.
                .allow_unsupported_maps();
            for (map, size) in sizes {
                loader.map_max_entries(map, *size);
            }
            loader.load(bytes)
        })?;
        let mut object = Object::fresh(prefix, loaded)?;
        object.reduced = reduced;
        Ok(object)
    }

    /// Attaches the first way of a feature that this kernel takes; in an object that was kept,
    /// finds the way that is attached.
    pub fn attach(&self, object: &mut Object, feature: &Feature) -> Attached {
        if self.off.contains(feature.name) {
            return Attached::without(feature, SWITCHED_OFF);
        }
        let mut refused = Vec::new();
        for way in feature.ways {
            let taken = if object.is_kept() {
                way.find(object).and_then(|()| self.call_again(object, way))
            } else {
                self.take(object, way)
            };
            match taken {
                Ok(()) => {
                    if way.sees_returns() {
                        *self.after.borrow_mut() = object.after();
                    }
                    let mut attached = Attached::on(feature, way.describe(), refused);
                    attached.programs = programs(object, way);
                    attached.status.degraded.clone_from(&object.reduced);
                    return attached;
                }
                Err(why) => refused.push(format!("{}: {why}", way.describe())),
            }
        }
        Attached::off(feature, refused)
    }

    fn take(&self, object: &mut Object, way: &Way) -> Result<(), String> {
        for need in way.needs {
            meets(&self.btf, need)?;
        }
        let taken = way.programs.iter().try_for_each(|program| {
            (self.load(object, program))
                .map_err(|error| format!("{}: {}", program.name, reason(&error)))
        });
        // All are accepted before the first is attached.
        let taken = taken.and_then(|()| {
            way.programs.iter().try_for_each(|program| {
                self.hang(object, program)
                    .map_err(|error| format!("{}: {}", program.name, reason(&error)))
            })
        });
        if taken.is_err() {
            for program in way.programs {
                object.drop_program(program.name);
            }
        }
        taken
    }

    fn load(&self, object: &mut Object, program: &Program) -> Result<(), LoadError> {
        let Some(loader) = object.loader() else {
            return Ok(());
        };
        let loaded = loader
            .program_mut(program.name)
            .expect("the object is built with every program of the table");
        // A way that was given up may have loaded it.
        let again = loaded.fd().is_ok();
        match program.hook {
            _ if again => {}
            Hook::RawTracepoint(_) | Hook::After => {
                <&mut RawTracePoint>::try_from(&mut *loaded)?.load()?;
            }
            Hook::FunctionEntry(name) => {
                <&mut FEntry>::try_from(&mut *loaded)?.load(name, &self.kernel_btf)?;
            }
            Hook::FunctionExit(name) => {
                <&mut FExit>::try_from(&mut *loaded)?.load(name, &self.kernel_btf)?;
            }
            Hook::SocketAddress(..) => <&mut CgroupSockAddr>::try_from(&mut *loaded)?.load()?,
            Hook::Iterator(name) => {
                <&mut Iter>::try_from(&mut *loaded)?.load(name, &self.kernel_btf)?;
            }
        }
        let descriptor = loaded.fd()?.as_fd().try_clone_to_owned();
        object.keep_program(program.name, descriptor.map_err(LoadError::Descriptors)?);
        Ok(())
    }

    fn hang(&self, object: &mut Object, program: &Program) -> Result<(), LoadError> {
        let Some(loaded) = object.program(program.name) else {
            return Ok(());
        };
        let link: OwnedFd = match program.hook {
            Hook::RawTracepoint(name) => sys::attach_tracing(loaded, Some(name)),
            // The kernel knows from the load where these hang.
            Hook::FunctionEntry(_) | Hook::FunctionExit(_) => sys::attach_tracing(loaded, None),
            Hook::SocketAddress(_, number) => (self.scope.cgroups.as_ref())
                .ok_or_else(|| io::Error::other("no cgroup2 file system is mounted"))
                .and_then(File::open)
                .and_then(|group| sys::attach_group(loaded, group.as_fd(), number)),
            Hook::After => return self.call_after(loaded).map_err(LoadError::Attach),
            Hook::Iterator(_) => return Ok(()),
        }
        .map_err(LoadError::Attach)?;
        object.keep_link(program.name, link);
        Ok(())
    }

    /// Has a program called by the one before it that sees system calls return.
    fn call_after(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let after = self.after.borrow();
        let after = after
            .as_ref()
            .ok_or_else(|| io::Error::other("system calls are not counted"))?;
        sys::call_after(after.as_fd(), program)
    }

    /// The same for a kept object: the one before it may be another now.
    fn call_again(&self, object: &Object, way: &Way) -> Result<(), String> {
        let called = way.programs.iter().filter(|one| one.hook == Hook::After);
        (called.filter_map(|one| object.program(one.name)))
            .try_for_each(|program| self.call_after(program))
            .map_err(|error| reason(&error))
    }
}

impl Way {
    /// Whether a kept object has all of its programs at work.
    fn find(&self, object: &Object) -> Result<(), String> {
        let works = |program: &Program| match program.hook {
            Hook::Iterator(_) => object.program(program.name).is_some(),
            // What hangs by itself is not to be called too.
            Hook::After => {
                object.program(program.name).is_some() && !object.is_attached(program.name)
            }
            _ => object.is_attached(program.name),
        };
        if self.programs.iter().all(works) {
            Ok(())
        } else {
            Err("not in use since before the daemon was started again".to_owned())
        }
    }

    /// Whether it is fed by system calls that return, and can call on whoever wants to be next.
    fn sees_returns(&self) -> bool {
        self.programs
            .iter()
            .any(|program| matches!(program.hook, Hook::After | Hook::RawTracepoint("sys_exit")))
    }

    /// The hooks, as the status shows them.
    fn describe(&self) -> String {
        let hooks: Vec<String> = self
            .programs
            .iter()
            .map(|program| match program.hook {
                Hook::RawTracepoint(name) => format!("raw_tp {name}"),
                Hook::After => "raw_tp sys_exit, called by syscalls".to_owned(),
                Hook::FunctionEntry(name) => format!("fentry {name}"),
                Hook::FunctionExit(name) => format!("fexit {name}"),
                Hook::SocketAddress(name, _) => format!("cgroup {name}"),
                Hook::Iterator(name) => format!("iter {name}"),
            })
            .collect();
        hooks.join(", ")
    }
}

/// Handles of a way's programs, to read what the kernel counts of them: what one does that is
/// called by another counts as the other's.
fn programs(object: &Object, way: &Way) -> Vec<(&'static str, OwnedFd)> {
    way.programs
        .iter()
        .filter(|program| program.hook != Hook::After)
        .filter_map(|program| {
            let loaded = object.program(program.name)?;
            Some((program.name, loaded.try_clone_to_owned().ok()?))
        })
        .collect()
}

/// How one feature is fed.
pub struct Attached {
    /// Its loaded programs, by name.
    pub programs: Vec<(&'static str, OwnedFd)>,
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
        Self {
            programs: Vec::new(),
            status,
        }
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
        Self {
            programs: Vec::new(),
            status,
        }
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
        object: &mut Object,
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
