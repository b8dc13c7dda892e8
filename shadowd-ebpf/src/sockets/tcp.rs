//! A TCP connection from its beginning to its end, and the look at the open ones.
//!
//! One tracepoint tells of every change of state. A connecting socket changes to SYN_SENT in its
//! owner's context. An accepted one becomes established in a softirq, where `current` is whoever
//! was interrupted: its owner is the listener's until the first send or receive. Ports and
//! addresses are read when a socket is established: at its end they are already given back.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use shadowd_common::sockets::{
    ADOPTED, CHANGING, COUNTED, Counters, FlowKey, INBOUND, OPENED, OUTBOUND, PHASE, PHASE_RUNNING,
    REFUSED, SOCKETS_MAX, Socket, TCP, loss,
};

use crate::context::{BPF_NOEXIST, current, lost, plus, read, setting};
use crate::flows::{credit, credit_rtt, flow, flow_or_lost, since};
use crate::kernel::{OFFSETS, addresses, counters, creator, local_port, netns, remote_port};
use crate::listen::{LISTENING, listener};

// include/net/tcp_states.h
pub const ESTABLISHED: i32 = 1;
pub const SYN_SENT: i32 = 2;
pub const SYN_RECV: i32 = 3;
pub const CLOSE: i32 = 7;
pub const CLOSE_WAIT: i32 = 8;
pub const LISTEN: i32 = 10;
pub const NEW_SYN_RECV: i32 = 12;

#[map]
pub static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(SOCKETS_MAX, 0);

/// What user space and the kernel side tell each other while it runs.
#[map]
pub static STATE: Array<u64> = Array::with_max_entries(CHANGING, 0);

/// The connection that ended last on this CPU: a close that answers unread data with a reset
/// changes the state first and sends the reset then.
#[map]
static LAST: PerCpuArray<Last> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
struct Last {
    sk: u64,
    flow: FlowKey,
}

#[inline(always)]
pub fn setting_now(index: u32) -> u64 {
    STATE.get(index).copied().unwrap_or(0)
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: plain helper call.
    unsafe { bpf_ktime_get_ns() }
}

pub const NO_COUNTERS: Counters = Counters {
    rx_bytes: 0,
    tx_bytes: 0,
    rx_packets: 0,
    tx_packets: 0,
    retransmits: 0,
    rtt_us: 0,
};

/// A socket to follow.
#[inline(always)]
pub fn entry(sk: u64, flow: FlowKey, pending: u32, ports: u32) -> Socket {
    Socket {
        flow,
        base: NO_COUNTERS,
        connecting_ns: 0,
        received_ns: 0,
        busy: 0,
        closed: 0,
        version: 0,
        visited: 0,
        looked: 0,
        established: 1,
        reset: 0,
        pending,
        changes: 0,
        ports,
        sk,
    }
}

/// Both ports of a socket, as one word.
#[inline(always)]
pub fn ports(sk: u64) -> Option<u32> {
    let remote: u16 = read(sk, setting!(OFFSETS, sk_dport))?;
    let local: u16 = read(sk, setting!(OFFSETS, inet_sport))?;
    Some(u32::from(remote) << 16 | u32::from(local))
}

/// Whether the entry of a socket shows that a change of state was handled. The end of one that has
/// no entry was.
#[inline(always)]
pub fn is_done(sk: u64, new: i32) -> bool {
    let Some(socket) = SOCKETS.get_ptr(&sk) else {
        let refused = LAST_REFUSED.get(0).is_some_and(|last| *last == sk);
        let closed = new == CLOSE && LISTENING.get_ptr(&sk).is_none();
        return closed || (new == ESTABLISHED && refused);
    };
    // SAFETY: the verifier checked the pointer.
    unsafe {
        let established = core::ptr::read_volatile(&raw const (*socket).established) != 0;
        match new {
            SYN_SENT => !established,
            ESTABLISHED => established && ports(sk) == Some((*socket).ports),
            CLOSE => core::ptr::read_volatile(&raw const (*socket).closed) != 0,
            _ => false,
        }
    }
}

/// A connect begins, in the owner's context.
#[inline(always)]
pub fn connecting(sk: u64) -> Option<()> {
    let task = current()?;
    let (local, remote) = addresses(sk)?;
    let flow = FlowKey {
        cgroup: task.cgroup,
        tgid: task.tgid,
        service: remote_port(sk)?,
        direction: OUTBOUND,
        protocol: TCP,
        local,
        remote,
    };
    let mut socket = entry(sk, flow, COUNTED, 0);
    socket.established = 0;
    socket.connecting_ns = now_ns();
    if let Some(old) = SOCKETS.get_ptr(&sk) {
        // SAFETY: the verifier checked the pointer.
        unsafe { replaced(sk, old) };
    }
    // Without room there is another try when it is established.
    let _ = SOCKETS.insert(&sk, &socket, 0);
    Some(())
}

/// A connection is established.
#[inline(always)]
pub fn established(sk: u64, old: i32) -> Option<()> {
    let (local, remote) = addresses(sk)?;
    if let Some(socket) = SOCKETS.get_ptr_mut(&sk) {
        // SAFETY: the verifier checked the pointer; before it is established nobody else writes.
        unsafe {
            if (*socket).established == 0 && old == SYN_SENT {
                (*socket).flow.local = local;
                (*socket).flow.remote = remote;
                (*socket).ports = ports(sk)?;
                let key = (*socket).flow;
                let began = (*socket).connecting_ns;
                core::ptr::write_volatile(&raw mut (*socket).established, 1);
                let value = flow_or_lost(&key, 1, 0)?;
                plus(&raw mut (*value).sums.opened, 1);
                if began != 0 {
                    plus(&raw mut (*value).sums.connect_count, 1);
                    plus(
                        &raw mut (*value).sums.connect_sum_ns,
                        now_ns().saturating_sub(began),
                    );
                }
                return Some(());
            }
        }
        // SAFETY: the verifier checked the pointer.
        unsafe { replaced(sk, socket) };
    }
    let key = if old == SYN_SENT {
        FlowKey {
            cgroup: creator(sk)?,
            tgid: 0,
            service: remote_port(sk)?,
            direction: OUTBOUND,
            protocol: TCP,
            local,
            remote,
        }
    } else {
        let service = local_port(sk)?;
        let (tgid, cgroup) = match listener(netns(sk)?, service, local) {
            Some(owner) => owner,
            None => (0, creator(sk)?),
        };
        FlowKey {
            cgroup,
            tgid,
            service,
            direction: INBOUND,
            protocol: TCP,
            local,
            remote,
        }
    };
    if SOCKETS
        .insert(&sk, &entry(sk, key, OPENED, ports(sk)?), BPF_NOEXIST)
        .is_err()
    {
        refused(sk);
    }
    Some(())
}

/// The end of a connection was missed, and another lies at its address now: it is over, but what it
/// moved after the last look cannot be known any more. Of a connect how it ended cannot either.
///
/// # Safety
///
/// `socket` is the live map value at `sk`.
#[inline(always)]
pub unsafe fn replaced(sk: u64, socket: *const Socket) -> Option<()> {
    // SAFETY: the caller vouches for the pointer; all is copied before the entry goes.
    let (key, pending, established) =
        unsafe { ((*socket).flow, (*socket).pending, (*socket).established) };
    if SOCKETS.remove(&sk).is_err() {
        return None;
    }
    if established == 0 {
        lost(loss::SOCKETS, 1);
        return None;
    }
    let counts = 1 + u64::from(pending == OPENED || pending == ADOPTED);
    let value = flow_or_lost(&key, counts, 0)?;
    // SAFETY: the verifier checked the pointer; the fields are aligned and only added to.
    unsafe {
        if pending == OPENED {
            plus(&raw mut (*value).sums.opened, 1);
        } else if pending == ADOPTED {
            plus(&raw mut (*value).sums.adopted, 1);
        }
        plus(&raw mut (*value).sums.closed, 1);
    }
    Some(())
}

/// The socket that was refused last on this CPU.
#[map]
static LAST_REFUSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The full table of sockets refused a connection: its beginning is counted as lost.
#[inline(always)]
pub fn refused(sk: u64) {
    lost(loss::SOCKETS, 1);
    if let Some(last) = LAST_REFUSED.get_ptr_mut(0) {
        // SAFETY: the verifier checked the pointer; the slot belongs to this CPU.
        unsafe { *last = sk };
    }
    if let Some(refused) = STATE.get_ptr_mut(REFUSED) {
        // SAFETY: the verifier checked the pointer.
        unsafe { plus(refused, 1) };
    }
}

/// A socket that did not listen is closed.
#[inline(always)]
pub fn closed(sk: u64, old: i32) -> Option<()> {
    let Some(socket) = SOCKETS.get_ptr_mut(&sk) else {
        return unknown_closed(sk, old);
    };
    let error = read::<u32>(sk, setting!(OFFSETS, sk_err));
    // SAFETY: the verifier checked the pointer.
    unsafe {
        if (*socket).established == 0 {
            return connect_failed(sk, socket);
        }
        // From these states only a timeout, which leaves an error, or a reset leads here.
        let direct = old == ESTABLISHED || old == CLOSE_WAIT;
        if direct && error == Some(0) {
            core::ptr::write_volatile(&raw mut (*socket).reset, 1);
        }
        plus(&raw mut (*socket).closed, 1);
        if core::ptr::read_volatile(&raw const (*socket).busy) == 0 {
            finish(sk, socket);
        }
    }
    Some(())
}

/// A connect ended without a connection.
///
/// # Safety
///
/// `socket` is the live map value at `sk`.
#[inline(always)]
pub unsafe fn connect_failed(sk: u64, socket: *const Socket) -> Option<()> {
    // SAFETY: the caller vouches for the pointer, the verifier for the flow's.
    unsafe {
        let key = (*socket).flow;
        if SOCKETS.remove(&sk).is_ok() {
            plus(&raw mut (*flow_or_lost(&key, 1, 0)?).sums.failed, 1);
        }
    }
    Some(())
}

/// The end of a socket that is not followed.
#[inline(always)]
fn unknown_closed(sk: u64, old: i32) -> Option<()> {
    let running = setting_now(PHASE) == PHASE_RUNNING;
    if old == SYN_SENT {
        if running && creator(sk).is_some() {
            lost(loss::SOCKETS, 1);
        }
        return None;
    }
    if old == SYN_RECV || old == NEW_SYN_RECV {
        return None; // a handshake that was never completed
    }
    let (local, remote) = addresses(sk)?;
    let (sport, dport) = (local_port(sk)?, remote_port(sk)?);
    let owner = listener(netns(sk)?, sport, local);
    let inbound = owner.is_some();
    let (tgid, cgroup) = match owner {
        Some(owner) => owner,
        None => (0, creator(sk)?),
    };
    if running {
        let now = counters(sk)?;
        lost(loss::SOCKETS, 1);
        lost(loss::SOCKET_BYTES, now.rx_bytes + now.tx_bytes);
        return None;
    }
    // It was there before, and ends while such ones are being looked for.
    let key = FlowKey {
        cgroup,
        tgid,
        service: if inbound { sport } else { dport },
        direction: if inbound { INBOUND } else { OUTBOUND },
        protocol: TCP,
        local,
        remote,
    };
    let value = flow_or_lost(&key, 2, 0)?;
    // SAFETY: the verifier checked the pointer.
    unsafe {
        plus(&raw mut (*value).sums.adopted, 1);
        plus(&raw mut (*value).sums.closed, 1);
    }
    Some(())
}

/// Takes the entry of an ended connection out and gives its flow what is left.
///
/// # Safety
///
/// `socket` is the live map value at `sk`, and nobody holds `busy`.
#[inline(always)]
pub unsafe fn finish(sk: u64, socket: *mut Socket) -> Option<()> {
    // SAFETY: the caller vouches for the pointer. Once removed the value may be used again, so all
    // is copied before; of several that try, one removes it.
    let (key, base, pending, reset) = unsafe {
        let reset = core::ptr::read_volatile(&raw const (*socket).reset) != 0;
        ((*socket).flow, (*socket).base, (*socket).pending, reset)
    };
    if SOCKETS.remove(&sk).is_err() {
        return None;
    }
    let now = counters(sk)?;
    let more = since(&now, &base);
    let counts = 1 + u64::from(pending == OPENED || pending == ADOPTED);
    let value = flow_or_lost(&key, counts, more.rx_bytes + more.tx_bytes)?;
    // SAFETY: the verifier checked the pointers.
    unsafe {
        if pending == OPENED {
            plus(&raw mut (*value).sums.opened, 1);
        } else if pending == ADOPTED {
            plus(&raw mut (*value).sums.adopted, 1);
        }
        plus(&raw mut (*value).sums.closed, 1);
        credit(value, &more);
        credit_rtt(value, now.rtt_us);
        if reset {
            plus(&raw mut (*value).sums.resets, 1);
        } else if let Some(last) = LAST.get_ptr_mut(0) {
            (*last).sk = sk;
            (*last).flow = key;
        }
    }
    Some(())
}

/// A reset came or goes.
#[inline(always)]
pub fn reset(sk: u64) -> Option<()> {
    if let Some(socket) = SOCKETS.get_ptr_mut(&sk) {
        // SAFETY: the verifier checked the pointer.
        unsafe { core::ptr::write_volatile(&raw mut (*socket).reset, 1) };
        return Some(());
    }
    let last = LAST.get_ptr_mut(0)?;
    // SAFETY: the verifier checked the pointer; the slot belongs to this CPU.
    unsafe {
        if (*last).sk == sk {
            (*last).sk = 0;
            let key = (*last).flow;
            plus(&raw mut (*flow(&key)?).sums.resets, 1);
        }
    }
    Some(())
}
