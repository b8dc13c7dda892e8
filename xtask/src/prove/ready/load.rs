//! Clients of the group: steady, with a burst every minute.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::files::{APP_PORT, PAGE_PORT};
use crate::lab::VIP_V4;
use crate::prove::crew::Crew;

/// A burst comes this often, and lasts so long.
const BURST_EVERY: Duration = Duration::from_secs(60);
const BURST: Duration = Duration::from_secs(8);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often one kind of client asks: between two questions, and in a burst.
struct Pace {
    port: u16,
    question: &'static [u8],
    steady: Duration,
    burst: Duration,
}

/// Pages are cheap; an answer of the small service takes three processes.
const PACES: [Pace; 2] = [
    Pace {
        port: PAGE_PORT,
        question: b"GET / HTTP/1.0\r\n\r\n",
        steady: Duration::from_millis(20),
        burst: Duration::from_millis(2),
    },
    Pace {
        port: APP_PORT,
        question: b"",
        steady: Duration::from_millis(500),
        burst: Duration::from_millis(60),
    },
];

/// Answers that came, and those that did not.
#[derive(Debug, Default)]
pub struct Tally {
    /// They came.
    pub good: AtomicU64,
    /// They did not: some are lost with each handover.
    pub bad: AtomicU64,
}

/// Asks until it is ended or dropped.
pub struct Load {
    /// What was answered so far.
    pub tally: Arc<Tally>,
    crew: Crew,
}

impl Load {
    /// Begins in the client's namespace.
    ///
    /// # Errors
    /// The namespace is not there.
    pub fn start(client: &str) -> Result<Self> {
        let (mut crew, tally) = (Crew::default(), Arc::<Tally>::default());
        for pace in PACES {
            let counted = Arc::clone(&tally);
            crew.start(client, move |stop| {
                ask(&pace, stop, &counted);
                Ok(())
            })?;
        }
        Ok(Self { tally, crew })
    }

    /// Ends it.
    ///
    /// # Errors
    /// A client ended before.
    pub fn finish(mut self) -> Result<()> {
        self.crew.finish()
    }
}

fn ask(pace: &Pace, stop: &AtomicBool, tally: &Tally) {
    let begin = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let counted = match answered(pace) {
            true => &tally.good,
            false => &tally.bad,
        };
        counted.fetch_add(1, Ordering::Relaxed);
        let wait = match is_burst(begin.elapsed()) {
            true => pace.burst,
            false => pace.steady,
        };
        std::thread::sleep(wait.saturating_sub(asked.elapsed()));
    }
}

fn is_burst(elapsed: Duration) -> bool {
    elapsed.as_secs() % BURST_EVERY.as_secs() >= (BURST_EVERY - BURST).as_secs()
}

fn answered(pace: &Pace) -> bool {
    let ask = || -> std::io::Result<usize> {
        let address = SocketAddr::from((VIP_V4, pace.port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(pace.question)?;
        stream.read_to_end(&mut Vec::new())
    };
    ask().is_ok_and(|bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_ends_with_a_burst() {
        let bursts = |second: u64| is_burst(Duration::from_secs(second));
        assert!(!bursts(0) && !bursts(51) && bursts(52) && bursts(59) && !bursts(60));
    }
}
