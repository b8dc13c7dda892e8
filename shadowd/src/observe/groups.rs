//! What control groups used, as their files show it: those that hold a unit, each tick.
//!
//! cgroup2 only. Processor time is there without a controller; memory and limits only with theirs,
//! pressure only with PSI. What the kernel does not tell is none.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::facts::{GroupReading, Pressure, Resources};

/// Most groups in one reading.
const GROUPS_MAX: usize = 4_096;
/// Deepest group that is looked at.
const DEPTH_MAX: usize = 24;
/// Longest file that is read whole; all that are read here are much shorter.
const FILE_BYTES: u64 = 4_096;
/// Names of groups that hold a unit (systemd.unit(5)).
const SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// Reads every group with a unit in the tree at `mount`.
pub fn read_all(mount: &Path) -> Vec<GroupReading> {
    let mut text = String::new();
    let mut groups = Vec::new();
    let mut left = GROUPS_MAX;
    let mut open = vec![(mount.to_owned(), String::new(), 0)];
    while let Some((folder, path, depth)) = open.pop() {
        if SUFFIXES.iter().any(|suffix| path.ends_with(suffix)) {
            let id = fs::metadata(&folder).map(|group| group.ino());
            groups.extend(id.ok().map(|cgroup| GroupReading {
                path: path.clone(),
                cgroup,
                resources: resources(&folder, &mut text),
            }));
        }
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if left == 0 || depth == DEPTH_MAX {
                break;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left -= 1;
                let name = entry.file_name();
                let path = format!("{path}/{}", name.to_string_lossy());
                open.push((entry.path(), path, depth + 1));
            }
        }
    }
    groups
}

fn resources(group: &Path, text: &mut String) -> Resources {
    let mut resources = Resources::default();
    if let Some(stat) = contents(group.join("cpu.stat"), text) {
        resources.cpu_ns = number(stat, "usage_usec").map(micros);
        resources.throttled_ns = number(stat, "throttled_usec").map(micros);
    }
    if let Some(bytes) = contents(group.join("memory.current"), text) {
        resources.memory_bytes = bytes.trim().parse().ok();
    }
    if let Some(events) = contents(group.join("memory.events"), text) {
        resources.oom_kills = number(events, "oom_kill");
    }
    let mut stall = |name| contents(group.join(name), text).and_then(pressure);
    resources.cpu_pressure = stall("cpu.pressure");
    resources.memory_pressure = stall("memory.pressure");
    resources.io_pressure = stall("io.pressure");
    resources
}

/// A short file of the kernel's; none when it is not there, or refuses to be read.
pub fn contents(path: PathBuf, text: &mut String) -> Option<&str> {
    text.clear();
    let file = File::open(path).ok()?;
    file.take(FILE_BYTES).read_to_string(text).ok()?;
    Some(text)
}

/// The number behind a name, in a file of lines `NAME NUMBER`.
pub fn number(text: &str, name: &str) -> Option<u64> {
    let rest = |line: &'_ str| -> Option<u64> {
        let (known, value) = line.split_once(' ')?;
        (known == name).then(|| value.trim().parse().ok())?
    };
    text.lines().find_map(rest)
}

/// Totals of pressure (Documentation/accounting/psi.rst); for a processor `full` is not always
/// there.
pub fn pressure(text: &str) -> Option<Pressure> {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        let (_, total) = line.rsplit_once("total=")?;
        total.trim().parse().ok().map(micros)
    };
    Some(Pressure {
        some_ns: total("some ")?,
        full_ns: total("full ").unwrap_or(0),
    })
}

/// Microseconds in nanoseconds.
pub fn micros(count: u64) -> u64 {
    count.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nthrottled_usec 7\n";
        assert_eq!(number(stat, "usage_usec"), Some(1_500));
        assert_eq!(number(stat, "usage"), None);
        assert_eq!(number(stat, "nr_throttled"), None);
        let stall = "some avg10=0.48 avg60=0.18 avg300=0.61 total=16\n\
                     full avg10=0.00 avg60=0.01 avg300=0.50 total=14\n";
        let wanted = Pressure {
            some_ns: 16_000,
            full_ns: 14_000,
        };
        assert_eq!(pressure(stall), Some(wanted));
        assert_eq!(
            pressure("some avg10=0.00 total=3\n").map(|stall| stall.full_ns),
            Some(0)
        );
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn only_groups_with_a_unit_are_read_with_their_path() {
        let root = std::env::temp_dir().join(format!("shadowd-groups-{}", std::process::id()));
        let unit = root.join("system.slice/x.service");
        fs::create_dir_all(unit.join("inner")).expect("a folder");
        fs::write(unit.join("cpu.stat"), "usage_usec 9\n").expect("a file");
        fs::write(unit.join("memory.current"), "4096\n").expect("a file");
        fs::write(unit.join("memory.events"), "oom 2\noom_kill 1\n").expect("a file");
        let mut groups = read_all(&root);
        fs::remove_dir_all(&root).expect("it is ours");
        groups.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: Vec<_> = groups.iter().map(|group| group.path.as_str()).collect();
        assert_eq!(paths, ["/system.slice", "/system.slice/x.service"]);
        assert_eq!(groups[0].resources, Resources::default());
        let used = groups[1].resources;
        assert_eq!((used.cpu_ns, used.throttled_ns), (Some(9_000), None));
        assert_eq!((used.memory_bytes, used.oom_kills), (Some(4_096), Some(1)));
        assert_eq!(used.cpu_pressure, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = number(&text, "usage_usec");
            let _ = pressure(&text);
        }
    }
}
