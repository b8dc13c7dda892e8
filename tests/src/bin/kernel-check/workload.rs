//! What the checks let happen: known numbers of calls, bytes and processes.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::syscalls;
use super::units;

/// The exit status of every role that did its work.
pub const STATUS: u8 = 7;
/// getppid calls.
pub const GETPPIDS: u64 = 12_345;
/// openat calls that fail.
pub const FAILING_OPENS: u64 = 321;
/// Connections one after the other.
pub const CONNECTIONS: u16 = 5;
/// Bytes from client to server on each.
pub const REQUEST_BYTES: u64 = 70_001;
/// Bytes from server to client on each; more than any socket buffer.
pub const ANSWER_BYTES: u64 = 1_000_003;

const PATIENCE: Duration = Duration::from_secs(20);

/// Plays a role.
pub fn run(role: &str, arguments: &[String]) -> Result<()> {
    match (role, arguments) {
        ("syscalls", []) => make_calls(),
        ("leave", []) => Ok(()),
        ("wait", []) => wait_for_end(),
        ("echo", []) => super::sockets::echo(),
        ("serve", [address]) => serve(address.parse()?),
        ("listen", [address]) => listen(address.parse()?),
        ("fetch", [address, port]) => fetch((address.parse::<IpAddr>()?, port.parse()?).into()),
        ("direct", [device]) => super::block::direct(device),
        ("burn", []) => super::lifecycle::burn(),
        ("eat", []) => super::lifecycle::eat(),
        ("files", [folder]) => super::files::read_and_write(folder),
        ("wait-opens", [folder]) => {
            wait_for_end()?;
            super::files::open_all(folder)
        }
        ("refused", []) => refused(),
        ("nap", []) => units::live_a_moment(),
        ("swarm", [count]) => units::swarm(count.parse()?),
        ("scopes", [count, prefix]) => units::scopes(count.parse()?, prefix),
        (role, []) => syscalls::roles::run(role).unwrap_or_else(|| bail!("unknown role")),
        _ => bail!("unknown role"),
    }
}

fn make_calls() -> Result<()> {
    for _ in 0..GETPPIDS {
        nix::unistd::getppid();
    }
    for _ in 0..FAILING_OPENS {
        ensure!(std::fs::File::open("/nonexistent/kernel-check").is_err());
    }
    Ok(())
}

/// Until the parent closes the pipe or kills this process.
fn wait_for_end() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn serve(address: IpAddr) -> Result<()> {
    let listener = TcpListener::bind((address, 0))?;
    println!("{}", listener.local_addr()?.port());
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = Vec::new();
        stream.read_to_end(&mut request)?;
        ensure!(request.len() as u64 == REQUEST_BYTES);
        stream.write_all(&vec![b'a'; ANSWER_BYTES as usize])?;
    }
    Ok(())
}

/// Listens until the end and accepts nothing: the kernel completes the handshakes.
fn listen(address: IpAddr) -> Result<()> {
    let listener = TcpListener::bind((address, 0))?;
    println!("{}", listener.local_addr()?.port());
    wait_for_end()
}

fn fetch(server: SocketAddr) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&vec![b'r'; REQUEST_BYTES as usize])?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.len() as u64 == ANSWER_BYTES);
    }
    Ok(())
}

/// Connects to a port where nobody listens: it was free a moment ago, and low-numbered.
fn refused() -> Result<()> {
    ensure!(TcpStream::connect((Ipv4Addr::LOCALHOST, 1)).is_err());
    Ok(())
}

/// Where the visible cgroup2 tree is mounted (proc_pid_mountinfo(5)).
pub fn cgroup_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().rfind(|line| line.contains(" - cgroup2 "));
    let point = line
        .and_then(|line| line.split(' ').nth(4))
        .context("no cgroup2 is mounted")?;
    Ok(point.into())
}

/// Removes a group as soon as the kernel has let go of its last process.
pub fn remove_group(group: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            result => return result.context("the control group cannot be removed"),
        }
    }
}

/// The port that a `serve` role prints.
pub fn read_port(server: &mut Child) -> Result<u16> {
    let output = server.stdout.take().context("the server has a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    line.trim().parse().context("the server prints its port")
}

/// A server that listens before capture starts.
pub struct EarlyListener {
    server: Child,
    port: u16,
}

impl EarlyListener {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let mut server = super::start(&["listen", "127.0.0.1"])?;
        let port = read_port(&mut server)?;
        Ok(Self { server, port })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Connects once.
    pub fn visit(&self) -> Result<()> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        Ok(())
    }
}

impl Drop for EarlyListener {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
