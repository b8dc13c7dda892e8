//! The kernel guard loads, drops what it should and nothing else, outlives its daemon and goes.
//!
//! On the loopback interface of a network namespace of its own, where every frame goes out and
//! comes in, and pinned in a BPF file system of its own: neither is left behind.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};
use nix::time::{ClockId, clock_gettime};
use shadowd::act::guard::{AttachError, Attachment, Guard, GuardError, sweep};
use shadowd::facts::{BootTime, Vip};
use shadowd::observe::{Capture, privileges};
use shadowd_tests::load::namespace;

use super::guard_frames::{self, Frame};
use super::{PATIENCE, skip};

pub const PINS: &str = "/sys/fs/bpf/shadowd/check";
pub const HOUR: Duration = Duration::from_secs(3_600);
/// How soon a connection is made here; silence takes this long each time.
const ANSWERS_WITHIN: Duration = Duration::from_millis(900);

/// As the daemon opens it: by TCX where the kernel has it.
pub fn is_silent_from_the_deadline_on(_: &mut Capture) -> Result<()> {
    apart(|| {
        let guard = Guard::open("lo", Path::new(PINS), &vips())?;
        println!("hook guard          {:?}", guard.attachment());
        all(guard)
    })
}

/// By clsact, also where the kernel has TCX.
pub fn is_silent_by_clsact_too(_: &mut Capture) -> Result<()> {
    apart(|| {
        let clsact = Attachment::Clsact;
        match Guard::open_as("lo", Path::new(PINS), &vips(), clsact) {
            Err(GuardError::Attach { source, .. }) if matches!(*source, AttachError::Clsact(_)) => {
                skip("the kernel has no clsact, or the module for it was not packed")
            }
            opened => all(opened?),
        }
    })
}

/// A thread with its own network, mounts and, in the end, fewer privileges.
pub fn apart(check: fn() -> Result<()>) -> Result<()> {
    let checked = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace can be made")?;
        let nothing = None::<&str>;
        // Where all is private already, as in an initramfs, there is nothing to change.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let _ = mount(nothing, "/", nothing, private, nothing);
        let bpf = Some("bpf");
        mount(bpf, "/sys/fs/bpf", bpf, MsFlags::empty(), nothing).context("no bpffs")?;
        namespace::enter_own()?;
        check()
    });
    checked
        .join()
        .map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

/// Two addresses for connections, which the loopback interface has (a configuration may not name
/// them), and two for frames.
pub fn vips() -> Vec<Vip> {
    let vip = |address: &str, prefix| Vip {
        address: address.parse().expect("an address"),
        prefix,
    };
    vec![
        vip("127.0.0.77", 8),
        vip("::1", 128),
        vip("192.0.2.10", 24),
        vip("2001:db8::10", 64),
    ]
}

fn all(guard: Guard) -> Result<()> {
    frames_are_told_apart(&guard)?;
    connections_end_with_the_deadline(&guard)?;
    let before = counts(&guard);
    let how = guard.attachment();
    drop(guard);
    let _listeners = listen()?;
    ensure!(!any_answers(), "nobody is there and it is closed");
    let guard = Guard::open_as("lo", Path::new(PINS), &vips(), how)?;
    ensure!(guard.is_kept(), "the successor begins anew");
    let after = counts(&guard);
    ensure!(after[0].0 > before[0].0, "{after:?} follows {before:?}");

    privileges::keep(privileges::DAEMON)?;
    guard.set_deadline(&vips(), Some(now().after(HOUR)))?;
    ensure!(both_answer(), "without the privilege it cannot be opened");
    guard.set_deadline(&vips(), None)?;
    ensure!(!any_answers(), "without the privilege it cannot be closed");
    sweep(Path::new(PINS), &[])?;
    let end = Instant::now() + PATIENCE;
    while !both_answer() {
        ensure!(Instant::now() < end, "something is left");
    }
    Ok(())
}

fn connections_end_with_the_deadline(guard: &Guard) -> Result<()> {
    let _listeners = listen()?;
    ensure!(!any_answers(), "it is closed from the beginning");
    guard.set_deadline(&vips(), Some(now().after(HOUR)))?;
    ensure!(both_answer(), "it is open");
    let soon = now().after(Duration::from_millis(200));
    guard.set_deadline(&vips(), Some(soon))?;
    while now() < soon {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let before = counts(guard);
    ensure!(!any_answers(), "the deadline has passed");
    let after = counts(guard);
    // To 127.0.0.77 from 127.0.0.1: dropped on arrival. From ::1 to ::1: not even sent.
    ensure!(after[0].0 > before[0].0, "{after:?} after {before:?}");
    ensure!(after[1].1 > before[1].1, "{after:?} after {before:?}");
    Ok(())
}

/// Every frame is dropped where the table says, and only there; nothing is while it is open.
fn frames_are_told_apart(guard: &Guard) -> Result<()> {
    let wire = wire()?;
    let frames = guard_frames::all();
    // The silent ones first: were one of them counted, the sum at the end would be too high.
    let (quiet, counted): (Vec<&Frame>, Vec<&Frame>) =
        frames.iter().partition(|frame| frame.dropped == (0, 0));
    let mut expected = frame_counts(guard);
    for frame in quiet.into_iter().chain(counted) {
        let sent = send(wire.as_raw_fd(), &frame.bytes, MsgFlags::empty());
        ensure!(
            sent.is_err() == (frame.dropped.1 > 0),
            "{}: {sent:?}",
            frame.name
        );
        let of = usize::from(frame.is_six);
        expected[of].0 += frame.dropped.0;
        expected[of].1 += frame.dropped.1;
        reaches(guard, expected).context(frame.name)?;
    }
    guard.set_deadline(&vips(), Some(now().after(HOUR)))?;
    for frame in &frames {
        send(wire.as_raw_fd(), &frame.bytes, MsgFlags::empty()).context(frame.name)?;
    }
    guard.set_deadline(&vips(), None)?;
    // Frames arrive in the order in which they were sent: this one is the last.
    let last = frames.iter().find(|frame| frame.dropped == (1, 0));
    let last = last.context("a frame that is dropped on arrival")?;
    send(wire.as_raw_fd(), &last.bytes, MsgFlags::empty())?;
    expected[usize::from(last.is_six)].0 += 1;
    reaches(guard, expected).context("while open")
}

fn reaches(guard: &Guard, expected: [(u64, u64); 2]) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = frame_counts(guard);
        if now == expected {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{now:?}, expected {expected:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Dropped on arrival and instead of sent, of each address in the order of [`vips`].
fn counts(guard: &Guard) -> Vec<(u64, u64)> {
    let readings = guard.readings();
    let find = |vip: Vip| readings.iter().find(|reading| reading.vip == vip);
    let both = |vip| find(vip).map_or((0, 0), |one| (one.dropped_rx, one.dropped_tx));
    vips().into_iter().map(both).collect()
}

fn frame_counts(guard: &Guard) -> [(u64, u64); 2] {
    let counts = counts(guard);
    [counts[2], counts[3]]
}

/// A packet socket on the loopback interface that receives nothing.
pub fn wire() -> Result<OwnedFd> {
    let link = getifaddrs()?
        .filter(|entry| entry.interface_name == "lo")
        .find_map(|entry| entry.address?.as_link_addr().copied());
    let flags = SockFlag::SOCK_CLOEXEC;
    let wire = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    bind(wire.as_raw_fd(), &link.context("lo has no address")?)?;
    Ok(wire)
}

const PORT: u16 = 8080;

fn addresses() -> [SocketAddr; 2] {
    let address = |vip: Vip| SocketAddr::new(vip.address, PORT);
    [address(vips()[0]), address(vips()[1])]
}

fn listen() -> Result<[TcpListener; 2]> {
    let [four, six] = addresses().map(TcpListener::bind);
    Ok([four?, six?])
}

fn answers(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, ANSWERS_WITHIN).is_ok()
}

fn any_answers() -> bool {
    addresses().iter().any(answers)
}

fn both_answer() -> bool {
    addresses().iter().all(answers)
}

pub fn now() -> BootTime {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel has this clock");
    BootTime::from_nanos(now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}
