//! Damage, a full disk, and the death of the process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::frame;
use super::{BEGAN_MS, Scratch, recorded_seconds, second, settings};
use crate::facts::AggregateState;
use crate::store::history::Writer;

/// Whatever byte of a file is flipped, one record is lost, counted and named, once.
#[test]
fn a_flipped_byte_costs_one_record() {
    let dir = Scratch::new();
    let (mut writer, ..) = dir.open();
    for number in 1..=4 {
        writer.append(&second(number)).unwrap();
    }
    drop(writer);
    let file = dir.files().remove(0);
    let whole = fs::read(&file).unwrap();
    let frames: Vec<usize> = frame::scan(&whole)
        .map(|found| found.unwrap().0.frame_length())
        .collect();
    assert_eq!(frames.len(), 5, "the begin and four records");
    for offset in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1 << (offset % 8);
        fs::write(&file, &damaged).unwrap();
        let mut ends = frames.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        // 0 is the begin of the file, which is no record.
        let hit = ends.position(|end| offset < end).unwrap() as u64;
        let wanted: Vec<u64> = (1..=4).filter(|number| *number != hit).collect();
        let (mut writer, reader, _) = dir.open();
        assert_eq!(recorded_seconds(&reader), wanted, "byte {offset}");
        let damages = writer.tend().unwrap();
        assert_eq!(damages.len(), 1, "byte {offset}");
        if let Some((number, wall_ms)) = damages[0].record {
            assert!(hit == 0 || number == hit);
            assert!(hit == 0 || wall_ms == second(hit).wall_ms);
        } else {
            assert_eq!(
                damages[0].after,
                hit.checked_sub(1).filter(|after| *after > 0)
            );
        }
        assert_eq!(writer.tend().unwrap(), [], "named once");
        let status = reader.status();
        assert_eq!(
            (status.records, status.corrupt),
            (wanted.len() as u64, 1),
            "byte {offset}"
        );
    }
}

#[test]
fn a_record_that_was_cut_off_costs_itself_only() {
    let dir = Scratch::new();
    let (mut writer, ..) = dir.open();
    writer.append(&second(1)).unwrap();
    let file = dir.files().remove(0);
    let one = fs::read(&file).unwrap().len();
    writer.append(&second(2)).unwrap();
    drop(writer);
    let whole = fs::read(&file).unwrap();
    for length in one..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        let (mut writer, reader, restored) = dir.open();
        writer.append(&second(3)).unwrap();
        assert_eq!(recorded_seconds(&reader), [1, 3], "{length} bytes");
        assert_eq!(restored.records.len(), 1);
        writer.tend().unwrap();
        let status = reader.status();
        assert_eq!(
            (status.records, status.corrupt),
            (2, u64::from(length > one))
        );
        drop(writer);
        fs::remove_file(dir.files().remove(1)).unwrap();
    }
}

#[test]
fn a_disk_that_is_full_costs_what_could_not_be_written() {
    let dir = Scratch::new();
    let (mut writer, reader, _) = dir.open();
    writer.append(&second(1)).unwrap();
    // Writes to it fail with ENOSPC (full(4)).
    let full = File::options().append(true).open("/dev/full").unwrap();
    writer.live.as_mut().unwrap().1 = full;
    let error = writer.append(&second(2)).unwrap_err();
    assert!(error.to_string().contains("check free space"), "{error}");
    writer.append(&second(3)).unwrap();
    assert_eq!(recorded_seconds(&reader), [1, 3]);
    assert_eq!(reader.status().corrupt, 0);
}

const CHILD_DIR: &str = "SHADOWD_TEST_HISTORY_DIR";

/// Runs only as the child of the test below: records until it is killed.
#[test]
#[ignore = "the child process of a_killed_process_loses_no_acknowledged_record"]
fn child_records_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let (mut writer, reader, restored) =
        Writer::open(Path::new(&dir), &settings(), "boot-1").unwrap();
    let known = restored
        .state
        .units
        .values()
        .map(|total| total.syscalls.calls)
        .max();
    let last = restored
        .records
        .last()
        .map(|one| one.units[0].total.syscalls.calls);
    println!("restored {}", last.or(known).unwrap_or(0));
    let newest = reader.range().map_or(BEGAN_MS, |range| range.newest_ms);
    let begin = u64::try_from((newest - BEGAN_MS) / 1_000).unwrap() + 1;
    for number in begin..1_000_000 {
        let observed = second(number);
        writer.append(&observed).unwrap();
        if number % 7 == 0 {
            let mut state = AggregateState::default();
            state
                .units
                .insert("nginx.service".to_owned(), observed.units[0].total.clone());
            writer.save(&state).unwrap();
        }
        println!("acked {number}");
    }
}

#[test]
fn a_killed_process_loses_no_acknowledged_record() {
    let dir = Scratch::new();
    let mut acknowledged = 0;
    for round in 1..=3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::history::tests::damage::child_records_until_killed",
            ])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, &dir.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = 0;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, total)) = line.split_once("restored ") {
                let total: u64 = total.parse().unwrap();
                assert!(
                    total >= acknowledged * (acknowledged + 1) / 2,
                    "totals went back"
                );
            }
            if let Some((_, number)) = line.split_once("acked ") {
                acknowledged = number.parse().unwrap();
                seen += 1;
            }
            if seen == 23 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 23 * round, "the child ended early");
        let (_writer, reader, _) = dir.open();
        let all = recorded_seconds(&reader);
        let last = *all.last().unwrap();
        assert!(
            last >= acknowledged,
            "{last} recorded, {acknowledged} acknowledged"
        );
        assert_eq!(all, (1..=last).collect::<Vec<_>>(), "no gap");
    }
}
