//! Shows that capture loads on the running kernel and counts exactly.
//!
//! Run as root it checks this host. Run as pid 1 it is the init of a virtual machine: it mounts
//! what it needs, checks, prints and powers the machine off. The workload is this same program,
//! started with the name of a role, so nothing else has to be installed.

mod basics;
mod block;
mod cost;
mod dns;
mod fence;
mod files;
mod flows;
mod generator;
mod guard;
mod guard_frames;
mod guard_handover;
mod init;
mod lifecycle;
mod overflow;
mod privileges;
mod socket_tables;
mod sockets;
mod syscalls;
mod tcp;
mod units;
mod workload;

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shadowd::config::settings::{CaptureSettings, CostMeasurement};
use shadowd::facts::{Lifecycle, LifecycleKind, Sample};
use shadowd::observe::Capture;

/// How long the kernel's last event may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

type Check = fn(&mut Capture) -> Result<()>;

/// Why a check had nothing to check: the kernel lacks what it would use.
#[derive(Debug)]
struct Skipped(String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Capture as the daemon runs it.
fn settings() -> CaptureSettings {
    CaptureSettings {
        tick: Duration::from_secs(1),
        ebpf: true,
        // The check of cost has a capture of its own, and looks for descriptors of the whole process.
        cost: CostMeasurement::Off,
        ..CaptureSettings::default()
    }
}

const CHECKS: &[(&str, Check)] = &[
    ("probes_load", probes_load),
    (
        "syscalls_and_errors_are_exact",
        basics::syscalls_and_errors_are_exact,
    ),
    (
        "counts_and_errnos_are_exact",
        syscalls::counts_and_errnos_are_exact,
    ),
    (
        "blocking_calls_take_their_time",
        syscalls::blocking_calls_take_their_time,
    ),
    (
        "a_moved_process_counts_where_it_is",
        syscalls::a_moved_process_counts_where_it_is,
    ),
    (
        "seen_and_dropped_are_all",
        syscalls::seen_and_dropped_are_all,
    ),
    (
        "the_dead_leave_their_slots",
        syscalls::the_dead_leave_their_slots,
    ),
    (
        "a_pid_used_again_is_another_process",
        syscalls::a_pid_used_again_is_another_process,
    ),
    ("perf_counts_the_same", syscalls::perf_counts_the_same),
    ("strace_counts_the_same", syscalls::strace_counts_the_same),
    (
        "exec_and_exit_are_seen_with_status",
        basics::exec_and_exit_are_seen_with_status,
    ),
    (
        "exit_wakes_the_reader_at_once",
        basics::exit_wakes_the_reader_at_once,
    ),
    (
        "an_exit_during_a_tick_is_heard_once",
        basics::an_exit_during_a_tick_is_heard_once,
    ),
    ("exit_tells_processor_time", lifecycle::tells_processor_time),
    ("kill_for_want_of_memory_is_told", lifecycle::tells_oom_kill),
    ("block_io_equals_diskstats", block::equals_diskstats),
    ("file_io_is_exact", files::io_is_exact),
    (
        "full_tables_of_io_are_counted",
        files::full_tables_are_counted,
    ),
    ("successor_goes_on_with_counts", files::successor_goes_on),
    ("opened_files_are_told_once", files::opens_are_told_once),
    ("tcp_v4_bytes_are_exact", |capture| {
        tcp::bytes_are_exact(capture, "127.0.0.1", "127.0.0.1")
    }),
    ("tcp_v6_bytes_are_exact", |capture| {
        tcp::bytes_are_exact(capture, "::1", "::1")
    }),
    ("tcp_v4_to_a_v6_socket_is_v4", |capture| {
        tcp::bytes_are_exact(capture, "::", "127.0.0.1")
    }),
    (
        "tcp_refused_connect_is_failed",
        tcp::refused_connect_is_failed,
    ),
    (
        "open_connections_are_live",
        sockets::open_connections_are_live,
    ),
    (
        "a_connection_is_opened_once_and_timed",
        sockets::a_connection_is_opened_once_and_timed,
    ),
    (
        "a_reset_is_counted_at_both_ends",
        sockets::a_reset_is_counted_at_both_ends,
    ),
    (
        "the_process_that_does_the_io_owns_the_connection",
        sockets::the_process_that_does_the_io_owns_the_connection,
    ),
    (
        "a_connection_that_is_handed_on_is_split",
        sockets::a_connection_that_is_handed_on_is_split,
    ),
    ("udp_v4_is_exact", |capture| {
        sockets::datagrams_are_exact(capture, "127.0.0.1", "127.0.0.1", false)
    }),
    ("udp_v6_connected_is_exact", |capture| {
        sockets::datagrams_are_exact(capture, "::1", "::1", true)
    }),
    ("udp_v4_to_a_v6_socket_is_v4", |capture| {
        sockets::datagrams_are_exact(capture, "::", "127.0.0.1", true)
    }),
    (
        "local_sockets_are_no_flows",
        sockets::local_sockets_are_no_flows,
    ),
    (
        "connections_from_before_are_adopted",
        sockets::connections_from_before_are_adopted,
    ),
    (
        "many_short_connections_are_exact",
        socket_tables::many_short_connections_are_exact,
    ),
    ("queues_are_shown", sockets::queues_are_shown),
    (
        "refused_sockets_are_counted",
        socket_tables::refused_sockets_are_counted,
    ),
    (
        "refused_flows_are_counted",
        socket_tables::refused_flows_are_counted,
    ),
    (
        "a_group_that_is_gone_keeps_its_unit",
        basics::a_group_that_is_gone_keeps_its_unit,
    ),
    (
        "nothing_comes_from_outside",
        basics::nothing_comes_from_outside,
    ),
    ("dns_answers_give_names", dns::answers_give_names),
    (
        "dns_lost_answers_are_counted",
        dns::lost_answers_are_counted,
    ),
    (
        "cost_is_measured_and_then_off",
        cost::is_measured_and_then_off,
    ),
    (
        "losses_are_the_sum_of_the_features",
        cost::losses_are_the_sum_of_the_features,
    ),
    (
        "counting_goes_on_without_privileges",
        privileges::counting_goes_on_without_them,
    ),
    (
        "guard_is_silent_from_the_deadline_on",
        guard::is_silent_from_the_deadline_on,
    ),
    (
        "guard_is_silent_by_clsact_too",
        guard::is_silent_by_clsact_too,
    ),
    (
        "guard_hands_connections_on",
        guard_handover::hands_connections_on,
    ),
    (
        "overflow_is_counted_and_logged_once",
        overflow::is_counted_and_logged_once,
    ),
];

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return init::run(|| check_all(None));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, part] = arguments.as_slice()
        && flag == "--only"
    {
        return if check_all(Some(part)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if let [role, rest @ ..] = arguments.as_slice() {
        let played = match (role.as_str(), rest) {
            ("load", [role, plan]) => shadowd_tests::load::run(role, plan),
            _ => workload::run(role, rest),
        };
        return match played {
            Ok(()) => ExitCode::from(workload::STATUS),
            Err(error) => {
                eprintln!("{role}: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if check_all(None) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What ended which way.
#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: Vec<(String, anyhow::Error)>,
}

impl Tally {
    fn add(&mut self, name: &str, result: Result<()>, took: Duration) {
        let how = match result {
            Ok(()) => {
                self.passed += 1;
                "ok".to_owned()
            }
            Err(error) => match error.downcast_ref::<Skipped>() {
                Some(why) => {
                    self.skipped += 1;
                    format!("ignored, {why}")
                }
                None => {
                    // Also here: a machine that is ended early shows no list at the end.
                    println!("{name}: {error:#}");
                    self.failed.push((name.to_owned(), error));
                    "FAILED".to_owned()
                }
            },
        };
        println!("test {name} ... {how} ({:.1}s)", took.as_secs_f64());
    }
}

/// Runs every check, or those whose name holds `only`, and prints as libtest does.
fn check_all(only: Option<&str>) -> bool {
    let early = workload::EarlyListener::start();
    let mut capture = Capture::start(&settings());
    let sized = if std::process::id() == 1 {
        flows::EMULATED
    } else {
        flows::ON_A_HOST
    };
    let checks: Vec<&(&str, Check)> = [CHECKS, flows::CHECKS, sized]
        .into_iter()
        .flatten()
        .filter(|(name, _)| only.is_none_or(|part| name.contains(part)))
        .collect();
    println!("\nrunning {} tests", checks.len() + 1);
    let mut tally = Tally::default();
    for (name, check) in checks {
        let started = Instant::now();
        let result = check(&mut capture);
        tally.add(name, result, started.elapsed());
    }
    let started = Instant::now();
    let attributed = early.and_then(|early| tcp::early_listener(&mut capture, early));
    tally.add(
        "a_listener_from_before_is_attributed",
        attributed,
        started.elapsed(),
    );
    show_hooks(&capture);
    if !tally.failed.is_empty() {
        println!("\nfailures:");
    }
    for (name, error) in &tally.failed {
        println!("    {name}: {error:#}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out\n",
        if tally.failed.is_empty() {
            "ok"
        } else {
            "FAILED"
        },
        tally.passed,
        tally.failed.len(),
        tally.skipped,
    );
    tally.failed.is_empty()
}

/// Which hook feeds each feature on this kernel.
fn show_hooks(capture: &Capture) {
    for probe in capture.probes() {
        let hook = probe.hook.as_deref().unwrap_or("off");
        println!("hook {:<14} {hook}", probe.name);
        for why in probe.refused.iter().chain(&probe.degraded) {
            println!("hook {:<14} not: {why}", probe.name);
        }
    }
}

/// Ends a check that cannot be made here; it is counted and its reason shown.
fn skip(why: &str) -> Result<()> {
    Err(Skipped(why.to_owned()).into())
}

fn probes_load(capture: &mut Capture) -> Result<()> {
    let probes = capture.probes();
    ensure!(probes.len() >= 5, "{} probes", probes.len());
    for probe in probes {
        if let Some(why) = probe.degraded {
            bail!("{}: {why}", probe.name);
        }
        ensure!(probe.hook.is_some(), "{} has no hook", probe.name);
    }
    Ok(())
}

/// Starts a role of this program in a process of its own.
fn start(arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().context("the workload does not start")
}

/// Waits for the end of `pid` and returns everything captured until then, in one sample.
fn until_exit(capture: &mut Capture, pid: u32) -> Result<Sample> {
    let ended = |events: &[Lifecycle]| {
        events
            .iter()
            .any(|event| event.pid == pid && event.kind != LifecycleKind::Exec)
    };
    let deadline = Instant::now() + PATIENCE;
    let mut whole = Sample::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no exit of {pid} within {PATIENCE:?}");
        let seen = ended(&capture.wait(left.min(Duration::from_secs(1))));
        if seen {
            break;
        }
    }
    absorb(&mut whole, capture.tick());
    Ok(whole)
}

fn absorb(whole: &mut Sample, part: Sample) {
    whole.cgroups.extend(part.cgroups);
    whole.syscalls.extend(part.syscalls);
    whole.flows.extend(part.flows);
    whole.lifecycle.extend(part.lifecycle);
    whole.block.extend(part.block);
    whole.files.extend(part.files);
    whole.opens.extend(part.opens);
    whole.losses = part.losses;
    whole.flow_bytes_dropped = part.flow_bytes_dropped;
    whole.probe_losses = part.probe_losses;
}

/// What a feature has lost since its capture began.
fn dropped(sample: &Sample, feature: &str) -> u64 {
    let losses = sample.probe_losses.get(feature);
    losses.map_or(0, |losses| losses.dropped)
}

/// What the kernel left out of a feature's programs; what is in no other count is at most this.
fn missed(sample: &Sample, feature: &str) -> u64 {
    let losses = sample.probe_losses.get(feature);
    losses.map_or(0, |losses| losses.missed)
}

fn run_role(capture: &mut Capture, arguments: &[&str]) -> Result<(u32, Sample)> {
    let mut child = start(arguments)?;
    let pid = child.id();
    let sample = until_exit(capture, pid)?;
    let status = child.wait()?;
    ensure!(
        status.code() == Some(i32::from(workload::STATUS)),
        "workload ended with {status}"
    );
    Ok((pid, sample))
}
