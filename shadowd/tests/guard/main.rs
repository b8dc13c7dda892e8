//! The kernel guard between two network namespaces that are joined by a veth pair.
//!
//! Needs root and iproute2. The guard of each test is pinned in a BPF file system of its own, in a
//! mount namespace of its own, so nothing is left of it even when a test is killed.

mod handover;
#[path = "../namespaces/mod.rs"]
mod namespaces;
mod opening;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use namespaces::{FAR_LINK, LINK, Pair, inside, ip, run, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};
use shadowd::act::announce::{AnnounceError, Announcer};
use shadowd::act::guard::{Attachment, Guard, GuardError, Reading, sweep};
use shadowd::act::vip::Vips;
use shadowd::facts::{BootTime, Epoch, HostId, Vip};

const PINS: &str = "/sys/fs/bpf/shadowd/test";
const PORT: u16 = 8080;
const OWN: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const FOUR: &str = "192.0.2.10";
const SIX: &str = "2001:db8::10";
const HOUR: Duration = Duration::from_secs(3_600);
/// Longer than two namespaces need for an answer, shorter than TCP waits to ask again.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);

fn vips() -> Vec<Vip> {
    ["192.0.2.10/24", "2001:db8::10/64"]
        .map(|vip| vip.parse().expect("a vip"))
        .to_vec()
}

fn now() -> BootTime {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the clock is there");
    BootTime::from_nanos(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Runs `body` in the near namespace, with a BPF file system of its own.
fn guarded<T: Send + 'static>(pair: &Pair, body: impl FnOnce() -> T + Send + 'static) -> T {
    inside(&pair.near, move || with_own_bpf(body))
}

/// Runs `body` with a BPF file system of its own, on a thread that ends with it.
fn with_own_bpf<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let apart = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("root may");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("root may");
        let (bpf, nothing) = (Some("bpf"), None::<&str>);
        mount(bpf, "/sys/fs/bpf", bpf, MsFlags::empty(), nothing).expect("the kernel has it");
        body()
    };
    match std::thread::scope(|scope| scope.spawn(apart).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn open(how: Attachment) -> Guard {
    Guard::open_as(LINK, Path::new(PINS), &vips(), how).expect("the kernel can guard")
}

/// Gives the near end the virtual IPs and somebody who listens on all its addresses.
fn serve() -> [TcpListener; 2] {
    run(async {
        let epoch = Epoch {
            counter: 1,
            owner: HostId::from_bytes([1; 32]),
        };
        let held = Vips::open(LINK).expect("the link is there");
        held.add(&vips(), epoch).await.expect("they are free");
    });
    [listen("0.0.0.0"), listen("2001:db8::10")]
}

fn listen(address: &str) -> TcpListener {
    let address: IpAddr = address.parse().expect("an address");
    TcpListener::bind((address, PORT)).expect("the port is free")
}

/// Whether a connection from `namespace` to the address is answered; nobody has to accept it. A
/// refusal is an answer too.
fn answers(namespace: &str, address: &str) -> bool {
    let address = SocketAddr::new(address.parse().expect("an address"), PORT);
    inside(namespace, move || {
        match TcpStream::connect_timeout(&address, ANSWERS_WITHIN) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        }
    })
}

fn wait_for_answers(namespace: &str) {
    for address in [FOUR, SIX] {
        wait_until("the open address answers", || answers(namespace, address));
    }
}

fn assert_silent(namespace: &str) {
    for address in [FOUR, SIX] {
        assert!(!answers(namespace, address), "{address} answers");
    }
    for address in OWN {
        assert!(answers(namespace, address), "{address} is not guarded");
    }
}

fn neighbour(namespace: &str, address: &str) -> String {
    ip(&format!("-n {namespace} neigh show {address}"))
}

fn dropped(guard: &Guard) -> [(u64, u64); 2] {
    let both = |reading: &Reading| (reading.dropped_rx, reading.dropped_tx);
    let readings = guard.readings();
    [both(&readings[0]), both(&readings[1])]
}

/// How many programs of ours are on the link: by TCX, by clsact.
fn attached(namespace: &str) -> (usize, usize) {
    let tcx = [TcAttachType::Ingress, TcAttachType::Egress].map(|direction| {
        // Kernels before 6.6 know no such query.
        SchedClassifier::query_tcx(LINK, direction).map_or(0, |(_, programs)| programs.len())
    });
    let filters = ["ingress", "egress"].map(|direction| {
        let arguments = ["-n", namespace, "filter", "show", "dev", LINK, direction];
        let output = Command::new("tc").args(arguments).output().expect("tc");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.matches("0x53686401").count()
    });
    (tcx.iter().sum(), filters.iter().sum())
}

fn on_the_deadline(how: Attachment) {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    guarded(&pair, move || {
        let listeners = serve();
        wait_for_answers(&far);
        ip(&format!("-n {far} neigh flush dev {FAR_LINK}"));

        let guard = open(how);
        assert_eq!((guard.attachment(), guard.is_kept()), (how, false));
        let expected = if how == Attachment::Tcx {
            (2, 0)
        } else {
            (0, 2)
        };
        assert_eq!(attached(&near), expected);
        // Closed from the first moment, so that not even a neighbour is told where it is.
        assert_silent(&far);
        for address in [FOUR, SIX] {
            let entry = neighbour(&far, address);
            assert!(!entry.contains("lladdr"), "{entry}");
        }
        assert!(dropped(&guard).iter().all(|(rx, _)| *rx > 0));

        let until = now().after(HOUR);
        guard.set_deadline(&vips(), Some(until)).expect("guarded");
        assert_eq!(guard.readings()[0].deadline, Some(until));
        wait_for_answers(&far);
        let connections = [FOUR, SIX].map(|address| {
            let address = SocketAddr::new(address.parse().expect("an address"), PORT);
            inside(&far, move || {
                TcpStream::connect(address).expect("it is open")
            })
        });
        let before = dropped(&guard);

        // From here on nobody does anything: time passes.
        let soon = now().after(Duration::from_millis(300));
        guard.set_deadline(&vips(), Some(soon)).expect("guarded");
        wait_until("the deadline passes", || now() > soon);
        assert_silent(&far);
        for (now, before) in dropped(&guard).iter().zip(before) {
            assert!(now.0 > before.0, "{now:?} after {before:?}");
        }
        // Also what was open: the kernel itself repeats what is not acknowledged.
        let mut held = Vec::new();
        for listener in &listeners {
            listener.set_nonblocking(true).expect("a socket");
            while let Ok((mut stream, _)) = listener.accept() {
                // Those that the checks have closed meanwhile may refuse.
                let _ = stream.write_all(b"late");
                held.push(stream);
            }
        }
        wait_until("what is sent in their names is dropped", || {
            let now = dropped(&guard);
            now.iter().zip(before).all(|(now, before)| now.1 > before.1)
        });
        for stream in &connections {
            stream.set_nonblocking(true).expect("a socket");
            let nothing = stream.peek(&mut [0; 8]).map_err(|error| error.kind());
            assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
        }
        guard.remove().expect("it can be removed");
        wait_for_answers(&far);
        wait_until("no program is left", || attached(&near) == (0, 0));
        assert!(!Path::new(PINS).join(LINK).exists());
    });
}

#[test]
fn a_virtual_ip_is_silent_from_its_deadline_on() {
    on_the_deadline(Attachment::Tcx);
}

#[test]
fn clsact_guards_the_same() {
    on_the_deadline(Attachment::Clsact);
}

fn outlives_its_daemon(first: Attachment, second: Attachment) {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    guarded(&pair, move || {
        let _listeners = serve();
        let guard = open(first);
        let until = now().after(HOUR);
        let [four, six] = [&vips()[..1], &vips()[1..]].map(<[_]>::to_vec);
        guard.set_deadline(&four, Some(until)).expect("guarded");
        wait_until("the open address answers", || answers(&far, FOUR));
        assert!(!answers(&far, SIX));
        let before = dropped(&guard);
        drop(guard);
        // Who was asked for in vain is not asked for again within a second.
        ip(&format!("-n {far} neigh flush dev {FAR_LINK}"));
        assert!(answers(&far, FOUR), "its deadline has not passed");
        assert!(!answers(&far, SIX), "nobody is there and it is closed");

        let guard = open(second);
        assert!(guard.is_kept());
        assert_eq!(guard.readings()[0].deadline, Some(until));
        assert_eq!(guard.readings()[1].deadline, None);
        assert!(dropped(&guard)[1].0 > before[1].0, "counts have gone on");
        let only = if second == Attachment::Tcx {
            (2, 0)
        } else {
            (0, 2)
        };
        wait_until("the old programs are gone", || attached(&near) == only);
        // The new programs and the old maps belong together.
        guard.set_deadline(&four, None).expect("guarded");
        guard.set_deadline(&six, Some(until)).expect("guarded");
        wait_until("the open address answers", || answers(&far, SIX));
        assert!(!answers(&far, FOUR));
        sweep(Path::new(PINS), &[LINK]).expect("nothing to do");
        assert!(!answers(&far, FOUR));
        sweep(Path::new(PINS), &[]).expect("it can be removed");
        wait_for_answers(&far);
        wait_until("no program is left", || attached(&near) == (0, 0));
        assert!(std::fs::read_dir(PINS).expect("a folder").next().is_none());
    });
}

#[test]
fn the_guard_outlives_its_daemon_and_the_next_one_takes_it_over() {
    outlives_its_daemon(Attachment::Tcx, Attachment::Tcx);
}

#[test]
fn by_clsact_it_is_taken_over_too() {
    outlives_its_daemon(Attachment::Clsact, Attachment::Clsact);
}

#[test]
fn a_successor_may_attach_in_the_other_way() {
    outlives_its_daemon(Attachment::Clsact, Attachment::Tcx);
    outlives_its_daemon(Attachment::Tcx, Attachment::Clsact);
}

fn made_again(how: Attachment, by_successor: bool) {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    guarded(&pair, move || {
        let mut guard = open(how);
        ip(&format!("-n {near} link del {LINK}"));
        let gone = guard.reattach();
        assert!(
            matches!(gone, Err(GuardError::NoInterface { .. })),
            "{gone:?}"
        );
        ip(&format!(
            "-n {near} link add {LINK} type veth peer name {FAR_LINK} netns {far}"
        ));
        for (namespace, link, host) in [(&near, LINK, 1), (&far, FAR_LINK, 2)] {
            ip(&format!("-n {namespace} link set {link} up"));
            ip(&format!(
                "-n {namespace} addr add 192.0.2.{host}/24 dev {link}"
            ));
            ip(&format!(
                "-n {namespace} addr add 2001:db8::{host}/64 dev {link} nodad"
            ));
        }
        assert_eq!(attached(&near), (0, 0), "the new one is not guarded yet");
        if by_successor {
            drop(guard);
            guard = open(how);
            assert!(guard.is_kept(), "the maps are those of before");
        } else {
            guard.reattach().expect("it is there again");
        }
        let both = attached(&near);
        assert_eq!(both.0 + both.1, 2, "{both:?}");
        guard.reattach().expect("again changes nothing");
        assert_eq!(attached(&near), both);

        let _listeners = serve();
        wait_until("the link is ready", || {
            answers(&far, OWN[0]) && answers(&far, OWN[1])
        });
        assert_silent(&far);
        guard
            .set_deadline(&vips(), Some(now().after(HOUR)))
            .expect("guarded");
        wait_for_answers(&far);
        let pins = std::fs::read_dir(Path::new(PINS).join(LINK)).expect("a folder");
        let expected = if how == Attachment::Tcx { 4 } else { 2 };
        assert_eq!(
            pins.count(),
            expected,
            "no pin of the old interface is left"
        );
        guard.remove().expect("it can be removed");
    });
}

#[test]
fn an_interface_that_was_made_again_is_guarded_again() {
    made_again(Attachment::Tcx, false);
    made_again(Attachment::Tcx, true);
}

#[test]
fn by_clsact_too() {
    made_again(Attachment::Clsact, false);
    made_again(Attachment::Clsact, true);
}

#[test]
fn a_closed_member_reaches_the_owner_and_hears_its_announcements() {
    let pair = Pair::new();
    let (near, far) = (pair.near.clone(), pair.far.clone());
    for vip in ["192.0.2.10/32", "2001:db8::10/128"] {
        ip(&format!("-n {far} addr add {vip} dev {FAR_LINK} nodad"));
    }
    guarded(&pair, move || {
        let guard = open(Attachment::Tcx);
        // It refuses the connection, which is an answer.
        wait_for_answers(&near);
        for vip in [FOUR, SIX] {
            let entry = format!("{vip} lladdr 02:00:00:00:00:99 dev {LINK} nud reachable");
            ip(&format!("-n {near} neigh replace {entry}"));
        }
        let owners = ip(&format!("-n {far} -br link show dev {FAR_LINK}"));
        let mac = owners
            .split_whitespace()
            .nth(2)
            .expect("its address")
            .to_owned();
        let sent = inside(&far, || {
            let mut announcer = Announcer::open(FAR_LINK).expect("the link is there");
            announcer.announce(&vips()).expect("nobody guards here")
        });
        assert_eq!(sent, 3);
        for vip in [FOUR, SIX] {
            wait_until("the announcement is heard", || {
                neighbour(&near, vip).contains(&mac)
            });
        }
        assert_eq!(dropped(&guard), [(0, 0); 2]);

        // Whoever is closed cannot announce, and can as soon as it is open.
        let mut announcer = Announcer::open(LINK).expect("the link is there");
        let refused = announcer.announce(&vips());
        assert!(
            matches!(refused, Err(AnnounceError::Send { sent: 0, .. })),
            "{refused:?}"
        );
        assert_eq!(dropped(&guard), [(0, 2), (0, 1)]);
        guard
            .set_deadline(&vips(), Some(now().after(HOUR)))
            .expect("guarded");
        assert_eq!(announcer.announce(&vips()).expect("it is open"), 3);
    });
}
