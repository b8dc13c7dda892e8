//! The programs that processes run, by what `/proc/PID/exe` points to (proc_pid_exe(5)).

use std::collections::BTreeMap;
use std::fs;

use crate::facts::Observation;

/// Processes that are looked at, at once.
const LOOKED_AT: usize = 512;
/// What the kernel adds when the file is gone: an update replaced it.
const DELETED: &str = " (deleted)";

/// The programs of the processes of units of which `is_member` is true, by pid.
pub(super) fn programs(
    observation: &Observation,
    is_member: &dyn Fn(&str) -> bool,
) -> BTreeMap<u32, String> {
    let processes = observation.processes.iter();
    let ours = processes.filter(|process| !process.ended && is_member(&process.unit));
    ours.take(LOOKED_AT)
        .filter_map(|process| Some((process.pid, program(process.pid)?)))
        .collect()
}

/// None for a thread of the kernel, and for a process that has ended.
fn program(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let path = path.into_os_string().into_string().ok()?;
    let path = path.strip_suffix(DELETED).unwrap_or(&path);
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ProcessUse;

    #[test]
    fn the_program_of_this_process_is_known_and_of_strangers_nothing() {
        let process = |pid: u32, unit: &str| ProcessUse {
            pid,
            unit: unit.into(),
            ..ProcessUse::default()
        };
        let own = std::process::id();
        let observation = Observation {
            processes: vec![process(own, "app.service"), process(1, "other.service")],
            ..Observation::default()
        };
        let found = programs(&observation, &|unit| unit == "app.service");
        let here = std::env::current_exe()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        assert_eq!(found, BTreeMap::from([(own, here)]));
    }
}
