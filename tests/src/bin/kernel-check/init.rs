//! The first process of a virtual machine: mounts, network, and the way out.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use shadowd_tests::load::namespace::loopback_up;

const MOUNTS: [(&str, &str); 5] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// Kernel modules, none of which needs another.
const MODULES: &str = "/lib/modules";

/// Prepares the machine, checks, and powers it off.
pub fn run(check_all: impl Fn() -> bool) -> ExitCode {
    for (kind, target) in MOUNTS {
        let made = fs::create_dir_all(target);
        let mounted = mount(
            Some(kind),
            target,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        );
        if let Err(error) = mounted {
            println!("{kind} is not mounted on {target}: {error} ({made:?})");
        }
    }
    if let Err(error) = loopback_up() {
        println!("the loopback interface does not come up: {error:#}");
    }
    if let Err(error) = load_modules() {
        println!("{error:#}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("kernel {}", release.trim());
    check_all();
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Err(error) => println!("the machine does not power off: {error}"),
        Ok(never) => match never {},
    }
    ExitCode::FAILURE
}

/// Loads the modules that were packed beside this program, if any were.
fn load_modules() -> Result<()> {
    let Ok(modules) = fs::read_dir(MODULES) else {
        return Ok(());
    };
    for module in modules {
        let path = module?.path();
        let loaded = finit_module(&fs::File::open(&path)?, c"", ModuleInitFlags::empty());
        loaded.with_context(|| format!("{} is not loaded", path.display()))?;
    }
    Ok(())
}
