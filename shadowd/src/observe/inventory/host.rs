//! What a host has left: room on file systems, kernel parameters, the clock.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::facts::DiskInventory;

/// Folders whose file systems matter, beside those that are asked for.
const FOLDERS: [&str; 4] = ["/", "/var", "/var/lib", "/tmp"];
/// A longer value is none.
const VALUE_MAX: usize = 4_096;

/// What the first process sees as `/` (proc_pid_root(5)): to the daemon itself, in its sandbox, file
/// systems are read-only.
const HOST: &str = "/proc/1/root";

/// Where the host has `folder`, as far as it may be looked at.
pub(super) fn on_host(folder: &str) -> String {
    let path = format!("{HOST}{folder}");
    match std::fs::metadata(&path) {
        Ok(_) => path,
        Err(_) => folder.to_owned(),
    }
}

/// The file systems of these folders and of the usual ones, each by the first folder that is on it.
pub fn disks<'a>(folders: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, DiskInventory> {
    let mut seen = std::collections::BTreeSet::new();
    let mut disks = BTreeMap::new();
    for folder in FOLDERS.into_iter().chain(folders) {
        let path = on_host(folder);
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        if !seen.insert(meta.dev()) {
            continue;
        }
        if let Ok(stat) = statvfs(path.as_str()) {
            let unit = stat.fragment_size();
            let files_free = match stat.files() {
                0 => 1.0,
                files => stat.files_available() as f64 / files as f64,
            };
            let disk = DiskInventory {
                free: stat.blocks_available() * unit,
                size: stat.blocks() * unit,
                files_free,
                read_only: stat.flags().contains(FsFlags::ST_RDONLY),
            };
            disks.insert(folder.to_owned(), disk);
        }
    }
    disks
}

/// Kernel parameters that this kernel has, by sysctl's names.
pub fn parameters<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, String> {
    let values = names.into_iter().filter_map(|name| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let value = std::fs::read_to_string(path).ok()?;
        let words: Vec<&str> = value.split_whitespace().collect();
        let value = words.join(" ");
        (value.len() <= VALUE_MAX).then(|| (name.clone(), value))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_told_once() {
        let disks = disks(["/", "/etc", "/no/such/folder"]);
        let root = disks["/"];
        assert!(root.size > 0 && root.free <= root.size, "{root:?}");
        assert!((0.0..=1.0).contains(&root.files_free));
        assert!(!disks.contains_key("/no/such/folder"));
    }

    #[test]
    fn parameters_are_read_by_sysctls_names() {
        let names = ["kernel.pid_max", "no.such.parameter"].map(str::to_owned);
        let values = parameters(&names);
        assert!(values["kernel.pid_max"].parse::<u64>().is_ok());
        assert_eq!(values.len(), 1);
    }
}
