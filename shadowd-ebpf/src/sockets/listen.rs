//! Who listens: an accepted connection is its listener's until somebody reads or writes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use shadowd_common::sockets::{LISTENERS_MAX, ListenerKey, Listening, Owner, loss};
use shadowd_common::{Address, MAPPED};

use crate::context::{BPF_NOEXIST, lost, read, setting};
use crate::kernel::{OFFSETS, addresses, local_port, netns};

/// By address: finds the owner of a connection.
#[map]
pub static LISTENERS: HashMap<ListenerKey, Owner> = HashMap::with_max_entries(LISTENERS_MAX, 0);

/// By socket: finds the queues.
#[map]
pub static LISTENING: HashMap<u64, Listening> = HashMap::with_max_entries(LISTENERS_MAX, 0);

/// `init`, which keeps sockets for others.
const INIT: u32 = 1;

/// A socket began to listen, or was found listening.
#[inline(always)]
pub fn listening(sk: u64, tgid: u32, cgroup: u64) -> Option<()> {
    let (address, _) = addresses(sk)?;
    let key = ListenerKey {
        netns: netns(sk)?,
        port: u32::from(local_port(sk)?),
        address,
    };
    let entry = Listening {
        cgroup,
        key,
        tgid,
        backlog: 0,
        backlog_max: 0,
        drops: 0,
    };
    if LISTENING.insert(&sk, &entry, BPF_NOEXIST).is_err() {
        let Some(known) = LISTENING.get_ptr_mut(&sk) else {
            lost(loss::LISTENERS, 1);
            return None;
        };
        // SAFETY: the verifier checked the pointers. Of several holders the oldest stands, which
        // is the parent of a pre-forking server, unless it only keeps the socket for others.
        unsafe {
            if (*known).tgid == INIT && tgid != INIT {
                (*known).tgid = tgid;
                (*known).cgroup = cgroup;
                if let Some(owner) = LISTENERS.get_ptr_mut(&key)
                    && (*owner).tgid == INIT
                {
                    (*owner).tgid = tgid;
                    (*owner).cgroup = cgroup;
                }
            }
        }
        return Some(());
    }
    if let Some(owner) = LISTENERS.get_ptr_mut(&key) {
        // SAFETY: the verifier checked the pointer. Two sockets that begin to listen on one
        // address at once may lose a count; the entry then goes early and is made again.
        unsafe {
            (*owner).cgroup = cgroup;
            (*owner).tgid = tgid;
            (*owner).sockets += 1;
        }
        return Some(());
    }
    let owner = Owner {
        cgroup,
        tgid,
        sockets: 1,
    };
    if LISTENERS.insert(&key, &owner, 0).is_err() {
        lost(loss::LISTENERS, 1);
    }
    Some(())
}

/// A socket listens no more.
#[inline(always)]
pub fn unlistening(sk: u64) -> Option<()> {
    // SAFETY: the verifier checked the pointer.
    let key = unsafe { (*LISTENING.get_ptr(&sk)?).key };
    if LISTENING.remove(&sk).is_err() {
        return None;
    }
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

/// Who listens on `port`: on this very address, on every IPv4 address, or on every address.
#[inline(always)]
pub fn listener(netns: u32, port: u16, address: Address) -> Option<(u32, u64)> {
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

/// Reads the queues of a listening socket.
///
/// # Safety
///
/// `entry` is a live map value.
#[inline(always)]
pub unsafe fn look(sk: u64, entry: *mut Listening) -> Option<()> {
    let backlog = read(sk, setting!(OFFSETS, sk_ack_backlog))?;
    let backlog_max = read(sk, setting!(OFFSETS, sk_max_ack_backlog))?;
    let drops = read(sk, setting!(OFFSETS, sk_drops))?;
    // SAFETY: the caller vouches for the pointer; only the look writes these fields.
    unsafe {
        (*entry).backlog = backlog;
        (*entry).backlog_max = backlog_max;
        (*entry).drops = drops;
    }
    Some(())
}
