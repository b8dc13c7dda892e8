//! The table of probes, and how each is loaded.
//!
//! A probe that the kernel refuses is off and says why; the others go on. Nothing here fails: the
//! worst outcome is a table in which everything but procfs is off.

use std::collections::BTreeMap;
use std::error::Error;

use aya::programs::{ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use shadowd_common::Settings;

use super::btf::Btf;
use super::kernel_log::{self, KernelLog};
use super::layout;
use super::scope::Scope;
use super::tables::{Limits, Tables};
use crate::facts::ProbeStatus;

/// One probe.
struct Probe {
    /// Name of the feature.
    name: &'static str,
    /// What it feeds.
    feeds: &'static str,
    /// Programs and the raw tracepoints they hang on; a program has its tracepoint's name.
    tracepoints: &'static [&'static str],
    /// Nanoseconds added to one event, as measured for a bare per-CPU hash count by pid on a 115 ns
    /// getppid; this program also reads the group and the generation, which is not measured yet.
    /// None where nothing was measured.
    #[expect(
        dead_code,
        reason = "for the reader of the table and of `cargo xtask bench`"
    )]
    cost_ns: Option<u32>,
}

const PROBES: [Probe; 4] = [
    Probe {
        name: "syscalls",
        feeds: "system calls and their errors by process and unit",
        tracepoints: &["sys_exit"],
        cost_ns: Some(50),
    },
    Probe {
        name: "tcp",
        feeds: "TCP connections: opened, closed, failed, direction, bytes",
        tracepoints: &["inet_sock_set_state"],
        cost_ns: None,
    },
    Probe {
        name: "processes",
        feeds: "programs begun and processes ended",
        tracepoints: &["sched_process_exec", "sched_process_exit"],
        cost_ns: None,
    },
    Probe {
        name: "cgroups",
        feeds: "names of control groups that are made",
        tracepoints: &["cgroup_mkdir"],
        cost_ns: None,
    },
];

/// What needs no eBPF.
const PROCFS: (&str, &str, &str) = (
    "procfs",
    "processor time and memory by process and unit",
    "procfs /proc/PID/stat",
);

/// Longest reason shown.
const REASON_MAX: usize = 400;

/// What was loaded.
#[derive(Default)]
pub struct Loaded {
    /// One line for each probe.
    pub statuses: Vec<ProbeStatus>,
    /// The maps, when at least one program runs.
    pub tables: Option<Tables>,
    /// What the kernel side logs, when it can be read.
    pub log: Option<KernelLog>,
    /// Keeps the programs attached; dropping it detaches them.
    #[expect(dead_code, reason = "held, never read")]
    pub programs: Option<Ebpf>,
    /// This host's extent, when it is known.
    pub scope: Scope,
    /// Programs that the kernel refused.
    refused: usize,
}

impl Loaded {
    /// Notes what went wrong with probes that run.
    pub fn degrade(&mut self, names: &[&str], why: &str) {
        for status in &mut self.statuses {
            if status.hook.is_some() && names.contains(&status.name.as_str()) {
                status.degraded = Some(why.to_owned());
            }
        }
    }
}

/// Loads and attaches every probe, or none when `ebpf` is false.
pub fn load(ebpf: bool, limits: Limits) -> Loaded {
    if !ebpf {
        return without("switched off in the configuration");
    }
    let prepared = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return without(&reason(error.as_ref())),
    };
    let loaded = attach(&prepared, limits, kernel_log::LEVEL_WARN);
    if loaded.refused == 0 {
        return loaded;
    }
    // A log must not cost a probe: what logs is the part with the most instructions.
    let silent = attach(&prepared, limits, kernel_log::LEVEL_SILENT);
    if silent.refused < loaded.refused {
        tracing::debug!("the kernel side's log is off: the kernel refuses programs with it");
        silent
    } else {
        loaded
    }
}

/// What all programs need to know before they are loaded.
struct Prepared {
    settings: Settings,
    scope: Scope,
    missing: BTreeMap<&'static str, String>,
}

fn prepare() -> Result<Prepared, Box<dyn Error + Send + Sync>> {
    let mut settings = Settings::default();
    let missing = layout::resolve(&Btf::of_kernel()?, &mut settings);
    let scope = Scope::find()?;
    scope.write(&mut settings);
    Ok(Prepared {
        settings,
        scope,
        missing,
    })
}

/// Makes the maps.
fn object(settings: &Settings, limits: Limits, log_level: u8) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    loader
        .override_global("SETTINGS", settings, true)
        .override_global(kernel_log::LEVEL, &log_level, true)
        .map_max_entries(kernel_log::MAP, kernel_log::MAP_BYTES);
    for (map, size) in limits.of_maps() {
        loader.map_max_entries(map, size);
    }
    loader.load(include_bytes_aligned!(concat!(
        env!("OUT_DIR"),
        "/capture.bpf.o"
    )))
}

fn attach(prepared: &Prepared, limits: Limits, log_level: u8) -> Loaded {
    let mut object = match object(&prepared.settings, limits, log_level) {
        Ok(object) => object,
        Err(error) => return without(&reason(&error)),
    };
    let tables = match Tables::take(&mut object) {
        Ok(tables) => tables,
        Err(error) => return without(&reason(&error)),
    };
    let log = KernelLog::open(&mut object);
    let mut refused = 0;
    let mut statuses = Vec::new();
    for probe in &PROBES {
        let mut attached = Vec::new();
        let mut degraded = prepared.missing.get(probe.name).cloned();
        if degraded.is_none() {
            for tracepoint in probe.tracepoints {
                match attach_one(&mut object, tracepoint) {
                    Ok(()) => attached.push(format!("raw_tp {tracepoint}")),
                    Err(error) => {
                        refused += 1;
                        degraded = Some(format!("{tracepoint}: {}", reason(&error)));
                    }
                }
            }
        }
        statuses.push(ProbeStatus {
            name: probe.name.to_owned(),
            feeds: probe.feeds.to_owned(),
            hook: (!attached.is_empty()).then(|| attached.join(", ")),
            degraded,
        });
    }
    let any = statuses.iter().any(|status| status.hook.is_some());
    statuses.push(procfs_status());
    Loaded {
        statuses,
        tables: any.then_some(tables),
        log: log.filter(|_| any),
        programs: any.then_some(object),
        scope: prepared.scope.clone(),
        refused,
    }
}

fn attach_one(object: &mut Ebpf, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = object
        .program_mut(tracepoint)
        .expect("the object is built with a program for each tracepoint of the table")
        .try_into()?;
    program.load()?;
    program.attach(tracepoint)?;
    Ok(())
}

fn without(why: &str) -> Loaded {
    let off = |probe: &Probe| ProbeStatus {
        name: probe.name.to_owned(),
        feeds: probe.feeds.to_owned(),
        hook: None,
        degraded: Some(why.to_owned()),
    };
    let mut statuses: Vec<ProbeStatus> = PROBES.iter().map(off).collect();
    statuses.push(procfs_status());
    Loaded {
        statuses,
        scope: Scope {
            cgroups: super::scope::cgroup_mount(),
            ..Scope::default()
        },
        ..Loaded::default()
    }
}

fn procfs_status() -> ProbeStatus {
    let (name, feeds, hook) = PROCFS;
    ProbeStatus {
        name: name.to_owned(),
        feeds: feeds.to_owned(),
        hook: Some(hook.to_owned()),
        degraded: None,
    }
}

/// An error with its causes, in one line of bounded length.
fn reason(error: &(dyn Error + 'static)) -> String {
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
    fn without_ebpf_every_probe_says_why_and_procfs_goes_on() {
        let loaded = load(false, Limits::default());
        assert!(loaded.tables.is_none());
        let (last, others) = loaded.statuses.split_last().expect("a table");
        assert_eq!((last.name.as_str(), &last.degraded), ("procfs", &None));
        assert!(
            others
                .iter()
                .all(|probe| probe.hook.is_none() && probe.degraded.is_some())
        );
    }

    #[test]
    fn a_long_reason_keeps_its_head_and_its_end() {
        let error = std::io::Error::other(format!("head {} the end", "é ".repeat(2_000)));
        let text = reason(&error);
        assert!(text.starts_with("head") && text.ends_with("the end"));
        assert!(text.chars().count() <= REASON_MAX + 10);
    }
}
