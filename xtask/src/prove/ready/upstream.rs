//! What the small service depends on: a word over TCP, and a name server that knows where it is.
//!
//! Both live in the client's network namespace, so that no fault of a host touches them.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lab::CLIENT_V4;
use crate::prove::crew::Crew;

/// The name of the service.
pub const NAME: &str = "upstream.lab.test";
/// Its port.
pub const PORT: u16 = 9000;
/// What it says.
pub const WORD: &str = "said upstream";

const DNS_PORT: u16 = 53;
/// How soon the end is noticed.
const TURN: Duration = Duration::from_millis(100);
/// Bytes of a DNS header, and of the type and class after a name (RFC 1035, section 4.1).
const HEADER: usize = 12;
const TYPE_AND_CLASS: usize = 4;
const TYPE_A: [u8; 2] = [0, 1];

/// Runs until it is dropped.
pub struct Upstream(Crew);

impl Upstream {
    /// Begins in this network namespace.
    ///
    /// # Errors
    /// The namespace is not there. A port that is taken is told at the end.
    pub fn start(namespace: &str) -> Result<Self> {
        let mut crew = Crew::default();
        crew.start(namespace, say)?;
        crew.start(namespace, name)?;
        Ok(Self(crew))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Err(error) = self.0.finish() {
            eprintln!("the upstream service ended: {error:#}");
        }
    }
}

fn say(stop: &AtomicBool) -> Result<()> {
    let listener = TcpListener::bind((CLIENT_V4, PORT)).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            // Whoever only tries whether it can connect reads nothing.
            Ok((mut stream, _)) => drop(stream.write_all(format!("{WORD}\n").as_bytes())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                let turn = PollTimeout::try_from(TURN).unwrap_or(PollTimeout::ZERO);
                match poll(&mut waiting, turn) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).context("cannot wait for clients"),
                }
            }
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
    Ok(())
}

fn name(stop: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind((CLIENT_V4, DNS_PORT)).context("cannot serve names")?;
    socket.set_read_timeout(Some(TURN))?;
    let mut buffer = [0; 512];
    while !stop.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(answer) = answer(&buffer[..length]) {
            let _ = socket.send_to(&answer, from);
        }
    }
    Ok(())
}

/// The answer to a question: the address of [`NAME`], nothing of another type, no other name.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let rest = question.get(HEADER..)?;
    let end = rest.iter().position(|byte| *byte == 0)? + 1;
    let (name, kind) = (rest.get(..end)?, rest.get(end..end + TYPE_AND_CLASS)?);
    let known = name.eq_ignore_ascii_case(&labels(NAME));
    let found = known && kind[..2] == TYPE_A;
    let mut answer = question[..2].to_vec();
    // An answer of an authority; 3 is NXDOMAIN.
    answer.extend([0x84, if known { 0 } else { 3 }]);
    answer.extend([0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(name);
    answer.extend(kind);
    if found {
        // The name of the question, an address of the Internet, good for no time at all.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(CLIENT_V4.octets());
    }
    Some(answer)
}

/// A name as DNS writes it.
fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap_or_default();
        std::iter::once(length).chain(label.bytes())
    });
    labels.chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u8) -> Vec<u8> {
        let mut question = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend(labels(name));
        question.extend([0, kind, 0, 1]);
        question
    }

    #[test]
    fn the_name_has_one_address_and_others_have_none() {
        let found = answer(&question("Upstream.lab.test", 1)).expect("it answers");
        assert_eq!((found[3], found[7]), (0, 1));
        assert!(found.ends_with(&CLIENT_V4.octets()));
        let other = answer(&question(NAME, 28)).expect("it answers");
        assert_eq!((other[3], other[7]), (0, 0));
        let unknown = answer(&question("deb.test", 1)).expect("it answers");
        assert_eq!((unknown[3], unknown[7]), (3, 0));
        assert_eq!(answer(&[0; 5]), None);
    }
}
