//! What belongs to this host when several hosts share a kernel.
//!
//! A daemon in a container sees its own control group as the root of its cgroup2 mount, and its
//! own pids. The kernel side sees everything, so it is told which subtree counts and how to
//! translate pids. When that cannot be found out, kernel capture stays off: it must never show
//! one container another one's processes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, process};

use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use shadowd_common::{LocateSettings, ScopeSettings};
use thiserror::Error;

/// Inode of the initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INITIAL_PIDNS: u64 = 0xefff_fffc;
/// Inode of the real root of cgroup2: kernfs numbers its nodes from 1.
const REAL_ROOT: u64 = 1;

/// Why the extent of this host is unknown.
#[derive(Debug, Error)]
pub enum ScopeError {
    /// A namespace or the mount cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// In a container without a cgroup2 mount nothing tells its processes from others.
    #[error("no cgroup2 file system is mounted, and this is not the initial pid namespace")]
    NoCgroups,
    /// The kernel refused the program that looks.
    #[error("the program that finds this container's level was refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon's own control group is outside of the subtree it sees.
    #[error("the daemon is not inside the control groups that it sees")]
    Outside,
}

/// This host's extent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Mount point of the visible cgroup2 tree, if there is one.
    pub cgroups: Option<PathBuf>,
    /// Its depth below the real root.
    pub level: u32,
    /// Id of its root.
    pub root_cgroup: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Device and inode of the pid namespace; `None` in the initial one.
    pub pidns: Option<(u64, u64)>,
}

impl Scope {
    /// Finds out everything; loads a small program for a moment when in a container.
    ///
    /// # Errors
    ///
    /// When the extent cannot be told with certainty.
    pub fn find() -> Result<Self, ScopeError> {
        let pidns = metadata("/proc/self/ns/pid")?;
        let netns = metadata("/proc/self/ns/net")?;
        let initial = pidns.ino() == INITIAL_PIDNS;
        let mut scope = Self {
            cgroups: cgroup_mount(),
            netns: u32::try_from(netns.ino()).unwrap_or(0),
            pidns: (!initial).then(|| (pidns.dev(), pidns.ino())),
            ..Self::default()
        };
        let Some(mount) = &scope.cgroups else {
            return if initial {
                Ok(scope)
            } else {
                Err(ScopeError::NoCgroups)
            };
        };
        scope.root_cgroup = metadata(mount)?.ino();
        if scope.root_cgroup != REAL_ROOT {
            scope.level = locate(scope.root_cgroup, pidns.dev(), pidns.ino())?;
        }
        Ok(scope)
    }

    /// Tells the kernel side.
    pub fn write(&self, settings: &mut ScopeSettings) {
        settings.root_cgroup = self.root_cgroup;
        settings.root_level = self.level;
        settings.netns = self.netns;
        (settings.pidns_device, settings.pidns_inode) = self.pidns.unwrap_or((0, 0));
    }
}

/// Where cgroup2 is mounted, unified or hybrid.
pub fn cgroup_mount() -> Option<PathBuf> {
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    mounts
        .into_iter()
        .rfind(|mount| mount.fs_type == "cgroup2")
        .map(|mount| mount.mount_point)
}

fn metadata(path: impl AsRef<Path>) -> Result<fs::Metadata, ScopeError> {
    let path = path.as_ref();
    fs::metadata(path).map_err(|source| ScopeError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The level of the control group `root` among the daemon's ancestors.
fn locate(root: u64, device: u64, inode: u64) -> Result<u32, ScopeError> {
    let level = run_locate(root, device, inode).map_err(ScopeError::Refused)?;
    level.checked_sub(1).ok_or(ScopeError::Outside)
}

fn run_locate(
    root_cgroup: u64,
    pidns_device: u64,
    pidns_inode: u64,
) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    let tgid = u64::from(process::id());
    let settings = LocateSettings {
        root_cgroup,
        pidns_device,
        pidns_inode,
        tgid,
    };
    let mut ebpf: Ebpf = EbpfLoader::new()
        .override_global("LOCATE", &settings, true)
        .load(include_bytes_aligned!(concat!(
            env!("OUT_DIR"),
            "/locate.bpf.o"
        )))?;
    let program: &mut RawTracePoint = ebpf
        .program_mut("locate")
        .ok_or("no program locate")?
        .try_into()?;
    program.load()?;
    program.attach("sys_exit")?;
    // Attaching ended with a system call of this process, but the program may have missed that
    // one: the lookup below is another, and the map is read by a third.
    let map = ebpf.map("LEVEL").ok_or("no map LEVEL")?;
    let levels: aya::maps::Array<_, u32> = map.try_into()?;
    levels.get(&0, 0)?;
    Ok(levels.get(&0, 0)?)
}
