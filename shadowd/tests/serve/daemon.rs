//! A daemon made of fixed facts, behind the real socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub use super::scratch::Scratch;
pub use super::talk::{connect, response};
pub use super::wait::wait_until;
use shadowd::facts::{
    BootTime, CaptureCost, CaptureStatus, Cause, Direction, DrillReport, Epoch, Event, EventKind,
    Flow, FlowCounts, GroupStatus, HistoryStatus, HostId, LastNotice, LinkCounters, Losses,
    MemberStatus, Name, Observation, PeerStatus, PolicyOrder, PolicyStatus, ProbeLosses,
    ProbeStatus, ProcessUse, Protection, Protocol, Role, Status, SyscallCounts, TableStatus,
    UnitMode, UnitStatus, UnitUse, VipStatus,
};
use shadowd::serve::protocol::{
    AtQuery, Code, CoreNow, Decisions, Drills, HandoverDone, LiveRequest, OrderDone, Ready, Record,
    Recorded, RecordedDecision, RecordedSum, Records, RecordsQuery, Refusal, SumQuery,
};
use shadowd::serve::{Answers, Counters, ProfileAnswer, ProfileQuestion, Socket};
use tokio::sync::{Notify, watch};

/// 2026-11-20 12:00:00 UTC, the only moment that is recorded.
pub const RECORDED_MS: i64 = 1_795_176_000_000;
/// No wait in these tests is longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

const fn seconds(seconds: u64) -> BootTime {
    BootTime::from_nanos(seconds * 1_000_000_000)
}
/// What the daemon says.
#[derive(Default)]
pub struct Fixed {
    pub events: Mutex<Vec<Event>>,
    /// A handover of group `held` has begun; it ends when `release` is told.
    pub begun: Notify,
    pub release: Notify,
}

pub fn event(seq: u64, detail: &str) -> Event {
    Event {
        seq,
        boot_ns: seconds(seq),
        wall_ms: 1_700_000_000_000 + seq,
        kind: EventKind::RoleChanged,
        group: Some(name("web")),
        epoch: Some(4),
        cause: Some(Cause::Silence),
        detail: detail.to_owned(),
    }
}

pub fn status() -> Status {
    Status {
        host: name("a"),
        id: HostId::from_bytes([1; 32]),
        version: "0.1.0".to_owned(),
        started: seconds(100),
        now: seconds(225),
        groups: vec![group()],
        witnessed: Vec::new(),
        peers: vec![PeerStatus {
            host: name("b"),
            id: HostId::from_bytes([2; 32]),
            address: "192.0.2.2:7421".to_owned(),
            paths: Vec::new(),
            connected: true,
            last_heard: Some(BootTime::from_nanos(224_990_000_000)),
            round_trip_ns: Some(182_400),
            round_trip_p99_ns: Some(410_000),
            counters: LinkCounters {
                sent: 12_500,
                received: 12_481,
                forged: 2,
                ..Default::default()
            },
        }],
        strangers: LinkCounters::default(),
        connections: Default::default(),
        capture: CaptureStatus {
            probes: vec![
                ProbeStatus {
                    refused: vec!["fentry do_x: refused".to_owned()],
                    events_per_second: Some(1_000.0),
                    cost_ns: Some(93.0),
                    cpu_share: Some(0.000_093),
                    losses: ProbeLosses {
                        seen: 1_234_567,
                        dropped: 3,
                        unattributed: 12,
                        filtered: 4,
                        missed: 2,
                    },
                    ..probe("syscalls", Some("raw_tp sys_exit"), None)
                },
                probe("tcp", None, Some("no BTF at /sys/kernel/btf/vmlinux")),
            ],
            losses: Losses {
                seen: 1_234_567,
                dropped: 3,
                unattributed: 12,
            },
            history: HistoryStatus {
                recording: true,
                records: 7_200,
                corrupt: 1,
                bytes: 3 << 20,
                max_bytes: 256 << 20,
                oldest_ms: Some(RECORDED_MS - 7_200_000),
                newest_ms: Some(RECORDED_MS + 1_000),
                ..Default::default()
            },
            tables: vec![TableStatus {
                name: "flows".to_owned(),
                entries: 131_072,
                limit: 131_072,
                evicted: 5,
            }],
            cost: CaptureCost {
                cpu_share: Some(0.012),
                capture_cpu_share: Some(0.01),
                rss_bytes: Some(23 << 20),
                measured: "at the start".to_owned(),
            },
        },
        warnings: vec!["group web has no protection".to_owned()],
        receivers: super::hooks::receivers(),
        drills: Vec::new(),
        profiles: super::profile::status(),
    }
}

fn probe(name: &str, hook: Option<&str>, degraded: Option<&str>) -> ProbeStatus {
    ProbeStatus {
        name: name.to_owned(),
        feeds: format!("{name} of processes"),
        hook: hook.map(str::to_owned),
        degraded: degraded.map(str::to_owned),
        ..Default::default()
    }
}

fn group() -> GroupStatus {
    let member = |host, role, priority, suspected: bool| MemberStatus {
        host: name(host),
        role,
        priority,
        eligible: !suspected,
        suspected,
        reason: None,
        spare: false,
    };
    let vip = |vip: &str| VipStatus {
        vip: vip.parse().unwrap(),
        interface: "eth0".to_owned(),
        held: true,
    };
    GroupStatus {
        group: name("web"),
        role: Role::Active,
        since: seconds(165),
        epoch: Epoch {
            counter: 4,
            owner: HostId::from_bytes([1; 32]),
        },
        deadline: None,
        active: Some(name("a")),
        protection: Protection::None,
        eligible: true,
        members: vec![
            member("a", Some(Role::Active), 200, false),
            member("b", Some(Role::Shadow), 100, false),
            member("c", None, 50, true),
        ],
        vips: vec![vip("192.0.2.10/24"), vip("2001:db8::10/64")],
        units: vec![UnitStatus {
            unit: name("nginx.service"),
            mode: UnitMode::Warm,
            state: "active".to_owned(),
            main_pid: Some(812),
        }],
        lease: None,
        guard: Vec::new(),
        drain: None,
        policy: PolicyStatus::default(),
        redundancy: None,
        lost_paths: Vec::new(),
    }
}

pub fn observation() -> Observation {
    let calls = |calls, failed| SyscallCounts {
        calls,
        errors: [(2, failed)].into(),
        ..Default::default()
    };
    let unit = |unit: &str, cpu, rss_bytes, syscalls| UnitUse {
        unit: unit.to_owned(),
        processes: 2,
        cpu,
        rss_bytes,
        syscalls: calls(syscalls, 7),
        network: FlowCounts {
            opened: 3,
            rx_bytes: 1536,
            tx_bytes: 10 << 20,
            ..Default::default()
        },
        ..Default::default()
    };
    let process = |pid, command: &str, cpu, rss_bytes, syscalls| ProcessUse {
        pid,
        command: command.to_owned(),
        unit: "nginx.service".to_owned(),
        cpu,
        rss_bytes,
        syscalls: calls(syscalls, 0),
        ended: pid == 900,
        ..Default::default()
    };
    let flow = |unit: &str, remote: &str, rx_bytes| Flow {
        unit: unit.to_owned(),
        pid: 812,
        command: "nginx".to_owned(),
        protocol: Protocol::Tcp,
        direction: Direction::Inbound,
        local: "192.0.2.10".parse().unwrap(),
        local_port: 80,
        remote: remote.parse().unwrap(),
        remote_port: 0,
        remote_name: None,
        open: 2,
        total: FlowCounts {
            opened: 12,
            closed: 10,
            failed: 1,
            rx_bytes,
            tx_bytes: 2048,
            ..Default::default()
        },
        interval: FlowCounts::default(),
        first_seen: seconds(200),
        last_seen: seconds(224),
    };
    Observation {
        at: seconds(225),
        interval_ns: 1_000_000_000,
        units: vec![
            unit("cron.service", 0.01, 4 << 20, 90_000),
            unit("nginx.service", 0.5, 9 << 20, 1_200),
        ],
        processes: vec![
            process(812, "nginx", 0.1, 9 << 20, 10),
            process(813, "nginx\x1b[2J", 0.4, 1 << 20, 1_190),
            process(900, "sh", 0.2, 2 << 20, 400),
        ],
        flows: vec![
            flow("cron.service", "2001:db8::7", 10),
            flow("nginx.service", "192.0.2.7", 4096),
        ],
        losses: Losses {
            seen: 100,
            dropped: 0,
            unattributed: 1,
        },
        ..Default::default()
    }
}

fn recorded(wall_ms: i64) -> Observation {
    Observation {
        wall_ms,
        ..observation()
    }
}

fn nothing() -> Refusal {
    Refusal::new(Code::NothingRecorded, "nothing is recorded", "")
}

impl Answers for Fixed {
    fn status(&self) -> Status {
        status()
    }

    fn observation(&self) -> Arc<Observation> {
        Arc::new(observation())
    }

    fn events(&self, since: u64, limit: u32) -> Result<Vec<Event>, String> {
        let events = self.events.lock().unwrap();
        let newer: Vec<Event> = events
            .iter()
            .filter(|event| event.seq > since)
            .cloned()
            .collect();
        let skip = newer.len().saturating_sub(limit as usize);
        Ok(newer[skip..].to_vec())
    }

    async fn drill(&self, group: Name, live: Option<LiveRequest>) -> Result<DrillReport, Refusal> {
        super::drill::begin(&group, live)
    }

    async fn end_drill(&self, group: Name) -> Result<OrderDone, Refusal> {
        super::drill::end(group)
    }

    fn drills(&self) -> Drills {
        super::drill::all()
    }

    fn ready(&self) -> Ready {
        super::profile::ready()
    }

    async fn profile(&self, _: Name, asked: ProfileQuestion) -> Result<ProfileAnswer, Refusal> {
        super::profile::answer(asked)
    }

    fn recorded_at(&self, query: AtQuery) -> Result<Recorded, Refusal> {
        let observation = recorded(RECORDED_MS);
        let is_near = query.wall_ms.abs_diff(RECORDED_MS) < 1_000;
        is_near
            .then_some(Recorded { observation })
            .ok_or_else(nothing)
    }

    fn records(&self, query: RecordsQuery) -> Result<Records, Refusal> {
        if query.from_ms > RECORDED_MS {
            return Err(nothing());
        }
        let record = |number| Record {
            number,
            observation: recorded(RECORDED_MS + i64::try_from(number).unwrap() * 1_000),
        };
        // A page holds two of five, whatever is asked for.
        let records: Vec<Record> = (query.after + 1..=5).take(2).map(record).collect();
        let more = records.last().is_some_and(|record| record.number < 5);
        Ok(Records { records, more })
    }

    fn recorded_sum(&self, query: SumQuery) -> Result<RecordedSum, Refusal> {
        let mut observation = recorded(RECORDED_MS);
        for flow in &mut observation.flows {
            flow.interval = FlowCounts {
                rx_bytes: 77,
                ..Default::default()
            };
        }
        Ok(RecordedSum {
            observation,
            records: 600,
            from_ms: query.from_ms,
            cut: false,
        })
    }

    fn decisions(&self, group: &Name) -> Result<Decisions, Refusal> {
        super::decisions::list(group)
    }

    fn decision(&self, group: &Name, number: u64) -> Result<RecordedDecision, Refusal> {
        super::decisions::one(group, number)
    }

    async fn core(&self, group: Name) -> Result<CoreNow, Refusal> {
        super::decisions::core(&group)
    }

    async fn test_receiver(&self, receiver: Name) -> Result<LastNotice, Refusal> {
        super::hooks::test(&receiver)
    }

    async fn order(&self, group: Name, order: PolicyOrder) -> Result<OrderDone, Refusal> {
        super::policy::order(group, &order)
    }

    async fn handover(&self, group: Name, to: Option<Name>) -> Result<HandoverDone, Refusal> {
        match group.as_str() {
            "web" => {}
            "held" => {
                self.begun.notify_one();
                self.release.notified().await;
            }
            _ => {
                let message = format!("this host is no member of group {group}");
                let remedy = "`shadowctl status` lists its groups";
                return Err(Refusal::new(Code::UnknownGroup, message, remedy));
            }
        }
        let to = to.unwrap_or_else(|| name("b"));
        Ok(HandoverDone {
            group,
            epoch: 5,
            from: name("a"),
            to,
            took_ms: 12,
        })
    }
}

/// The daemon, answering on a socket in a directory of its own until it is dropped.
pub struct Daemon {
    pub fixed: Arc<Fixed>,
    pub counters: Arc<Counters>,
    pub socket: PathBuf,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    pub scratch: Scratch,
}

impl Daemon {
    pub fn start() -> Self {
        let scratch = Scratch::new();
        let path = scratch.0.join("run").join("shadowd.sock");
        let socket = Socket::bind(&path).unwrap();
        let counters = socket.counters();
        let fixed = Arc::new(Fixed::default());
        fixed
            .events
            .lock()
            .unwrap()
            .extend([event(1, "joining -> shadow"), event(2, "shadow -> active")]);
        let (stop, stopped) = watch::channel(false);
        let answers = Arc::clone(&fixed);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::spawn(socket.serve(answers, stopped))
                    .await
                    .unwrap()
                    .unwrap();
            });
        });
        Self {
            fixed,
            counters,
            socket: path,
            stop,
            thread: Some(thread),
            scratch,
        }
    }

    pub fn ask_to_stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn join(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn connect(&self) -> UnixStream {
        connect(&self.socket)
    }

    /// Sends `bytes` and reads until the daemon closes: the status code and the body.
    pub fn send(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        // The daemon may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        response(&mut stream)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        self.send(format!("{head}{body}").as_bytes())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.fixed.release.notify_one();
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
