//! The history: what comes back, its bounds, its merging, its state.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::index::STATE;
use super::*;
use crate::config::settings::HistorySettings;
use crate::facts::{
    AggregateState, BootTime, Direction, Flow, FlowCounts, HostUse, Observation, ProcessUse,
    Protocol, SyscallCounts, UnitTotals, UnitUse,
};

mod damage;

/// 2026-11-20 14:00:00 UTC.
const BEGAN_MS: i64 = 1_795_183_200_000;

/// A directory that is deleted when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shadowd-history-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join(FOLDER)).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.file_name().unwrap() != STATE);
        files.sort();
        files
    }

    fn open(&self) -> (Writer, Reader, Restored) {
        self.open_with(settings())
    }

    fn open_with(&self, settings: HistorySettings) -> (Writer, Reader, Restored) {
        Writer::open(&self.0, &settings, "boot-1").unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings() -> HistorySettings {
    HistorySettings {
        record: true,
        max_bytes: 16 << 20,
        max_age: Duration::from_secs(86_400),
        full_resolution: Duration::from_secs(7_200),
    }
}

fn flow(bytes: u64, total: u64) -> Flow {
    let counts = |rx_bytes| FlowCounts {
        rx_bytes,
        ..FlowCounts::default()
    };
    Flow {
        unit: "nginx.service".to_owned(),
        pid: 812,
        command: "nginx".to_owned(),
        protocol: Protocol::Tcp,
        direction: Direction::Inbound,
        local: [192, 0, 2, 10].into(),
        local_port: 80,
        remote: [192, 0, 2, 7].into(),
        remote_port: 0,
        remote_name: None,
        open: 1,
        total: counts(total),
        interval: counts(bytes),
        first_seen: BootTime::from_nanos(5),
        last_seen: BootTime::from_nanos(7),
    }
}

/// What was observed in second `second`: one unit with `second` calls.
fn second(second: u64) -> Observation {
    let calls = |calls| SyscallCounts {
        calls,
        ..SyscallCounts::default()
    };
    let unit = UnitUse {
        unit: "nginx.service".to_owned(),
        processes: 1,
        cpu: 0.25,
        syscalls: calls(second),
        total: UnitTotals {
            syscalls: calls(second * (second + 1) / 2),
            ..UnitTotals::default()
        },
        ..UnitUse::default()
    };
    Observation {
        at: BootTime::from_nanos(second * 1_000_000_000),
        wall_ms: BEGAN_MS + i64::try_from(second).unwrap() * 1_000,
        interval_ns: 1_000_000_000,
        host: HostUse {
            processors: 2,
            cpu: Some(0.5),
            ..HostUse::default()
        },
        units: vec![unit],
        flows: vec![flow(10, second * 10)],
        ..Observation::default()
    }
}

fn recorded_seconds(reader: &Reader) -> Vec<u64> {
    let page = reader.page(i64::MIN, i64::MAX, 0, 1_000_000).unwrap();
    assert!(!page.more);
    let records = page.records.iter();
    records
        .map(|(_, one)| one.at.as_nanos() / 1_000_000_000)
        .collect()
}

#[test]
fn what_was_active_comes_back_across_a_reopen() {
    let dir = Scratch::new();
    let (mut writer, _, restored) = dir.open();
    assert!(restored.records.is_empty() && restored.state == AggregateState::default());
    let idle = UnitUse {
        unit: "idle.service".to_owned(),
        ..second(1).units.remove(0)
    };
    let idle = UnitUse {
        processes: 0,
        cpu: 0.0,
        syscalls: SyscallCounts::default(),
        ..idle
    };
    let process = |pid, cpu| ProcessUse {
        pid,
        cpu,
        ..ProcessUse::default()
    };
    let mut observed = second(1);
    observed.units.push(idle);
    observed.processes = vec![process(1, 0.0), process(2, 0.5)];
    observed.flows.push(flow(0, 500));
    writer.append(&observed).unwrap();
    drop(writer);
    let (mut writer, reader, restored) = dir.open();
    writer.append(&second(2)).unwrap();
    let mut wanted = second(1);
    wanted.processes = vec![process(2, 0.5)];
    wanted.flows = vec![flow(10, 0)];
    assert_eq!(restored.records, [wanted.clone()]);
    assert_eq!(reader.at(BEGAN_MS + 1_000).unwrap(), Some(wanted));
    assert_eq!(recorded_seconds(&reader), [1, 2]);
    let status = reader.status();
    assert_eq!((status.records, status.corrupt), (2, 0));
    assert_eq!(status.oldest_ms, Some(BEGAN_MS + 1_000));
    assert_eq!(status.newest_ms, Some(BEGAN_MS + 2_000));
}

#[test]
fn a_moment_is_answered_by_the_record_that_holds_it() {
    let dir = Scratch::new();
    let (mut writer, reader, _) = dir.open();
    assert_eq!(reader.at(BEGAN_MS).unwrap(), None);
    assert_eq!(reader.range(), None);
    for number in [1, 2, 3, 600, 601] {
        writer.append(&second(number)).unwrap();
    }
    let at = |after_ms: i64| {
        let found = reader.at(BEGAN_MS + after_ms).unwrap();
        found.map(|one| one.at.as_nanos() / 1_000_000_000)
    };
    let table = [
        (-1_000, None),
        (500, Some(1)),
        (1_500, Some(2)),
        (2_001, Some(3)),
        // The next one may not be written yet.
        (5_900, Some(3)),
        (6_500, None),
        (300_000, None),
        (599_500, Some(600)),
        (602_000, Some(601)),
    ];
    for (after_ms, wanted) in table {
        assert_eq!(at(after_ms), wanted, "{after_ms}");
    }
}

#[test]
fn pages_follow_each_other_and_sums_add_up() {
    let dir = Scratch::new();
    let (mut writer, reader, _) = dir.open();
    for number in 1..=10 {
        writer.append(&second(number)).unwrap();
    }
    let (from, to) = (BEGAN_MS + 3_000, BEGAN_MS + 9_000);
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = reader.page(from, to, after, 3).unwrap();
        seen.extend(page.records.iter().map(|(number, _)| *number));
        after = *seen.last().unwrap();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [3, 4, 5, 6, 7, 8, 9]);
    let summed = reader.sum(from, to, Duration::from_secs(60)).unwrap();
    assert_eq!(
        (summed.records, summed.cut, summed.from_ms),
        (7, false, BEGAN_MS + 2_000)
    );
    assert_eq!(summed.sum.flows[0].interval.rx_bytes, 70);
    assert_eq!(summed.sum.units[0].syscalls.calls, (3..=9).sum::<u64>());
    assert!((summed.sum.units[0].cpu - 0.25).abs() < 1e-9);
    assert_eq!(summed.sum.units[0].total, second(9).units[0].total);
    assert_eq!(summed.sum.interval_ns, 7_000_000_000);
    let none = reader.sum(from, to, Duration::ZERO).unwrap();
    assert!(none.cut && none.records < 7);
}

#[test]
fn files_stay_within_size_and_age() {
    let dir = Scratch::new();
    let small = HistorySettings {
        max_bytes: 20_000,
        ..settings()
    };
    let (mut writer, reader, _) = dir.open_with(small);
    for number in 1..=400 {
        writer.append(&second(number)).unwrap();
        writer.tend().unwrap();
        assert!(reader.status().bytes <= 20_000);
    }
    let kept = recorded_seconds(&reader);
    assert_eq!(*kept.last().unwrap(), 400);
    assert!(kept.len() > 20 && kept.len() < 400, "{}", kept.len());
    assert!(
        kept.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "the oldest went"
    );
    // A day later.
    writer.append(&second(400 + 86_400 + 60)).unwrap();
    writer.append(&second(400 + 86_400 + 61)).unwrap();
    writer.tend().unwrap();
    assert_eq!(recorded_seconds(&reader).len(), 2);
}

#[test]
fn old_seconds_become_minutes_and_nothing_is_lost() {
    let dir = Scratch::new();
    let settings = HistorySettings {
        full_resolution: Duration::from_secs(1_800),
        ..settings()
    };
    let (mut writer, reader, _) = dir.open_with(settings.clone());
    for number in 0..3_600 {
        writer.append(&second(number)).unwrap();
    }
    let sum = |reader: &Reader| {
        let summed = reader
            .sum(i64::MIN, i64::MAX, Duration::from_secs(60))
            .unwrap();
        let one = summed.sum;
        let calls = one.units[0].syscalls.calls;
        (
            one.interval_ns,
            calls,
            one.flows[0].interval,
            one.units[0].total.clone(),
        )
    };
    let (before, bytes) = (sum(&reader), reader.status().bytes);
    for _ in 0..10 {
        writer.tend().unwrap();
    }
    assert_eq!(sum(&reader), before);
    let status = reader.status();
    assert!(
        status.records < 2_500 && status.bytes < bytes * 3 / 4,
        "{status:?}, {bytes} before"
    );
    let old = reader.at(BEGAN_MS + 90_000).unwrap().unwrap();
    assert_eq!(old.interval_ns, 60_000_000_000);
    assert_eq!(old.units[0].syscalls.calls, (60..120).sum::<u64>());
    let new = reader.at(BEGAN_MS + 3_500_000).unwrap().unwrap();
    assert_eq!(new.interval_ns, 1_000_000_000);
    // A merge that was interrupted before its source was removed.
    let minutes = dir
        .files()
        .into_iter()
        .find(|path| path.extension().unwrap() == "minutes");
    let minutes = minutes.unwrap();
    fs::write(minutes.with_extension("full"), fs::read(&minutes).unwrap()).unwrap();
    fs::write(minutes.with_extension("minutes.new"), b"half").unwrap();
    drop(writer);
    let (_writer, reader, _) = dir.open_with(settings);
    assert_eq!(sum(&reader), before);
    assert!(!minutes.with_extension("full").exists());
}

#[test]
fn the_state_and_what_came_after_it_are_restored() {
    let dir = Scratch::new();
    let (mut writer, ..) = dir.open();
    let mut state = AggregateState::default();
    state
        .units
        .insert("nginx.service".to_owned(), second(2).units[0].total.clone());
    state.flows.push(flow(0, 20));
    writer.append(&second(1)).unwrap();
    writer.append(&second(2)).unwrap();
    writer.save(&state).unwrap();
    writer.append(&second(3)).unwrap();
    drop(writer);
    let (writer, _, restored) = dir.open();
    drop(writer);
    assert_eq!(restored.state, state);
    let after: Vec<u64> = restored
        .records
        .iter()
        .map(|one| one.at.as_nanos())
        .collect();
    assert_eq!(after, [3_000_000_000]);

    let (_, _, other_boot) = Writer::open(&dir.0, &settings(), "boot-2").unwrap();
    assert_eq!(other_boot.state.units, state.units);
    assert!(other_boot.state.flows.is_empty() && other_boot.records[0].flows.is_empty());

    let file = dir.0.join(FOLDER).join(STATE);
    let whole = fs::read(&file).unwrap();
    for offset in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0x20;
        fs::write(&file, &damaged).unwrap();
        let (_, _, restored) = dir.open();
        assert_eq!(restored.state, AggregateState::default(), "byte {offset}");
        assert_eq!(
            restored.records.len(),
            3,
            "all that is recorded stands in for it"
        );
    }
}
