//! Takes over what was there before capture: walks the files of every process.

use shadowd_common::sockets::{
    ADOPTED, COUNTED, FlowKey, INBOUND, OUTBOUND, PHASE, PHASE_CONNECTIONS, PHASE_LISTENERS, TCP,
};

use crate::context::{BPF_NOEXIST, read, setting};
use crate::kernel::{
    OFFSETS, addresses, counters, local_port, netns, owner, protocol, remote_port, state,
};
use crate::listen::{listener, listening};
use crate::tcp::{CLOSE, LISTEN, NEW_SYN_RECV, SOCKETS, SYN_RECV, SYN_SENT};
use crate::tcp::{entry, ports, refused, setting_now};

// include/uapi/linux/stat.h
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// `init`, which keeps sockets for others.
const INIT: u32 = 1;

/// One open file of one task. Runs twice: first for who listens, so that the direction of the
/// connections is known then.
#[inline(always)]
pub fn file(task: u64, file: u64) -> Option<()> {
    let inode: u64 = read(file, setting!(OFFSETS, file_inode))?;
    let mode: u16 = read(inode, setting!(OFFSETS, inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket: u64 = read(file, setting!(OFFSETS, file_private))?;
    let sk: u64 = read(socket, setting!(OFFSETS, socket_sk))?;
    if sk == 0 || protocol(sk)? != TCP {
        return None;
    }
    let state = state(sk)?;
    let phase = setting_now(PHASE);
    if state == LISTEN {
        if phase == PHASE_LISTENERS {
            let (tgid, cgroup) = owner(task)?;
            listening(sk, tgid, cgroup);
        }
        return None;
    }
    if phase != PHASE_CONNECTIONS || state == CLOSE || state == SYN_RECV || state == NEW_SYN_RECV {
        return None;
    }
    let (tgid, cgroup) = owner(task)?;
    connection(sk, state, tgid, cgroup)
}

#[inline(always)]
fn connection(sk: u64, before: i32, tgid: u32, cgroup: u64) -> Option<()> {
    if let Some(known) = SOCKETS.get_ptr_mut(&sk) {
        // SAFETY: the verifier checked the pointer. Of several holders the oldest stands, unless
        // it only keeps the socket for others.
        unsafe {
            let unclaimed = core::ptr::read_volatile(&raw const (*known).pending) == ADOPTED;
            if unclaimed && (*known).flow.tgid == INIT && tgid != INIT {
                (*known).flow.tgid = tgid;
                (*known).flow.cgroup = cgroup;
            }
        }
        return None;
    }
    let (local, remote) = addresses(sk)?;
    let sport = local_port(sk)?;
    let connecting = before == SYN_SENT;
    let inbound = !connecting && listener(netns(sk)?, sport, local).is_some();
    let key = FlowKey {
        cgroup,
        tgid,
        service: if inbound { sport } else { remote_port(sk)? },
        direction: if inbound { INBOUND } else { OUTBOUND },
        protocol: TCP,
        local,
        remote,
    };
    let mut socket = entry(sk, key, ADOPTED, ports(sk)?);
    if connecting {
        socket.pending = COUNTED;
        socket.established = 0;
    } else {
        // What moved before is no matter of capture.
        socket.base = counters(sk)?;
    }
    // The tracepoint may be first: then its entry is the better one.
    if SOCKETS.insert(&sk, &socket, BPF_NOEXIST).is_ok() {
        if state(sk)? == CLOSE {
            // It ended meanwhile, and its end found nothing.
            let _ = SOCKETS.remove(&sk);
        }
    } else if !connecting && SOCKETS.get_ptr(&sk).is_none() {
        refused(sk);
    }
    Some(())
}
