//! What ordinary servers and clients do less often: several processes on one listening socket, a
//! connection handed over, refusals, resets, a full queue, and sockets that are no network.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    SockaddrStorage, bind, connect, getsockname, listen, recvmsg, sendmsg, setsockopt, socket,
    sockopt,
};
use serde::{Deserialize, Serialize};

use super::info::Info;
use super::tcp::{Ready, answer, ask, report};
use super::ways::Mover;
use super::{PATIENCE, Plan, Report, namespace, obey, say, tcp};

/// Processes that share a listening socket.
pub const CHILDREN: u32 = 3;
/// Connections that may wait for the overflowing server, less one.
pub const BACKLOG: i32 = 4;

/// This program again, in another role, with `input` as its input.
fn child(role: &str, plan: &Plan, input: impl Into<Stdio>) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["load", role, &serde_json::to_string(plan)?]);
    command.stdin(input).spawn().context("a child starts")
}

fn inherited() -> Result<OwnedFd> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?)
}

fn done(served: Vec<TcpStream>, plan: &Plan) -> Result<()> {
    let report = report(&served, plan.bytes_down(), plan.bytes_up())?;
    drop(served);
    say(&report)
}

/// Listens and leaves all else to children, each of which serves `plan.connections`.
///
/// # Errors
/// A child does not do its part.
pub fn prefork(plan: &Plan) -> Result<()> {
    let listener = tcp::listen(plan.address)?;
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        children.push(child("accept", plan, OwnedFd::from(listener.try_clone()?))?);
    }
    finish(children)
}

fn finish(children: Vec<Child>) -> Result<()> {
    for mut child in children {
        ensure!(child.wait()?.code().is_some(), "a child was killed");
    }
    obey(|| bail!("the children report"))
}

/// A child of [`prefork`]: its input is the listening socket.
///
/// # Errors
/// A client does not do its part.
pub fn accept_inherited(plan: &Plan) -> Result<()> {
    let listener = TcpListener::from(inherited()?);
    let mut mover = Mover::new(plan.way)?;
    let mut served = Vec::new();
    for _ in 0..plan.connections {
        served.push(answer(listener.accept()?.0, plan, &mut mover)?);
    }
    done(served, plan)
}

/// Accepts, and passes each connection to a child without touching it.
///
/// # Errors
/// The child does not do its part.
pub fn passing(plan: &Plan) -> Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let taker = child("take", plan, OwnedFd::from(theirs))?;
    let listener = tcp::listen(plan.address)?;
    for _ in 0..plan.connections {
        let (stream, _) = listener.accept()?;
        let descriptors = [stream.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let byte = [IoSlice::new(b"c")];
        sendmsg::<()>(ours.as_raw_fd(), &byte, &control, MsgFlags::empty(), None)?;
    }
    finish(vec![taker])
}

/// The child of [`passing`]: its input is where the connections come.
///
/// # Errors
/// A client does not do its part.
pub fn take_passed(plan: &Plan) -> Result<()> {
    let from = inherited()?;
    let mut mover = Mover::new(plan.way)?;
    let mut served = Vec::new();
    for _ in 0..plan.connections {
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let message = recvmsg::<()>(
            from.as_raw_fd(),
            &mut into,
            Some(&mut space),
            MsgFlags::empty(),
        )?;
        let mut passed = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                passed = descriptors.first().copied().map(super::sys::own);
            }
        }
        let stream = TcpStream::from(passed.context("no connection was passed")?);
        served.push(answer(stream, plan, &mut mover)?);
    }
    done(served, plan)
}

/// Connects where nobody listens: the port was free a moment ago.
///
/// # Errors
/// Somebody listens there.
pub fn refused(plan: &Plan) -> Result<()> {
    let address = TcpListener::bind(plan.address)?.local_addr()?;
    for _ in 0..plan.connections {
        ensure!(TcpStream::connect(address).is_err(), "{address} answers");
    }
    obey(|| Ok(Report::default()))
}

/// As `connect`, but every connection ends by a reset.
///
/// # Errors
/// The server does not do its part.
pub fn reset(plan: &Plan) -> Result<()> {
    let mut mover = Mover::new(plan.way)?;
    let mut open = Vec::new();
    for _ in 0..plan.connections {
        let stream = ask(plan, &mut mover)?;
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &now)?;
        open.push(stream);
    }
    obey(|| report(&open, plan.bytes_up(), plan.bytes_down()))
}

/// What a listening socket and its namespace say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// Who listens.
    pub pid: u32,
    /// Connections that wait.
    pub backlog: u64,
    /// How many may.
    pub backlog_max: u64,
    /// TcpExt ListenOverflows of the namespace.
    pub overflows: u64,
}

/// In a namespace of its own: listens, accepts nothing, and connects more often than may wait.
///
/// # Errors
/// The kernel's.
pub fn overflow(plan: &Plan) -> Result<()> {
    namespace::enter_own()?;
    let family = if plan.address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(plan.address))?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    let address: SockaddrStorage = getsockname(listener.as_raw_fd())?;
    let port = address.as_sockaddr_in().map(|v4| v4.port());
    let port = port.or_else(|| address.as_sockaddr_in6().map(|v6| v6.port()));
    let port = port.context("an internet address")?;
    say(&Ready { port })?;
    let to = SockaddrStorage::from(SocketAddr::new(plan.address.ip(), port));
    let mut waiting = Vec::new();
    for _ in 0..plan.connections {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(family, SockType::Stream, flags, None)?;
        match connect(client.as_raw_fd(), &to) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => waiting.push(client),
            Err(error) => return Err(error.into()),
        }
    }
    for line in io::stdin().lines() {
        if line? != "report" {
            break;
        }
        let info = Info::read(&listener)?;
        say(&Queue {
            pid: std::process::id(),
            backlog: info.unacked,
            backlog_max: info.sacked,
            overflows: namespace::counter("TcpExt", "ListenOverflows")?,
        })?;
    }
    Ok(())
}

/// Moves bytes through sockets that are no network.
///
/// # Errors
/// The kernel's.
pub fn unix() -> Result<()> {
    let (mut one, mut other) = UnixStream::pair()?;
    let (left, right) = UnixDatagram::pair()?;
    other.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [b'u'; 1_000];
    for _ in 0..100 {
        one.write_all(&buffer)?;
        other.read_exact(&mut buffer)?;
        left.send(&buffer)?;
        right.recv(&mut buffer)?;
    }
    obey(|| Ok(Report::default()))
}
