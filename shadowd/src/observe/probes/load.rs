//! Loads a kernel object and attaches the best way that this kernel takes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{MapData, MapError, PerCpuArray};
use aya::programs::{
    BtfTracePoint, CgroupSockAddr, FEntry, FExit, Iter, ProgramError, RawTracePoint,
};
use aya::{Btf as KernelBtf, EbpfError, EbpfLoader, Pod};
use shadowd_common::{LOSSES, ScopeSettings};
use thiserror::Error;

use super::object::{self, Descriptors, Object};
use super::{Feature, Hook, Need, PROCFS, Program, Way};
use crate::facts::ProbeStatus;
use crate::observe::btf::Btf;
use crate::observe::scope::Scope;
use crate::observe::sys;

/// Why a feature that the configuration switches off is off.
pub const SWITCHED_OFF: &str = "switched off in the configuration";
/// No table is made smaller than this to find room: a page of a ring buffer.
const SIZE_MIN: u32 = 4_096;
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
                way.find(object)
            } else {
                self.take(object, way)
            };
            match taken {
                Ok(()) => {
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
                attach(object, program, &self.scope)
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
            Hook::RawTracepoint(_) => <&mut RawTracePoint>::try_from(&mut *loaded)?.load()?,
            Hook::BtfTracepoint(name) => {
                <&mut BtfTracePoint>::try_from(&mut *loaded)?.load(name, &self.kernel_btf)?;
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
}

fn attach(object: &mut Object, program: &Program, scope: &Scope) -> Result<(), LoadError> {
    let Some(loaded) = object.program(program.name) else {
        return Ok(());
    };
    let link: OwnedFd = match program.hook {
        Hook::RawTracepoint(name) => sys::attach_tracing(loaded, Some(name)),
        // The kernel knows from the load where these hang.
        Hook::BtfTracepoint(_) | Hook::FunctionEntry(_) | Hook::FunctionExit(_) => {
            sys::attach_tracing(loaded, None)
        }
        Hook::SocketAddress(_, number) => (scope.cgroups.as_ref())
            .ok_or_else(|| io::Error::other("no cgroup2 file system is mounted"))
            .and_then(File::open)
            .and_then(|group| sys::attach_group(loaded, group.as_fd(), number)),
        Hook::Iterator(_) => return Ok(()),
    }
    .map_err(LoadError::Attach)?;
    object.keep_link(program.name, link);
    Ok(())
}

impl Way {
    /// Whether a kept object has all of its programs at work.
    fn find(&self, object: &Object) -> Result<(), String> {
        let works = |program: &Program| match program.hook {
            Hook::Iterator(_) => object.program(program.name).is_some(),
            _ => object.is_attached(program.name),
        };
        if self.programs.iter().all(works) {
            Ok(())
        } else {
            Err("not in use since before the daemon was started again".to_owned())
        }
    }

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
                Hook::SocketAddress(name, _) => format!("cgroup {name}"),
                Hook::Iterator(name) => format!("iter {name}"),
            })
            .collect();
        hooks.join(", ")
    }
}

/// Whether this kernel has what a way needs.
fn meets(btf: &Btf, need: &Need) -> Result<(), String> {
    match need {
        Need::Arguments(tracepoint, least) => match btf.tracepoint_arguments(tracepoint) {
            None => Err(format!("the kernel has no tracepoint {tracepoint}")),
            Some(count) if count < *least => Err(format!(
                "the kernel's tracepoint {tracepoint} has {count} arguments, {least} are needed"
            )),
            Some(_) => Ok(()),
        },
        Need::Field(structure, path) => (btf.offset(structure, path))
            .map(|_| ())
            .map_err(|error| error.to_string()),
    }
}

/// Loads with tables of the sizes given; where the kernel has no memory for them, halves all until
/// it has, and says so.
fn with_room<'n, T>(
    sizes: &[(&'n str, u32)],
    mut load: impl FnMut(&[(&'n str, u32)]) -> Result<T, EbpfError>,
) -> Result<(T, Option<String>), EbpfError> {
    let mut smaller = sizes.to_vec();
    loop {
        let error = match load(&smaller) {
            Ok(loaded) if smaller == sizes => return Ok((loaded, None)),
            Ok(loaded) => {
                let shown: Vec<String> = smaller
                    .iter()
                    .map(|(map, size)| format!("{map} {size}"))
                    .collect();
                let shown = shown.join(", ");
                return Ok((
                    loaded,
                    Some(format!("no memory for larger tables: {shown}")),
                ));
            }
            Err(error) => error,
        };
        let before = smaller.clone();
        for (_, size) in &mut smaller {
            // A ring buffer's size stays a power of two, and at least a page.
            *size = (*size / 2).max(SIZE_MIN.min(*size));
        }
        if !is_too_large(&error) || smaller == before {
            return Err(error);
        }
    }
}

/// Whether the kernel refused a table for its size.
fn is_too_large(error: &EbpfError) -> bool {
    let EbpfError::MapError(MapError::CreateError { io_error, .. }) = error else {
        return false;
    };
    matches!(
        io_error.raw_os_error(),
        Some(libc::ENOMEM | libc::E2BIG | libc::ENOSPC)
    )
}

/// Handles of a way's programs, to read what the kernel counts of them.
fn programs(object: &Object, way: &Way) -> Vec<OwnedFd> {
    way.programs
        .iter()
        .filter_map(|program| object.program(program.name)?.try_clone_to_owned().ok())
        .collect()
}

/// How one feature is fed.
pub struct Attached {
    /// Its loaded programs.
    pub programs: Vec<OwnedFd>,
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

    fn no_memory() -> EbpfError {
        EbpfError::MapError(MapError::CreateError {
            name: "TABLE".to_owned(),
            io_error: io::Error::from_raw_os_error(libc::ENOMEM),
        })
    }

    #[test]
    fn a_table_without_memory_is_halved_until_it_fits_or_the_floor_is_reached() {
        let fits = |limit: u32| {
            with_room(&[("TABLE", 1 << 20), ("SMALL", 1)], |sizes| {
                if sizes[0].1 > limit {
                    return Err(no_memory());
                }
                Ok(sizes.to_vec())
            })
        };
        assert_eq!(fits(1 << 20).expect("it fits").1, None);
        let (sizes, why) = fits(300_000).expect("it fits after a while");
        assert_eq!(sizes, [("TABLE", 1 << 18), ("SMALL", 1)]);
        let why = why.expect("it was reduced");
        assert!(
            why.contains("no memory") && why.contains("TABLE 262144"),
            "{why}"
        );
        assert!(fits(100).is_err(), "there is a floor");
        let mut tries = 0;
        let other = with_room(&[("TABLE", 1 << 20)], |_| -> Result<(), _> {
            tries += 1;
            Err(EbpfError::MapError(MapError::InvalidName {
                name: String::new(),
            }))
        });
        assert!(other.is_err());
        assert_eq!(tries, 1, "another error is no reason to try again");
    }

    /// The running kernel's types with one name changed.
    fn doctored(old: &str, new: &str) -> Btf {
        assert_eq!(old.len(), new.len());
        let mut bytes = std::fs::read(crate::observe::btf::KERNEL).expect("the kernel has BTF");
        let needle = [b"\0", old.as_bytes(), b"\0"].concat();
        let at = bytes.windows(needle.len()).position(|part| part == needle);
        let at = at.expect("the name is there") + 1;
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        Btf::parse(bytes).expect("it is still BTF")
    }

    #[test]
    fn a_missing_field_is_named_and_only_what_reads_it_is_off() {
        let btf = doctored("skc_daddr", "skc_xaddr");
        let missing = Need::Field("sock", &["__sk_common", "skc_daddr"]);
        let why = meets(&btf, &missing).expect_err("the field is gone");
        assert!(why.contains("sock") && why.contains("skc_daddr"), "{why}");
        let other = Need::Field("sock", &["__sk_common", "skc_dport"]);
        assert_eq!(meets(&btf, &other), Ok(()));
        for way in super::super::SYSCALLS.ways {
            for need in way.needs {
                assert_eq!(meets(&btf, need), Ok(()), "{need:?}");
            }
        }
    }

    #[test]
    fn a_tracepoint_of_another_arity_or_none_refuses_the_way() {
        let btf = doctored("btf_trace_sys_exit", "btf_trace_sys_exiX");
        let why = meets(&btf, &Need::Arguments("sys_exit", 2)).expect_err("it is gone");
        assert_eq!(why, "the kernel has no tracepoint sys_exit");
        let kernel = Btf::of_kernel().expect("the kernel has BTF");
        let why = meets(&kernel, &Need::Arguments("sys_exit", 9)).expect_err("it has two");
        assert!(why.contains("has 2 arguments, 9 are needed"), "{why}");
    }
}
