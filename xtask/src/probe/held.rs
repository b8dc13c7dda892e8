//! Connections that stay open: each is asked again and again, and counts as broken when it ends
//! without the server having said so.
//!
//! New connections alone do not show what a move of an address does to the clients that are
//! already there.

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::request::{LONGEST_ANSWER, Outcome, judge, not_yet};

/// The highest bit tells these tokens from those of requests; the rest is the index.
const MARK: u64 = 1 << 63;
/// Tokens above this belong to the timer, the signals and the input.
const MOST: usize = 1 << 16;
/// Each connection asks so often.
const PERIOD_NS: u64 = 50_000_000;
/// Longer without an answer is broken: a live peer would have answered what was sent again.
const SILENT_NS: u64 = 1_000_000_000;
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: held\r\n\r\n";

/// What became of the connections to one target within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// Connections held at the same time.
    pub connections: u64,
    /// Good answers over them.
    pub answers: u64,
    /// Reset, closed without notice, or silent for a second; each was then opened anew.
    pub broken: u64,
}

/// All connections that are held.
pub struct Held {
    connections: Vec<Connection>,
    reports: Vec<HeldReport>,
}

struct Connection {
    address: SocketAddr,
    target: usize,
    socket: Option<Socket>,
    /// Since when an answer is owed.
    asked: Option<u64>,
    next: u64,
    answer: Vec<u8>,
    answered: bool,
}

enum Look {
    Nothing,
    Answered { closes: bool },
    Broken,
}

impl Held {
    /// `each` connections to every target; they are opened by [`Held::tick`].
    pub fn new(targets: &[SocketAddr], each: usize, now: u64) -> Self {
        let numbered = targets.iter().enumerate();
        let connections = numbered.flat_map(|(target, address)| {
            (0..each).map(move |number| Connection {
                address: *address,
                target,
                socket: None,
                asked: None,
                // Spread over the period, so that there is no moment without one of them.
                next: now + number as u64 * PERIOD_NS / each as u64,
                answer: Vec::new(),
                answered: false,
            })
        });
        let report = HeldReport {
            connections: each as u64,
            ..HeldReport::default()
        };
        Self {
            connections: connections.take(MOST).collect(),
            reports: vec![report; targets.len()],
        }
    }

    /// Whether an event with this token is for one of them.
    pub fn owns(token: u64) -> bool {
        token & MARK != 0 && token & !MARK < MOST as u64
    }

    /// Whether every connection has been answered at least once.
    pub fn answered(&self) -> bool {
        self.connections.iter().all(|held| held.answered)
    }

    /// Begins the window: what was seen before does not count.
    pub fn begin(&mut self) {
        for report in &mut self.reports {
            (report.answers, report.broken) = (0, 0);
        }
    }

    /// What became of them, by target.
    pub fn reports(&self) -> Vec<HeldReport> {
        self.reports.clone()
    }

    /// Opens, asks and gives up what is due.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn tick(&mut self, epoll: &Epoll, now: u64) -> Result<()> {
        for index in 0..self.connections.len() {
            let held = &mut self.connections[index];
            if held
                .asked
                .is_some_and(|since| now.saturating_sub(since) > SILENT_NS)
            {
                self.broke(index);
                continue;
            }
            if now < held.next || held.asked.is_some() {
                continue;
            }
            held.next = now + PERIOD_NS;
            if held.socket.is_none() {
                held.open(epoll, MARK | index as u64)?;
            }
            if held.socket.is_some() && held.ask(now).is_err() {
                self.broke(index);
            }
        }
        Ok(())
    }

    /// Takes what has arrived.
    pub fn advance(&mut self, token: u64) {
        let index = (token & !MARK) as usize;
        let Some(held) = self.connections.get_mut(index) else {
            return;
        };
        match held.look() {
            Look::Nothing => {}
            Look::Answered { closes } => {
                (held.asked, held.answered) = (None, true);
                self.reports[held.target].answers += 1;
                if closes {
                    (held.socket, held.answered) = (None, false);
                }
            }
            Look::Broken => self.broke(index),
        }
    }

    fn broke(&mut self, index: usize) {
        let held = &mut self.connections[index];
        // What never answered was not established: new connections are counted elsewhere.
        self.reports[held.target].broken += u64::from(held.answered);
        (held.socket, held.asked, held.answered) = (None, None, false);
        held.answer.clear();
    }
}

impl Connection {
    fn open(&mut self, epoll: &Epoll, token: u64) -> Result<()> {
        let kind = Type::STREAM.nonblocking();
        let domain = Domain::for_address(self.address);
        let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Ok(()),
            _ => {}
        }
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(&socket, EpollEvent::new(interest, token))?;
        self.socket = Some(socket);
        self.answer.clear();
        Ok(())
    }

    /// Asks; while the connection is being made, the next tick tries again.
    fn ask(&mut self, now: u64) -> std::io::Result<()> {
        let Some(mut socket) = self.socket.as_ref() else {
            return Ok(());
        };
        match socket.write(QUESTION) {
            Ok(length) if length == QUESTION.len() => self.asked = Some(now),
            Err(error) if not_yet(&error) => self.next = now,
            Ok(_) => return Err(std::io::ErrorKind::WriteZero.into()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn look(&mut self) -> Look {
        let Some(mut socket) = self.socket.as_ref() else {
            return Look::Nothing;
        };
        let mut bytes = [0; LONGEST_ANSWER];
        loop {
            match socket.read(&mut bytes) {
                // The end may come with the last answer; without one it was not announced.
                Ok(0) if !self.answer.is_empty() => break,
                Ok(0) => return Look::Broken,
                Ok(length) => self.answer.extend_from_slice(&bytes[..length]),
                Err(error) if not_yet(&error) => break,
                Err(_) => return Look::Broken,
            }
            if self.answer.len() > LONGEST_ANSWER {
                return Look::Broken;
            }
        }
        match judge(&self.answer) {
            None => Look::Nothing,
            Some(Outcome::Good(_)) => {
                let closes = announces_close(&self.answer);
                self.answer.clear();
                Look::Answered { closes }
            }
            Some(Outcome::Failed | Outcome::Unanswered) => Look::Broken,
        }
    }
}

/// Whether the server said that this was the connection's last answer.
fn announces_close(answer: &[u8]) -> bool {
    String::from_utf8_lossy(answer)
        .to_ascii_lowercase()
        .contains("\r\nconnection: close\r\n")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

    /// One connection to a server that gives these answers, then closes.
    fn after(answers: &'static [&'static [u8]], until: impl Fn(&HeldReport) -> bool) -> HeldReport {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = server.local_addr().expect("it is bound");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        let mut held = Held::new(&[address], 1, 0);
        std::thread::spawn(move || {
            let (mut socket, _) = server.accept().expect("the client connects");
            for answer in answers {
                let _ = socket.read(&mut [0; 200]);
                let _ = socket.write_all(answer);
            }
        });
        let mut events = [EpollEvent::empty(); 8];
        for round in 1..2000 {
            let now = round * PERIOD_NS;
            held.tick(&epoll, now).expect("sockets are to be had");
            let count = epoll
                .wait(&mut events, EpollTimeout::from(5u8))
                .unwrap_or(0);
            for event in &events[..count] {
                assert!(Held::owns(event.data()));
                held.advance(event.data());
            }
            if until(&held.reports()[0]) {
                return held.reports()[0];
            }
        }
        panic!("waited in vain: {:?}", held.reports());
    }

    #[test]
    fn a_connection_that_ends_without_notice_is_broken() {
        let report = after(&[ANSWER, ANSWER], |report| report.broken > 0);
        assert_eq!((report.answers, report.broken), (2, 1));
    }

    #[test]
    fn a_connection_whose_end_was_announced_is_not() {
        let report = after(&[ANSWER, LAST], |report| report.answers == 2);
        assert_eq!(report.broken, 0);
    }

    #[test]
    fn tokens_of_requests_and_of_the_loop_belong_to_others() {
        assert!(!Held::owns(u64::MAX) && !Held::owns(u64::MAX - 2));
        assert!(!Held::owns(0x7fff_ffff << 32 | 4000));
        assert!(Held::owns(MARK | 7));
    }
}
