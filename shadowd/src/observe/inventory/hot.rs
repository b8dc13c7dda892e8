//! Which files units use, and how much of them is in memory.
//!
//! What processes have mapped and have open for reading is found in procfs; a file that was read and
//! closed again is found only if it is asked for. Nothing is read but what procfs tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::host::on_host;
use crate::facts::HotFile;
use crate::observe::sys::{page_bytes, resident};

/// Processes that are looked at, at once.
const PROCESSES_MAX: usize = 512;
/// Descriptors of one process that are.
const DESCRIPTORS_MAX: usize = 1_024;
/// Of what a process has mapped so much text is read (bytes).
const MAPS_MAX: u64 = 1 << 20;
/// Paths of one unit.
const PATHS_MAX: usize = 1_024;
/// So much of a file is looked at in one call (bytes).
const WINDOW: u64 = 1 << 30;
/// Folders without a disk behind them, and those that are of one process or one boot.
const ELSEWHERE: [&str; 6] = ["/dev/", "/proc/", "/sys/", "/run/", "/tmp/", "/memfd:"];
/// What the kernel adds when the file is gone.
const DELETED: &str = " (deleted)";

/// The files that the processes of each unit have mapped or open, by unit.
pub fn used<'a>(
    processes: impl IntoIterator<Item = (u32, &'a str)>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (pid, unit) in processes.into_iter().take(PROCESSES_MAX) {
        let paths = used.entry(unit.to_owned()).or_default();
        // A process that ends meanwhile has no files.
        let files = mapped(pid).into_iter().chain(open(pid));
        for path in files.filter(|path| on_disk(path)) {
            if paths.len() >= PATHS_MAX {
                break;
            }
            paths.insert(path);
        }
    }
    used
}

fn on_disk(path: &str) -> bool {
    let elsewhere = ELSEWHERE.iter().any(|folder| path.starts_with(folder));
    path.starts_with('/') && !elsewhere && !path.ends_with(DELETED)
}

/// The last column of `/proc/PID/maps` (proc_pid_maps(5)).
fn mapped(pid: u32) -> BTreeSet<String> {
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else {
        return BTreeSet::new();
    };
    let lines = BufReader::new(maps.take(MAPS_MAX)).lines();
    let lines = lines.map_while(Result::ok);
    lines.filter_map(|line| mapped_path(&line)).collect()
}

/// None for what is no file. The path is all that follows five columns, blanks included.
fn mapped_path(line: &str) -> Option<String> {
    let path = &line[line.find('/')?..];
    // What has no inode is no file, whatever it is called.
    let inode = line.split_ascii_whitespace().nth(4)?;
    (inode != "0" && !path.contains('\\')).then(|| path.to_owned())
}

/// What it has open, unless it is only written: logs are no reason to read anything.
fn open(pid: u32) -> BTreeSet<String> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    let descriptors = descriptors.take(DESCRIPTORS_MAX).filter_map(Result::ok);
    let paths = descriptors.filter_map(|entry| {
        let path = fs::read_link(entry.path()).ok()?;
        let path = path.into_os_string().into_string().ok()?;
        let number = entry.file_name().into_string().ok()?;
        (on_disk(&path) && is_read(pid, &number)).then_some(path)
    });
    paths.collect()
}

/// `flags` of `/proc/PID/fdinfo/FD`, octal (proc_pid_fdinfo(5)).
fn is_read(pid: u32, number: &str) -> bool {
    let told = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = told.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_WRONLY)
}

/// How much of a file is in memory here, in the pieces of a file of `size` bytes, or in its own; none
/// where there is no regular file.
///
/// # Errors
/// The file system or the kernel does not tell.
pub fn measure(path: &str, size: Option<u64>) -> io::Result<Option<HotFile>> {
    let path = on_host(path);
    // Only what is a regular file already is opened: others may do something when they are.
    let is_file = match fs::metadata(&path) {
        Ok(meta) => meta.is_file(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if !is_file {
        return Ok(None);
    }
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(&path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let size = size.unwrap_or(meta.len());
    let pieces = pieces(&file, meta.len().min(size), HotFile::piece(size))?;
    Ok(Some(HotFile { size, pieces }))
}

/// The pieces of a file of which at least half is in memory.
fn pieces(file: &File, length: u64, piece: u64) -> io::Result<u64> {
    let page = page_bytes();
    let (mut inside, mut all) = ([0_u64; 64], [0_u64; 64]);
    let mut offset = 0;
    while offset < length {
        let window = (length - offset).min(WINDOW);
        let told = resident(file.as_fd(), offset, window as usize)?;
        for (number, is_there) in told.into_iter().enumerate() {
            let at = (offset + number as u64 * page) / piece;
            let at = usize::try_from(at).unwrap_or(63).min(63);
            all[at] += 1;
            inside[at] += u64::from(is_there);
        }
        offset += window;
    }
    let halves = inside.iter().zip(&all).enumerate();
    let there = halves.filter(|(_, (inside, all))| **all > 0 && **inside * 2 >= **all);
    Ok(there.fold(0, |bits, (number, _)| bits | 1 << number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_its_program_and_what_it_has_open() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let _kept = File::open(manifest).unwrap();
        let found = used([
            (std::process::id(), "app.service"),
            (u32::MAX, "gone.service"),
        ]);
        let here = std::env::current_exe().unwrap();
        let paths = &found["app.service"];
        assert!(paths.contains(here.to_str().unwrap()), "{paths:?}");
        assert!(paths.contains(manifest), "{paths:?}");
        assert!(paths.iter().all(|path| !path.starts_with("/proc/")));
        assert!(found["gone.service"].is_empty());
    }

    #[test]
    fn only_files_are_mapped_paths() {
        let line = "7f00-7f01 r-xp 00000000 fe:00 1234                 /usr/lib/a b.so";
        assert_eq!(mapped_path(line).as_deref(), Some("/usr/lib/a b.so"));
        for line in [
            "7f00-7f01 rw-p 00000000 00:00 0      [heap]",
            "7f00-7f01 rw-s 00000000 00:01 0      /anon",
            "7f00-7f01 rw-p 00000000 00:00 0",
            "7f00-7f01 r--p 00000000 fe:00 9      /a\\012b",
            "",
        ] {
            assert_eq!(mapped_path(line), None, "{line}");
        }
        assert!(
            !on_disk("/usr/bin/app (deleted)") && !on_disk("/memfd:x") && !on_disk("socket:[1]")
        );
    }

    #[test]
    fn the_own_program_is_in_memory_and_no_folder_is() {
        let here = std::env::current_exe().unwrap();
        let hot = measure(here.to_str().unwrap(), None).unwrap().unwrap();
        assert_eq!(hot.size, here.metadata().unwrap().len());
        assert!(hot.bytes() > 0);
        assert_eq!(measure("/etc", None).unwrap(), None);
        assert_eq!(measure("/dev/null", None).unwrap(), None);
        assert_eq!(measure("/no/such/file", None).unwrap(), None);
        // In the pieces of a file that is longer than this one only the first are there.
        let longer = measure(here.to_str().unwrap(), Some(hot.size * 4))
            .unwrap()
            .unwrap();
        assert_eq!(longer.pieces & !0xffff, 0);
    }
}
