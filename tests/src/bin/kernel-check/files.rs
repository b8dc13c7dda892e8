//! File I/O against what the workload did and against /proc/PID/io, and the files it opened.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::copy_file_range;
use nix::sys::sendfile::sendfile64;
use nix::sys::uio::{pread, pwrite};
use shadowd::config::settings::CaptureSettings;
use shadowd::facts::{FileCounts, Sample};
use shadowd::observe::{Capture, Limits};

use super::{dropped, run_role, start, until_exit, workload};

/// What the role does, on files only.
const WANTED: FileCounts = FileCounts {
    reads: ROUNDS * 3 + 2,
    read_bytes: ROUNDS * (100 + 10 + 60) + 2 * COPIED,
    writes: ROUNDS * 3 + 2,
    write_bytes: ROUNDS * (1_000 + 20 + 70) + 2 * COPIED,
    opens: 3,
};
const ROUNDS: u64 = 211;
const COPIED: u64 = 777;
/// How often a file is opened that is to be told once.
const OPENS: usize = 50;

/// The role: known reads and writes of regular files, and of others that must not count.
pub fn read_and_write(folder: &str) -> Result<()> {
    let folder = Path::new(folder);
    let create = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(folder.join(name))
    };
    let mut one = create("one")?;
    let mut buffer = vec![7_u8; 1_000];
    for round in 0..ROUNDS {
        one.write_all(&buffer)?;
        ensure!(pwrite(&one, &buffer[..20], round as i64)? == 20);
        let slices = [IoSlice::new(&[1; 30]), IoSlice::new(&[2; 40])];
        ensure!(one.write_vectored(&slices)? == 70);
    }
    one.rewind()?;
    for round in 0..ROUNDS {
        one.read_exact(&mut buffer[..100])?;
        ensure!(pread(&one, &mut buffer[..10], round as i64)? == 10);
        let (head, tail) = buffer.split_at_mut(20);
        let mut slices = [IoSliceMut::new(head), IoSliceMut::new(&mut tail[..40])];
        ensure!(one.read_vectored(&mut slices)? == 60);
    }
    let two = create("two")?;
    let mut start = 0;
    let sent = sendfile64(&two, &one, Some(&mut start), COPIED as usize)?;
    let three = create("three")?;
    let (mut from, mut to) = (0, 0);
    let copied = copy_file_range(
        &one,
        Some(&mut from),
        &three,
        Some(&mut to),
        COPIED as usize,
    )?;
    ensure!((sent as u64, copied as u64) == (COPIED, COPIED));

    // Neither a pipe nor a device nor a call that fails is file I/O.
    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(&buffer)?;
    reader.read_exact(&mut buffer)?;
    File::open("/dev/zero")?.read_exact(&mut buffer)?;
    ensure!(File::open(folder.join("nothing")).is_err());
    let read_only = File::open("/dev/zero")?;
    ensure!(pwrite(&read_only, &buffer, 0).is_err());
    Ok(())
}

/// The role: opens files by all sorts of names.
pub fn open_all(folder: &str) -> Result<()> {
    std::env::set_current_dir(folder)?;
    for _ in 0..OPENS {
        File::open("plain.conf")?; // relative
        File::open("link.conf")?; // a link to real.conf
        File::open(Path::new(folder).join("inner/../inner/deep.conf"))?;
    }
    OpenOptions::new().append(true).open("written.conf")?;
    File::open("/proc/self/stat")?; // under no root
    Ok(())
}

/// A folder that is removed when it goes out of scope.
struct Folder(PathBuf);

impl Folder {
    fn make(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("kernel-check-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn text(&self) -> Result<&str> {
        self.0.to_str().context("a path that is no text")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is named after this program.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn of(sample: &Sample, pid: u32) -> FileCounts {
    let mut sum = FileCounts::default();
    for delta in sample.files.iter().filter(|delta| delta.pid == pid) {
        sum.add(&delta.counts);
    }
    sum
}

fn less(all: FileCounts, part: FileCounts) -> FileCounts {
    FileCounts {
        reads: all.reads - part.reads,
        read_bytes: all.read_bytes - part.read_bytes,
        writes: all.writes - part.writes,
        write_bytes: all.write_bytes - part.write_bytes,
        opens: all.opens - part.opens,
    }
}

/// As the program counts itself.
pub fn io_is_exact(capture: &mut Capture) -> Result<()> {
    let folder = Folder::make(&std::env::temp_dir(), "files")?;
    // What the loader and the runtime do by themselves is in both.
    let (idle_pid, idle) = run_role(capture, &["leave"])?;
    let (pid, sample) = run_role(capture, &["files", folder.text()?])?;
    let seen = less(of(&sample, pid), of(&idle, idle_pid));
    ensure!(seen == WANTED, "seen {seen:?}, made {WANTED:?}");
    let dropped = dropped(&sample, "files") - dropped(&idle, "files");
    ensure!(dropped == 0, "dropped {dropped}");
    println!("    {seen:?}");
    Ok(())
}

/// Captures file I/O only, which starts much faster than all that `capture` does.
fn settings(capture: &Capture) -> CaptureSettings {
    let mut others = capture.probes();
    others.retain(|probe| !["files", "processes"].contains(&probe.name.as_str()));
    CaptureSettings {
        ebpf: true,
        probes_off: others.into_iter().map(|probe| probe.name).collect(),
        ..CaptureSettings::default()
    }
}

/// A table of one entry: what it took and what it refused lies between what two large tables saw,
/// one a moment shorter and one a moment longer.
pub fn full_tables_are_counted(capture: &mut Capture) -> Result<()> {
    let settings = settings(capture);
    let limits = Limits {
        files: 1,
        ..Limits::default()
    };
    let [mut outer, mut inner] = [(); 2].map(|()| Capture::start(&settings));
    let mut small = Capture::start_with(&settings, limits);
    outer.tick();
    let before = small.tick();
    inner.tick();
    let folder = Folder::make(&std::env::temp_dir(), "full")?;
    let mut seen = 0;
    for _ in 0..3 {
        let (_, sample) = run_role(&mut small, &["files", folder.text()?])?;
        seen += operations(&sample, None);
    }
    let least = operations(&inner.tick(), None);
    let last = small.tick();
    seen += operations(&last, None);
    let most = operations(&outer.tick(), None);
    let dropped = dropped(&last, "files") - dropped(&before, "files");
    ensure!(dropped > 0, "nothing was refused");
    ensure!(
        (least..=most).contains(&(seen + dropped)),
        "seen {seen}, dropped {dropped}; there were {least} to {most}"
    );
    println!("    seen {seen}, dropped {dropped}; there were {least} to {most}");
    Ok(())
}

fn operations(sample: &Sample, pid: Option<u32>) -> u64 {
    let of_pid = (sample.files.iter()).filter(|one| pid.is_none_or(|pid| pid == one.pid));
    let counts = of_pid.map(|one| one.counts);
    counts.map(|one| one.reads + one.writes + one.opens).sum()
}

/// What happens between two daemons is told by the second one, and nothing twice.
pub fn successor_goes_on(capture: &mut Capture) -> Result<()> {
    let settings = settings(capture);
    let folder = Folder::make(&std::env::temp_dir(), "kept")?;
    let mut first = Capture::start(&settings);
    let (told_pid, told) = run_role(&mut first, &["files", folder.text()?])?;
    let mut left = std::collections::BTreeMap::new();
    for (name, descriptor) in first.descriptors() {
        left.insert(name.to_owned(), descriptor.try_clone_to_owned()?);
    }
    drop(first);
    let mut child = start(&["files", folder.text()?])?;
    let pid = child.id();
    child.wait()?;
    let mut second = Capture::go_on(&settings, Limits::default(), left);
    let sample = second.tick();
    let made = WANTED.reads + WANTED.writes + WANTED.opens;
    let (before, between) = (
        operations(&told, Some(told_pid)),
        operations(&sample, Some(pid)),
    );
    ensure!(
        before >= made && between == before,
        "{before}, then {between}"
    );
    let again = operations(&sample, Some(told_pid));
    ensure!(again == 0, "{again} operations are told again");
    Ok(())
}

/// Each file once, however often and by whatever name it was opened, with its unit's group.
pub fn opens_are_told_once(capture: &mut Capture) -> Result<()> {
    let folder = Folder::make(Path::new("/etc"), "opens")?;
    let inner = folder.0.join("inner");
    fs::create_dir(&inner)?;
    let names = ["plain.conf", "real.conf", "written.conf", "inner/deep.conf"];
    for name in names {
        fs::write(folder.0.join(name), "x")?;
    }
    symlink("real.conf", folder.0.join("link.conf"))?;
    let unit = format!("kernel-check-opens-{}.scope", std::process::id());
    let group = workload::cgroup_mount()?.join(&unit);
    fs::create_dir(&group)?;
    let told = told(capture, &group, &folder);
    workload::remove_group(&group)?;
    let told = told?;

    let wanted: Vec<(String, bool)> = names
        .iter()
        .map(|name| {
            (
                folder.0.join(name).display().to_string(),
                *name == "written.conf",
            )
        })
        .collect();
    for (path, write) in &wanted {
        let times = told.iter().filter(|(known, _)| known == path).count();
        ensure!(times == 1, "{path} {times} times in {told:?}");
        ensure!(told.contains(&(path.clone(), *write)), "{path} in {told:?}");
    }
    let mut others = told.iter().filter(|(path, _)| !path.starts_with("/etc/"));
    ensure!(others.next().is_none(), "{told:?}");
    Ok(())
}

/// What was told of a process of a group of its own: path and whether it was written.
fn told(capture: &mut Capture, group: &Path, folder: &Folder) -> Result<Vec<(String, bool)>> {
    capture.tick();
    let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(group)?);
    let mut child = start(&["wait-opens", folder.text()?])?;
    let pid = child.id();
    let moved = fs::write(group.join("cgroup.procs"), pid.to_string());
    drop(child.stdin.take());
    let sample = until_exit(capture, pid)?;
    let status = child.wait()?;
    moved?;
    ensure!(
        status.code() == Some(i32::from(workload::STATUS)),
        "the workload ended with {status}"
    );
    let of_group = sample.opens.iter().filter(|open| open.cgroup == id);
    let mut told = Vec::new();
    for open in of_group {
        ensure!(open.pid == pid, "{open:?} is not of process {pid}");
        told.push((open.path.clone(), open.write));
    }
    Ok(told)
}
