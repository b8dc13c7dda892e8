//! Where a guard belongs: the interface now behind a name, and its folder of pins.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Direction, GuardError};

// include/uapi/linux/if_arp.h; the loopback interface has Ethernet headers, with zeros in them.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// One interface for as long as it lives: made again under its name, it has another index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Inode of the network namespace.
    netns: u64,
    index: u32,
}

impl Identity {
    /// Who is behind the name now, in the calling thread's network namespace.
    pub fn of(interface: &str) -> Result<Self, GuardError> {
        let missing = |source| GuardError::NoInterface {
            interface: interface.to_owned(),
            source,
        };
        let index = if_nametoindex(interface).map_err(missing)?;
        let netns = fs::metadata("/proc/thread-self/ns/net").map_err(|source| {
            let raw = source.raw_os_error().unwrap_or(libc::EIO);
            missing(Errno::from_raw(raw))
        })?;
        Ok(Self {
            netns: netns.ino(),
            index,
        })
    }

    /// The name of the pin that holds its link.
    pub fn link(&self, direction: Direction) -> String {
        format!("{}-{}-{}", direction.name(), self.netns, self.index)
    }
}

/// Refuses an interface whose frames the kernel side would not understand: it would pass them all.
pub(super) fn require_ethernet(interface: &str) -> Result<(), GuardError> {
    let entries = getifaddrs().map_err(|source| GuardError::NoInterface {
        interface: interface.to_owned(),
        source,
    })?;
    let kind = entries
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| Some(entry.address.as_ref()?.as_link_addr()?.hatype()));
    match kind {
        Some(ARPHRD_ETHER | ARPHRD_LOOPBACK) => Ok(()),
        _ => Err(GuardError::NotEthernet(interface.to_owned())),
    }
}

/// The folder of an interface's pins. The BPF file system keeps names with dots for itself.
pub(super) fn folder(pins: &Path, interface: &str) -> PathBuf {
    pins.join(interface.replace('%', "%25").replace('.', "%2e"))
}

/// The interface whose folder has this name.
pub(super) fn interface(folder: &str) -> String {
    folder.replace("%2e", ".").replace("%25", "%")
}

/// Makes the folder, if there is a BPF file system to make it in.
pub(super) fn make(folder: &Path) -> Result<(), GuardError> {
    let there = folder.ancestors().find(|ancestor| ancestor.exists());
    let is_bpf = there
        .and_then(|there| statfs(there).ok())
        .is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if !is_bpf {
        return Err(GuardError::NoBpfFs(folder.to_owned()));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| GuardError::Folder {
            path: folder.to_owned(),
            source,
        })
}

/// Removes pins; what is gone already is fine.
pub(super) fn unpin(path: &Path) -> Result<(), GuardError> {
    absent_is_fine(path, fs::remove_file(path))
}

/// Removes a folder with all its pins, which detaches the links among them.
pub(super) fn remove(folder: &Path) -> Result<(), GuardError> {
    for name in names(folder)? {
        unpin(&folder.join(name))?;
    }
    absent_is_fine(folder, fs::remove_dir(folder))
}

/// What a folder holds; nothing if it is not there.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, GuardError> {
    let refused = |source| GuardError::Folder {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(refused)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name());
    let names: io::Result<Vec<_>> = entries.map(name).collect();
    let names = names.map_err(refused)?.into_iter();
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

fn absent_is_fine(path: &Path, result: io::Result<()>) -> Result<(), GuardError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| GuardError::Folder {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_no_dots_and_names_its_interface() {
        for name in ["eth0", "eth0.100", "50%", "%2e.", "%25"] {
            let folder = folder(Path::new("/pins"), name);
            let last = folder.strip_prefix("/pins").expect("it is in there");
            let last = last.to_str().expect("it is text");
            assert!(!last.contains('.'), "{last}");
            assert_eq!(interface(last), name);
        }
    }

    #[test]
    fn an_unknown_interface_is_named() {
        let error = Identity::of("no-such-link").expect_err("there is none");
        assert_eq!(error.to_string(), "interface no-such-link is not there");
    }

    #[test]
    fn a_folder_elsewhere_is_refused_with_the_remedy() {
        let error = make(Path::new("/proc/no/such")).expect_err("this is procfs");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
