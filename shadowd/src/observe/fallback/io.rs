//! File and block I/O from the totals that procfs keeps.

use std::collections::HashMap;

use procfs::ProcResult;
use procfs::process::{Process, all_processes};

use crate::facts::{BlockCounts, BlockDelta, FileCounts, FileDelta, IoDirection};

/// Most processes in one look.
const PROCESSES_MAX: usize = 32_768;
/// Unit of /proc/diskstats (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

/// What processes have read and written, from look to look.
#[derive(Debug, Default)]
pub struct ProcessIo {
    looked: bool,
    /// By pid, with the start time that tells a pid from its next use.
    before: HashMap<u32, (u64, FileCounts)>,
}

impl ProcessIo {
    /// What each process did since the last look; of one that was not there then, all it did.
    pub fn look(&mut self) -> Vec<FileDelta> {
        let mut now = HashMap::new();
        let all = all_processes().into_iter().flatten().flatten();
        for process in all.take(PROCESSES_MAX) {
            // Kernel threads and processes that have just ended are left out.
            if let (Ok(pid), Ok(read)) = (u32::try_from(process.pid()), read(&process)) {
                now.insert(pid, read);
            }
        }
        let deltas = now.iter().filter_map(|(pid, (started, counts))| {
            let counts = match self.before.get(pid) {
                Some((same, before)) if same == started => difference(before, counts),
                _ if self.looked => *counts,
                _ => FileCounts::default(),
            };
            (counts != FileCounts::default()).then_some(FileDelta {
                pid: *pid,
                cgroup: 0,
                counts,
            })
        });
        let deltas = deltas.collect();
        self.before = now;
        self.looked = true;
        deltas
    }
}

fn read(process: &Process) -> ProcResult<(u64, FileCounts)> {
    let io = process.io()?;
    let counts = FileCounts {
        reads: io.syscr,
        read_bytes: io.rchar,
        writes: io.syscw,
        write_bytes: io.wchar,
        opens: 0,
    };
    Ok((process.stat()?.starttime, counts))
}

fn difference(before: &FileCounts, now: &FileCounts) -> FileCounts {
    FileCounts {
        reads: now.reads.saturating_sub(before.reads),
        read_bytes: now.read_bytes.saturating_sub(before.read_bytes),
        writes: now.writes.saturating_sub(before.writes),
        write_bytes: now.write_bytes.saturating_sub(before.write_bytes),
        opens: 0,
    }
}

/// What disks have done, from look to look.
#[derive(Debug, Default)]
pub struct DiskIo {
    before: HashMap<(u32, u32), [(u64, u64); 2]>,
}

impl DiskIo {
    /// What each whole disk did since the last look.
    pub fn look(&mut self) -> Vec<BlockDelta> {
        let mut deltas = Vec::new();
        let disks = procfs::diskstats().unwrap_or_default();
        for disk in disks.iter().filter(|disk| is_whole(&disk.name)) {
            let (Ok(major), Ok(minor)) = (u32::try_from(disk.major), u32::try_from(disk.minor))
            else {
                continue;
            };
            let now = [
                (disk.reads, disk.sectors_read),
                (disk.writes, disk.sectors_written),
            ];
            let Some(before) = self.before.insert((major, minor), now) else {
                continue;
            };
            let directions = [IoDirection::Read, IoDirection::Write];
            for ((direction, now), before) in directions.into_iter().zip(now).zip(before) {
                let counts = BlockCounts {
                    operations: now.0.saturating_sub(before.0),
                    bytes: now.1.saturating_sub(before.1).saturating_mul(SECTOR_BYTES),
                    ..BlockCounts::default()
                };
                if counts != BlockCounts::default() {
                    deltas.push(BlockDelta {
                        pid: 0,
                        cgroup: 0,
                        device: (major, minor),
                        direction,
                        counts,
                    });
                }
            }
        }
        deltas
    }
}

/// Whether it is a disk and no part of one.
fn is_whole(name: &str) -> bool {
    // Slashes of names are written as ! in sysfs.
    let name = name.replace('/', "!");
    std::path::Path::new("/sys/block").join(name).is_dir()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const MANY: usize = 1 << 28;

    #[test]
    fn what_this_process_writes_is_seen_at_the_next_look_only() {
        let me = std::process::id();
        let mut io = ProcessIo::default();
        assert!(io.look().is_empty(), "the first look is where it begins");
        let mut null = std::fs::File::create("/dev/null").expect("it can be written");
        // More than all other tests of this process write meanwhile; its pages are never touched.
        null.write_all(&vec![0; MANY]).expect("it takes all");
        let mine = |deltas: Vec<FileDelta>| deltas.into_iter().find(|delta| delta.pid == me);
        let delta = mine(io.look()).expect("this process wrote");
        assert!(delta.counts.write_bytes >= MANY as u64, "{delta:?}");
        let later = mine(io.look()).map_or(0, |delta| delta.counts.write_bytes);
        assert!(later < MANY as u64, "{later}");
    }

    #[test]
    fn only_what_was_done_between_two_looks_counts() {
        let mut disks = DiskIo::default();
        assert!(disks.look().is_empty());
        for (_, totals) in disks.before.iter_mut() {
            totals[1] = (0, 0);
        }
        let deltas = disks.look();
        for (device, now) in &disks.before {
            let written = deltas
                .iter()
                .find(|delta| delta.device == *device && delta.direction == IoDirection::Write);
            let bytes = written.map_or(0, |delta| delta.counts.bytes);
            assert!(bytes <= now[1].1 * SECTOR_BYTES, "{device:?}");
            assert_eq!(bytes > 0, now[1].1 > 0, "{device:?}");
        }
    }
}
