//! Shows that capture loads on the running kernel and counts exactly.
//!
//! Run as root it checks this host. Run as pid 1 it is the init of a virtual machine: it mounts
//! what it needs, checks, prints and powers the machine off. The workload is this same program,
//! started with the name of a role, so nothing else has to be installed.

mod init;
mod workload;

use std::net::IpAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shadowd::config::settings::CaptureSettings;
use shadowd::facts::{Direction, FlowDelta, Lifecycle, LifecycleKind, Sample};
use shadowd::observe::{Capture, boot_time};

/// How long the kernel's last event may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

type Check = fn(&mut Capture) -> Result<()>;

const CHECKS: [(&str, Check); 8] = [
    ("probes_load", probes_load),
    (
        "syscalls_and_errors_are_exact",
        syscalls_and_errors_are_exact,
    ),
    (
        "exec_and_exit_are_seen_with_status",
        exec_and_exit_are_seen_with_status,
    ),
    (
        "exit_wakes_the_reader_at_once",
        exit_wakes_the_reader_at_once,
    ),
    ("tcp_v4_bytes_are_exact", |capture| {
        tcp_bytes_are_exact(capture, "127.0.0.1", "127.0.0.1")
    }),
    ("tcp_v6_bytes_are_exact", |capture| {
        tcp_bytes_are_exact(capture, "::1", "::1")
    }),
    ("tcp_v4_to_a_v6_socket_is_v4", |capture| {
        tcp_bytes_are_exact(capture, "::", "127.0.0.1")
    }),
    (
        "tcp_refused_connect_is_failed",
        tcp_refused_connect_is_failed,
    ),
];

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return init::run(check_all);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = arguments.as_slice() {
        return match workload::run(role, rest) {
            Ok(()) => ExitCode::from(workload::STATUS),
            Err(error) => {
                eprintln!("{role}: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if check_all() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs every check and prints as libtest does.
fn check_all() -> bool {
    let early = workload::EarlyListener::start();
    let settings = CaptureSettings {
        tick: Duration::from_secs(1),
        ebpf: true,
    };
    let mut capture = Capture::start(&settings);
    println!("\nrunning {} tests", CHECKS.len() + 1);
    let mut failed = Vec::new();
    let mut report = |name: &str, result: Result<()>| {
        println!(
            "test {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        failed.extend(result.err().map(|error| (name.to_owned(), error)));
    };
    for (name, check) in CHECKS {
        report(name, check(&mut capture));
    }
    report(
        "a_listener_from_before_is_attributed",
        early.and_then(|early| early_listener(&mut capture, early)),
    );
    let total = CHECKS.len() + 1;
    if !failed.is_empty() {
        println!("\nfailures:");
    }
    for (name, error) in &failed {
        println!("    {name}: {error:#}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        total - failed.len(),
        failed.len(),
    );
    failed.is_empty()
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
    whole.syscalls.extend(part.syscalls);
    whole.flows.extend(part.flows);
    whole.lifecycle.extend(part.lifecycle);
    whole.losses = part.losses;
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

fn syscalls_and_errors_are_exact(capture: &mut Capture) -> Result<()> {
    let (pid, sample) = run_role(capture, &["syscalls"])?;
    for (number, calls, errors) in [
        (libc::SYS_getppid, workload::GETPPIDS, 0),
        (
            libc::SYS_openat,
            workload::FAILING_OPENS,
            workload::FAILING_OPENS,
        ),
    ] {
        let of_pid = sample.syscalls.iter().filter(|count| count.pid == pid);
        let (mut seen_calls, mut seen_errors) = (0, 0);
        for count in of_pid.filter(|count| i64::from(count.number) == number) {
            seen_calls += count.calls;
            seen_errors += count.errors;
        }
        // The loader opens files of its own; they succeed.
        let others = if number == libc::SYS_openat {
            seen_calls.saturating_sub(calls)
        } else {
            0
        };
        ensure!(
            seen_calls - others == calls && seen_errors == errors && others < 40,
            "call {number}: {seen_calls} calls, {seen_errors} errors; made {calls}, {errors}"
        );
    }
    ensure!(
        sample.losses.dropped == 0,
        "dropped {}",
        sample.losses.dropped
    );
    Ok(())
}

fn exec_and_exit_are_seen_with_status(capture: &mut Capture) -> Result<()> {
    let (pid, sample) = run_role(capture, &["leave"])?;
    let of_pid: Vec<_> = sample
        .lifecycle
        .iter()
        .filter(|event| event.pid == pid)
        .collect();
    let kinds: Vec<_> = of_pid.iter().map(|event| event.kind).collect();
    let status = i32::from(workload::STATUS) << 8;
    ensure!(
        kinds == [LifecycleKind::Exec, LifecycleKind::Exit { status }],
        "{of_pid:?}"
    );
    ensure!(
        of_pid[0].at < of_pid[1].at && of_pid[1].at < boot_time(),
        "{of_pid:?}"
    );
    ensure!(of_pid.iter().all(|event| event.cgroup != 0), "{of_pid:?}");
    Ok(())
}

/// The median of several deaths: one may meet a busy machine.
fn exit_wakes_the_reader_at_once(capture: &mut Capture) -> Result<()> {
    let mut delays = Vec::new();
    for _ in 0..9 {
        let mut child = start(&["wait"])?;
        let pid = child.id();
        child.kill()?;
        let deadline = Instant::now() + PATIENCE;
        let died = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no exit of {pid} within {PATIENCE:?}");
            let events = capture.wait(left);
            let now = boot_time();
            let exit = |event: &&Lifecycle| {
                event.pid == pid && matches!(event.kind, LifecycleKind::Exit { status: 9 })
            };
            if let Some(event) = events.iter().find(exit) {
                break now.since(event.at);
            }
        };
        delays.push(died);
        child.wait()?;
    }
    delays.sort();
    // Emulated processors are some thirty times slower.
    let limit = Duration::from_millis(if std::process::id() == 1 { 100 } else { 1 });
    ensure!(delays[4] <= limit, "{delays:?}");
    Ok(())
}

/// The sum of the flows of one process in one direction, checked to be of one service.
fn total(
    sample: &Sample,
    pid: u32,
    direction: Direction,
    remote: IpAddr,
) -> Result<Option<FlowDelta>> {
    let mut sum: Option<FlowDelta> = None;
    for flow in &sample.flows {
        if flow.pid != pid || flow.direction != direction {
            continue;
        }
        ensure!(flow.remote.ip() == remote, "{flow:?} is not with {remote}");
        match &mut sum {
            None => sum = Some(*flow),
            Some(sum) => {
                sum.opened += flow.opened;
                sum.closed += flow.closed;
                sum.failed += flow.failed;
                sum.rx_bytes += flow.rx_bytes;
                sum.tx_bytes += flow.tx_bytes;
            }
        }
    }
    Ok(sum)
}

fn tcp_bytes_are_exact(capture: &mut Capture, listen: &str, connect: &str) -> Result<()> {
    let mut server = start(&["serve", listen])?;
    let port = workload::read_port(&mut server)?;
    let client = start(&["fetch", connect, &port.to_string()])?;
    let (server_pid, client_pid) = (server.id(), client.id());
    let mut sample = Sample::default();
    for mut child in [client, server] {
        absorb(&mut sample, until_exit_or_gone(capture, &mut child)?);
    }
    settle(capture, &mut sample, client_pid, server_pid)?;
    let remote: IpAddr = connect.parse()?;
    let count = u64::from(workload::CONNECTIONS);
    let (up, down) = (
        count * workload::REQUEST_BYTES,
        count * workload::ANSWER_BYTES,
    );
    for (pid, direction, tx, rx) in [
        (client_pid, Direction::Outbound, up, down),
        (server_pid, Direction::Inbound, down, up),
    ] {
        let Some(flow) = total(&sample, pid, direction, remote)? else {
            bail!("no {direction:?} flow of {pid}: {:?}", sample.flows);
        };
        let ends = [
            flow.opened,
            flow.closed,
            flow.failed,
            flow.tx_bytes,
            flow.rx_bytes,
        ];
        ensure!(
            ends == [count, count, 0, tx, rx],
            "{flow:?}: expected {count}, {tx}, {rx}"
        );
        let service = if direction == Direction::Inbound {
            flow.local
        } else {
            flow.remote
        };
        ensure!(service.port() == port, "{flow:?}: port {port}");
        ensure!(
            flow.local.ip() == remote,
            "{flow:?}: both ends are {remote}"
        );
        ensure!(flow.cgroup != 0, "{flow:?}: no control group");
    }
    Ok(())
}

/// As [`until_exit`], for a process whose end may already be in an earlier sample.
fn until_exit_or_gone(capture: &mut Capture, child: &mut Child) -> Result<Sample> {
    let status = child.wait()?;
    ensure!(
        status.code() == Some(i32::from(workload::STATUS)),
        "workload ended with {status}"
    );
    Ok(capture.tick())
}

/// A server's end of a connection may be closed by a packet after both processes are gone.
fn settle(capture: &mut Capture, sample: &mut Sample, client: u32, server: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let wanted = 2 * u64::from(workload::CONNECTIONS);
    loop {
        let ours = sample
            .flows
            .iter()
            .filter(|flow| [client, server].contains(&flow.pid));
        let closed: u64 = ours.map(|flow| flow.closed).sum();
        if closed >= wanted || Instant::now() > deadline {
            return Ok(());
        }
        capture.wait(Duration::from_millis(20));
        absorb(sample, capture.tick());
    }
}

fn tcp_refused_connect_is_failed(capture: &mut Capture) -> Result<()> {
    let (pid, sample) = run_role(capture, &["refused"])?;
    let Some(flow) = total(
        &sample,
        pid,
        Direction::Outbound,
        IpAddr::from([127, 0, 0, 1]),
    )?
    else {
        bail!("no flow of {pid}: {:?}", sample.flows);
    };
    let counts = [
        flow.opened,
        flow.closed,
        flow.failed,
        flow.tx_bytes,
        flow.rx_bytes,
    ];
    ensure!(counts == [0, 0, 1, 0, 0], "{flow:?}");
    Ok(())
}

fn early_listener(capture: &mut Capture, early: workload::EarlyListener) -> Result<()> {
    capture.tick();
    let pid = early.pid();
    early.visit()?;
    let deadline = Instant::now() + PATIENCE;
    let mut sample = capture.tick();
    loop {
        let flow = total(
            &sample,
            pid,
            Direction::Inbound,
            IpAddr::from([127, 0, 0, 1]),
        )?;
        if flow.is_some_and(|flow| flow.opened == 1 && flow.cgroup != 0) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "no inbound flow of {pid}: {:?}",
            sample.flows
        );
        capture.wait(Duration::from_millis(20));
        absorb(&mut sample, capture.tick());
    }
}
