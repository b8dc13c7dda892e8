//! The connections of an address that has just changed its owner.
//!
//! ```text
//!                 opening segments, all that is no TCP
//!   predecessor -------------------------------------------> successor
//!               <-------------------------------------------
//!                 segments of connections it does not know
//! ```
//!
//! The predecessor serves what it has begun, to its end, and begins nothing new; the successor
//! serves what it has begun. Which host a client's neighbour table still points to is all the same.
//! A host knows a connection by its socket, or because it saw it begin: the table of beginnings is
//! for those without a socket here (translated to a container, or answered by a SYN cookie). A
//! frame that came from the other host is never sent back there.
//!
//! A host may have a successor and a predecessor at once, when an address moves on before all
//! connections of its first owner have ended.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::TcContext;
use shadowd_common::Address;
use shadowd_common::guard::{FLOWS_MAX, Flow, Holder, Slot};

use crate::atomic::plus;
use crate::frame::{
    ETHERNET_DESTINATION, ETHERNET_SOURCE, IPV4_SOURCE, IPV6_SOURCE, Kind, address, kind, load,
    store,
};
use crate::{DROP, PASS};

/// The connections that began while the address changed its owner.
#[map]
static FLOWS: LruHashMap<Flow, Holder> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

/// This host's own sockets (BPF_F_CURRENT_NETNS, include/uapi/linux/bpf.h).
const OWN_NAMESPACE: u64 = -1_i32 as u64;
/// include/net/tcp_states.h
const LISTEN: u32 = 10;
/// PACKET_HOST, include/uapi/linux/if_packet.h: the frame was sent to this host alone.
const FOR_THIS_HOST: u32 = 0;
const ETHERNET_ADDRESS: u32 = 6;
const ETHERNET_MASK: u64 = 0xffff_ffff_ffff;

/// A guarded address, as it stands now.
pub struct Vip<'a> {
    pub address: &'a Address,
    pub index: u32,
    pub slot: *mut Slot,
    pub now: u64,
    pub open: bool,
    /// Who has it now; 0 when it is open, or nobody is known.
    pub successor: u64,
    /// Who serves what is unknown here; 0 when nobody does.
    pub predecessor: u64,
}

impl<'a> Vip<'a> {
    #[inline(always)]
    pub fn new(address: &'a Address, index: u32, slot: *mut Slot, now: u64) -> Self {
        // SAFETY: the slot is a live map value; user space stores each word in one piece, an
        // Ethernet address before the time until which it counts.
        let (deadline, successor_until, predecessor_until) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*slot).deadline_ns),
                core::ptr::read_volatile(&raw const (*slot).successor_until_ns),
                core::ptr::read_volatile(&raw const (*slot).predecessor_until_ns),
            )
        };
        let open = now < deadline;
        let successor = if !open && now < successor_until {
            // SAFETY: as above.
            unsafe { core::ptr::read_volatile(&raw const (*slot).successor) }
        } else {
            0
        };
        let predecessor = if now < predecessor_until {
            // SAFETY: as above.
            unsafe { core::ptr::read_volatile(&raw const (*slot).predecessor) }
        } else {
            0
        };
        Self {
            address,
            index,
            slot,
            now,
            open,
            successor,
            predecessor,
        }
    }
}

/// What becomes of a packet for an address that this host has from, or gave to, another one.
#[inline(always)]
pub fn judge<const V4: bool>(ctx: &TcContext, at: u32, vip: &Vip<'_>) -> i32 {
    let mut ports = 0;
    let what = kind::<V4>(ctx, at, &mut ports);
    if what == Kind::Other {
        return elsewhere(ctx, vip, vip.successor, vip.open);
    }
    let source = at + if V4 { IPV4_SOURCE } else { IPV6_SOURCE };
    let mut flow = MaybeUninit::<Flow>::uninit();
    let fields = flow.as_mut_ptr();
    // SAFETY: each field is written in place, and the flow is used when all are.
    let flow = unsafe {
        if !address::<V4>(ctx, source, &mut *(&raw mut (*fields).client).cast()) {
            return PASS;
        }
        (&raw mut (*fields).vip).write(vip.index);
        (&raw mut (*fields).ports).write(ports);
        flow.assume_init_ref()
    };
    if what == Kind::Opening {
        let holder = Holder {
            mac: vip.successor,
            since_ns: vip.now,
        };
        let _ = FLOWS.insert(flow, &holder, 0);
        return elsewhere(ctx, vip, vip.successor, vip.open);
    }
    let mut holder = 0;
    if let Some(known) = begun(flow, vip.slot) {
        holder = known;
    } else if vip.predecessor != 0 && !is_known::<V4>(ctx, flow, vip.address) {
        holder = vip.predecessor;
    }
    // What has begun here ends here, also behind a closed guard.
    elsewhere(ctx, vip, holder, true)
}

/// Who serves the connection, if this host saw it begin. What it saw before the address changed its
/// owner is no longer true: the client may have used its port again, at the other host.
#[inline(always)]
fn begun(flow: &Flow, slot: *mut Slot) -> Option<u64> {
    let holder = FLOWS.get_ptr(flow)?;
    // SAFETY: the verifier checked the pointers; each word is written in one piece.
    unsafe {
        let mac = (*holder).mac;
        // Both are read: an address that depends on the holder is arithmetic that the verifier takes
        // from CAP_PERFMON only.
        let here = core::ptr::read_volatile(&raw const (*slot).predecessor_since_ns);
        let there = core::ptr::read_volatile(&raw const (*slot).successor_since_ns);
        let since = if mac == 0 { here } else { there };
        ((*holder).since_ns >= since).then_some(mac)
    }
}

/// Passes the packet on to another host, unless there is none or it came from there: then it is
/// for this host, or nobody.
#[inline(always)]
fn elsewhere(ctx: &TcContext, vip: &Vip<'_>, holder: u64, else_here: bool) -> i32 {
    if holder != 0
        && let Some(verdict) = pass_on(ctx, vip.slot, holder)
    {
        return verdict;
    }
    if else_here {
        return PASS;
    }
    // SAFETY: an aligned field of a live map value.
    unsafe { plus(&raw mut (*vip.slot).dropped_rx, 1) };
    DROP
}

#[inline(always)]
fn pass_on(ctx: &TcContext, slot: *mut Slot, holder: u64) -> Option<i32> {
    // SAFETY: the context is the kernel's.
    let (packet_type, interface) = unsafe { ((*ctx.skb.skb).pkt_type, (*ctx.skb.skb).ifindex) };
    if packet_type != FOR_THIS_HOST {
        return None;
    }
    let (mut own, mut sender) = (0_u64, 0_u64);
    if !load(ctx, ETHERNET_DESTINATION, &mut own) || !load(ctx, ETHERNET_SOURCE, &mut sender) {
        return None;
    }
    if sender & ETHERNET_MASK == holder {
        return None;
    }
    // The frame leaves in this host's name, so that no switch looks for the client here.
    if !store::<ETHERNET_ADDRESS, _>(ctx, ETHERNET_SOURCE, &own)
        || !store::<ETHERNET_ADDRESS, _>(ctx, ETHERNET_DESTINATION, &holder)
    {
        return None;
    }
    // SAFETY: an aligned field of a live map value.
    unsafe { plus(&raw mut (*slot).passed, 1) };
    // SAFETY: plain helper call.
    Some(unsafe { bpf_redirect(interface, 0) } as i32)
}

/// Whether this host has a socket for the connection, not just one that listens.
#[inline(always)]
fn is_known<const V4: bool>(ctx: &TcContext, flow: &Flow, vip: &Address) -> bool {
    // struct bpf_sock_tuple, include/uapi/linux/bpf.h: addresses, then both ports.
    let socket = if V4 {
        let mut tuple = [flow.client[3], vip[3], flow.ports];
        // SAFETY: the tuple is as long as is said.
        unsafe {
            bpf_skc_lookup_tcp(
                ctx.skb.skb.cast(),
                tuple.as_mut_ptr().cast(),
                12,
                OWN_NAMESPACE,
                0,
            )
        }
    } else {
        let [c0, c1, c2, c3] = flow.client;
        let [v0, v1, v2, v3] = *vip;
        let mut tuple = [c0, c1, c2, c3, v0, v1, v2, v3, flow.ports];
        // SAFETY: the tuple is as long as is said.
        unsafe {
            bpf_skc_lookup_tcp(
                ctx.skb.skb.cast(),
                tuple.as_mut_ptr().cast(),
                36,
                OWN_NAMESPACE,
                0,
            )
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the helper gave a socket, which is released below and not used after.
    let state = unsafe { core::ptr::read_volatile(&raw const (*socket).state) };
    // SAFETY: as above.
    unsafe { bpf_sk_release(socket.cast()) };
    state != LISTEN
}
