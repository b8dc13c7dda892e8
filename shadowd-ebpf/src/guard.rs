//! Keeps this host silent about a virtual IP once the deadline of the address has passed.
//!
//! One classifier on each direction of an interface. It looks at what is asked of an address on
//! the way in (the destination, who is searched by ARP or a neighbour solicitation) and at what
//! is said in its name on the way out (the source, who speaks by ARP or a neighbour
//! advertisement). So a host whose time is over neither acts on a request nor answers one, while a
//! host that never owned the address still reaches its owner as any client does, and hears the
//! owner's announcements.
//!
//! All else passes to the next program: one hash lookup by one address. Frames are Ethernet, with
//! at most one VLAN tag in them; a tag that the hardware took off is no longer in the frame.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod licence;

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::TcContext;
use shadowd_common::guard::{MMAPABLE, Slot, VIPS_MAX};
use shadowd_common::{Address, MAPPED};

use crate::atomic::plus;

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

/// Ethernet: where the type of what follows stands, and how long the header is.
const ETHERNET_TYPE: u32 = 12;
const ETHERNET_BYTES: u32 = 14;
const VLAN_BYTES: u32 = 4;

// include/uapi/linux/if_ether.h
const IPV4: u16 = 0x0800_u16.to_be();
const ARP: u16 = 0x0806_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

// Offsets in RFC 791, 826 (over Ethernet and IPv4), 8200 and 4861.
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const ARP_SENDER: u32 = 14;
const ARP_TARGET: u32 = 24;
const IPV6_NEXT: u32 = 6;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
const IPV6_BYTES: u32 = 40;
const ND_TARGET: u32 = IPV6_BYTES + 8;

const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

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
    let closed = if kind == IPV4 {
        ipv4::<OUT>(ctx, at)
    } else if kind == IPV6 {
        ipv6::<OUT>(ctx, at)
    } else if kind == ARP {
        arp::<OUT>(ctx, at)
    } else {
        false
    };
    if closed { DROP } else { PASS }
}

#[inline(always)]
fn ipv4<const OUT: bool>(ctx: &TcContext, at: u32) -> bool {
    let mut address: Address = [0, 0, MAPPED, 0];
    let field = if OUT { IPV4_SOURCE } else { IPV4_DESTINATION };
    load(ctx, at + field, &mut address[3]) && is_closed::<OUT>(&address)
}

#[inline(always)]
fn arp<const OUT: bool>(ctx: &TcContext, at: u32) -> bool {
    let (mut sender, mut target): (Address, Address) = ([0, 0, MAPPED, 0], [0, 0, MAPPED, 0]);
    if !load(ctx, at + ARP_SENDER, &mut sender[3]) {
        return false;
    }
    if OUT {
        return is_closed::<OUT>(&sender);
    }
    // A sender that asks for its own address announces it: that is the owner, and must be heard.
    load(ctx, at + ARP_TARGET, &mut target[3])
        && sender[3] != target[3]
        && is_closed::<OUT>(&target)
}

#[inline(always)]
fn ipv6<const OUT: bool>(ctx: &TcContext, at: u32) -> bool {
    // Not zeroed: that is a loop of its own, which the verifier takes from CAP_PERFMON only.
    let mut address = MaybeUninit::<Address>::uninit();
    let field = if OUT { IPV6_SOURCE } else { IPV6_DESTINATION };
    if !load(ctx, at + field, &mut address) {
        return false;
    }
    // SAFETY: it was loaded.
    if is_closed::<OUT>(unsafe { address.assume_init_ref() }) {
        return true;
    }
    let (mut next, mut kind) = (0_u8, 0_u8);
    if !load(ctx, at + IPV6_NEXT, &mut next) || next != ICMPV6 {
        return false;
    }
    let wanted = if OUT {
        NEIGHBOUR_ADVERTISEMENT
    } else {
        NEIGHBOUR_SOLICITATION
    };
    load(ctx, at + IPV6_BYTES, &mut kind)
        && kind == wanted
        && load(ctx, at + ND_TARGET, &mut address)
        // SAFETY: it was loaded.
        && is_closed::<OUT>(unsafe { address.assume_init_ref() })
}

/// Whether the time of a guarded address is over; then the packet is counted.
#[inline(always)]
fn is_closed<const OUT: bool>(address: &Address) -> bool {
    let Some(index) = VIPS.get_ptr(address) else {
        return false;
    };
    // SAFETY: the verifier checked the pointer; entries change only while nothing is decided by
    // them.
    let Some(slot) = SLOTS.get_ptr_mut(unsafe { *index }) else {
        return true;
    };
    // SAFETY: the verifier checked the pointer. User space stores the deadline in one piece.
    let deadline = unsafe { core::ptr::read_volatile(&raw const (*slot).deadline_ns) };
    // SAFETY: plain helper call.
    if unsafe { bpf_ktime_get_boot_ns() } < deadline {
        return false;
    }
    // SAFETY: both are aligned fields of a live map value.
    unsafe {
        if OUT {
            plus(&raw mut (*slot).dropped_tx, 1);
        } else {
            plus(&raw mut (*slot).dropped_rx, 1);
        }
    }
    true
}

/// Copies bytes of the frame; false when it is too short for them.
#[inline(always)]
fn load<T>(ctx: &TcContext, at: u32, to: &mut T) -> bool {
    // SAFETY: the buffer is as large as the size given, and T is made of integers.
    unsafe {
        bpf_skb_load_bytes(
            ctx.skb.skb.cast(),
            at,
            core::ptr::from_mut(to).cast(),
            size_of::<T>() as u32,
        ) == 0
    }
}
