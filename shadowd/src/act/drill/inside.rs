//! What runs inside the place of a drill: the holder, and the checks that need no program.
//!
//! The daemon's program is started by systemd for it, in the private network. It refuses to work in
//! the network that the host's first process is in.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rtnetlink::{Handle, LinkDummy, LinkUnspec, LinkVeth};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Place;
use crate::act::vip::{VipError, Vips};
use crate::config::settings::CheckKind;
use crate::facts::Epoch;

/// Directories that are made as they are on the host, each tree.
const MAX_DIRECTORIES: usize = 1024;
/// How deep.
const DEPTH: usize = 4;
/// What of /run belongs to systemd, to users or to this daemon.
const HIDDEN: &[&str] = &[
    "systemd",
    "user",
    "netns",
    "credentials",
    "mount",
    "shadowd",
    "dbus",
    "docker",
    "containerd",
];
/// Between two tries of a check.
const AGAIN: Duration = Duration::from_millis(100);
/// More of an answer (bytes) is not read.
const MAX_ANSWER: usize = 1024;
/// Characters of what a check printed.
const MAX_SAID: usize = 200;

/// Why there is no place.
#[derive(Debug, Error)]
pub enum InsideError {
    /// It was not started as it has to be.
    #[error("this is the host's own network: only systemd starts this, for a drill")]
    NotApart,
    /// Links cannot be made.
    #[error("the link {interface} cannot be made")]
    Link {
        /// The link.
        interface: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// The kernel gives no netlink socket.
    #[error("netlink cannot be opened")]
    Netlink(#[source] io::Error),
    /// The virtual IPs cannot be added.
    #[error("the virtual IPs cannot be added")]
    Vips(#[from] VipError),
    /// A directory cannot be made.
    #[error("cannot make {}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes links, addresses and directories of the calling process's private network; they stay as
/// long as it does.
///
/// # Errors
/// [`InsideError`].
pub async fn hold(place: &Place) -> Result<(), InsideError> {
    let own = fs::read_link("/proc/self/ns/net").map_err(InsideError::Netlink)?;
    let first = fs::read_link("/proc/1/ns/net").map_err(InsideError::Netlink)?;
    if own == first {
        return Err(InsideError::NotApart);
    }
    let (connection, handle, _) = rtnetlink::new_connection().map_err(InsideError::Netlink)?;
    let task = tokio::spawn(connection);
    let made = link(&handle, &place.interface).await;
    task.abort();
    made.map_err(|source| InsideError::Link {
        interface: place.interface.clone(),
        source,
    })?;
    let vips = Vips::open(&place.interface)?;
    vips.add(&place.vips, Epoch::NONE).await?;
    directories(place)
}

/// A link that leads nowhere: a dummy, or a pair whose other end is here as well where the kernel has
/// no dummies.
async fn link(handle: &Handle, interface: &str) -> Result<(), rtnetlink::Error> {
    let dummy = LinkDummy::new(interface).build();
    let mut names = vec![interface];
    if handle.link().add(dummy).execute().await.is_err() {
        let pair = LinkVeth::new(interface, "drill-end").build();
        handle.link().add(pair).execute().await?;
        names.push("drill-end");
    }
    for name in names {
        let up = LinkUnspec::new_with_name(name).up().build();
        handle.link().set(up).execute().await?;
    }
    Ok(())
}

fn directories(place: &Place) -> Result<(), InsideError> {
    let own = |name: &str| place.directory.join(name);
    let made = |path: &Path, mode: u32| {
        let made = fs::DirBuilder::new().create(path);
        let made = made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
        made.map_err(|source| InsideError::Directory {
            path: path.to_owned(),
            source,
        })
    };
    made(&own("said"), 0o700)?;
    for open in ["tmp", "vartmp", "shm"] {
        made(&own(open), 0o1777)?;
    }
    let mut left = MAX_DIRECTORIES;
    for (from, to) in [("/run", "run"), ("/var/log", "log")] {
        made(&own(to), 0o755)?;
        like(Path::new(from), &own(to), DEPTH, &mut left);
    }
    made(&own("run").join("systemd"), 0o755)?;
    for (number, scratch) in place.scratch.iter().enumerate() {
        let to = own(&format!("scratch{number}"));
        made(&to, 0o755)?;
        same(scratch, &to);
        like(scratch, &to, DEPTH, &mut left);
    }
    Ok(())
}

/// The directories below `from`, empty, below `to`. One that cannot be made is left out: a service
/// that needs it says so.
fn like(from: &Path, to: &Path, depth: usize, left: &mut usize) {
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let hidden = HIDDEN.contains(&text.as_ref()) || text.starts_with("shadowd-drill");
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || hidden || depth == 0 || *left == 0 {
            continue;
        }
        *left -= 1;
        let (from, to) = (from.join(&name), to.join(&name));
        if fs::DirBuilder::new().mode(0o700).create(&to).is_ok() {
            same(&from, &to);
            like(&from, &to, depth - 1, left);
        }
    }
}

/// Gives `to` the owner and the mode of `from`; without them a service says what it misses.
fn same(from: &Path, to: &Path) {
    if let Ok(meta) = fs::symlink_metadata(from) {
        let _ = chown(to, Some(meta.uid()), Some(meta.gid()));
        let _ = fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777));
    }
}

/// The last line of a file, at most [`MAX_SAID`] characters of it.
pub(super) fn last_line(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        let mut file = file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(4096)))?;
        file.take(4096).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.next_back().unwrap_or_default();
    line.chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_SAID)
        .collect()
}

/// A check that needs no program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is checked.
    pub kind: CheckKind,
    /// For how long it is tried again while nobody answers.
    pub patience: Duration,
}

/// Why a check did not pass.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Nobody answers.
    #[error("{at} was not reached")]
    Unreached {
        /// Who.
        at: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another status.
    #[error("{at} answered {found} instead of {wanted}")]
    Status {
        /// Who.
        at: SocketAddr,
        /// What it answered.
        found: String,
        /// What it should have answered.
        wanted: u16,
    },
    /// A command is no probe.
    #[error("a command is not run from here")]
    Command,
}

/// Checks; while nobody answers it is tried again, since a service that is up may not listen yet.
///
/// # Errors
/// [`ProbeError`].
pub fn probe(probe: &Probe) -> Result<String, ProbeError> {
    let deadline = Instant::now() + probe.patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match once(&probe.kind, left.max(AGAIN)) {
            Err(ProbeError::Unreached { .. }) if Instant::now() + AGAIN < deadline => {
                std::thread::sleep(AGAIN);
            }
            result => return result,
        }
    }
}

fn once(kind: &CheckKind, within: Duration) -> Result<String, ProbeError> {
    let (at, request) = match kind {
        CheckKind::Command(_) => return Err(ProbeError::Command),
        CheckKind::Tcp(at) => (*at, None),
        CheckKind::Http {
            at,
            authority,
            path,
            status,
        } => {
            let text = format!(
                "GET {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: shadowd\r\n\
                 connection: close\r\n\r\n"
            );
            (*at, Some((text, *status)))
        }
    };
    let unreached = |source| ProbeError::Unreached { at, source };
    let mut stream = TcpStream::connect_timeout(&at, within).map_err(unreached)?;
    let Some((text, wanted)) = request else {
        return Ok(format!("{at} takes connections"));
    };
    stream.set_read_timeout(Some(within)).map_err(unreached)?;
    stream.write_all(text.as_bytes()).map_err(unreached)?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < MAX_ANSWER {
        let mut part = [0; MAX_ANSWER];
        match stream.read(&mut part).map_err(unreached)? {
            0 => break,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let found = status(&line);
    if found == Some(wanted) {
        return Ok(format!("{at} answered {wanted}"));
    }
    Err(ProbeError::Status {
        at,
        found: found.map_or_else(|| "no HTTP".to_owned(), |status| status.to_string()),
        wanted,
    })
}

/// The status of a status line (RFC 9112 section 4).
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let digits = rest.get(..3)?;
    version
        .starts_with("HTTP/1.")
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_a_status() {
        assert_eq!(status("HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status("HTTP/1.0 503 \r\n"), Some(503));
        for bad in ["SSH-2.0-x 200", "HTTP/1.1", "HTTP/1.1 20", ""] {
            assert_eq!(status(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn the_hosts_own_network_is_refused() {
        let place = Place {
            directory: PathBuf::from("/nowhere"),
            interface: "x".to_owned(),
            vips: Vec::new(),
            scratch: Vec::new(),
        };
        let own = fs::read_link("/proc/self/ns/net").ok();
        if own.is_some() && own == fs::read_link("/proc/1/ns/net").ok() {
            let refused = hold(&place).await;
            assert!(matches!(refused, Err(InsideError::NotApart)));
        }
    }

    #[test]
    fn a_probe_connects_or_says_why_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let at = listener.local_addr().expect("it is bound");
        let patience = Duration::from_millis(200);
        let kind = CheckKind::Tcp(at);
        assert!(
            probe(&Probe {
                kind: kind.clone(),
                patience
            })
            .is_ok()
        );
        drop(listener);
        let refused = probe(&Probe { kind, patience });
        assert!(matches!(refused, Err(ProbeError::Unreached { .. })));
    }
}
