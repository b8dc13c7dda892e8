//! A control group for one check: what others on the machine do is not captured.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context as _, Result};
use shadowd::config::settings::CaptureSettings;
use shadowd::observe::{Capture, Limits};

use super::{Skipped, settings, workload};

/// Inode of the real root of cgroup2.
const REAL_ROOT: u64 = 1;

/// A control group made for one check.
pub struct Fence {
    folder: PathBuf,
    /// As the kernel numbers it.
    pub id: u64,
}

impl Fence {
    /// Makes it; the check is skipped where it would not be right below the real root.
    pub fn new(name: &str) -> Result<Self> {
        let mount = workload::cgroup_mount()?;
        if std::fs::metadata(&mount)?.ino() != REAL_ROOT {
            return Err(
                Skipped("the real root of the control groups is not visible".to_owned()).into(),
            );
        }
        if kernel_version()? < (5, 14) {
            let why = "programs of this kernel cannot ask whose group lies in which (before 5.14)";
            return Err(Skipped(why.to_owned()).into());
        }
        let folder = mount.join(format!("kernel-check-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let id = std::fs::metadata(&folder)?.ino();
        Ok(Self { folder, id })
    }

    /// Moves a process in.
    pub fn take(&self, child: &Child) -> Result<()> {
        std::fs::write(self.folder.join(PROCESSES), child.id().to_string())
            .context("the process cannot be moved")
    }

    /// Moves this very process in, with all that it starts from then on.
    pub fn enter(&self) -> Result<Inside> {
        let mine = std::fs::read_to_string("/proc/self/cgroup")?;
        let path = mine.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = path.context("this process is in no control group")?;
        let inside = Inside {
            before: workload::cgroup_mount()?.join(path).join(PROCESSES),
        };
        move_here(&self.folder.join(PROCESSES))?;
        Ok(inside)
    }

    /// A capture of nothing but this group, with room for so many slots of system calls.
    pub fn watch(&self, slots: u32) -> Capture {
        self.watch_with(Limits {
            syscalls: slots,
            ..Limits::default()
        })
    }

    /// A capture of nothing but this group. Names come in from the whole machine, so they stay out.
    pub fn watch_with(&self, limits: Limits) -> Capture {
        let settings = CaptureSettings {
            probes_off: BTreeSet::from(["dns".to_owned()]),
            ..settings()
        };
        let limits = Limits {
            only: Some((self.id, 1)),
            ..limits
        };
        Capture::start_with(&settings, limits)
    }
}

/// This process and what it starts, apart from all others of the machine. What is lost has no owner,
/// and others have connections too. Where the kernel cannot tell groups apart, the machine must run
/// nothing else.
pub struct Apart {
    _inside: Option<Inside>,
    fence: Option<Fence>,
}

impl Apart {
    /// Moves this process into a group of its own.
    pub fn new(name: &str) -> Result<Self> {
        let fence = match Fence::new(name) {
            Ok(fence) => Some(fence),
            Err(error) if error.is::<Skipped>() && std::process::id() == 1 => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            _inside: fence.as_ref().map(Fence::enter).transpose()?,
            fence,
        })
    }

    /// A capture of nothing else.
    pub fn watch(&self) -> Capture {
        match &self.fence {
            Some(fence) => fence.watch_with(Limits::default()),
            None => Capture::start(&settings()),
        }
    }
}

/// Major and minor number of the running kernel.
fn kernel_version() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok);
    next()
        .zip(next())
        .with_context(|| format!("which kernel is {release:?}?"))
}

/// The file of a control group that lists its processes and takes new ones.
const PROCESSES: &str = "cgroup.procs";

fn move_here(processes: &Path) -> Result<()> {
    std::fs::write(processes, std::process::id().to_string())
        .with_context(|| format!("this process cannot be moved to {}", processes.display()))
}

/// While it lives this process is inside of a fence; then it goes back.
pub struct Inside {
    before: PathBuf,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = move_here(&self.before) {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if let Err(error) = workload::remove_group(&self.folder) {
            eprintln!("{}: {error:#}", self.folder.display());
        }
    }
}
