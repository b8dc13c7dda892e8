//! Keeps this host silent about a virtual IP once the deadline of the address has passed.
//!
//! One classifier on each direction of an interface. It looks at what is asked of an address on
//! the way in (the destination, who is searched by ARP or a neighbour solicitation) and at what
//! is said in its name on the way out (the source, who speaks by ARP or a neighbour
//! advertisement). So a host whose time is over neither acts on a request nor answers one, while a
//! host that never owned the address still reaches its owner as any client does, and hears the
//! owner's announcements.
//!
//! A planned handover leaves the connections of the old owner with it ([`handover`]): behind the
//! closed guard it goes on with these, and with nothing else.
//!
//! All else passes to the next program: one hash lookup by one address. Frames are Ethernet, with
//! at most one VLAN tag in them; a tag that the hardware took off is no longer in the frame.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../atomic.rs"]
mod atomic;
mod frame;
mod handover;
#[path = "../licence.rs"]
mod licence;

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::TcContext;
use shadowd_common::guard::{MMAPABLE, Slot, VIPS_MAX};
use shadowd_common::{Address, MAPPED};

use crate::atomic::plus;
use crate::frame::{
    ARP, ARP_OPERATION, ARP_REQUEST, ARP_SENDER, ARP_TARGET, ETHERNET_BYTES, ETHERNET_TYPE, ICMPV6,
    IPV4, IPV4_DESTINATION, IPV4_SOURCE, IPV6, IPV6_BYTES, IPV6_DESTINATION, IPV6_NEXT,
    IPV6_SOURCE, Kind, ND_TARGET, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, SERVICE_VLAN,
    VLAN, VLAN_BYTES, address, kind, load, store,
};
use crate::handover::Vip;

/// The slot of each guarded address. Made and read by user space.
#[map]
static VIPS: HashMap<Address, u32> = HashMap::with_max_entries(VIPS_MAX, 0);

/// Deadlines, written by user space; counts, written here.
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(VIPS_MAX, MMAPABLE);

/// Let the next program, or the stack, have it: TC_ACT_UNSPEC, which is also TCX_NEXT.
const PASS: i32 = -1;
/// TC_ACT_SHOT, which is also TCX_DROP.
const DROP: i32 = 2;

/// On the way in.
#[classifier]
pub fn guard_ingress(ctx: TcContext) -> i32 {
    judge::<false>(&ctx)
}

/// On the way out.
#[classifier]
pub fn guard_egress(ctx: TcContext) -> i32 {
    judge::<true>(&ctx)
}

#[inline(always)]
fn judge<const OUT: bool>(ctx: &TcContext) -> i32 {
    let mut kind = 0_u16;
    let mut at = ETHERNET_BYTES;
    if !load(ctx, ETHERNET_TYPE, &mut kind) {
        return PASS;
    }
    if kind == VLAN || kind == SERVICE_VLAN {
        at += VLAN_BYTES;
        if !load(ctx, ETHERNET_TYPE + VLAN_BYTES, &mut kind) {
            return PASS;
        }
    }
    if kind == IPV4 {
        let field = if OUT { IPV4_SOURCE } else { IPV4_DESTINATION };
        packet::<OUT, true>(ctx, at, field)
    } else if kind == IPV6 {
        let field = if OUT { IPV6_SOURCE } else { IPV6_DESTINATION };
        match packet::<OUT, false>(ctx, at, field) {
            PASS => discovery::<OUT>(ctx, at),
            verdict => verdict,
        }
    } else if kind == ARP {
        arp::<OUT>(ctx, at)
    } else {
        PASS
    }
}

/// A packet for a guarded address, or from one, which stands at `field`.
#[inline(always)]
fn packet<const OUT: bool, const V4: bool>(ctx: &TcContext, at: u32, field: u32) -> i32 {
    let mut words = MaybeUninit::uninit();
    if !address::<V4>(ctx, at + field, &mut words) {
        return PASS;
    }
    // SAFETY: it was read.
    let address = unsafe { words.assume_init_ref() };
    let Some(index) = VIPS.get_ptr(address) else {
        return PASS;
    };
    // SAFETY: the verifier checked the pointer; entries change only while nothing is decided by
    // them.
    let index = unsafe { *index };
    let Some(slot) = SLOTS.get_ptr_mut(index) else {
        return DROP;
    };
    // SAFETY: plain helper call.
    let vip = Vip::new(address, index, slot, unsafe { bpf_ktime_get_boot_ns() });
    if vip.open && (OUT || vip.predecessor == 0) {
        return PASS;
    }
    if vip.open || vip.successor != 0 {
        if !OUT {
            return handover::judge::<V4>(ctx, at, &vip);
        }
        if kind::<V4>(ctx, at, &mut 0) == Kind::Segment {
            return PASS;
        }
    }
    drop::<OUT>(slot)
}

/// Neighbour discovery of a guarded address.
#[inline(always)]
fn discovery<const OUT: bool>(ctx: &TcContext, at: u32) -> i32 {
    let (mut next, mut kind) = (0_u8, 0_u8);
    if !load(ctx, at + IPV6_NEXT, &mut next) || next != ICMPV6 {
        return PASS;
    }
    let wanted = if OUT {
        NEIGHBOUR_ADVERTISEMENT
    } else {
        NEIGHBOUR_SOLICITATION
    };
    if !load(ctx, at + IPV6_BYTES, &mut kind) || kind != wanted {
        return PASS;
    }
    let mut target = MaybeUninit::uninit();
    if !address::<false>(ctx, at + ND_TARGET, &mut target) {
        return PASS;
    }
    // SAFETY: it was read.
    match standing(unsafe { target.assume_init_ref() }) {
        Standing::Open => PASS,
        Standing::Served(slot) | Standing::Closed(slot) => drop::<OUT>(slot),
    }
}

#[inline(always)]
fn arp<const OUT: bool>(ctx: &TcContext, at: u32) -> i32 {
    let (mut sender, mut target): (Address, Address) = ([0, 0, MAPPED, 0], [0, 0, MAPPED, 0]);
    if !load(ctx, at + ARP_SENDER, &mut sender[3]) || !load(ctx, at + ARP_TARGET, &mut target[3]) {
        return PASS;
    }
    // A sender that asks for its own address announces it.
    let announces = sender[3] == target[3];
    // On the way in that is the owner, who must be heard.
    if announces && !OUT {
        return PASS;
    }
    let address = if OUT { &sender } else { &target };
    match standing(address) {
        Standing::Open => PASS,
        Standing::Served(_) if OUT && !announces && asks_unnamed(ctx, at) => PASS,
        Standing::Served(slot) | Standing::Closed(slot) => drop::<OUT>(slot),
    }
}

/// A host that still serves connections of the address must find its clients: it asks for them as
/// one that has no address yet, which no neighbour remembers (RFC 5227, section 1.1).
#[inline(always)]
fn asks_unnamed(ctx: &TcContext, at: u32) -> bool {
    let mut operation = 0_u16;
    load(ctx, at + ARP_OPERATION, &mut operation)
        && operation == ARP_REQUEST
        && store::<4, u32>(ctx, at + ARP_SENDER, &0)
}

/// How an address stands.
#[derive(Clone, Copy)]
enum Standing {
    /// Not guarded, or its time is not over.
    Open,
    /// Over, but connections are still served.
    Served(*mut Slot),
    /// Over.
    Closed(*mut Slot),
}

#[inline(always)]
fn standing(address: &Address) -> Standing {
    let Some(index) = VIPS.get_ptr(address) else {
        return Standing::Open;
    };
    // SAFETY: as in `packet`.
    let index = unsafe { *index };
    let Some(slot) = SLOTS.get_ptr_mut(index) else {
        return Standing::Open;
    };
    // SAFETY: plain helper call.
    let vip = Vip::new(address, index, slot, unsafe { bpf_ktime_get_boot_ns() });
    if vip.open {
        Standing::Open
    } else if vip.successor == 0 {
        Standing::Closed(slot)
    } else {
        Standing::Served(slot)
    }
}

/// Drops the packet, and counts it.
#[inline(always)]
fn drop<const OUT: bool>(slot: *mut Slot) -> i32 {
    // SAFETY: both are aligned fields of a live map value.
    unsafe {
        if OUT {
            plus(&raw mut (*slot).dropped_tx, 1);
        } else {
            plus(&raw mut (*slot).dropped_rx, 1);
        }
    }
    DROP
}
