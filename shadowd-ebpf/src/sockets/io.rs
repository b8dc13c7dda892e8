//! Sends and receives, in the context of the process that makes them: who owns a connection, how
//! long an answer took, and all of UDP.

use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use shadowd_common::sockets::{
    ADOPTED, COUNTED, FlowKey, INBOUND, LATE, OUTBOUND, PEERS_MAX, PHASE, PHASE_RUNNING, Peer,
    REFUSED, TCP, UDP, loss,
};
use shadowd_common::{Address, MAPPED};

use crate::context::{BPF_NOEXIST, Task, current, lost, plus, read, setting};
use crate::flows::{FLOWS, credit_response, flow, flow_or_lost};
use crate::kernel::{
    AF_INET, AF_INET6, OFFSETS, addresses, counters, local_port, netns, protocol, remote_port,
    state,
};
use crate::listen::listener;
use crate::owner::refine;
use crate::tcp::{CLOSE, LISTEN, NEW_SYN_RECV, SOCKETS, SYN_RECV, SYN_SENT, now_ns};
use crate::tcp::{entry, ports, setting_now};

/// Owners of one connection that are told apart; later ones are the last one's.
const CHANGES_MAX: u32 = 16;
// include/linux/socket.h
const MSG_PEEK: u32 = 0x2;
const MSG_ERRQUEUE: u32 = 0x2000;

/// Addresses that tasks send to or received from just now, by task.
#[map]
static PEERS: HashMap<u64, Peer> = HashMap::with_max_entries(PEERS_MAX, 0);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Send,
    Receive,
}

#[inline(always)]
fn task_key() -> u64 {
    // SAFETY: plain helper call.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The current task sends to, or received from, this address.
#[inline(always)]
pub fn peer(address: Address, port: u16) {
    let peer = Peer {
        address,
        port: u32::from(port),
    };
    if PEERS.insert(&task_key(), &peer, 0).is_err() {
        lost(loss::PEERS, 1);
    }
}

/// As `peer`, from the address of a message, if it has one.
#[inline(always)]
pub fn peer_of_message(message: u64) -> Option<()> {
    let name: u64 = read(message, setting!(OFFSETS, msg_name))?;
    if name == 0 {
        return None;
    }
    // struct sockaddr_in and sockaddr_in6: family, port, then the address, or flow and address.
    let family: u16 = read(name, 0)?;
    let port = u16::from_be(read(name, 2)?);
    if family == AF_INET {
        peer([0, 0, MAPPED, read(name, 4)?], port);
    } else if family == AF_INET6 {
        peer(read(name, 8)?, port);
    }
    Some(())
}

/// As `peer`, from the headers of a datagram that is taken from the queue of `sk`: also whoever
/// does not ask for the address is told apart. What this task looks at without taking it is
/// forgotten by `moved`.
#[inline(always)]
pub fn peer_of_datagram(sk: u64, skb: u64) -> Option<()> {
    if skb == 0 || remote_port(sk)? != 0 || protocol(sk)? != UDP {
        return None; // nothing came, or the socket knows its remote
    }
    let head: u64 = read(skb, setting!(OFFSETS, skb_head))?;
    let network: u16 = read(skb, setting!(OFFSETS, skb_network))?;
    let transport: u16 = read(skb, setting!(OFFSETS, skb_transport))?;
    let port = u16::from_be(read(head, u32::from(transport))?);
    let network = u32::from(network);
    let version = read::<u8>(head, network)? >> 4;
    // struct iphdr and ipv6hdr: where the source is.
    if version == 4 {
        peer([0, 0, MAPPED, read(head, network + 12)?], port);
    } else if version == 6 {
        peer(read(head, network + 8)?, port);
    }
    Some(())
}

/// A send or receive returned.
#[inline(always)]
pub fn moved(sk: u64, returned: i32, flags: u32, way: Way) -> Option<()> {
    let counts = returned > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0;
    let protocol = protocol(sk)?;
    if protocol == TCP {
        if counts {
            tcp(sk, way);
        }
        return Some(());
    }
    let key = task_key();
    let peer = PEERS.get_ptr(&key).map(|peer| {
        // SAFETY: the verifier checked the pointer; the entry is this task's.
        unsafe { *peer }
    });
    if peer.is_some() {
        let _ = PEERS.remove(&key);
    }
    let empty = returned == 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0;
    if counts || empty {
        udp(sk, returned as u64, peer, way);
    }
    Some(())
}

#[inline(always)]
fn tcp(sk: u64, way: Way) -> Option<()> {
    let task = current()?;
    let socket = match SOCKETS.get_ptr_mut(&sk) {
        Some(socket) => socket,
        None => found(sk, &task)?,
    };
    // SAFETY: the verifier checked the pointer.
    unsafe {
        if core::ptr::read_volatile(&raw const (*socket).established) == 0 {
            return None;
        }
        let pending = core::ptr::read_volatile(&raw const (*socket).pending) != COUNTED;
        let other = (*socket).flow.tgid != task.tgid || (*socket).flow.cgroup != task.cgroup;
        if pending || (other && (*socket).changes < CHANGES_MAX) {
            refine(sk, socket, task.tgid, task.cgroup);
        }
        if (*socket).flow.direction != INBOUND {
            return None;
        }
        // Two threads that answer at once may both count.
        if way == Way::Receive {
            (*socket).received_ns = now_ns();
        } else if (*socket).received_ns != 0 {
            let took = now_ns().saturating_sub((*socket).received_ns);
            (*socket).received_ns = 0;
            let key = (*socket).flow;
            credit_response(flow(&key)?, took);
        }
    }
    Some(())
}

/// A connection that is not followed: it waited to be accepted when capture began, or there was no
/// room for it. All that it moved counts.
#[inline(always)]
fn found(sk: u64, task: &Task) -> Option<*mut shadowd_common::sockets::Socket> {
    let state = state(sk)?;
    if state == SYN_SENT
        || state == SYN_RECV
        || state == CLOSE
        || state == LISTEN
        || state == NEW_SYN_RECV
    {
        return None;
    }
    let (local, remote) = addresses(sk)?;
    let sport = local_port(sk)?;
    let inbound = listener(netns(sk)?, sport, local).is_some();
    let key = FlowKey {
        cgroup: task.cgroup,
        tgid: task.tgid,
        service: if inbound { sport } else { remote_port(sk)? },
        direction: if inbound { INBOUND } else { OUTBOUND },
        protocol: TCP,
        local,
        remote,
    };
    let refused = setting_now(REFUSED) != 0;
    let pending = if refused { LATE } else { ADOPTED };
    let mut socket = entry(sk, key, pending, ports(sk)?);
    if setting_now(PHASE) != PHASE_RUNNING {
        // It is about to be taken over, as one of which only what is new counts.
        socket.base = counters(sk)?;
    }
    let _ = SOCKETS.insert(&sk, &socket, BPF_NOEXIST);
    // If it ended meanwhile, its end found nothing.
    if crate::kernel::state(sk)? == CLOSE {
        let _ = SOCKETS.remove(&sk);
        return None;
    }
    SOCKETS.get_ptr_mut(&sk)
}

/// Counts a datagram on the flow of its remote.
#[inline(always)]
fn udp(sk: u64, bytes: u64, peer: Option<Peer>, way: Way) -> Option<()> {
    let task = current()?;
    let (mut local, mut remote) = addresses(sk)?;
    let mut port = remote_port(sk)?;
    if let Some(peer) = peer {
        remote = peer.address;
        port = peer.port as u16;
    }
    if remote[2] == MAPPED && remote[0] == 0 && remote[1] == 0 && local == [0; 4] {
        local[2] = MAPPED;
    }
    let mut key = FlowKey {
        cgroup: task.cgroup,
        tgid: task.tgid,
        service: local_port(sk)?,
        direction: INBOUND,
        protocol: UDP,
        local,
        remote,
    };
    // An answer belongs to the flow of what it answers; what answers nothing begins one.
    if way == Way::Send {
        if FLOWS.get_ptr(&key).is_none() {
            key.direction = OUTBOUND;
            key.service = port;
        }
    } else if port != 0 {
        let service = key.service;
        key.direction = OUTBOUND;
        key.service = port;
        if FLOWS.get_ptr(&key).is_none() {
            key.direction = INBOUND;
            key.service = service;
        }
    }
    let value = flow_or_lost(&key, 1, bytes)?;
    // SAFETY: the verifier checked the pointer; the fields are aligned and only added to.
    unsafe {
        if way == Way::Send {
            plus(&raw mut (*value).done.tx_bytes, bytes);
            plus(&raw mut (*value).done.tx_packets, 1);
        } else {
            plus(&raw mut (*value).done.rx_bytes, bytes);
            plus(&raw mut (*value).done.rx_packets, 1);
        }
    }
    Some(())
}
