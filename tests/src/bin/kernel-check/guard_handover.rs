//! What the guard does with the connections of an address that has just changed its owner.
//!
//! On a loopback interface, so that a frame that is passed on comes in again, as one that is for
//! another host.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, send};
use shadowd::act::guard::{Guard, Reading};
use shadowd::facts::Mac;
use shadowd::observe::Capture;

use super::PATIENCE;
use super::guard::{HOUR, PINS, apart, now, vips, wire};
use super::guard_frames::{ACK, SYN, arp_in_its_name, segment};

const OTHER: Mac = [2, 0, 0, 0, 0, 9];

/// Dropped on arrival, instead of sent, and passed on.
type Counts = [u64; 3];

const NOTHING: Counts = [0, 0, 0];
const SILENT: Counts = [0, 1, 0];
const PASSED: Counts = [0, 0, 1];
/// On its way back it is nothing for a closed address.
const PASSED_AND_BACK: Counts = [1, 0, 1];

/// The old owner serves what it has begun, and the new one what it has.
pub fn hands_connections_on(_: &mut Capture) -> Result<()> {
    apart(|| {
        let guard = Guard::open("lo", Path::new(PINS), &vips())?;
        let until = now().after(HOUR);
        for is_six in [false, true] {
            let to = |client, flags| segment(is_six, false, client, flags);
            let from = |client, flags| segment(is_six, true, client, flags);
            guard.set_deadline(&vips(), None)?;
            guard.take_over(&vips(), None, now())?;
            guard.hand_on(&vips(), OTHER, now(), until)?;
            expect(&guard, is_six, "a new one", &to(1, SYN), PASSED_AND_BACK)?;
            expect(&guard, is_six, "more of it", &to(1, ACK), PASSED)?;
            expect(&guard, is_six, "one that it has", &to(2, ACK), NOTHING)?;
            expect(&guard, is_six, "its answer", &from(2, ACK), NOTHING)?;
            expect(&guard, is_six, "accepting", &from(3, SYN | ACK), SILENT)?;
            expect(&guard, is_six, "opening", &from(3, SYN), SILENT)?;
            if !is_six {
                let arp = arp_in_its_name(true);
                expect(&guard, is_six, "asking, unnamed", &arp, NOTHING)?;
                let arp = arp_in_its_name(false);
                expect(&guard, is_six, "answering", &arp, SILENT)?;
            }
            guard.end_connections(&vips())?;
            expect(&guard, is_six, "all over", &from(2, ACK), SILENT)?;
            expect(&guard, is_six, "all over", &to(2, ACK), [1, 0, 0])?;

            guard.take_over(&vips(), Some((OTHER, until)), now())?;
            guard.set_deadline(&vips(), Some(until))?;
            expect(&guard, is_six, "unknown", &to(4, ACK), PASSED)?;
            expect(&guard, is_six, "a new one", &to(5, SYN), NOTHING)?;
            expect(&guard, is_six, "more of it", &to(5, ACK), NOTHING)?;
            expect(&guard, is_six, "accepting", &from(5, SYN | ACK), NOTHING)?;
            // It moves back and forth, and the client uses the port again, at the other host.
            guard.take_over(&vips(), Some((OTHER, until)), now())?;
            expect(&guard, is_six, "a port used again", &to(5, ACK), PASSED)?;
        }
        guard.remove()?;
        Ok(())
    })
}

/// Sends the frame out of the interface and in again.
fn expect(guard: &Guard, is_six: bool, what: &str, frame: &[u8], counts: Counts) -> Result<()> {
    let wire = wire()?;
    let vip = vips()[2 + usize::from(is_six)];
    let read = || {
        let readings = guard.readings().into_iter();
        let mut found = readings.filter(|reading| reading.vip == vip);
        let counts = |reading: Reading| [reading.dropped_rx, reading.dropped_tx, reading.passed];
        found.next().map(counts).context("it is guarded")
    };
    let before = read()?;
    let sent = send(wire.as_raw_fd(), frame, MsgFlags::empty());
    ensure!(sent.is_err() == (counts[1] > 0), "{what}: {sent:?}");
    let end = Instant::now() + PATIENCE;
    loop {
        let now = read()?;
        let more = [0, 1, 2].map(|field| now[field] - before[field]);
        if more == counts {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{what}, IPv6 {is_six}: {more:?}, not {counts:?}"
        );
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}
