//! Tests of the live view: what keys do and what is drawn.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::{Palette, draw};
use super::tables::List;
use super::*;
use crate::facts::{
    BlockCounts, BootTime, DeviceUse, Direction, FileUse, Flow, FlowCounts, HostUse, Listener,
    ProcessUse, Protocol, SyscallCounts, Timing, UnitUse,
};

fn calls(calls: u64) -> SyscallCounts {
    SyscallCounts {
        calls,
        ..SyscallCounts::default()
    }
}

fn unit(name: &str, cpu: f64, number: u64) -> UnitUse {
    let mut syscalls = calls(number);
    syscalls.errors = [(2, number / 10), (110, 1)].into();
    syscalls.latency.record(3_000, number);
    UnitUse {
        unit: name.to_owned(),
        processes: 2,
        cpu,
        rss_bytes: 9 << 20,
        syscalls,
        network: FlowCounts {
            rx_bytes: 2048 * number,
            tx_bytes: 100,
            rtt: Timing {
                count: 2,
                sum_ns: 500_000,
            },
            ..FlowCounts::default()
        },
        ..UnitUse::default()
    }
}

fn flow(unit: &str, remote: &str, rx_bytes: u64) -> Flow {
    let counts = FlowCounts {
        rx_bytes,
        opened: 2,
        ..FlowCounts::default()
    };
    Flow {
        unit: unit.to_owned(),
        pid: 812,
        command: "nginx".to_owned(),
        protocol: Protocol::Tcp,
        direction: Direction::Outbound,
        local: [192, 0, 2, 1].into(),
        local_port: 0,
        remote: remote.parse().unwrap(),
        remote_port: 5432,
        remote_name: remote.ends_with('9').then(|| "db.example".to_owned()),
        open: 2,
        total: counts,
        interval: counts,
        first_seen: BootTime::default(),
        last_seen: BootTime::default(),
    }
}

fn seen(at: u64) -> Observation {
    let process = |pid, command: &str, unit: &str, cpu| ProcessUse {
        pid,
        command: command.to_owned(),
        unit: unit.to_owned(),
        cpu,
        rss_bytes: 4 << 20,
        syscalls: calls(100),
        ended: pid == 900,
        ..ProcessUse::default()
    };
    Observation {
        at: BootTime::from_nanos(at),
        interval_ns: 1_000_000_000,
        host: HostUse {
            processors: 2,
            cpu: Some(0.75),
            memory_bytes: 8 << 30,
            memory_available_bytes: 6 << 30,
            load: [0.5, 0.4, 0.3],
            io_pressure: Some(0.2),
            ..HostUse::default()
        },
        units: vec![
            unit("cron.service", 0.01, 20),
            unit("evil\x1b[2J\nservice", 0.02, 30),
            unit("nginx.service", 0.5, 1_200),
        ],
        processes: vec![
            process(812, "nginx", "nginx.service", 0.1),
            process(813, "nginx: worker", "nginx.service", 0.4),
            process(900, "sh", "cron.service", 0.0),
        ],
        flows: vec![
            flow("cron.service", "192.0.2.7", 10),
            flow("nginx.service", "192.0.2.9", 4096),
        ],
        listeners: vec![Listener {
            unit: "nginx.service".to_owned(),
            pid: 812,
            command: "nginx".to_owned(),
            local: [0, 0, 0, 0].into(),
            local_port: 80,
            backlog: 3,
            backlog_max: 511,
            overflows: 0,
            overflows_total: 4,
        }],
        devices: vec![DeviceUse {
            device: "vda".to_owned(),
            read: BlockCounts {
                operations: 10,
                bytes: 40_960,
                ..BlockCounts::default()
            },
            ..DeviceUse::default()
        }],
        files: vec![FileUse {
            unit: "nginx.service".to_owned(),
            pid: 812,
            command: "nginx".to_owned(),
            path: "/etc/nginx/nginx.conf".to_owned(),
            write: false,
            at: BootTime::default(),
        }],
        ..Observation::default()
    }
}

fn answer(at: u64) -> Input {
    let probe = |name: &str, hook: Option<&str>| ProbeStatus {
        name: name.to_owned(),
        hook: hook.map(str::to_owned),
        events_per_second: Some(12_000.0),
        cost_ns: Some(310.0),
        cpu_share: Some(0.004),
        ..ProbeStatus::default()
    };
    let probes = vec![
        probe("syscalls", Some("raw_tp sys_exit")),
        probe("tcp", None),
    ];
    Input::Answer(Arc::new(seen(at)), probes)
}

fn begun() -> State {
    let mut state = State::new(Duration::from_secs(1));
    state.on(answer(1));
    state
}

fn press(state: &mut State, keys: &str) {
    for letter in keys.chars() {
        let code = match letter {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            letter => KeyCode::Char(letter),
        };
        state.on(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
}

/// What stands on the cells.
fn picture(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, &state.view(), Palette(false)))
        .unwrap();
    let cells = terminal.backend().buffer().clone();
    let line = |y| {
        let line: String = (0..width).map(|x| cells[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

/// The first words of the rows, in order.
fn first(state: &State) -> Vec<String> {
    let view = state.view();
    view.rows.iter().map(|row| row.values[0].show()).collect()
}

const UNITS: &str = "\
shadowd  cpu 0.75 of 2   memory 2.00 GiB of 8.00 GiB   load 0.50 0.40 0.30   wai
 1 Units  2 Processes  3 Flows  4 Listeners  5 Devices  6 Probes
UNIT             CPU%v   MEMORY PROCS  CALLS/s  ERR/s      P99     RX/s     TX/s
nginx.service     50.0 9.00 MiB     2    1,200    121   4.1 us 2.34 MiB    100 B
evil@[2J@servi~    2.0 9.00 MiB     2       30    4.0   4.1 us 60.0 KiB    100 B
cron.service       1.0 9.00 MiB     2       20    3.0   4.1 us 40.0 KiB    100 B











cpu, most 50.0 %        █████
net, most 2.34 MiB/s    █████
1/3  each 1.0 s  enter look into  / filter  <> sort  r reverse  p pause  ? help
";

#[test]
fn units_on_a_usual_terminal() {
    let mut state = begun();
    (2..6).for_each(|at| state.on(answer(at)));
    // The same answer again is no new point of the line.
    state.on(answer(5));
    assert_eq!(picture(&state, 80, 20), UNITS.replace('@', "\u{FFFD}"));
}

const UNIT: &str = "\
shadowd  cpu 0.75 of 2   memory 2.00 GiB of 8.00 GiB   load 0.50 0.40 0.30   wai
nginx.service   1 Processes  2 Flows  3 Files  4 Errors
cpu 50.0 %  memory 9.00 MiB  processes 2  begun 0/s  ended 0/s
calls 1,200/s  failed 121/s  p50 3.1 us p99 4.1 us
network in 2.34 MiB/s  out 100 B/s  opened 0/s  failed 0  again 0  rtt 250.0 us
ERROR                                                 FAILED/sv          TOTAL
ENOENT                                                      120            120
ETIMEDOUT                                                   1.0              1


1/2  each 1.0 s  esc back  / filter  <> sort  r reverse  p pause  ? help  q quit
";

#[test]
fn a_unit_is_looked_into_and_left() {
    let mut state = begun();
    press(&mut state, "\n4");
    assert_eq!(picture(&state, 80, 11), UNIT);
    press(&mut state, "1");
    assert_eq!(first(&state), ["813", "812"]);
    press(&mut state, "\t");
    assert_eq!(state.view().rows.len(), 1, "its flow");
    press(&mut state, "\t");
    assert_eq!(first(&state), ["/etc/nginx/nginx.conf"]);
    press(&mut state, "\x1b");
    assert_eq!(state.view().unit, None);
    // From the list of processes, too: the unit of the process.
    press(&mut state, "2G\n");
    assert_eq!(state.view().unit, Some("cron.service"));
    // It goes while it is looked into.
    let mut gone = seen(9);
    gone.units.clear();
    state.on(Input::Answer(Arc::new(gone), Vec::new()));
    assert!(picture(&state, 80, 24).contains("the unit did nothing in the last interval"));
}

#[test]
fn a_very_small_terminal_shows_what_matters() {
    let wanted = "\
\x20Units
UNIT           CPU%v
nginx.service   50.0
evil@[2J@ser~    2.0
1/3  each 1.0 s  ent
";
    assert_eq!(picture(&begun(), 20, 5), wanted.replace('@', "\u{FFFD}"));
}

#[test]
fn any_column_sorts_in_both_directions() {
    let mut state = begun();
    let names = [
        "nginx.service",
        "evil\u{FFFD}[2J\u{FFFD}service",
        "cron.service",
    ];
    assert_eq!(first(&state), names);
    press(&mut state, "r");
    assert_eq!(first(&state), ["cron.service", names[1], "nginx.service"]);
    press(&mut state, "<");
    assert_eq!(
        first(&state),
        ["cron.service", names[1], "nginx.service"],
        "by name"
    );
    assert!(picture(&state, 80, 24).contains("UNIT^"));
    for column in 0..List::Units.columns().len() {
        let view = state.view();
        assert_eq!(view.sort, column);
        let rows = &view.rows;
        let sorted = rows.is_sorted_by(|a, b| {
            let order = a.values[column].order(&b.values[column]);
            if view.descending {
                order.is_ge()
            } else {
                order.is_le()
            }
        });
        assert!(sorted, "column {column}");
        press(&mut state, ">");
    }
    assert_eq!(state.view().sort, 0, "after the last comes the first");
}

#[test]
fn the_filter_works_while_it_is_typed() {
    let mut state = begun();
    press(&mut state, "/NG");
    assert_eq!(first(&state), ["nginx.service"]);
    assert!(picture(&state, 80, 24).contains("filter: NG_"));
    press(&mut state, "q");
    assert_eq!(first(&state), Vec::<String>::new());
    assert!(!state.ended(), "q is a letter here");
    assert!(picture(&state, 80, 24).contains("nothing fits the filter"));
    state.on(Input::Key(KeyEvent::new(
        KeyCode::Backspace,
        KeyModifiers::NONE,
    )));
    press(&mut state, "\n");
    assert!(picture(&state, 80, 24).contains("/NG  1/1"));
    press(&mut state, "\x1b");
    assert_eq!(first(&state).len(), 3);
}

#[test]
fn the_cursor_stays_on_its_row() {
    let mut state = begun();
    press(&mut state, "j");
    let under = |state: &State| first(state)[state.view().cursor].clone();
    assert!(under(&state).starts_with("evil"));
    let mut next = seen(2);
    next.units[1].cpu = 3.0;
    state.on(Input::Answer(Arc::new(next.clone()), Vec::new()));
    assert_eq!(state.view().cursor, 0);
    assert!(under(&state).starts_with("evil"));
    // It goes: the cursor stays where it was.
    next.units.remove(1);
    state.on(Input::Answer(Arc::new(next), Vec::new()));
    assert_eq!(under(&state), "nginx.service");
    press(&mut state, "G");
    assert_eq!(under(&state), "cron.service");
    press(&mut state, "jjj");
    assert_eq!(under(&state), "cron.service");
}

#[test]
fn pause_keeps_the_picture_and_the_interval_has_ends() {
    let mut state = begun();
    press(&mut state, "p");
    assert!(!state.asks());
    let mut next = seen(2);
    next.units.clear();
    state.on(Input::Answer(Arc::new(next), Vec::new()));
    assert_eq!(first(&state).len(), 3);
    assert!(picture(&state, 80, 24).contains("PAUSED"));
    press(&mut state, "p");
    assert!(state.asks());
    press(&mut state, "+");
    assert_eq!(state.interval(), Duration::from_secs(2));
    press(&mut state, &"+".repeat(20));
    assert_eq!(state.interval(), Duration::from_secs(60));
    press(&mut state, &"-".repeat(20));
    assert_eq!(state.interval(), Duration::from_millis(250));
}

#[test]
fn a_daemon_that_went_is_said_and_what_was_seen_stays() {
    let mut state = State::new(Duration::from_secs(1));
    assert!(picture(&state, 80, 24).contains("waiting for the first answer"));
    state.on(Input::Failed("shadowd is not running\x1b[2J".to_owned()));
    let shown = picture(&state, 80, 24);
    assert!(shown.contains("not connected, retrying: shadowd is not running\u{FFFD}[2J"));
    state.on(answer(1));
    state.on(Input::Failed("gone".to_owned()));
    let shown = picture(&state, 80, 24);
    assert!(shown.contains("retrying: gone") && shown.contains("nginx.service"));
    state.on(answer(2));
    assert!(!picture(&state, 80, 24).contains("retrying"));
}

#[test]
fn only_q_and_the_interrupt_end_it() {
    for code in [KeyCode::Char('q'), KeyCode::Char('c')] {
        let modifiers = match code {
            KeyCode::Char('c') => KeyModifiers::CONTROL,
            _ => KeyModifiers::NONE,
        };
        let mut state = begun();
        press(&mut state, "c?x");
        assert!(!state.ended());
        state.on(Input::Key(KeyEvent::new(code, modifiers)));
        assert!(state.ended());
    }
}

#[test]
fn no_size_and_no_key_breaks_it() {
    // Keys by a fixed sequence (a linear congruential generator), sizes by number.
    let keys = "123456\t\n\x1bjkgGr<>/np?+-";
    let mut number = 1_u32;
    let mut state = begun();
    for round in 0..500_u32 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = keys
            .chars()
            .nth((number >> 16) as usize % keys.len())
            .unwrap();
        press(&mut state, &key.to_string());
        let size = ((number >> 8) % 130 + 1, (number >> 20) % 40 + 1);
        state.on(Input::Height(size.1 as u16));
        let shown = picture(&state, size.0 as u16, size.1 as u16);
        assert!(!shown.contains('\x1b'));
        if round % 50 == 0 {
            let empty = round % 100 == 0;
            let seen = if empty {
                Observation::default()
            } else {
                seen(round.into())
            };
            state.on(Input::Answer(Arc::new(seen), Vec::new()));
        }
    }
}
