//! What the socket answers, refuses, bounds and counts.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use serde_json::Value;
use shadowd::facts::Observation;
use shadowd::serve::protocol::{
    Code, ErrorAnswer, Events, Flows, HandoverDone, Id, Peers, StatusAnswer, Top, Units,
};
use shadowd::serve::{BindError, MAX_CONNECTIONS, REQUEST_TIMEOUT, Socket};

use super::daemon::{self, Daemon, connect, response, wait_until};
use super::scratch::Scratch;

fn read<T: serde::de::DeserializeOwned>(answer: &(u16, String)) -> T {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str(&answer.1).unwrap()
}

#[track_caller]
fn refused(answer: &(u16, String), status: u16, code: Code) -> String {
    assert_eq!(answer.0, status, "{}", answer.1);
    let error = serde_json::from_str::<ErrorAnswer>(&answer.1)
        .unwrap()
        .error;
    assert_eq!(error.code, code);
    assert!(
        !error.message.is_empty() && !error.remedy.is_empty(),
        "{error:?}"
    );
    error.message
}

#[test]
fn every_path_answers_with_what_the_daemon_knows() {
    let daemon = Daemon::start();
    let observation: Observation = daemon::observation();
    let status: StatusAnswer = read(&daemon.get("/v1/status"));
    assert_eq!(status.status, daemon::status());
    assert_eq!(status.socket.connections, 1);
    assert_eq!(read::<Top>(&daemon.get("/v1/top")), Top::from(&observation));
    assert_eq!(
        read::<Flows>(&daemon.get("/v1/flows")),
        Flows::from(&observation)
    );
    assert_eq!(
        read::<Units>(&daemon.get("/v1/units")),
        Units::from(&observation)
    );
    assert_eq!(
        read::<Peers>(&daemon.get("/v1/peers")).peers,
        daemon::status().peers
    );
    assert_eq!(read::<Id>(&daemon.get("/v1/id")).id, daemon::status().id);
    let seqs = |path: &str| -> Vec<u64> {
        read::<Events>(&daemon.get(path))
            .events
            .iter()
            .map(|event| event.seq)
            .collect()
    };
    assert_eq!(seqs("/v1/events"), [1, 2]);
    assert_eq!(seqs("/v1/events?since=1"), [2]);
    assert_eq!(seqs("/v1/events?limit=1"), [2]);
    assert_eq!(
        seqs("/v1/events?since=18446744073709551615&limit=10000"),
        [0; 0]
    );
}

#[test]
fn status_is_a_flat_object_that_older_readers_understand() {
    let daemon = Daemon::start();
    let value: Value = read(&daemon.get("/v1/status"));
    assert_eq!(value["host"], "a");
    assert_eq!(value["groups"][0]["vips"][0]["vip"], "192.0.2.10/24");
    assert!(serde_json::from_value::<shadowd::facts::Status>(value).is_ok());
}

#[test]
fn what_cannot_be_understood_is_refused_as_json_and_counted() {
    let daemon = Daemon::start();
    let group = "/v1/groups/web/handover";
    refused(&daemon.get("/"), 404, Code::UnknownPath);
    refused(&daemon.get("/v2/status"), 404, Code::UnknownPath);
    refused(&daemon.post("/v1/status", "{}"), 405, Code::WrongMethod);
    refused(&daemon.get(group), 405, Code::WrongMethod);
    for query in [
        "limit=0",
        "limit=10001",
        "limit=-1",
        "since=x",
        "sinc=1",
        "limit=1&limit=2",
    ] {
        refused(
            &daemon.get(&format!("/v1/events?{query}")),
            400,
            Code::BadRequest,
        );
    }
    for body in [
        "",
        "{",
        "[]",
        r#"{"to":7}"#,
        r#"{"to":"a b"}"#,
        r#"{"too":"b"}"#,
        "\u{0}",
    ] {
        refused(&daemon.post(group, body), 400, Code::BadRequest);
    }
    for path in [
        "/v1/groups/a%20b/handover",
        "/v1/groups/a%2Fb/handover",
        "/v1/groups/%ff/handover",
    ] {
        refused(&daemon.post(path, "{}"), 400, Code::BadRequest);
    }
    assert_eq!(daemon.counters.read().malformed, 20);
    assert_eq!(daemon.counters.read().requests, 20);
}

#[test]
fn what_is_not_http_is_refused_and_counted() {
    let daemon = Daemon::start();
    let long = format!(
        "GET /v1/id HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(64 * 1024)
    );
    let many = format!("GET /v1/id HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert_eq!(daemon.send(b"\x16\x03\x01\x02\x00\x01\r\n\r\n").0, 400);
    assert_eq!(daemon.send(b"hello\r\n\r\n").0, 400);
    assert_eq!(daemon.send(long.as_bytes()).0, 431);
    assert_eq!(daemon.send(many.as_bytes()).0, 431);
    wait_until("counting", || daemon.counters.read().malformed == 4);
    assert_eq!(daemon.get("/v1/id").0, 200, "the socket still answers");
}

#[test]
fn a_long_body_is_refused_whether_or_not_it_says_its_length() {
    let daemon = Daemon::start();
    let body = format!(r#"{{"to":"{}"}}"#, "x".repeat(64 * 1024));
    refused(
        &daemon.post("/v1/groups/web/handover", &body),
        413,
        Code::TooLarge,
    );
    let chunked = format!(
        "POST /v1/groups/web/handover HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    refused(&daemon.send(chunked.as_bytes()), 413, Code::TooLarge);
}

#[test]
fn a_handover_ends_with_the_new_owner_or_with_the_reason() {
    let daemon = Daemon::start();
    let done: HandoverDone = read(&daemon.post("/v1/groups/web/handover", r#"{"to":"c"}"#));
    assert_eq!((done.to.as_str(), done.epoch, done.took_ms), ("c", 5, 12));
    let done: HandoverDone = read(&daemon.post("/v1/groups/web/handover", r#"{"to":null}"#));
    assert_eq!(done.to.as_str(), "b");
    let message = refused(
        &daemon.post("/v1/groups/a%25b/handover", "{}"),
        404,
        Code::UnknownGroup,
    );
    assert!(message.ends_with("group a%b"), "{message}");
}

#[test]
fn connections_beyond_the_bound_are_closed_and_counted() {
    let daemon = Daemon::start();
    let mut held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| daemon.connect()).collect();
    assert_eq!(
        daemon.get("/v1/id"),
        (0, String::new()),
        "closed without an answer"
    );
    let counters = daemon.counters.read();
    assert_eq!(
        (counters.connections, counters.rejected),
        (MAX_CONNECTIONS as u64 + 1, 1)
    );
    held.pop();
    wait_until("a free place", || daemon.get("/v1/id").0 == 200);
}

/// Begins a handover of group `held` and waits until the daemon works on it.
fn begin_held_handover(daemon: &Daemon) -> UnixStream {
    let mut stream = daemon.connect();
    let head = "POST /v1/groups/held/handover HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).unwrap();
    let waiting = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    waiting.block_on(daemon.fixed.begun.notified());
    stream
}

#[test]
fn an_open_request_is_answered_before_the_daemon_stops() {
    let mut daemon = Daemon::start();
    let mut stream = begin_held_handover(&daemon);
    daemon.ask_to_stop();
    daemon.fixed.release.notify_one();
    assert_eq!(
        read::<HandoverDone>(&response(&mut stream)).group.as_str(),
        "held"
    );
    daemon.join();
    assert!(!daemon.socket.exists(), "the socket's file is removed");
}

#[test]
fn a_caller_that_leaves_does_not_cut_a_handover_in_two() {
    let daemon = Daemon::start();
    drop(begin_held_handover(&daemon));
    // Another caller is served meanwhile, so the daemon has seen that the first one left.
    assert_eq!(daemon.get("/v1/id").0, 200);
    daemon.fixed.release.notify_one();
    wait_until("the end of the handover", || {
        daemon.counters.read().requests == 2
    });
}

#[test]
fn a_caller_that_sends_nothing_is_closed_and_counted() {
    let daemon = Daemon::start();
    let mut stream = daemon.connect();
    stream.write_all(b"GET /v1/id HTTP/1.1\r\nhost").unwrap();
    let begun = Instant::now();
    assert_ne!(response(&mut stream).0, 200);
    assert!(
        begun.elapsed() < 2 * REQUEST_TIMEOUT,
        "{:?}",
        begun.elapsed()
    );
    wait_until("counting", || daemon.counters.read().timed_out == 1);
}

#[test]
fn the_socket_is_open_to_its_owner_and_group_only() {
    let scratch = Scratch::new();
    let path = scratch.0.join("a").join("b.sock");
    let socket = Socket::bind(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    let has_group = nix::unistd::Group::from_name("shadowd").unwrap().is_some();
    assert_eq!(socket.warning().is_none(), has_group);
}

#[test]
fn only_a_socket_that_nobody_answers_on_is_replaced() {
    let scratch = Scratch::new();
    let path = scratch.0.join("s.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale socket");
    let socket = Socket::bind(&path).unwrap();
    assert!(matches!(Socket::bind(&path), Err(BindError::InUse { .. })));
    connect(&path);

    // Another daemon took the path: what lies there is no longer this one's to remove.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(socket);
    assert!(path.exists());
    drop(other);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Socket::bind(&path),
        Err(BindError::NotASocket { .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let too_long = scratch.0.join("x".repeat(200));
    assert!(matches!(
        Socket::bind(&too_long),
        Err(BindError::Step { .. })
    ));
}
