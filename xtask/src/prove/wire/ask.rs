//! The client that asks for the virtual IPs all the time, and asks every member.
//!
//! ARP and neighbour solicitations go to everybody; echo requests and first segments of TCP
//! connections go to each member's own Ethernet address. So a host that would answer does, whoever
//! the client's kernel takes for the owner. Beside that it opens ordinary HTTP connections.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use socket2::Socket;

use super::frames::{self, Ends, Mac};
use super::place;
use crate::lab::{CLIENT_V4, CLIENT_V6, VIP_V4, VIP_V6};
use crate::prove::crew::Crew;

/// Everybody is asked this often.
const PERIOD: Duration = Duration::from_millis(2);
/// Each member is asked by echo and by TCP every so many periods.
const DIRECT: u64 = 4;
/// Ports below those that the client's kernel gives to its own connections.
const PORTS: u64 = 1000;
/// An ordinary connection to each address is opened this often.
const HTTP_PERIOD: Duration = Duration::from_millis(20);
const HTTP_TIMEOUT: Duration = Duration::from_millis(200);

/// What was asked and answered.
#[derive(Debug, Default)]
pub struct Tally {
    /// Frames sent.
    pub sent: AtomicU64,
    /// Frames that the interface's queue refused.
    pub refused: AtomicU64,
    /// Pages that were asked for.
    pub pages: AtomicU64,
    /// Pages that came.
    pub good: AtomicU64,
}

/// Asks until it is ended or dropped.
pub struct Asker {
    /// What was asked so far.
    pub tally: Arc<Tally>,
    crew: Crew,
}

impl Asker {
    /// Begins to ask from the client's namespace; `members` are their Ethernet addresses.
    ///
    /// # Errors
    /// The namespace is not there.
    pub fn start(client: &str, members: Vec<Mac>) -> Result<Self> {
        let (mut crew, tally) = (Crew::default(), Arc::<Tally>::default());
        let counted = Arc::clone(&tally);
        crew.start(client, move |stop| Raw::open(members)?.run(stop, &counted))?;
        for vip in [IpAddr::from(VIP_V4), IpAddr::from(VIP_V6)] {
            let counted = Arc::clone(&tally);
            crew.start(client, move |stop| {
                pages(vip, stop, &counted);
                Ok(())
            })?;
        }
        Ok(Self { tally, crew })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It ended before, with an error: then nobody asked.
    pub fn finish(mut self) -> Result<()> {
        self.crew.finish()
    }
}

struct Raw {
    socket: Socket,
    mac: Mac,
    members: Vec<Mac>,
}

impl Raw {
    fn open(members: Vec<Mac>) -> Result<Self> {
        let (socket, mac) = place::sender("eth0")?;
        Ok(Self {
            socket,
            mac,
            members,
        })
    }

    fn run(&self, stop: &AtomicBool, tally: &Tally) -> Result<()> {
        let everybody = [
            frames::arp_request((self.mac, CLIENT_V4), VIP_V4),
            frames::solicitation((self.mac, CLIENT_V6), VIP_V6),
        ];
        let mut due = Instant::now();
        for round in 0_u64.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            for frame in &everybody {
                self.send(frame, tally)?;
            }
            if round % DIRECT == 0 {
                for member in &self.members {
                    for frame in self.direct(*member, round / DIRECT) {
                        self.send(&frame, tally)?;
                    }
                }
            }
            // What was missed is not made up for: a burst would say nothing about the time before.
            due = (due + PERIOD).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn direct(&self, member: Mac, number: u64) -> [Vec<u8>; 4] {
        let v4 = Ends {
            from: (self.mac, CLIENT_V4),
            to: (member, VIP_V4),
        };
        let v6 = Ends {
            from: (self.mac, CLIENT_V6),
            to: (member, VIP_V6),
        };
        let port = (number % PORTS) as u16 + 1;
        [
            frames::echo_v4(v4, number as u16),
            frames::echo_v6(v6, number as u16),
            frames::syn_v4(v4, port),
            frames::syn_v6(v6, port),
        ]
    }

    fn send(&self, frame: &[u8], tally: &Tally) -> Result<()> {
        match self.socket.send(frame) {
            Ok(_) => tally.sent.fetch_add(1, Ordering::Relaxed),
            Err(error) if is_full(&error) => tally.refused.fetch_add(1, Ordering::Relaxed),
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

fn is_full(error: &std::io::Error) -> bool {
    let full = [Errno::EAGAIN, Errno::ENOBUFS].map(|errno| errno as i32);
    error
        .raw_os_error()
        .is_some_and(|errno| full.contains(&errno))
}

fn pages(vip: IpAddr, stop: &AtomicBool, tally: &Tally) {
    while !stop.load(Ordering::SeqCst) {
        let begin = Instant::now();
        tally.pages.fetch_add(1, Ordering::Relaxed);
        if page(vip).is_ok() {
            tally.good.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(HTTP_PERIOD.saturating_sub(begin.elapsed()));
    }
}

fn page(vip: IpAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(vip, 80), HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    match &answer[9..] {
        b"200" => Ok(()),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
