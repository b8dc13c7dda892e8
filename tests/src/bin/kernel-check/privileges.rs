//! After loading, capture goes on with fewer capabilities.

use std::fs;

use anyhow::{Context, Result, ensure};
use shadowd::config::settings::{CaptureSettings, CostMeasurement};
use shadowd::observe::Capture;

use super::basics::counted;
use super::{run_role, workload};

// include/uapi/linux/capability.h
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// In a thread of its own: what it gives up is gone for good.
pub fn counting_goes_on_without_them(_: &mut Capture) -> Result<()> {
    let work = std::thread::spawn(|| {
        let settings = CaptureSettings {
            cost: CostMeasurement::Off,
            ..CaptureSettings::default()
        };
        let mut capture = Capture::start(&settings);
        capture.give_up_privileges()?;
        let (effective, permitted) = (own("CapEff:")?, own("CapPrm:")?);
        println!("    capabilities left: effective {effective:x}, permitted {permitted:x}");
        ensure!(effective == permitted, "{effective:x} of {permitted:x}");
        ensure!(permitted & (SYS_ADMIN | PERFMON) == 0, "{permitted:x}");
        let asked = release()? < (5, 19) && unprivileged_disabled();
        ensure!(
            (permitted & BPF != 0) == asked,
            "{permitted:x}, asked {asked}"
        );

        capture.tick();
        let (pid, sample) = run_role(&mut capture, &["syscalls"])?;
        let (calls, _) = counted(&sample, pid, libc::SYS_getppid);
        ensure!(calls == workload::GETPPIDS, "{calls} calls");
        // Some probes are run anew on each tick.
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let local = listener.local_addr()?;
        let sample = capture.tick();
        let heard = sample.listeners.iter().any(|one| one.local == local);
        ensure!(heard, "{local} is not in {:?}", sample.listeners);
        for probe in capture.probes() {
            ensure!(probe.degraded.is_none(), "{probe:?}");
        }
        Ok(())
    });
    let end = work.join();
    end.map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

fn own(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let set = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(u64::from_str_radix(set.context("no such line")?, 16)?)
}

/// Whether kernel.unprivileged_bpf_disabled is set.
fn unprivileged_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")
        .is_ok_and(|value| value.trim() != "0")
}

fn release() -> Result<(u32, u32)> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = text.split(['.', '-']);
    let mut next = || parts.next().and_then(|part| part.parse().ok());
    next().zip(next()).context("an odd kernel release")
}
