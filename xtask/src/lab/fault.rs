//! Faults, and their undoing.
//!
//! What stops a host works from outside it, on its control group and on its port of the bridge,
//! so the host has no part in its own failure. Frames are dropped at the bridge, as a switch would.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::state::{Host, State};
use super::{Lab, cgroup, host, network};

/// The daemon's unit.
pub const DAEMON: &str = "shadowd.service";
/// The unit of the group that runs on every host.
pub const WARM: &str = "nginx.service";
/// The unit of the group that runs on the active alone.
pub const COLD: &str = "lab-cold.service";
/// The unit that `bench failover` measures beside the daemon; otherwise it does not run.
pub const PEER: &str = "keepalived.service";
/// Uses up what processor time a starved host has.
const BURNER: &str = "lab-burner.service";
/// The period of cpu quotas.
const PERIOD_US: u64 = 100_000;

/// What can be done to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The whole host stops: its processes freeze and its link goes down.
    Crash,
    /// All of the host's processes freeze; its kernel and its link go on.
    Freeze,
    /// The daemon is killed (SIGKILL).
    DaemonKill,
    /// The daemon stops running but keeps all it has (SIGSTOP).
    DaemonStop,
    /// All processes of a unit stop running but keep all they have (SIGSTOP).
    UnitStall(String),
    /// systemd stops a unit.
    UnitStop(String),
    /// A unit's main process is killed (SIGKILL).
    UnitKill(String),
    /// The host's link loses its carrier.
    LinkDown,
    /// The host and its peers cannot reach each other; the client reaches all.
    Partition,
    /// What the host sends to one peer is lost; the other way works.
    CutOneWay(String),
    /// The host and one peer cannot reach each other.
    Cut(String),
    /// The same on the second link, beside any other cut.
    CutSecond(String),
    /// The host's second link loses its carrier.
    SecondLinkDown,
    /// This share of frames from and to the host is lost, in percent.
    Loss(u8),
    /// The host gets this share of one processor, in percent.
    Starve(u8),
    /// The host boots again.
    Reboot,
}

/// Now, on `CLOCK_BOOTTIME`, in nanoseconds: the clock of shadowd's events. All hosts of a lab
/// share one kernel, so their readings compare.
///
/// # Errors
/// The clock cannot be read.
pub fn boot_ns() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read CLOCK_BOOTTIME")?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Does it; gives the moment just before, on `CLOCK_BOOTTIME`.
///
/// # Errors
/// The host, unit or peer is not there, or a step fails.
pub fn inject(lab: &Lab, name: &str, fault: &Fault) -> Result<u64> {
    let state = lab.state();
    let target = state.host(name)?;
    match fault {
        Fault::Crash => {
            let at = boot_ns()?;
            // Frozen first: that takes no time, and nothing in the host sees its link go.
            cgroup::write(&target.cgroup.join("cgroup.freeze"), "1")?;
            network::set_port(state, name, false)?;
            network::set_second_port(state, name, false)?;
            Ok(at)
        }
        Fault::Freeze => timed(|| cgroup::write(&target.cgroup.join("cgroup.freeze"), "1")),
        Fault::DaemonKill => signal(target, DAEMON, Signal::SIGKILL),
        Fault::DaemonStop => stall(target, DAEMON),
        Fault::UnitStall(unit) => stall(target, unit),
        Fault::UnitKill(unit) => signal(target, unit, Signal::SIGKILL),
        Fault::UnitStop(unit) => timed(|| lab.run(name, &["systemctl", "stop", unit]).map(drop)),
        Fault::LinkDown => timed(|| network::set_port(state, name, false)),
        Fault::Partition => timed(|| network::filter(state, name, &cut_from_peers(name))),
        Fault::CutOneWay(peer) => {
            let peer = &state.host(peer)?.name;
            let rule = format!("iifname \"port-{name}\" oifname \"port-{peer}\" counter drop");
            timed(|| network::filter(state, name, &[rule]))
        }
        Fault::Cut(peer) => {
            let peer = &state.host(peer)?.name;
            let rules = [(name, peer.as_str()), (peer, name)].map(|(from, to)| {
                format!("iifname \"port-{from}\" oifname \"port-{to}\" counter drop")
            });
            timed(|| network::filter(state, name, &rules))
        }
        Fault::CutSecond(peer) => {
            let ends = [name, &state.host(peer)?.name].map(network::second_port_name);
            let [own, other] = &ends;
            let rules = [(own, other), (other, own)]
                .map(|(from, to)| format!("iifname \"{from}\" oifname \"{to}\" counter drop"));
            timed(|| network::filter(state, &second(name), &rules))
        }
        Fault::SecondLinkDown => timed(|| network::set_second_port(state, name, false)),
        Fault::Loss(percent) => {
            let rules = ["iifname", "oifname"].map(|side| {
                format!("{side} \"port-{name}\" numgen random mod 100 < {percent} drop")
            });
            timed(|| network::filter(state, name, &rules))
        }
        Fault::Starve(percent) => {
            // An idle host would not notice: something must use the share up.
            let spin = [
                "systemd-run",
                "--quiet",
                "--collect",
                "--unit",
                BURNER,
                "sh",
                "-c",
            ];
            lab.run(name, &[&spin[..], &["while :; do :; done"]].concat())?;
            let quota = PERIOD_US * u64::from(*percent) / 100;
            timed(|| set_quota(target, Some(quota)))
        }
        Fault::Reboot => timed(|| {
            lab.run(name, &["systemctl", "--no-block", "reboot"])
                .map(drop)
        }),
    }
}

/// Undoes what keeps a host from running or being heard. Starts nothing and waits for nothing.
///
/// # Errors
/// A step fails.
pub fn lift(lab: &Lab, name: &str) -> Result<()> {
    let state = lab.state();
    let target = state.host(name)?;
    set_quota(target, None)?;
    network::unfilter(state, name)?;
    network::unfilter(state, &second(name))?;
    cgroup::write(&target.cgroup.join("cgroup.freeze"), "0")?;
    network::set_port(state, name, true)?;
    network::set_second_port(state, name, true)?;
    for unit in [DAEMON, PEER, WARM] {
        for pid in host::processes(target, unit) {
            // It may end by itself at this moment; the wait for the host sees that.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
    Ok(())
}

/// Undoes every fault, and starts these units, should they have ended. Does not wait for them.
///
/// # Errors
/// A step fails.
pub fn heal(lab: &Lab, name: &str, units: &[&str]) -> Result<()> {
    lift(lab, name)?;
    lab.wait_booted(name, Duration::from_secs(60))?;
    // It is not there unless the host was starved, and not after a reboot.
    lab.exec(name, &["systemctl", "stop", BURNER])?;
    lab.run(name, &["systemctl", "reset-failed"])?;
    lab.run(name, &[&["systemctl", "start"], units].concat())
        .map(drop)
}

/// What drops frames of a host's second link goes by this name.
fn second(name: &str) -> String {
    format!("{name}_second")
}

fn timed(action: impl FnOnce() -> Result<()>) -> Result<u64> {
    let at = boot_ns()?;
    action()?;
    Ok(at)
}

fn signal(target: &Host, unit: &str, signal: Signal) -> Result<u64> {
    let pid = host::main_process(target, unit)
        .with_context(|| format!("{unit} does not run on host {}", target.name))?;
    timed(|| {
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {unit}"))
    })
}

fn stall(target: &Host, unit: &str) -> Result<u64> {
    let pids = host::processes(target, unit);
    if pids.is_empty() {
        bail!("{unit} does not run on host {}", target.name);
    }
    timed(|| {
        for pid in pids {
            kill(Pid::from_raw(pid), Signal::SIGSTOP)
                .with_context(|| format!("cannot stop {unit}"))?;
        }
        Ok(())
    })
}

fn cut_from_peers(name: &str) -> Vec<String> {
    vec![
        format!("iifname \"port-{name}\" oifname != \"port-client\" counter drop"),
        format!("oifname \"port-{name}\" iifname != \"port-client\" counter drop"),
    ]
}

/// Limits the processor time of a host, or lifts the limit.
fn set_quota(target: &Host, quota_us: Option<u64>) -> Result<()> {
    if let Some(group) = &target.cpu_cgroup {
        let value = quota_us.map_or("-1".to_owned(), |quota| quota.to_string());
        return cgroup::write(&group.join("cpu.cfs_quota_us"), &value);
    }
    let file = target.cgroup.join("cpu.max");
    match (file.exists(), quota_us) {
        (true, Some(quota)) => cgroup::write(&file, &format!("{quota} {PERIOD_US}")),
        (true, None) => cgroup::write(&file, "max"),
        (false, None) => Ok(()),
        (false, Some(_)) => bail!("this machine lends the lab no cpu controller: cannot starve"),
    }
}

/// Checks that nothing is frozen, cut or limited. For messages only.
pub fn describe(state: &State, target: &Host) -> String {
    let frozen = std::fs::read_to_string(target.cgroup.join("cgroup.freeze"))
        .is_ok_and(|text| text.trim() == "1");
    let running = cgroup::populated(&target.cgroup);
    let table = format!(
        "nft list table bridge lab_{} 2>/dev/null | grep -c drop",
        target.name
    );
    let cut = network::inside(&state.switch, &table).is_ok_and(|count| count.trim() != "0");
    match (running, frozen, cut) {
        (false, _, _) => "ended".into(),
        (true, true, _) => "frozen".into(),
        (true, false, true) => "runs, frames are dropped".into(),
        (true, false, false) => "runs".into(),
    }
}
