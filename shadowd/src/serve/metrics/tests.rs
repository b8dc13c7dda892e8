//! Tests of the exposition, with a strict reader of its format.

mod peers;
mod profiles;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::facts::{
    BootTime, CaptureStatus, Direction, Epoch, Flow, FlowCounts, GroupStatus, HostId, HostUse,
    LinkCounters, PeerStatus, PolicyStatus, Pressure, ProbeLosses, ProbeStatus, Protection,
    Protocol, Resources, Role, SyscallCounts, UnitTotals, UnitUse,
};

/// One sample: name, labels, value.
type Row = (String, BTreeMap<String, String>, f64);

/// Reads OpenMetrics text (version 1.0), strictly: panics at what the format forbids.
fn read(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut families = BTreeMap::<String, String>::new();
    let (mut family, mut units) = (String::new(), BTreeMap::new());
    let mut series = BTreeSet::new();
    assert!(text.ends_with("# EOF\n"));
    let body = text.strip_suffix("# EOF\n").expect("it ends");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().expect("a word follows");
            assert!(is_name(name), "{line}");
            match kind {
                "HELP" => {
                    assert!(
                        !families.contains_key(name),
                        "one family, one place: {name}"
                    );
                    assert!(!rest.is_empty() && !rest.contains(['\\', '"']), "{line}");
                    family = name.to_owned();
                    families.insert(family.clone(), String::new());
                }
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram", "info"].contains(&rest));
                    assert_eq!(name, family);
                    families.insert(name.to_owned(), rest.to_owned());
                }
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{rest}")), "{line}");
                    units.insert(name.to_owned(), rest.to_owned());
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let row = sample(line);
        let kind = families[&family].as_str();
        let suffix = row
            .0
            .strip_prefix(family.as_str())
            .expect("rows follow their family");
        let allowed: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_sum", "_count", "_bucket"],
            "info" => &["_info"],
            _ => &[""],
        };
        assert!(allowed.contains(&suffix), "{line} in a {kind}");
        assert!(kind == "gauge" || row.2 >= 0.0, "{line}");
        assert!(
            series.insert((row.0.clone(), row.1.clone())),
            "twice: {line}"
        );
        rows.push(row);
    }
    check_histograms(&rows, &families);
    rows
}

fn is_name(name: &str) -> bool {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    name.chars().all(legal) && !name.starts_with(|letter: char| letter.is_ascii_digit())
}

fn sample(line: &str) -> Row {
    let end = line.find(['{', ' ']).expect("a name ends");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while let Some((key, after)) = rest.split_once("=\"") {
            assert!(is_name(key) && !key.contains(':'), "{line}");
            let (mut value, mut letters) = (String::new(), after.char_indices());
            let end = loop {
                match letters.next().expect("a value is closed") {
                    (at, '"') => break at,
                    (_, '\\') => match letters.next().expect("an escape has a letter").1 {
                        'n' => value.push('\n'),
                        letter @ ('\\' | '"') => value.push(letter),
                        other => panic!("escape {other} in {line}"),
                    },
                    (_, letter) => value.push(letter),
                }
            };
            assert!(labels.insert(key.to_owned(), value).is_none(), "{line}");
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect("labels are closed");
    }
    let value = rest.strip_prefix(' ').expect("a value follows");
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    (name.to_owned(), labels, value)
}

fn check_histograms(rows: &[Row], families: &BTreeMap<String, String>) {
    for family in families.iter().filter(|(_, kind)| *kind == "histogram") {
        let mut all = BTreeMap::<_, Vec<(f64, f64)>>::new();
        for (name, labels, value) in rows {
            if *name == format!("{}_bucket", family.0) {
                let mut labels = labels.clone();
                let bound = labels.remove("le").expect("a bucket has a bound");
                let bound = bound.parse().expect("a bound is a number");
                all.entry(labels).or_default().push((bound, *value));
            }
        }
        assert!(!all.is_empty());
        for (labels, buckets) in all {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
            let last = buckets.last().expect("there is one");
            assert_eq!(last.0, f64::INFINITY);
            let count = (format!("{}_count", family.0), labels);
            let count = rows
                .iter()
                .find(|row| (&row.0, &row.1) == (&count.0, &count.1));
            assert_eq!(count.expect("there is a count").2, last.1);
        }
    }
}

fn value(rows: &[Row], name: &str, label: (&str, &str)) -> Option<f64> {
    let fits = |row: &&Row| {
        row.0 == name && (label.0.is_empty() || row.1.get(label.0).is_some_and(|it| it == label.1))
    };
    rows.iter().find(fits).map(|row| row.2)
}

fn status() -> Status {
    let name = |text: &str| text.parse().expect("a name");
    Status {
        host: name("a"),
        id: HostId::from_bytes([1; 32]),
        version: "0.1.0".to_owned(),
        started: BootTime::from_nanos(0),
        now: BootTime::from_nanos(90_000_000_000),
        groups: vec![GroupStatus {
            group: name("web"),
            role: Role::Active,
            since: BootTime::from_nanos(0),
            epoch: Epoch {
                counter: 4,
                owner: HostId::from_bytes([1; 32]),
            },
            deadline: None,
            active: Some(name("a")),
            protection: Protection::None,
            eligible: true,
            members: Vec::new(),
            vips: Vec::new(),
            units: Vec::new(),
            lease: None,
            guard: Vec::new(),
            drain: None,
            policy: PolicyStatus::default(),
            redundancy: None,
            lost_paths: Vec::new(),
        }],
        profiles: Vec::new(),
        witnessed: Vec::new(),
        peers: vec![PeerStatus {
            host: name("b"),
            id: HostId::from_bytes([2; 32]),
            address: "192.0.2.2:7373".to_owned(),
            paths: peers::paths(),
            connected: true,
            last_heard: Some(BootTime::from_nanos(89_000_000_000)),
            round_trip_ns: Some(250_000),
            round_trip_p99_ns: None,
            counters: LinkCounters {
                sent: 900,
                ..LinkCounters::default()
            },
        }],
        strangers: LinkCounters::default(),
        connections: Default::default(),
        capture: CaptureStatus {
            probes: vec![ProbeStatus {
                name: "tcp".to_owned(),
                hook: Some("tp_btf inet_sock_set_state".to_owned()),
                events: Some(77),
                losses: ProbeLosses {
                    seen: 70,
                    dropped: 3,
                    unattributed: 1,
                    filtered: 2,
                    missed: 5,
                },
                cost_ns: Some(310.0),
                cpu_share: Some(0.002),
                ..ProbeStatus::default()
            }],
            ..CaptureStatus::default()
        },
        warnings: vec!["one".to_owned()],
        receivers: vec![notices::receiver()],
        drills: Vec::new(),
    }
}

fn unit(name: &str, calls: u64) -> UnitUse {
    let mut syscalls = SyscallCounts {
        calls,
        errors: [(2, calls / 10)].into(),
        total_ns: calls * 1_500,
        ..SyscallCounts::default()
    };
    syscalls.latency.record(1_500, calls);
    UnitUse {
        unit: name.to_owned(),
        processes: 1,
        memory_bytes: Some(4096),
        io_pressure: Some(0.25),
        total: UnitTotals {
            cpu_ns: calls * 1_000,
            syscalls,
            ..UnitTotals::default()
        },
        ..UnitUse::default()
    }
}

fn observed(units: Vec<UnitUse>) -> Arc<Observation> {
    Arc::new(Observation {
        units,
        host: HostUse {
            processors: 2,
            load: [0.5, 0.25, f64::NAN],
            total: Resources {
                cpu_ns: Some(2_500_000_000),
                io_pressure: Some(Pressure {
                    some_ns: 10,
                    full_ns: 5,
                }),
                ..Resources::default()
            },
            ..HostUse::default()
        },
        ..Observation::default()
    })
}

fn scrape(metrics: &Metrics, units: Vec<UnitUse>) -> Vec<Row> {
    read(&metrics.text(status(), observed(units), OwnUse::read()))
}

fn bounded(units: usize, remotes: usize) -> Metrics {
    Metrics::new(MetricsSettings {
        listen: None,
        units,
        remotes,
    })
}

#[test]
fn facts_become_families_in_base_units() {
    let rows = scrape(&Metrics::default(), vec![unit("nginx.service", 1_000)]);
    for (name, label, wanted) in [
        ("shadowd_build_info", ("version", "0.1.0"), 1.0),
        ("shadowd_uptime_seconds", ("", ""), 90.0),
        ("shadowd_group_role", ("role", "active"), 1.0),
        ("shadowd_group_role", ("role", "shadow"), 0.0),
        ("shadowd_group_epoch", ("group", "web"), 4.0),
        ("shadowd_notices_total", ("outcome", "delivered"), 4.0),
        ("shadowd_notices_waiting", ("receiver", "dns"), 2.0),
        ("shadowd_peer_round_trip_seconds", ("peer", "b"), 0.000_25),
        ("shadowd_peer_silence_seconds", ("peer", "b"), 1.0),
        ("shadowd_peer_datagrams_total", ("outcome", "sent"), 900.0),
        ("shadowd_path_up", ("path", "1"), 0.0),
        ("shadowd_path_up", ("path", "2"), 1.0),
        ("shadowd_path_silence_seconds", ("path", "1"), 10.0),
        ("shadowd_path_round_trip_seconds", ("path", "2"), 0.000_3),
        ("shadowd_path_loss_ratio", ("path", "1"), 0.5),
        ("shadowd_path_datagrams_total", ("outcome", "missed"), 9.0),
        ("shadowd_path_datagrams_total", ("outcome", "refused"), 2.0),
        ("shadowd_probe_events_total", ("probe", "tcp"), 77.0),
        ("shadowd_probe_records_total", ("outcome", "dropped"), 3.0),
        ("shadowd_probe_records_total", ("outcome", "filtered"), 2.0),
        ("shadowd_probe_records_total", ("outcome", "missed"), 5.0),
        ("shadowd_host_cpu_seconds_total", ("", ""), 2.5),
        ("shadowd_host_load", ("span", "1m"), 0.5),
        (
            "shadowd_unit_memory_bytes",
            ("unit", "nginx.service"),
            4096.0,
        ),
        ("shadowd_unit_pressure_ratio", ("resource", "io"), 0.25),
        (
            "shadowd_unit_syscalls_total",
            ("unit", "nginx.service"),
            1_000.0,
        ),
        (
            "shadowd_unit_syscall_errors_total",
            ("errno", "ENOENT"),
            100.0,
        ),
        (
            "shadowd_unit_cpu_seconds_total",
            ("unit", "nginx.service"),
            0.001,
        ),
        ("shadowd_unit_syscall_latency_seconds_sum", ("", ""), 0.0015),
        (
            "shadowd_unit_syscall_latency_seconds_bucket",
            ("le", "0.000004096"),
            1_000.0,
        ),
        (
            "shadowd_unit_syscall_latency_seconds_bucket",
            ("le", "0.000001024"),
            0.0,
        ),
    ] {
        assert_eq!(value(&rows, name, label), Some(wanted), "{name} {label:?}");
    }
    // What is not a number is not shown.
    assert_eq!(value(&rows, "shadowd_host_load", ("span", "15m")), None);
    assert_eq!(
        value(&rows, "shadowd_unit_syscalls_total", ("unit", "_other")),
        None
    );
}

#[test]
fn an_empty_host_is_answered_too() {
    read(&Metrics::default().text(status(), Arc::default(), OwnUse::default()));
}

#[test]
fn ten_thousand_units_are_two_hundred_series_and_a_sum() {
    let units: Vec<UnitUse> = (0..10_000)
        .map(|number| unit(&format!("u{number:05}.service"), number))
        .collect();
    let rows = scrape(&Metrics::default(), units);
    let series = rows
        .iter()
        .filter(|row| row.0 == "shadowd_unit_syscalls_total");
    assert_eq!(series.count(), 201);
    assert!(rows.len() < 201 * 60, "{}", rows.len());
    assert_eq!(value(&rows, "shadowd_units", ("", "")), Some(10_000.0));
    assert_eq!(
        value(&rows, "shadowd_units_summed", ("", "")),
        Some(9_800.0)
    );
    let all: f64 = rows
        .iter()
        .filter(|row| row.0 == "shadowd_unit_syscalls_total")
        .map(|row| row.2)
        .sum();
    assert_eq!(all, f64::from(10_000 * 9_999 / 2));
    // The busiest have series of their own.
    let busiest = ("unit", "u09999.service");
    assert_eq!(
        value(&rows, "shadowd_unit_syscalls_total", busiest),
        Some(9_999.0)
    );
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let hostile = "a\"} 9\nshadowd_units 1\\ \u{1b}[2J";
    let rows = scrape(&Metrics::default(), vec![unit(hostile, 10)]);
    assert_eq!(
        value(&rows, "shadowd_unit_syscalls_total", ("unit", hostile)),
        Some(10.0)
    );
    assert_eq!(value(&rows, "shadowd_units", ("", "")), Some(1.0));
}

#[test]
fn counters_never_go_back_while_units_come_go_and_change_places() {
    let metrics = bounded(2, 3);
    let mut before = Vec::<Row>::new();
    // Every round other units work, one comes and one goes.
    for round in 0..40_u64 {
        let units = (0..6)
            .filter(|number| (round + number) % 7 != 0)
            .map(|number| {
                let mut unit = unit(&format!("u{number}.service"), 100 * round + number);
                unit.cpu = if (round / 5) % 6 == number { 1.0 } else { 0.0 };
                unit
            })
            .collect();
        let rows = scrape(&metrics, units);
        for (name, labels, value) in &rows {
            let cumulative = name.ends_with("_total") || name.ends_with("_bucket");
            let old = before.iter().find(|row| (&row.0, &row.1) == (name, labels));
            if let Some(old) = old.filter(|_| cumulative) {
                assert!(
                    old.2 <= *value,
                    "round {round}: {name} {labels:?} {} {value}",
                    old.2
                );
            }
        }
        before.extend(rows.into_iter().rev());
        before.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)).then(b.2.total_cmp(&a.2)));
        before.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    }
}

#[test]
fn the_sum_grows_by_what_is_new_only() {
    let metrics = bounded(1, 0);
    let other = |rows: &[Row]| value(rows, "shadowd_unit_syscalls_total", ("unit", "_other"));
    let mut busy = unit("busy.service", 1_000);
    busy.cpu = 1.0;
    let first = scrape(&metrics, vec![busy.clone(), unit("rest.service", 50)]);
    assert_eq!(other(&first), Some(50.0));
    let second = scrape(&metrics, vec![busy.clone(), unit("rest.service", 70)]);
    assert_eq!(other(&second), Some(70.0));
    // They change places: the history of the busy one is not counted again.
    busy.cpu = 0.0;
    let mut rest = unit("rest.service", 80);
    rest.cpu = 1.0;
    let third = scrape(&metrics, vec![busy, rest.clone()]);
    assert_eq!(
        value(
            &third,
            "shadowd_unit_syscalls_total",
            ("unit", "rest.service")
        ),
        Some(80.0)
    );
    assert_eq!(other(&third), Some(70.0));
    let fourth = scrape(&metrics, vec![unit("busy.service", 1_005), rest]);
    assert_eq!(other(&fourth), Some(75.0));
}

#[test]
fn remotes_have_series_only_when_asked_for_and_only_so_many() {
    let flow = |number: u8, rx_bytes| Flow {
        unit: "nginx.service".to_owned(),
        pid: 1,
        command: "nginx".to_owned(),
        protocol: Protocol::Tcp,
        direction: Direction::Outbound,
        local: [192, 0, 2, 1].into(),
        local_port: 0,
        remote: [192, 0, 2, number].into(),
        remote_port: 443,
        remote_name: None,
        open: 1,
        total: FlowCounts {
            rx_bytes,
            ..FlowCounts::default()
        },
        interval: FlowCounts::default(),
        first_seen: BootTime::default(),
        last_seen: BootTime::default(),
    };
    let observation = Arc::new(Observation {
        units: vec![unit("nginx.service", 1)],
        flows: (10..20)
            .map(|number| flow(number, u64::from(number)))
            .collect(),
        ..Observation::default()
    });
    let count = |metrics: &Metrics| {
        let rows = read(&metrics.text(status(), Arc::clone(&observation), OwnUse::default()));
        let rows = rows
            .into_iter()
            .filter(|row| row.0 == "shadowd_remote_receive_bytes_total");
        rows.map(|row| (row.1["remote"].clone(), row.2))
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&bounded(10, 0)), []);
    let metrics = bounded(10, 2);
    let wanted = [
        ("_other", 108.0),
        ("192.0.2.18", 18.0),
        ("192.0.2.19", 19.0),
    ];
    let wanted = wanted.map(|(remote, bytes)| (remote.to_owned(), bytes));
    assert_eq!(count(&metrics), wanted);
    assert_eq!(count(&metrics), wanted, "nothing was added");
}
