//! Follows TCP sockets from the first packet to the last and counts flows.
//!
//! One hook tells all: `inet_sock_set_state`. A connecting socket changes to SYN_SENT in its
//! owner's context. An accepted one becomes established in a softirq, where `current` is whoever
//! was interrupted, so its owner is taken from the listening socket. Ports and addresses are read
//! when a socket is established: at its end an ephemeral port is already given back.

#![no_std]
#![no_main]
// Atomic addition is an instruction that only assembly reaches.
#![feature(asm_experimental_arch)]

mod context;

use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::RawTracePointContext;
use shadowd_common::sockets::{
    FLOWS_MAX, FlowKey, FlowValue, INBOUND, LISTENERS_MAX, ListenerKey, OUTBOUND, Owner,
    SOCKETS_MAX, Socket, SocketOffsets, loss,
};
use shadowd_common::{Address, MAPPED};

use crate::context::{BPF_NOEXIST, SCOPE, current, lost, plus, read, setting};

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;
const NEW_SYN_RECV: i32 = 12;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
/// Bit of `sk_flags` that tcp_fin() sets: the peer's FIN was received (enum sock_flags).
const SOCK_DONE: u64 = 1 << 1;

/// Written by user space before the load.
#[unsafe(no_mangle)]
static OFFSETS: SocketOffsets = SocketOffsets {
    sk_protocol: 0,
    sk_family: 0,
    sk_daddr: 0,
    sk_rcv_saddr: 0,
    sk_v6_daddr: 0,
    sk_v6_rcv_saddr: 0,
    sk_dport: 0,
    sk_num: 0,
    sk_flags: 0,
    sk_net: 0,
    sk_cgroup: 0,
    inet_sport: 0,
    net_inum: 0,
    tcp_bytes_sent: 0,
    tcp_bytes_retrans: 0,
    tcp_bytes_received: 0,
    cgroup_node: 0,
    node_id: 0,
};

#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

type Flows = HashMap<FlowKey, FlowValue>;

#[map]
static FLOWS_0: Flows = Flows::with_max_entries(FLOWS_MAX, 0);

#[map]
static FLOWS_1: Flows = Flows::with_max_entries(FLOWS_MAX, 0);

#[map]
static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(SOCKETS_MAX, 0);

#[map]
static LISTENERS: HashMap<ListenerKey, Owner> = HashMap::with_max_entries(LISTENERS_MAX, 0);

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    let _ = step(sk, old, new);
    0
}

#[inline(always)]
fn step(sk: u64, old: i32, new: i32) -> Option<()> {
    if old == new || read::<u16>(sk, setting!(OFFSETS, sk_protocol))? != IPPROTO_TCP {
        return None;
    }
    match new {
        SYN_SENT => connecting(sk),
        LISTEN => listening(sk),
        ESTABLISHED => established(sk),
        CLOSE if old == LISTEN => unlistening(sk),
        CLOSE => closed(sk, old),
        _ => None,
    }
}

#[inline(always)]
fn connecting(sk: u64) -> Option<()> {
    let task = current()?;
    let (local, remote) = addresses(sk)?;
    let service = u16::from_be(read(sk, setting!(OFFSETS, sk_dport))?);
    let flow = FlowKey {
        cgroup: task.cgroup,
        tgid: task.tgid,
        service,
        direction: OUTBOUND,
        local,
        remote,
    };
    follow(
        sk,
        Socket {
            flow,
            established: 0,
        },
    );
    Some(())
}

#[inline(always)]
fn established(sk: u64) -> Option<()> {
    let (local, remote) = addresses(sk)?;
    let flow = if let Some(socket) = SOCKETS.get_ptr_mut(&sk) {
        // SAFETY: the verifier checked the pointer; only this socket's own path writes here.
        unsafe {
            (*socket).flow.local = local;
            (*socket).flow.remote = remote;
            (*socket).established = 1;
            (*socket).flow
        }
    } else {
        let service = read(sk, setting!(OFFSETS, sk_num))?;
        let flow = unknown(sk, local, remote, service, 0)?;
        follow(
            sk,
            Socket {
                flow,
                established: 1,
            },
        );
        flow
    };
    add(
        &flow,
        &FlowValue {
            opened: 1,
            ..NOTHING
        },
    );
    Some(())
}

#[inline(always)]
fn closed(sk: u64, old: i32) -> Option<()> {
    let (flow, established) = if let Some(socket) = SOCKETS.get_ptr(&sk) {
        // SAFETY: the verifier checked the pointer; only this socket's own path writes here.
        let socket = unsafe { *socket };
        let _ = SOCKETS.remove(&sk);
        (socket.flow, socket.established != 0)
    } else {
        if old == SYN_SENT || old == SYN_RECV || old == NEW_SYN_RECV {
            // A connect of another host on this kernel, or a handshake that was never completed.
            return None;
        }
        // It was there before the probe.
        let (local, remote) = addresses(sk)?;
        let sport = u16::from_be(read(sk, setting!(OFFSETS, inet_sport))?);
        let dport = u16::from_be(read(sk, setting!(OFFSETS, sk_dport))?);
        (unknown(sk, local, remote, sport, dport)?, true)
    };
    if !established {
        add(
            &flow,
            &FlowValue {
                failed: 1,
                ..NOTHING
            },
        );
        return Some(());
    }
    let sent: u64 = read(sk, setting!(OFFSETS, tcp_bytes_sent))?;
    let again: u64 = read(sk, setting!(OFFSETS, tcp_bytes_retrans))?;
    let received: u64 = read(sk, setting!(OFFSETS, tcp_bytes_received))?;
    let flags: u64 = read(sk, setting!(OFFSETS, sk_flags))?;
    let fin = u64::from(flags & SOCK_DONE != 0);
    add(
        &flow,
        &FlowValue {
            closed: 1,
            rx_bytes: received.saturating_sub(fin),
            tx_bytes: sent.saturating_sub(again),
            ..NOTHING
        },
    );
    Some(())
}

/// The flow of a socket whose beginning was not seen in its owner's context: inbound if somebody
/// listens on its local port. `dport` 0 says that it is inbound in any case.
#[inline(always)]
fn unknown(sk: u64, local: Address, remote: Address, sport: u16, dport: u16) -> Option<FlowKey> {
    let netns = netns(sk)?;
    let owner = listener(netns, sport, local);
    if owner.is_none() && setting!(SCOPE, root_level) != 0 && netns != setting!(SCOPE, netns) {
        return None; // another host on this kernel
    }
    let inbound = owner.is_some() || dport == 0;
    let (tgid, cgroup) = owner.unwrap_or((0, creator(sk)));
    Some(FlowKey {
        cgroup,
        tgid,
        service: if inbound { sport } else { dport },
        direction: if inbound { INBOUND } else { OUTBOUND },
        local,
        remote,
    })
}

/// The control group of the task that made the socket, or its listening parent; 0 if unknown.
#[inline(always)]
fn creator(sk: u64) -> u64 {
    let offset = setting!(OFFSETS, sk_cgroup);
    if offset == 0 {
        return 0;
    }
    let id = || {
        let cgroup: u64 = read(sk, offset)?;
        let node: u64 = read(cgroup, setting!(OFFSETS, cgroup_node))?;
        read(node, setting!(OFFSETS, node_id))
    };
    id().unwrap_or(0)
}

#[inline(always)]
fn listening(sk: u64) -> Option<()> {
    let task = current()?;
    let key = listener_key(sk)?;
    if let Some(owner) = LISTENERS.get_ptr_mut(&key) {
        // SAFETY: the verifier checked the pointer. Two sockets that begin to listen on one
        // address at once may lose a count; the entry then goes early and is made again.
        unsafe {
            (*owner).cgroup = task.cgroup;
            (*owner).tgid = task.tgid;
            (*owner).sockets += 1;
        }
        return Some(());
    }
    let owner = Owner {
        cgroup: task.cgroup,
        tgid: task.tgid,
        sockets: 1,
    };
    if LISTENERS.insert(&key, &owner, 0).is_err() {
        lost(loss::LISTENERS, 1);
    }
    Some(())
}

#[inline(always)]
fn unlistening(sk: u64) -> Option<()> {
    let key = listener_key(sk)?;
    let owner = LISTENERS.get_ptr_mut(&key)?;
    // SAFETY: the verifier checked the pointer.
    let left = unsafe {
        (*owner).sockets = (*owner).sockets.saturating_sub(1);
        (*owner).sockets
    };
    if left == 0 {
        let _ = LISTENERS.remove(&key);
    }
    Some(())
}

#[inline(always)]
fn listener_key(sk: u64) -> Option<ListenerKey> {
    let (address, _) = addresses(sk)?;
    let num: u16 = read(sk, setting!(OFFSETS, sk_num))?;
    let port = if num == 0 {
        u16::from_be(read(sk, setting!(OFFSETS, inet_sport))?)
    } else {
        num
    };
    Some(ListenerKey {
        netns: netns(sk)?,
        port: u32::from(port),
        address,
    })
}

/// Who listens on `port`: on this very address, on every IPv4 address, or on every address.
#[inline(always)]
fn listener(netns: u32, port: u16, address: Address) -> Option<(u32, u64)> {
    let mut key = ListenerKey {
        netns,
        port: u32::from(port),
        address,
    };
    let found = |key: &ListenerKey| {
        // SAFETY: the verifier checked the pointer.
        LISTENERS
            .get_ptr(key)
            .map(|owner| unsafe { ((*owner).tgid, (*owner).cgroup) })
    };
    if let Some(owner) = found(&key) {
        return Some(owner);
    }
    if key.address[2] == MAPPED {
        key.address[3] = 0;
        if let Some(owner) = found(&key) {
            return Some(owner);
        }
    }
    key.address = [0; 4];
    found(&key)
}

#[inline(always)]
fn netns(sk: u64) -> Option<u32> {
    let net: u64 = read(sk, setting!(OFFSETS, sk_net))?;
    read(net, setting!(OFFSETS, net_inum))
}

/// Local and remote address, IPv4 as IPv4-mapped.
#[inline(always)]
fn addresses(sk: u64) -> Option<(Address, Address)> {
    let family: u16 = read(sk, setting!(OFFSETS, sk_family))?;
    if family == AF_INET6 {
        let remote: Address = read(sk, setting!(OFFSETS, sk_v6_daddr))?;
        if !(remote[0] == 0 && remote[1] == 0 && remote[2] == MAPPED) {
            return Some((read(sk, setting!(OFFSETS, sk_v6_rcv_saddr))?, remote));
        }
    } else if family != AF_INET {
        return None;
    }
    let local: u32 = read(sk, setting!(OFFSETS, sk_rcv_saddr))?;
    let remote: u32 = read(sk, setting!(OFFSETS, sk_daddr))?;
    Some(([0, 0, MAPPED, local], [0, 0, MAPPED, remote]))
}

#[inline(always)]
fn follow(sk: u64, socket: Socket) {
    if SOCKETS.insert(&sk, &socket, 0).is_err() {
        lost(loss::SOCKETS, 1);
    }
}

const NOTHING: FlowValue = FlowValue {
    opened: 0,
    closed: 0,
    failed: 0,
    rx_bytes: 0,
    tx_bytes: 0,
};

#[inline(always)]
fn add(key: &FlowKey, more: &FlowValue) {
    let flows = if GENERATION.get(0).copied().unwrap_or(0) == 0 {
        &FLOWS_0
    } else {
        &FLOWS_1
    };
    if flows.get_ptr(key).is_none() {
        // Another CPU may be first: then its entry is used.
        let _ = flows.insert(key, &NOTHING, BPF_NOEXIST);
    }
    let Some(value) = flows.get_ptr_mut(key) else {
        lost(loss::FLOWS, 1);
        return;
    };
    // SAFETY: the verifier checked the pointer; the fields are aligned and only added to.
    unsafe {
        plus(&raw mut (*value).opened, more.opened);
        plus(&raw mut (*value).closed, more.closed);
        plus(&raw mut (*value).failed, more.failed);
        plus(&raw mut (*value).rx_bytes, more.rx_bytes);
        plus(&raw mut (*value).tx_bytes, more.tx_bytes);
    }
}
