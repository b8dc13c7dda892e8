//! Who a connection belongs to, and how its entry is changed without a lock.

use shadowd_common::sockets::{ADOPTED, COUNTED, FlowKey, LATE, Socket};

use crate::context::plus;
use crate::flows::{credit, flow, flow_or_lost, since};
use crate::kernel::counters;
use crate::tcp::finish;

/// Counts what a flow has to count of a connection that is now certain to be its own.
///
/// # Safety
///
/// `socket` is a live map value of which the caller holds `busy`, or whose copy it alone has.
#[inline(always)]
pub unsafe fn settle(socket: *mut Socket, key: &FlowKey) {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        let pending = core::ptr::read_volatile(&raw const (*socket).pending);
        if pending == COUNTED {
            return;
        }
        core::ptr::write_volatile(&raw mut (*socket).pending, COUNTED);
        if pending == LATE {
            return;
        }
        if let Some(value) = flow_or_lost(key, 1, 0) {
            if pending == ADOPTED {
                plus(&raw mut (*value).sums.adopted, 1);
            } else {
                plus(&raw mut (*value).sums.opened, 1);
            }
        }
    }
}

/// Takes hold of an entry to change it; whether it may be.
///
/// # Safety
///
/// `socket` is a live map value.
#[inline(always)]
pub unsafe fn hold(sk: u64, socket: *mut Socket) -> bool {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        plus(&raw mut (*socket).busy, 1);
        let alone = core::ptr::read_volatile(&raw const (*socket).busy) == 1;
        let ended = core::ptr::read_volatile(&raw const (*socket).closed) != 0;
        // Since it was looked up the entry may have become another connection's.
        let own = core::ptr::read_volatile(&raw const (*socket).sk) == sk;
        if !alone || ended || !own {
            release(socket);
            return false;
        }
        true
    }
}

/// Lets go of an entry, and finishes it if the connection ended meanwhile.
///
/// # Safety
///
/// As for `hold`, which was called before.
#[inline(always)]
pub unsafe fn release(socket: *mut Socket) {
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        plus(&raw mut (*socket).busy, u64::MAX);
        let ended = core::ptr::read_volatile(&raw const (*socket).closed) != 0;
        let free = core::ptr::read_volatile(&raw const (*socket).busy) == 0;
        if ended && free {
            finish(core::ptr::read_volatile(&raw const (*socket).sk), socket);
        }
    }
}

/// Gives a connection to the process that sends or receives on it. Until its flow has counted it
/// everything is that process's; later what was moved before stays with the earlier owner.
///
/// # Safety
///
/// `socket` is the live map value at `sk`.
#[inline(always)]
pub unsafe fn refine(sk: u64, socket: *mut Socket, tgid: u32, cgroup: u64) -> Option<()> {
    // SAFETY: the caller vouches for the pointer; the flow is written by who holds the entry only.
    unsafe {
        if !hold(sk, socket) {
            return None;
        }
        plus(&raw mut (*socket).version, 1);
        let old = (*socket).flow;
        let pending = core::ptr::read_volatile(&raw const (*socket).pending) != COUNTED;
        let other = old.tgid != tgid || old.cgroup != cgroup;
        if other && !pending {
            let _ = hand_over(sk, socket, &old, tgid, cgroup);
        } else if other {
            (*socket).flow.tgid = tgid;
            (*socket).flow.cgroup = cgroup;
        }
        let key = (*socket).flow;
        settle(socket, &key);
        plus(&raw mut (*socket).version, 1);
        release(socket);
    }
    Some(())
}

/// Leaves what was moved so far with the flow `old`.
#[inline(always)]
unsafe fn hand_over(
    sk: u64,
    socket: *mut Socket,
    old: &FlowKey,
    tgid: u32,
    cgroup: u64,
) -> Option<()> {
    let now = counters(sk)?;
    // SAFETY: the caller holds the entry.
    unsafe {
        let more = since(&now, &(*socket).base);
        (*socket).base = now;
        (*socket).changes += 1;
        (*socket).flow.tgid = tgid;
        (*socket).flow.cgroup = cgroup;
        if let Some(value) = flow_or_lost(old, 0, more.rx_bytes + more.tx_bytes) {
            plus(&raw mut (*value).sums.moved, u64::MAX);
            credit(value, &more);
        }
        let key = (*socket).flow;
        if let Some(value) = flow(&key) {
            plus(&raw mut (*value).sums.moved, 1);
        }
    }
    Some(())
}
