//! Two network namespaces that are joined by a veth pair, for the tests of addresses and the guard.
//!
//! Needs root and iproute2. Touches no interface of the machine.
#![allow(dead_code, reason = "each test uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use shadowd::ethernet::Mac;

pub const LINK: &str = "va";
pub const FAR_LINK: &str = "vb";
pub const MAC: Mac = [0x02, 0, 0, 0, 0x0a, 0x01];
pub const DEADLINE: Duration = Duration::from_secs(10);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two joined namespaces: `near` holds [`LINK`], `far` holds [`FAR_LINK`].
pub struct Pair {
    pub near: String,
    pub far: String,
}

impl Pair {
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let name = format!(
            "{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let pair = Self {
            near: format!("shd-a-{name}"),
            far: format!("shd-b-{name}"),
        };
        ip(&format!("netns add {}", pair.near));
        ip(&format!("netns add {}", pair.far));
        let (near, far) = (pair.near.as_str(), pair.far.as_str());
        ip(&format!(
            "-n {near} link add {LINK} address 02:00:00:00:0a:01 type veth \
 peer name {FAR_LINK} netns {far}"
        ));
        for (namespace, link, four, six) in [
            (near, LINK, "192.0.2.1/24", "2001:db8::1/64"),
            (far, FAR_LINK, "192.0.2.2/24", "2001:db8::2/64"),
        ] {
            ip(&format!("-n {namespace} link set {link} up"));
            ip(&format!("-n {namespace} addr add {four} dev {link}"));
            ip(&format!("-n {namespace} addr add {six} dev {link} nodad"));
        }
        pair
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            // A namespace that was never made cannot be removed; that is no second failure.
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .output();
        }
    }
}

/// Hosts on one switch, each a namespace with a [`LINK`] of its own.
pub struct Lan {
    pub hosts: Vec<String>,
    switch: String,
}

impl Lan {
    pub fn new(hosts: usize) -> Self {
        let name = format!(
            "{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let lan = Self {
            hosts: (0..hosts)
                .map(|host| format!("shd-{host}-{name}"))
                .collect(),
            switch: format!("shd-s-{name}"),
        };
        let switch = &lan.switch;
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        for (number, host) in lan.hosts.iter().enumerate() {
            let mac = Self::mac(number)
                .map(|byte| format!("{byte:02x}"))
                .join(":");
            ip(&format!("netns add {host}"));
            ip(&format!(
                "-n {switch} link add p{number} type veth peer name {LINK} address {mac} netns {host}"
            ));
            ip(&format!("-n {switch} link set p{number} master br0 up"));
            for address in [
                format!("192.0.2.{}/24", number + 1),
                format!("2001:db8::{}/64", number + 1),
            ] {
                ip(&format!("-n {host} addr add {address} dev {LINK} nodad"));
            }
            ip(&format!("-n {host} link set {LINK} up"));
        }
        lan
    }

    pub fn mac(host: usize) -> Mac {
        [
            2,
            0,
            0,
            0,
            0x0c,
            u8::try_from(host + 1).expect("a few hosts"),
        ]
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().chain([&self.switch]) {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .output();
        }
    }
}

/// Runs `ip` with `arguments`, which are separated by spaces.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2 is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Runs `body` on a thread of its own inside `namespace`.
pub fn inside<T: Send + 'static>(namespace: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter the namespace");
        body()
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Waits until `done` holds, looking again every 10 ms.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        // Nothing tells when the kernel's table changes, so this looks again.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
