//! Block I/O against the disk's own statistics and against what the workload did.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::uio::{pread, pwrite};
use shadowd::facts::{BlockCounts, IoDirection, Sample};
use shadowd::observe::Capture;

use super::{run_role, skip};

/// Reads past the page cache.
pub const READS: u64 = 37;
/// Bytes of each.
pub const READ_BYTES: u64 = 16_384;
/// Writes past the page cache.
pub const WRITES: u64 = 53;
/// Bytes of each.
pub const WRITE_BYTES: u64 = 4_096;

/// What O_DIRECT asks of a buffer's address and of offsets.
const ALIGNMENT: usize = 4_096;
const DISK_BYTES: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A loop device on a file of its own, removed when it goes out of scope.
pub struct LoopDevice {
    file: PathBuf,
    /// Such as `/dev/loop0`.
    pub path: String,
}

impl LoopDevice {
    /// Makes one; `None` where the kernel or the machine has none.
    pub fn make() -> Result<Option<Self>> {
        if !Path::new("/dev/loop-control").exists() {
            return Ok(None);
        }
        let file = std::env::temp_dir().join(format!("kernel-check-disk-{}", std::process::id()));
        File::create(&file)?.set_len(DISK_BYTES)?;
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .stderr(Stdio::inherit())
            .output();
        let made = match output {
            Ok(output) if output.status.success() => String::from_utf8(output.stdout)?,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {
                fs::remove_file(&file)?;
                return Ok(None);
            }
        };
        let path = made.trim().to_owned();
        Ok(Some(Self { file, path }))
    }

    /// Its line of /proc/diskstats (Documentation/admin-guide/iostats.rst), after the name.
    fn statistics(&self) -> Result<((u32, u32), Vec<u64>)> {
        let name = self.path.trim_start_matches("/dev/");
        let text = fs::read_to_string("/proc/diskstats")?;
        let line = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.get(2) == Some(&name))
            .context("the disk has no statistics")?;
        let numbers: Result<Vec<u64>, _> = line[3..].iter().map(|word| word.parse()).collect();
        Ok(((line[0].parse()?, line[1].parse()?), numbers?))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Whatever fails here, the rest is still to be removed.
        let _ = Command::new("losetup")
            .args(["--detach", &self.path])
            .status();
        let _ = fs::remove_file(&self.file);
    }
}

/// The role: known reads and writes past the page cache, and one flush.
pub fn direct(device: &str) -> Result<()> {
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)?;
    let mut memory = vec![0xa5_u8; ALIGNMENT + READ_BYTES as usize];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    for number in 0..WRITES {
        let part = &memory[start..start + WRITE_BYTES as usize];
        let done = pwrite(&disk, part, (number * 2 * WRITE_BYTES) as i64)?;
        ensure!(done == part.len());
    }
    for number in 0..READS {
        let part = &mut memory[start..start + READ_BYTES as usize];
        let done = pread(&disk, part, (number * READ_BYTES) as i64)?;
        ensure!(done as u64 == READ_BYTES);
    }
    disk.sync_data()?;
    Ok(())
}

fn sum(
    sample: &Sample,
    device: (u32, u32),
    direction: IoDirection,
    pid: Option<u32>,
) -> BlockCounts {
    let mut sum = BlockCounts::default();
    for delta in &sample.block {
        let of_pid = pid.is_none_or(|pid| pid == delta.pid);
        if delta.device == device && delta.direction == direction && of_pid {
            sum.add(&delta.counts);
        }
    }
    sum
}

/// Operations and bytes of each direction equal the kernel's, and those of the process its own.
pub fn equals_diskstats(capture: &mut Capture) -> Result<()> {
    let Some(disk) = LoopDevice::make()? else {
        return skip("no loop device can be made here");
    };
    capture.tick();
    let (device, before) = disk.statistics()?;
    let (pid, sample) = run_role(capture, &["direct", &disk.path])?;

    let reads = sum(&sample, device, IoDirection::Read, Some(pid));
    let writes = sum(&sample, device, IoDirection::Write, Some(pid));
    ensure!(
        (reads.operations, reads.bytes) == (READS, READS * READ_BYTES),
        "read {reads:?}"
    );
    // The request to flush carries nothing and counts as a write.
    ensure!(
        writes.bytes == WRITES * WRITE_BYTES && (WRITES..=WRITES + 1).contains(&writes.operations),
        "written {writes:?}"
    );
    // Nor is it handed to the driver as it is, so it has no latency.
    for (counts, issued) in [(reads, READS), (writes, WRITES)] {
        ensure!(counts.errors == 0, "{counts:?}");
        ensure!(counts.latency.count() == issued, "{counts:?}");
    }

    let seen: Vec<BlockCounts> = [IoDirection::Read, IoDirection::Write, IoDirection::Other]
        .map(|direction| sum(&sample, device, direction, None))
        .into();
    let seen = [
        (seen[0].operations, seen[0].bytes),
        (seen[1].operations, seen[1].bytes),
        (seen[2].operations, 0),
    ];
    // The kernel wakes the reader first and counts then.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, after) = disk.statistics()?;
        let more = |index: usize| {
            let now = after.get(index).copied().unwrap_or(0);
            now - before.get(index).copied().unwrap_or(0)
        };
        let counted = [
            (more(0), more(2) * 512),
            (more(4), more(6) * 512),
            (more(11) + more(15), 0),
        ];
        if counted == seen {
            println!("    diskstats {counted:?}, the process {READS} and {WRITES}");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the disk counted {counted:?}, seen {seen:?}: {:?}",
            sample.block
        );
        std::thread::yield_now();
    }
}
