//! `shadowctl` looking back: `--at`, `--since`, `replay`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::daemon::Daemon;
use super::shadowctl::{TOP, code, command, shown, words};

#[test]
fn the_past_is_shown_as_it_was_recorded() {
    let daemon = Daemon::start();
    let top = shown(&daemon, "top --at 2026-11-20T12:00:00");
    let headline = "recorded until 2026-11-20 12:00:00 +00:00; ";
    assert_eq!(top, format!("{headline}{TOP}"));
    let units = shown(&daemon, "units --at 1795176000");
    assert!(units.starts_with(headline), "{units}");
    let flows = shown(
        &daemon,
        "flows --since 2026-11-20T11:50 --until 12:00 --unit nginx",
    );
    let wanted = "600 records from 2026-11-20 11:50:00 +00:00 to 2026-11-20 12:00:00 +00:00\n";
    assert!(
        flows.starts_with(wanted) && flows.contains(" 77 B "),
        "{flows}"
    );
    assert_eq!(flows.lines().count(), 3);
}

#[test]
fn a_time_without_a_record_names_what_is_recorded() {
    let daemon = Daemon::start();
    for arguments in [
        "top --at 2026-11-20T12:05Z",
        "replay --from 2026-11-20T12:05Z",
    ] {
        let output = command(&daemon.socket, arguments).output().unwrap();
        assert_eq!(code(&output), 1, "{arguments}");
        let words = words(&output);
        assert!(words.contains("nothing is recorded"), "{words}");
        assert!(words.contains("2026-11-20 12:05:00 +00:00"), "{words}");
        let range = "between 2026-11-20 10:00:00 +00:00 and 2026-11-20 12:00:01 +00:00";
        assert!(words.contains(range), "{words}");
    }
    let usage = command(&daemon.socket, "top --at soon").output().unwrap();
    assert_eq!(code(&usage), 2);
    assert!(words(&usage).contains("10m ago"), "{}", words(&usage));
}

#[test]
fn a_replay_is_a_line_for_each_record_and_ends_when_interrupted() {
    let daemon = Daemon::start();
    let text = shown(
        &daemon,
        "replay --from 2026-11-20T12:00 --to 2026-11-20T12:01",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(lines[0].starts_with("TIME "), "{text}");
    assert!(
        lines[1].starts_with("2026-11-20 12:00:01 +00:00    51.0 %        91,200 "),
        "{text}"
    );
    assert!(lines[5].ends_with("nginx.service 50.0 %"), "{text}");
    let json = shown(&daemon, "--json replay --from 2026-11-20T12:00");
    let numbers: Vec<u64> = json
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["number"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);

    // A hundredth of the speed: the second line would come after the longest pause.
    let mut child = command(
        &daemon.socket,
        "--json replay --from 2026-11-20T12:00 --speed 0.01",
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"number\":1"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(lines.next().is_none(), "nothing is shown after it");
    assert!(child.wait().unwrap().success());
}
