//! The daemon as a process: what it may do while it runs, and what it shows when it may do little.
//!
//! Needs root and setpriv (util-linux). Touches only its own directory and a port of loopback.

// The lint's exception for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shadowd::facts::{CaptureStatus, Direction, Flow, ProbeStatus};
use shadowd::serve::protocol::{Flows, Probes};

const PATIENCE: Duration = Duration::from_secs(180);
/// A condition that does not hold yet is looked at again after this.
const LOOK: Duration = Duration::from_millis(20);

// include/uapi/linux/capability.h
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_RESOURCE: u64 = 1 << 24;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// A daemon without groups, in a directory of its own.
struct Running {
    child: Child,
    directory: PathBuf,
}

impl Running {
    /// Starts it by the command `before`, with `capture` as its `[capture]` table.
    fn start(name: &str, before: &[&str], capture: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test starts the daemon: run it as root"
        );
        let directory = std::env::temp_dir().join(format!("shadowd-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let configuration = directory.join("shadowd.toml");
        let shown = directory.display();
        let text = format!(
            "[host]\nname = \"a\"\nlisten = \"{port}\"\nstate_dir = \"{shown}\"\n\
             socket = \"{shown}/socket\"\n[capture]\ntick = \"200ms\"\n{capture}"
        );
        fs::write(&configuration, text).unwrap();
        let mut words = before.to_vec();
        words.push(env!("CARGO_BIN_EXE_shadowd"));
        let child = Command::new(words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// What `shadowctl` prints.
    fn shadowctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_shadowctl"))
            .arg("--socket")
            .arg(self.directory.join("socket"))
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it answers, once it does.
    fn probes(&mut self) -> CaptureStatus {
        self.answer(|_| true)
    }

    /// What it answers, once that is as wanted.
    fn answer(&mut self, wanted: impl Fn(&CaptureStatus) -> bool) -> CaptureStatus {
        self.until("probes", |daemon| {
            let answer: Probes =
                serde_json::from_str(&daemon.shadowctl(&["--json", "probes"])).ok()?;
            let ready = !answer.capture.probes.is_empty() && wanted(&answer.capture);
            ready.then_some(answer.capture)
        })
    }

    /// Waits for a condition.
    #[track_caller]
    fn until<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = found(self) {
                return value;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the daemon ended: {ended:?}\n{}",
                self.log()
            );
            assert!(Instant::now() < deadline, "no {what}\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Name, effective and permitted capabilities of each thread.
    fn threads(&self) -> Vec<(String, u64, u64)> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        let entries = fs::read_dir(tasks).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| capabilities(&entry.path()))
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn capabilities(task: &Path) -> Option<(String, u64, u64)> {
    let status = fs::read_to_string(task.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)
    };
    let set = |name| u64::from_str_radix(field(name)?, 16).ok();
    Some((field("Name:")?.to_owned(), set("CapEff:")?, set("CapPrm:")?))
}

fn probe<'a>(status: &'a CaptureStatus, name: &str) -> &'a ProbeStatus {
    let found = status.probes.iter().find(|probe| probe.name == name);
    found.unwrap_or_else(|| panic!("no probe {name}: {status:?}"))
}

#[test]
fn capabilities_that_only_loading_takes_are_gone_in_every_thread() {
    let mut daemon = Running::start("privileges", &[], "");
    let loaded = daemon.probes();
    // The capturing thread keeps the right to switch statistics on until it has measured.
    let threads = daemon.until("end of the measurement", |daemon| {
        let threads = daemon.threads();
        let measuring = threads
            .iter()
            .any(|(_, _, permitted)| permitted & SYS_ADMIN != 0);
        (!threads.is_empty() && !measuring).then_some(threads)
    });
    assert!(
        threads.iter().any(|(name, _, _)| name == "capture"),
        "{threads:?}"
    );
    for (name, effective, permitted) in &threads {
        let loading = PERFMON | SYS_ADMIN | SYS_RESOURCE;
        assert_eq!(effective & loading, 0, "{name} {threads:x?}");
        assert_eq!(permitted & loading, 0, "{name} {threads:x?}");
        assert_ne!(permitted & SYS_PTRACE, 0, "{name} {threads:x?}");
        if name != "capture" {
            assert_eq!(permitted & BPF, 0, "{name} {threads:x?}");
        }
    }
    // What is loaded still counts.
    assert!(probe(&loaded, "syscalls").hook.is_some(), "{loaded:?}");
    let before = probe(&loaded, "syscalls").losses.seen;
    let now = daemon.probes();
    let syscalls = probe(&now, "syscalls");
    assert!(
        syscalls.losses.seen > before && syscalls.degraded.is_none(),
        "{now:?}"
    );
    assert!(syscalls.cost_ns.is_some(), "{:?}", now.cost);
}

#[test]
fn who_asks_for_cost_always_keeps_the_right_in_one_thread() {
    let mut daemon = Running::start("always", &[], "cost = \"always\"\n");
    // Four windows: where it is measured at the start only, the right is given up after them.
    daemon.answer(|status| status.cost.measured.starts_with("in 4 "));
    let threads = daemon.threads();
    let with = (threads.iter()).filter(|(_, _, permitted)| permitted & SYS_ADMIN != 0);
    let with: Vec<&str> = with.map(|(name, _, _)| name.as_str()).collect();
    // It starts a thread that reads procfs on each tick.
    assert!(with.contains(&"capture"), "{with:?}");
    assert!(
        with.iter().all(|name| ["capture", "procfs"].contains(name)),
        "{with:?}"
    );
}

#[test]
fn without_the_right_to_load_programs_it_runs_and_says_why() {
    let bounds = ["setpriv", "--bounding-set=-cap_21,-cap_38,-cap_39"];
    let mut daemon = Running::start("bare", &bounds, "");
    let status = daemon.probes();
    for name in ["syscalls", "tcp"] {
        let probe = probe(&status, name);
        let why = probe.degraded.as_deref().unwrap_or_default();
        assert!(why.contains("not permitted"), "{name}: {probe:?}");
    }
    assert_eq!(probe(&status, "syscalls").hook, None);
    assert_eq!(probe(&status, "tcp").hook.as_deref(), Some("sock_diag tcp"));
    assert!(
        status.cost.measured.contains("nothing to measure"),
        "{:?}",
        status.cost
    );
}

#[test]
fn what_is_switched_off_or_left_out_is_said_and_counted() {
    let capture = "probes_off = [\"cgroups\"]\nunits = { exclude = [\"*\"] }\n\
                   paths = [\"/etc\", \"/nonexistent\"]\n";
    let mut daemon = Running::start("filter", &[], capture);
    let status = daemon.answer(|status| probe(status, "syscalls").losses.filtered > 0);
    let syscalls = probe(&status, "syscalls").losses;
    assert_eq!(
        (syscalls.seen, syscalls.unattributed),
        (0, 0),
        "{syscalls:?}"
    );
    let why = probe(&status, "cgroups").degraded.as_deref();
    assert_eq!(why, Some("switched off in the configuration"));
    let status = daemon.shadowctl(&["status"]);
    assert!(status.contains("/nonexistent does not exist"), "{status}");
    let units = daemon.shadowctl(&["--json", "units"]);
    let units: shadowd::serve::protocol::Units = serde_json::from_str(&units).unwrap();
    assert!(units.units.is_empty(), "{units:?}");
}

/// A process that holds a connection until its input ends.
const CLIENT: &str = "exec 3<>/dev/tcp/127.0.0.1/$0; printf 12345 >&3; read line";

#[test]
fn without_ebpf_an_open_connection_has_an_owner_a_direction_and_bytes() {
    let mut daemon = Running::start("procfs", &[], "ebpf = false\n");
    let status = daemon.probes();
    let why = probe(&status, "tcp")
        .degraded
        .as_deref()
        .unwrap_or_default();
    assert!(why.contains("ebpf = false"), "{why}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = Command::new("bash")
        .args(["-c", CLIENT, &port.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (server, _) = listener.accept().unwrap();
    let pids = (client.id(), std::process::id());
    let flow = |daemon: &Running, pid: u32| -> Option<Flow> {
        let flows = daemon.shadowctl(&["--json", "flows"]);
        let flows: Flows = serde_json::from_str(&flows).ok()?;
        let mut flows = flows.flows.into_iter();
        flows.find(|flow| flow.pid == pid && [flow.local_port, flow.remote_port].contains(&port))
    };
    let seen = daemon.until("flow of the client", |daemon| {
        flow(daemon, pids.0).filter(|flow| flow.total.tx_bytes > 0)
    });
    assert_eq!(
        (seen.direction, seen.remote_port),
        (Direction::Outbound, port)
    );
    assert_eq!(
        (seen.open, seen.total.opened, seen.total.tx_bytes),
        (1, 1, 5)
    );
    assert_eq!(seen.command, "bash");
    let seen = daemon.until("flow of the server", |daemon| {
        flow(daemon, pids.1).filter(|flow| flow.total.rx_bytes > 0)
    });
    assert_eq!(
        (seen.direction, seen.local_port),
        (Direction::Inbound, port)
    );
    assert_eq!(seen.total.rx_bytes, 5);
    drop(client.stdin.take());
    client.wait().unwrap();
    drop(server);
    let seen = daemon.until("end of the client's flow", |daemon| {
        flow(daemon, pids.0).filter(|flow| flow.open == 0)
    });
    assert_eq!(seen.total.closed, 1);
}
