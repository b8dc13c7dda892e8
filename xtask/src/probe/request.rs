//! Requests in flight: one connection each, bounded in number and in time.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::{Domain, Protocol, Socket, Type};

const MOST_IN_FLIGHT: usize = 4000;
const QUESTION: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// A longer answer is not what the lab's servers say.
pub const LONGEST_ANSWER: usize = 2048;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a complete answer of status 200, from this host.
    Good(String),
    /// Otherwise: refused, reset, or another answer.
    Failed,
    /// Not in time.
    Unanswered,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The number of its target.
    pub target: usize,
    /// When it began, on `CLOCK_BOOTTIME`.
    pub began_ns: u64,
    /// How.
    pub outcome: Outcome,
}

struct Request {
    socket: Socket,
    target: usize,
    began_ns: u64,
    asked: bool,
    answer: Vec<u8>,
}

/// The requests in flight. A slot's token is its index and its generation, so that an event or a
/// timeout of an ended request finds nobody.
pub struct Requests {
    targets: Vec<SocketAddr>,
    slots: Vec<(u32, Option<Request>)>,
    free: Vec<usize>,
    timeouts: VecDeque<(u64, u64)>,
    timeout_ns: u64,
}

impl Requests {
    /// None in flight; each is given up after `timeout`.
    pub fn new(targets: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self {
            timeout_ns: timeout.as_nanos() as u64,
            targets,
            slots: Vec::new(),
            free: Vec::new(),
            timeouts: VecDeque::new(),
        }
    }

    /// Begins a request; false when it failed at once or too many are in flight.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn begin(&mut self, epoll: &Epoll, target: usize, now: u64) -> Result<bool> {
        if self.free.is_empty() && self.slots.len() == MOST_IN_FLIGHT {
            return Ok(false);
        }
        let address = self.targets[target];
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        // A reset instead of a minute in TIME_WAIT: the ports would run out.
        socket.set_linger(Some(Duration::ZERO))?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Ok(false),
            _ => {}
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        let token = u64::from(self.slots[index].0) << 32 | index as u64;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(&socket, EpollEvent::new(interest, token))?;
        self.slots[index].1 = Some(Request {
            socket,
            target,
            began_ns: now,
            asked: false,
            answer: Vec::new(),
        });
        self.timeouts.push_back((now + self.timeout_ns, token));
        Ok(true)
    }

    /// Goes on with the request of this token; gives it when it ends.
    pub fn advance(&mut self, token: u64) -> Option<Ended> {
        let request = self.slots.get_mut(token as u32 as usize)?;
        if u64::from(request.0) != token >> 32 {
            return None;
        }
        let request = request.1.as_mut()?;
        let ended = Ended {
            outcome: request.advance()?,
            target: request.target,
            began_ns: request.began_ns,
        };
        self.end(token);
        Some(ended)
    }

    /// Ends what began before `limit` at the latest, or has had its time; gives what it ended.
    pub fn expire(&mut self, now: u64, limit: u64) -> Vec<Ended> {
        let mut expired = Vec::new();
        while let Some((deadline, token)) = self.timeouts.front().copied()
            && (deadline <= now || deadline - self.timeout_ns <= limit)
        {
            self.timeouts.pop_front();
            let slot = &self.slots[token as u32 as usize];
            if u64::from(slot.0) == token >> 32
                && let Some(request) = &slot.1
            {
                expired.push(Ended {
                    outcome: Outcome::Unanswered,
                    target: request.target,
                    began_ns: request.began_ns,
                });
                self.end(token);
            }
        }
        expired
    }

    fn end(&mut self, token: u64) {
        let index = token as u32 as usize;
        let slot = &mut self.slots[index];
        // The top of the token's range belongs to the timer, the signals and the input.
        slot.0 = (slot.0 + 1) & 0x7fff_ffff;
        slot.1 = None;
        self.free.push(index);
    }
}

impl Request {
    fn advance(&mut self) -> Option<Outcome> {
        if !self.asked {
            match (&self.socket).write(QUESTION) {
                Ok(length) if length == QUESTION.len() => self.asked = true,
                Err(error) if not_yet(&error) => return None,
                _ => return Some(Outcome::Failed),
            }
        }
        let mut bytes = [0; LONGEST_ANSWER];
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(0) => return Some(judge(&self.answer).unwrap_or(Outcome::Failed)),
                Ok(length) => self.answer.extend_from_slice(&bytes[..length]),
                Err(error) if not_yet(&error) => return None,
                Err(_) => return Some(Outcome::Failed),
            }
            if self.answer.len() > LONGEST_ANSWER {
                return Some(Outcome::Failed);
            }
            if let Some(outcome) = judge(&self.answer) {
                return Some(outcome);
            }
        }
    }
}

/// Whether this error of a socket only says that there is nothing to do now.
pub fn not_yet(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}

/// Judges an answer; none while it is not complete.
pub fn judge(answer: &[u8]) -> Option<Outcome> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&answer[..head]);
    let mut lines = text.split("\r\n");
    let good = lines.next().is_some_and(|status| {
        status.starts_with("HTTP/1.") && status.split(' ').nth(1) == Some("200")
    });
    let (mut host, mut length) = (String::new(), 0);
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if name.eq_ignore_ascii_case("X-Host") {
            host = value
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(64)
                .collect();
        } else if name.eq_ignore_ascii_case("Content-Length") {
            length = value.parse().unwrap_or(usize::MAX);
        }
    }
    match (good, answer.len() - head - 4 >= length) {
        (false, _) => Some(Outcome::Failed),
        (true, true) => Some(Outcome::Good(host)),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_when_it_is_complete_and_says_200() {
        let good = b"HTTP/1.1 200 OK\r\nX-Host: a\r\nContent-Length: 7\r\n\r\nhost a\n";
        assert_eq!(judge(good), Some(Outcome::Good("a".into())));
        for end in 0..good.len() {
            assert_eq!(judge(&good[..end]), None, "{end}");
        }
        assert_eq!(judge(b"HTTP/1.1 502 Bad\r\n\r\n"), Some(Outcome::Failed));
        assert_eq!(judge(b"\xff\r\n\r\n"), Some(Outcome::Failed));
        let endless = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n";
        assert_eq!(judge(endless), None);
    }
}
