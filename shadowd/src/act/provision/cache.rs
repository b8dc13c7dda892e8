//! Reads files, so that the kernel has them in memory when a unit starts.
//!
//! They are read rather than announced (posix_fadvise(2)): of an announcement the kernel heeds a few
//! hundred kilobytes and tells nobody whether it did.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{ActError, files};
use crate::facts::HotFile;

/// Read at once, bytes.
const BLOCK: usize = 256 << 10;
/// Memory is looked at again after so many bytes.
const LOOK_AFTER: u64 = 16 << 20;
/// Reading ends when less than this part of the memory is available.
const HEADROOM: u64 = 4;
const MEMORY: &str = "/proc/meminfo";

/// Reads what is hot of `files`. A file that is not there any more is left out.
pub(super) fn warm(files: &BTreeMap<String, HotFile>) -> Result<(), ActError> {
    let mut block = vec![0; BLOCK];
    let (mut since, mut failed) = (LOOK_AFTER, None);
    for (path, hot) in files {
        let at = Path::new(path);
        match open(at).and_then(|file| match file {
            Some(file) => read(&file, hot, &mut block, &mut since),
            None => Ok(()),
        }) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                return Err(files::failed(at, error));
            }
            // One that cannot be read keeps no other from being read.
            Err(error) => failed = failed.or_else(|| Some(files::failed(at, error))),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// None for what is no regular file.
fn open(path: &Path) -> io::Result<Option<File>> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOATIME);
    let file = options.open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

fn read(file: &File, hot: &HotFile, block: &mut [u8], since: &mut u64) -> io::Result<()> {
    for (offset, length) in hot.ranges() {
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            if *since >= LOOK_AFTER {
                *since = 0;
                enough()?;
            }
            let most = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            let read = file.read_at(&mut block[..most], at)? as u64;
            if read == 0 {
                // It is shorter here.
                return Ok(());
            }
            at += read;
            *since += read;
        }
    }
    Ok(())
}

/// Whether there is memory left that nobody needs.
fn enough() -> io::Result<()> {
    let text = fs::read_to_string(MEMORY)?;
    match left(&text) {
        Some((all, available)) if available >= all / HEADROOM => Ok(()),
        Some(_) => Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            "memory is short: no more is read",
        )),
        None => Err(io::Error::other("the kernel does not tell what is free")),
    }
}

/// All memory and what is available of it, kB (proc_meminfo(5)).
fn left(text: &str) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((of("MemTotal:")?, of("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_is_available() {
        let text = "MemTotal:       24684084 kB\nMemFree:  19 kB\nMemAvailable:   23486500 kB\n";
        assert_eq!(left(text), Some((24_684_084, 23_486_500)));
        assert_eq!(left("MemTotal: 1 kB\n"), None);
        assert!(left(&fs::read_to_string(MEMORY).unwrap()).is_some());
    }

    #[test]
    fn files_are_read_to_their_end_and_what_is_none_is_left_out() {
        let path = std::env::temp_dir().join(format!("shadowd-warm-{}", std::process::id()));
        fs::write(&path, vec![7; 3 * BLOCK + 5]).unwrap();
        let name = path.to_str().unwrap().to_owned();
        let hot = |size| HotFile {
            size,
            pieces: u64::MAX,
        };
        let mut since = 0;
        let file = open(&path).unwrap().unwrap();
        // On the active it is longer.
        read(&file, &hot(64 << 20), &mut vec![0; BLOCK], &mut since).unwrap();
        assert_eq!(since, 3 * BLOCK as u64 + 5);
        let others = ["/dev/zero", "/etc", "/no/such/file"].map(str::to_owned);
        let files = others
            .into_iter()
            .chain([name])
            .map(|path| (path, hot(1 << 20)));
        warm(&files.collect()).unwrap();
        fs::remove_file(&path).unwrap();
    }
}
