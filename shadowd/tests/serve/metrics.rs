//! What Prometheus reads, over the socket and over TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use shadowd::serve::{Metrics, MetricsListener};
use tokio::sync::watch;

use super::daemon::{Daemon, Fixed, PATIENCE};

#[test]
fn the_socket_answers_metrics() {
    let daemon = Daemon::start();
    let (code, text) = daemon.get("/metrics");
    assert_eq!(code, 200);
    assert!(
        text.contains("shadowd_group_epoch{group=\"web\"} 4\n"),
        "{text}"
    );
    assert!(text.contains("shadowd_unit_resident_memory_bytes{unit=\"nginx.service\"} 9437184\n"));
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(daemon.post("/metrics", "").0, 405);
}

#[test]
fn the_socket_answers_the_whole_observation() {
    let daemon = Daemon::start();
    let (code, text) = daemon.get("/v1/observation");
    assert_eq!(code, 200);
    let read: shadowd::facts::Observation = serde_json::from_str(&text).unwrap();
    assert_eq!(read, super::daemon::observation());
}

/// The listener, on a port of its own until it is dropped.
struct Listening {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listening {
    fn start() -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = MetricsListener::bind(any, Arc::new(Metrics::default())).unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let served = listener.serve(Arc::new(Fixed::default()), stopped);
            runtime.block_on(async { tokio::spawn(served).await.unwrap().unwrap() });
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, line: &str) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn tcp_answers_metrics_and_nothing_else() {
    let listening = Listening::start();
    let answer = listening.ask("GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.ends_with("# EOF\n"));
    for (line, code) in [
        ("GET /v1/status", "404"),
        ("GET /metrics/", "404"),
        ("POST /metrics", "405"),
        ("GET /v1/observation", "404"),
        ("nonsense", "400"),
    ] {
        let answer = listening.ask(line);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{line}: {answer}"
        );
    }
}

#[test]
fn idle_callers_cannot_keep_others_out_for_long() {
    let listening = Listening::start();
    let idle: Vec<TcpStream> = (0..8).map(|_| listening.connect()).collect();
    // The ninth is turned away, not queued.
    assert_eq!(listening.ask("GET /metrics"), "");
    drop(idle);
    let end = std::time::Instant::now() + PATIENCE;
    while !listening.ask("GET /metrics").starts_with("HTTP/1.1 200 ") {
        assert!(std::time::Instant::now() < end, "places become free again");
    }
}

#[test]
fn a_taken_port_is_named() {
    let listening = Listening::start();
    let error = MetricsListener::bind(listening.address, Arc::default()).unwrap_err();
    let wanted = format!("cannot listen on {} (TCP) for metrics", listening.address);
    assert!(error.to_string().starts_with(&wanted), "{error}");
}
