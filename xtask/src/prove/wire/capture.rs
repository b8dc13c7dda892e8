//! Every frame that enters the bridge, with the port it came in by and the kernel's time.
//!
//! The kernel stamps a frame when the host's interface hands it over, before anything waits, so
//! the stamp is the moment of sending. What the socket lost is counted, and makes the proof fail.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, GetSockOpt, LinkAddr, MsgFlags, SetSockOpt, recvmsg, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use super::answer::{Answer, Meaning, Vip, meaning, sender};
use super::clock::Clock;
use super::frames::Mac;
use super::place::{self, IgnoreOutgoing, PacketStatistics};

/// Some 80,000 small frames: many seconds of a machine that is busy with something else.
const BUFFER: usize = 64 << 20;
/// Enough of a frame to tell what it means.
const SNAPPED: usize = 256;
/// How often the clocks are compared, and how long a quiet bridge is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// A capture that does not come to an end of its queue for so long does not keep up.
const TO_DRAIN: Duration = Duration::from_secs(20);
/// More answers than this are not kept: some hours.
const MOST_ANSWERS: usize = 30_000_000;

/// A port of the bridge: its name, and the address of the interface at its other end.
#[derive(Clone, Debug)]
pub struct Port {
    /// The port's name.
    pub name: String,
    /// Whose frames come in by it.
    pub mac: Mac,
}

/// What was captured.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers, in the order of the queue, which can differ a little from that of time.
    pub answers: Vec<Answer>,
    /// When the client asked everybody for the IPv4 address.
    pub questions: Vec<u64>,
    /// All frames.
    pub frames: u64,
    /// Frames that the socket dropped.
    pub drops: u64,
    /// Frames without a time, or with another sender than the port's.
    pub doubtful: u64,
    /// The difference between the clocks.
    pub clock: Option<Clock>,
}

impl Seen {
    /// Who answered last for an address, and when.
    pub fn last(&self, vip: Vip) -> Option<&Answer> {
        let mut newest = self.answers.iter().rev();
        newest.find(|answer| answer.vip == vip)
    }
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    drained: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A capture that runs until it is ended or dropped.
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Begins to capture in the bridge's namespace.
    ///
    /// # Errors
    /// The namespace is not there.
    pub fn start(switch: &str, ports: Vec<Port>) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let thread = place::inside(switch, move || Reader::open(&ports)?.run(&of_thread))?;
        let capture = Self {
            shared,
            thread: Some(thread),
        };
        capture.sync()?;
        Ok(capture)
    }

    /// What was captured so far. Let it go soon: the capture waits for it.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }

    /// Waits until everything that was sent before this call is in [`Capture::seen`].
    ///
    /// # Errors
    /// The capture has ended, or does not keep up.
    pub fn sync(&self) -> Result<()> {
        let begin = self.shared.drained.load(Ordering::SeqCst);
        let end = Instant::now() + TO_DRAIN;
        // The first end of the queue may have been reached before the call.
        while self.shared.drained.load(Ordering::SeqCst) < begin + 2 {
            ensure!(self.is_running(), "the capture has ended");
            ensure!(Instant::now() < end, "the capture does not keep up");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it and gives what was captured.
    ///
    /// # Errors
    /// The capture ended before, with an error.
    pub fn finish(mut self) -> Result<Seen> {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("the capture panicked"),
            }
        }
        Ok(std::mem::take(&mut *self.seen()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

struct Reader {
    socket: Socket,
    /// Interface indices of the ports, in the order of hosts.
    ports: Vec<(usize, Mac)>,
    clock: Clock,
}

impl Reader {
    fn open(ports: &[Port]) -> Result<Self> {
        let socket = place::receiver().context("no packet socket")?;
        let fd = socket.as_fd();
        IgnoreOutgoing
            .set(&fd, &1)
            .context("PACKET_IGNORE_OUTGOING")?;
        sockopt::RcvBufForce
            .set(&fd, &BUFFER)
            .context("SO_RCVBUFFORCE")?;
        sockopt::ReceiveTimestampns
            .set(&fd, &true)
            .context("SO_TIMESTAMPNS")?;
        let indices: Result<Vec<_>> = ports
            .iter()
            .map(|port| Ok((place::link(&port.name)?.ifindex(), port.mac)))
            .collect();
        Ok(Self {
            ports: indices?,
            socket,
            clock: Clock::start()?,
        })
    }

    fn run(mut self, shared: &Shared) -> Result<()> {
        while !shared.stop.load(Ordering::SeqCst) {
            let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(
                &mut waiting,
                PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO),
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for frames"),
            }
            while !self.drain(shared)? {}
            shared.drained.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Reads a batch; whether nothing more waits.
    fn drain(&mut self, shared: &Shared) -> Result<bool> {
        let mut found = Seen::default();
        let mut is_empty = false;
        for _ in 0..512 {
            if !self.read(&mut found)? {
                is_empty = true;
                break;
            }
        }
        self.clock.check()?;
        let counted = PacketStatistics.get(&self.socket.as_fd())?;
        let mut seen = shared.seen();
        seen.answers.append(&mut found.answers);
        seen.questions.append(&mut found.questions);
        seen.frames += found.frames;
        seen.doubtful += found.doubtful;
        seen.drops += u64::from(counted.drops);
        seen.clock = Some(self.clock);
        ensure!(
            seen.answers.len() < MOST_ANSWERS,
            "too many answers to keep"
        );
        Ok(is_empty)
    }

    /// Reads a frame; false when none waits.
    fn read(&self, seen: &mut Seen) -> Result<bool> {
        let mut bytes = [0; SNAPPED];
        let mut control = nix::cmsg_space!(TimeSpec);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let received = match recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), flags) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(false),
            // A port that went down says so once.
            Err(Errno::EINTR | Errno::ENETDOWN) => return Ok(true),
            Err(errno) => return Err(errno).context("cannot read a frame"),
        };
        let from = received
            .address
            .context("a frame without a port")?
            .ifindex();
        let stamp = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        let length = received.bytes;
        seen.frames += 1;
        let Some(host) = self.ports.iter().position(|(index, _)| *index == from) else {
            // The bridge's own interface, which repeats what the ports received.
            return Ok(true);
        };
        let frame = &bytes[..length.min(SNAPPED)];
        let meaning = meaning(frame);
        if meaning == Meaning::Other {
            return Ok(true);
        }
        if stamp.is_none() || sender(frame) != Some(self.ports[host].1) {
            seen.doubtful += 1;
        }
        let stamp = stamp.map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
        let at_ns = self.clock.boot_ns(stamp);
        match meaning {
            Meaning::Question => seen.questions.push(at_ns),
            Meaning::Answer(vip, kind) => seen.answers.push(Answer {
                at_ns,
                host: host as u8,
                vip,
                kind,
            }),
            Meaning::Other => {}
        }
        Ok(true)
    }
}
