//! What the whole host used, as procfs shows it, each tick.
//!
//! In a container most of these files are the whole machine's: the kernel has no others.

use std::path::PathBuf;

use super::groups::{contents, number, pressure};
use crate::facts::{HostReading, Pressure, Resources};

/// Most disks and partitions in one reading.
const DISKS_MAX: usize = 1_024;

/// Reads it.
pub fn read() -> HostReading {
    let mut text = String::new();
    let mut host = HostReading::default();
    let file = |name: &str, text: &mut String| whole(name, text);
    if file("stat", &mut text) {
        let (resources, processors) = stat(&text);
        (host.resources, host.processors) = (resources, processors);
    }
    if file("meminfo", &mut text) {
        (host.memory_bytes, host.memory_available_bytes) = memory(&text);
        let used = host
            .memory_bytes
            .saturating_sub(host.memory_available_bytes);
        host.resources.memory_bytes = Some(used);
    }
    if file("loadavg", &mut text) {
        host.load = load(&text).unwrap_or_default();
    }
    if file("vmstat", &mut text) {
        host.resources.oom_kills = number(&text, "oom_kill");
    }
    if file("net/netstat", &mut text) {
        host.listen_overflows = extension(&text, "ListenOverflows").unwrap_or(0);
    }
    if file("diskstats", &mut text) {
        host.disks = disks(&text);
    }
    let mut stall = |name: &str| -> Option<Pressure> {
        let path = PathBuf::from("/proc/pressure").join(name);
        contents(path, &mut text).and_then(pressure)
    };
    host.resources.cpu_pressure = stall("cpu");
    host.resources.memory_pressure = stall("memory");
    host.resources.io_pressure = stall("io");
    host
}

/// A file of procfs that may be long: of a host with hundreds of processors or disks.
fn whole(name: &str, text: &mut String) -> bool {
    use std::io::Read;
    text.clear();
    let file = std::fs::File::open(PathBuf::from("/proc").join(name));
    file.and_then(|mut file| file.read_to_string(text)).is_ok()
}

/// Processor time, context switches and the number of processors (proc_stat(5)).
pub(super) fn stat(text: &str) -> (Resources, u32) {
    let mut resources = Resources::default();
    let mut processors = 0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        if name == "cpu" {
            // user, nice, system, then idle and waiting, then interrupts and what others took;
            // the time of guests is part of user.
            let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
            let busy = ticks
                .iter()
                .enumerate()
                .filter(|(at, _)| !(3..=4).contains(at));
            let busy = busy.fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
            let tick = 1_000_000_000 / procfs::ticks_per_second().max(1);
            resources.cpu_ns = (ticks.len() >= 4).then(|| busy.saturating_mul(tick));
        } else if name.starts_with("cpu") {
            processors += 1;
        } else if name == "ctxt" {
            resources.context_switches = words.next().and_then(|word| word.parse().ok());
        }
    }
    (resources, processors)
}

/// Memory and what of it is available, bytes (proc_meminfo(5)).
pub(super) fn memory(text: &str) -> (u64, u64) {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let count: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(count.saturating_mul(1_024))
    };
    (
        bytes("MemTotal:").unwrap_or(0),
        bytes("MemAvailable:").unwrap_or(0),
    )
}

/// Load averages.
pub(super) fn load(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().ok());
    let load = [words.next()??, words.next()??, words.next()??];
    load.iter().all(|one: &f64| one.is_finite()).then_some(load)
}

/// One counter of TcpExt: a line of names and a line of numbers in the same order.
pub(super) fn extension(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next()?.split_ascii_whitespace();
    let numbers = lines.next()?.split_ascii_whitespace();
    let found = names.zip(numbers).find(|(known, _)| *known == name);
    found?.1.parse().ok()
}

/// Disks and partitions: numbers and name.
pub(super) fn disks(text: &str) -> Vec<((u32, u32), String)> {
    let disk = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let device = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((device, words.next()?.to_owned()))
    };
    text.lines().filter_map(disk).take(DISKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_files_are_read() {
        let text = "cpu  100 10 50 900 30 5 5 2 40 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nctxt 777\n";
        let (resources, processors) = stat(text);
        let tick = 1_000_000_000 / procfs::ticks_per_second();
        assert_eq!(resources.cpu_ns, Some(172 * tick));
        assert_eq!((resources.context_switches, processors), (Some(777), 2));
        let text = "MemTotal:  4 kB\nMemFree: 1 kB\nMemAvailable: 3 kB\n";
        assert_eq!(memory(text), (4_096, 3_072));
        assert_eq!(load("0.5 1.25 2 1/99 7"), Some([0.5, 1.25, 2.0]));
        let text = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 1\n";
        assert_eq!(extension(text, "ListenOverflows"), Some(22));
        assert_eq!(extension(text, "C"), None);
        let text = "   7       0 loop0 0 0\n 254 16 vdb 1\n";
        assert_eq!(
            disks(text),
            [((7, 0), "loop0".to_owned()), ((254, 16), "vdb".to_owned())]
        );
    }

    #[test]
    fn this_host_is_read() {
        let host = read();
        assert!(host.processors > 0 && host.memory_bytes > host.memory_available_bytes);
        assert!(host.resources.cpu_ns.is_some_and(|used| used > 0));
        assert!(
            host.resources
                .context_switches
                .is_some_and(|count| count > 0)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(.{0,60}\n){0,5}") {
            let _ = (stat(&text), memory(&text), load(&text), disks(&text));
            let _ = extension(&text, "ListenOverflows");
        }
    }
}
