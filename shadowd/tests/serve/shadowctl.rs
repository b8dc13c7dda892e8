//! `shadowctl` as a person and as a script see it: words, JSON, exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use shadowd::serve::protocol::{Events, Flows, StatusAnswer, Top};

use super::daemon::{self, Daemon};
use super::scratch::Scratch;

const SHADOWCTL: &str = env!("CARGO_BIN_EXE_shadowctl");

pub fn command(socket: &Path, arguments: &str) -> Command {
    let mut command = Command::new(SHADOWCTL);
    command
        .arg("--socket")
        .arg(socket)
        .args(arguments.split(' '))
        .env("TZ", "UTC");
    command
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
pub fn shown(daemon: &Daemon, arguments: &str) -> String {
    let output = command(&daemon.socket, arguments).output().unwrap();
    assert_eq!(code(&output), 0, "{arguments}: {}", words(&output));
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub fn parsed<T: serde::de::DeserializeOwned>(daemon: &Daemon, arguments: &str) -> T {
    serde_json::from_str(&shown(daemon, &format!("--json {arguments}"))).unwrap()
}

const STATUS: &str = "\
a  shadowd 0.1.0, up 2m 05s
id AEAQCAIBAEAQC-AIBAEAQCAIBAE-AQCAIBAEAQCAI-BAEAQCAIBAEAQ
warning: group web has no protection

group web  this host is active for 1m 00s, a is active, epoch 4
  protection none: when the members lose each other, both become active until they meet again
  MEMBER  ROLE       PRIORITY  ELIGIBLE  SUSPECTED
  a       active          200  yes       no
  b       shadow          100  yes       no
  c       not heard        50  no        yes
  VIP              INTERFACE  HELD  GUARD  SILENCED
  192.0.2.10/24    eth0       yes   none          -
  2001:db8::10/64  eth0       yes   none          -
  UNIT           MODE  STATE   MAIN PID
  nginx.service  warm  active       812
  profile version 3 (ambqgaydam), not ready: 1 item (1 of 3 ready): package nginx: 1.18.0 here, 1.22.1-9 on the active

PEER  ADDRESS         STREAM         HEARD  ROUND TRIP       P99
b     192.0.2.2:7421  up      10.00 ms ago    182.4 us  410.0 us

PROBE     STATE  HOOK             FEEDS
syscalls  on     raw_tp sys_exit  syscalls of processes
tcp       off    -                tcp of processes
  tcp: no BTF at /sys/kernel/btf/vmlinux
records since start: 1,234,567 seen, 3 dropped, 12 unattributed
forgotten for want of room: flows 5 (room for 131,072)
history: 7,200 records, 1 corrupt, 0 not recorded, 3.00 MiB of 256 MiB, oldest 2026-11-20 10:00:00 +00:00
";

const PROBES: &str = "\
PROBE     STATE  RUNS/S  NS/RUN      CPU       SEEN  DROPPED  UNATTR  FILTERED  HOOK
syscalls  on       1000      93  0.009 %  1,234,567        3      12         4  raw_tp sys_exit
tcp       off         -       -        -          0        0       0         0  -
  syscalls: not by fentry do_x: refused
  syscalls: up to 2 missed, where the kernel left a program out
  tcp: no BTF at /sys/kernel/btf/vmlinux
records since start: 1,234,567 seen, 3 dropped, 12 unattributed
cost, of one processor: programs 0.009 %, daemon 1.2 % (of that the capturing thread 1.0 %); resident 23.0 MiB
programs measured: at the start
";

#[test]
fn probes_shows_hooks_losses_and_cost() {
    let daemon = Daemon::start();
    assert_eq!(shown(&daemon, "probes"), PROBES);
    let answer: shadowd::serve::protocol::Probes = parsed(&daemon, "probes");
    assert_eq!(answer.capture, daemon::status().capture);
}

#[test]
fn status_shows_groups_peers_probes_and_losses() {
    let daemon = Daemon::start();
    assert_eq!(shown(&daemon, "status"), STATUS);
    assert_eq!(
        parsed::<StatusAnswer>(&daemon, "status").status,
        daemon::status()
    );
}

pub const TOP: &str = "\
in the last 1.0 s; records since start: 100 seen, 0 dropped, 1 unattributed
UNIT           PROCS     CPU    MEMORY  SYSCALLS  ERR  P99        RX        TX  BLOCK  FILE
nginx.service      2  50.0 %  9.00 MiB     1,200    7    -  1.50 KiB  10.0 MiB    0 B   0 B
cron.service       2   1.0 %  4.00 MiB    90,000    7    -  1.50 KiB  10.0 MiB    0 B   0 B

PID  COMMAND    UNIT              CPU    MEMORY  SYSCALLS  ERR  P99   RX   TX  STATE
813  nginx\u{FFFD}[2J  nginx.service  40.0 %  1.00 MiB     1,190    0    -  0 B  0 B
900  sh         nginx.service  20.0 %  2.00 MiB       400    0    -  0 B  0 B  ended
812  nginx      nginx.service  10.0 %  9.00 MiB        10    0    -  0 B  0 B
";

#[test]
fn top_sorts_and_cuts() {
    let daemon = Daemon::start();
    assert_eq!(shown(&daemon, "top"), TOP);
    let pids = |arguments: &str| -> Vec<u32> {
        parsed::<Top>(&daemon, arguments)
            .processes
            .iter()
            .map(|process| process.pid)
            .collect()
    };
    assert_eq!(pids("top --sort mem"), [812, 900, 813]);
    assert_eq!(pids("top --sort syscalls --limit 2"), [813, 900]);
}

#[test]
fn units_and_peers_are_tables_of_their_own() {
    let daemon = Daemon::start();
    let units = shown(&daemon, "units");
    assert_eq!(units.lines().count(), 4);
    assert!(
        units.lines().nth(2).unwrap().starts_with("cron.service "),
        "by name: {units}"
    );
    assert_eq!(
        parsed::<Value>(&daemon, "units")["units"][1]["unit"],
        "nginx.service"
    );
    let peers = shown(&daemon, "peers");
    let line =
        "b     12,500       0    12,481          0       2         0       0  AIBAEAQCAIBAE-";
    assert!(peers.contains(line), "{peers}");
    assert_eq!(
        parsed::<Value>(&daemon, "peers")["peers"][0]["counters"]["forged"],
        2
    );
}

const FLOWS: &str = "\
UNIT           PID  PROTO  LOCAL              REMOTE           CONNS  OPEN  FAIL  RTT  RETR        RX        TX  NAME
nginx.service  812  tcp    192.0.2.10:80  <-  192.0.2.7:*         12     2     1    -     0  4.00 KiB  2.00 KiB
cron.service   812  tcp    192.0.2.10:80  <-  [2001:db8::7]:*     12     2     1    -     0      10 B  2.00 KiB
";

#[test]
fn flows_can_be_chosen_by_unit_and_remote() {
    let daemon = Daemon::start();
    assert_eq!(shown(&daemon, "flows"), FLOWS);
    let units = |arguments: &str| -> Vec<String> {
        parsed::<Flows>(&daemon, arguments)
            .flows
            .into_iter()
            .map(|flow| flow.unit)
            .collect()
    };
    assert_eq!(units("flows --unit nginx"), ["nginx.service"]);
    assert_eq!(units("flows --unit cron.service"), ["cron.service"]);
    assert_eq!(units("flows --remote 2001:db8::7"), ["cron.service"]);
    assert_eq!(units("flows --port 80 --proto tcp --direction in").len(), 2);
    assert_eq!(
        units("flows --sort unit"),
        ["cron.service", "nginx.service"]
    );
    for nothing in [
        "flows --remote 192.0.2.99",
        "flows --port 81",
        "flows --proto udp",
        "flows --direction out",
    ] {
        assert_eq!(shown(&daemon, nothing), "no flows\n");
    }
    assert!(shown(&daemon, "flows --wide").contains("COMMAND"));
}

const SYSCALLS: &str = "\
in the last 1.0 s; records since start: 100 seen, 0 dropped, 1 unattributed
UNIT           SYSCALLS  ERR  P50  P99  ERRORS
cron.service     90,000    7    -    -  ENOENT 7
nginx.service     1,200    7    -    -  ENOENT 7
";

#[test]
fn system_calls_are_shown_by_unit_or_process_with_their_errors() {
    let daemon = Daemon::start();
    assert_eq!(shown(&daemon, "syscalls"), SYSCALLS);
    let one = shown(&daemon, "syscalls --unit nginx");
    assert_eq!(one.lines().count(), 1 + 2 + 1 + 4, "{one}");
    let one = shown(&daemon, "syscalls --pid 812");
    assert!(one.contains("nginx") && !one.contains("cron"), "{one}");
    assert_eq!(shown(&daemon, "syscalls --pid 4"), "no system calls\n");
}

#[test]
fn events_are_a_line_each() {
    let daemon = Daemon::start();
    let line = "     2  2023-11-14T22:13:20.002Z  role_changed     group=web  epoch=4  \
                cause=silence  shadow -> active\n";
    assert_eq!(shown(&daemon, "events --since 1"), line);
    assert_eq!(shown(&daemon, "events --limit 1"), line);
    assert_eq!(parsed::<Events>(&daemon, "events").events.len(), 2);
}

#[test]
fn follow_goes_on_from_the_last_number() {
    let daemon = Daemon::start();
    let mut child = command(&daemon.socket, "--json events --limit 1 --follow")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> u64 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["seq"].as_u64().unwrap()
    };
    assert_eq!(next(), 2);
    daemon
        .fixed
        .events
        .lock()
        .unwrap()
        .extend([daemon::event(3, "x"), daemon::event(4, "y")]);
    assert_eq!([next(), next()], [3, 4]);
    // Whoever reads goes away: the next line ends it, quietly.
    drop(lines);
    daemon
        .fixed
        .events
        .lock()
        .unwrap()
        .push(daemon::event(5, "z"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_shows_again_until_nobody_reads() {
    let daemon = Daemon::start();
    let mut child = command(&daemon.socket, "--json top --limit 1 --watch 1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let top: Top = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(top.processes.len(), 1);
    }
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), words(&output).as_str()), (0, ""));
}

#[test]
fn a_handover_says_what_happened_or_why_not() {
    let daemon = Daemon::start();
    let done = shown(&daemon, "failover handover web --to c");
    assert_eq!(done, "group web: a -> c, epoch 5, 12 ms\n");
    assert_eq!(parsed::<Value>(&daemon, "failover handover web")["to"], "b");
    let output = command(&daemon.socket, "failover handover db")
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    let wanted = "shadowctl: this host is no member of group db\n  \
                  try: `shadowctl status` lists its groups\n";
    assert_eq!(words(&output), wanted);
}

#[test]
fn without_a_daemon_it_says_so_and_how_to_start_it() {
    let scratch = Scratch::new();
    let socket = scratch.0.join("none.sock");
    let output = command(&socket, "status").output().unwrap();
    let wanted = format!(
        "shadowctl: shadowd is not running (no socket at {}): start it with `systemctl start \
         shadowd`\n",
        socket.display()
    );
    assert_eq!((code(&output), words(&output)), (3, wanted));
    drop(UnixListener::bind(&socket).unwrap());
    let output = command(&socket, "top --json").output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(
        words(&output).contains("nobody answers at"),
        "{}",
        words(&output)
    );
}

#[test]
fn the_variable_names_the_socket_when_the_option_does_not() {
    let daemon = Daemon::start();
    let output = Command::new(SHADOWCTL)
        .arg("id")
        .env("SHADOWD_SOCKET", &daemon.socket)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0);
    assert_eq!(
        output.stdout,
        format!("{}\n", daemon::status().id).as_bytes()
    );
}

#[test]
fn the_identity_is_known_without_a_daemon() {
    let scratch = Scratch::new();
    let socket = scratch.0.join("none.sock");
    let arguments = format!("id --state-dir {}", scratch.0.display());
    let output = command(&socket, &arguments).output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(
        words(&output).contains("--create-identity"),
        "{}",
        words(&output)
    );
    let id = daemon::status().id;
    fs::write(scratch.0.join("id"), format!("{id}\n")).unwrap();
    let output = command(&socket, &arguments).output().unwrap();
    assert_eq!(
        (code(&output), output.stdout),
        (0, format!("{id}\n").into_bytes())
    );
    fs::write(scratch.0.join("id"), "garbage").unwrap();
    let output = command(&socket, &arguments).output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(
        words(&output).contains("not a host id"),
        "{}",
        words(&output)
    );
}

/// Answers one request with these bytes, whatever it is.
fn impostor(answer: String) -> (Scratch, std::thread::JoinHandle<()>) {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.0.join("s")).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (scratch, thread)
}

#[test]
fn an_answer_of_another_version_is_told_apart() {
    let http = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let no_path = r#"{"error":{"code":"unknown_path","message":"no path","remedy":"update"}}"#;
    let no_tea = r#"{"error":{"code":"from_2040","message":"no tea","remedy":"brew"}}"#;
    let table = [
        (http("200 OK", "{}"), 5, "same version"),
        (http("404 Not Found", "no"), 5, "status 404"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), 5, "same version"),
        (String::new(), 3, "closed the connection"),
        (
            http("200 OK", "{}").replace(": 2", ": 9"),
            3,
            "closed the connection",
        ),
        (http("404 Not Found", no_path), 5, "try: update"),
        (http("418 Teapot", no_tea), 1, "no tea"),
    ];
    for (answer, wanted, sentence) in table {
        let (scratch, thread) = impostor(answer.clone());
        let output = command(&scratch.0.join("s"), "status").output().unwrap();
        thread.join().unwrap();
        assert_eq!(code(&output), wanted, "{answer}: {}", words(&output));
        assert!(
            words(&output).contains(sentence),
            "{answer}: {}",
            words(&output)
        );
    }
}

#[test]
fn usage_help_and_completion() {
    let scratch = Scratch::new();
    let run = |arguments: &str| command(&scratch.0, arguments).output().unwrap();
    assert_eq!(code(&run("topp")), 2);
    assert_eq!(code(&run("events --limit 0")), 2);
    let help = run("--help");
    let text = String::from_utf8(help.stdout.clone()).unwrap();
    assert_eq!(code(&help), 0);
    assert!(
        text.contains("Exit codes:") && text.contains("Examples:"),
        "{text}"
    );
    let completion = run("completion bash");
    assert_eq!(code(&completion), 0);
    assert!(
        String::from_utf8(completion.stdout)
            .unwrap()
            .contains("shadowctl")
    );
}

#[test]
fn closed_output_ends_it_quietly() {
    let daemon = Daemon::start();
    let many = (3..5_000).map(|seq| daemon::event(seq, "a line to fill the pipe"));
    daemon.fixed.events.lock().unwrap().extend(many);
    let mut child = command(&daemon.socket, "events --limit 10000")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), words(&output).as_str()), (0, ""));
}

#[test]
fn another_user_may_read_when_let_in_but_never_change() {
    let daemon = Daemon::start();
    // The tool is copied to where every user can run it.
    let tool = daemon.scratch.0.join("shadowctl");
    fs::copy(SHADOWCTL, &tool).unwrap();
    for path in [&daemon.scratch.0, &tool] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |arguments: &str| {
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&tool)
            .arg("--socket")
            .arg(&daemon.socket)
            .args(arguments.split(' '))
            .output()
    };
    let is_root = nix::unistd::geteuid().is_root();
    let Some(closed) = is_root.then(|| run("status").ok()).flatten() else {
        eprintln!("skipped: needs root and setpriv");
        return;
    };
    assert_eq!(code(&closed), 4);
    let wanted = format!(
        "shadowctl: no permission to open {}: join the group shadowd or use sudo\n",
        daemon.socket.display()
    );
    assert_eq!(words(&closed), wanted);

    fs::set_permissions(&daemon.socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(code(&run("status").unwrap()), 0);
    let refused = run("failover handover web").unwrap();
    assert_eq!(code(&refused), 4);
    let text = words(&refused);
    assert!(
        text.contains("user 65534 may read but not change"),
        "{text}"
    );
    assert!(text.contains("try: ask as root"), "{text}");
    assert_eq!(daemon.counters.read().forbidden, 1);
}
