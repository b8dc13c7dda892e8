//! The look at open connections, on each tick.

use shadowd_common::sockets::{COUNTED, Socket};

use crate::context::plus;
use crate::flows::{credit_rtt, flow, since};
use crate::kernel::{counters, state};
use crate::owner::{hold, release, settle};
use crate::tcp::{CLOSE, NO_COUNTERS, connect_failed, finish, now_ns, ports, replaced};

/// A connect that is closed for so long has ended, whether or not its end was seen.
const MISSED_NS: u64 = 1_000_000_000;

/// Whether an entry is of an open connection; takes out what ended unseen.
///
/// # Safety
///
/// `socket` is the live map value at `sk`.
#[inline(always)]
unsafe fn is_open(sk: u64, socket: *mut Socket) -> Option<bool> {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        let established = core::ptr::read_volatile(&raw const (*socket).established);
        let state = state(sk)?;
        if established == 0 {
            // The entry is made before the state changes.
            let began = (*socket).connecting_ns;
            if state == CLOSE && now_ns().saturating_sub(began) > MISSED_NS {
                connect_failed(sk, socket);
            }
            return Some(false);
        }
        if ports(sk)? != (*socket).ports {
            replaced(sk, socket);
            return Some(false);
        }
        if state == CLOSE {
            // Its end was missed: the tracepoint comes before the state changes.
            plus(&raw mut (*socket).closed, 1);
            if core::ptr::read_volatile(&raw const (*socket).busy) == 0 {
                finish(sk, socket);
            }
            return Some(false);
        }
    }
    Some(true)
}

/// The look at one open connection: what it moved is added to what its flow's open connections
/// moved.
///
/// # Safety
///
/// `socket` is the live map value at `sk`; one look runs at a time.
#[inline(always)]
pub unsafe fn connection(sk: u64, socket: *mut Socket, tick: u64) -> Option<()> {
    // SAFETY: the caller vouches for the pointer, the verifier for what is looked up. The fields
    // of the look are written by the look only.
    unsafe {
        if (*socket).visited == tick {
            return None;
        }
        if !is_open(sk, socket)? {
            return None;
        }
        if core::ptr::read_volatile(&raw const (*socket).pending) != COUNTED && hold(sk, socket) {
            let key = (*socket).flow;
            settle(socket, &key);
            release(socket);
        }
        let version = core::ptr::read_volatile(&raw const (*socket).version);
        let key = (*socket).flow;
        let value = flow(&key)?;
        if (*value).live_tick != tick {
            let done = core::ptr::read_volatile(&raw const (*value).done);
            (*value).before = done;
            (*value).live = since(&NO_COUNTERS, &NO_COUNTERS);
            (*value).live_tick = tick;
        }
        // What ended or moved before `before` was read is in it.
        let base = core::ptr::read_volatile(&raw const (*socket).base);
        let ended = core::ptr::read_volatile(&raw const (*socket).closed) != 0;
        let now = counters(sk)?;
        if ended
            || version & 1 != 0
            || core::ptr::read_volatile(&raw const (*socket).version) != version
            || core::ptr::read_volatile(&raw const (*socket).sk) != sk
        {
            return None;
        }
        let more = since(&now, &base);
        (*value).live.rx_bytes += more.rx_bytes;
        (*value).live.tx_bytes += more.tx_bytes;
        (*value).live.rx_packets += more.rx_packets;
        (*value).live.tx_packets += more.tx_packets;
        (*value).live.retransmits += more.retransmits;
        (*socket).visited = tick;
        let segments = now.rx_packets.wrapping_add(now.tx_packets);
        if (*socket).looked != segments {
            (*socket).looked = segments;
            credit_rtt(value, now.rtt_us);
        }
    }
    Some(())
}
