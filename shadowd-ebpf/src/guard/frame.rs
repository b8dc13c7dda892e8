//! Where things stand in a frame, and how they are read and written there.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use shadowd_common::{Address, MAPPED};

/// Ethernet: who it is for, who sent it, the type of what follows, and how long the header is.
pub const ETHERNET_DESTINATION: u32 = 0;
pub const ETHERNET_SOURCE: u32 = 6;
pub const ETHERNET_TYPE: u32 = 12;
pub const ETHERNET_BYTES: u32 = 14;
pub const VLAN_BYTES: u32 = 4;

// include/uapi/linux/if_ether.h
pub const IPV4: u16 = 0x0800_u16.to_be();
pub const ARP: u16 = 0x0806_u16.to_be();
pub const VLAN: u16 = 0x8100_u16.to_be();
pub const IPV6: u16 = 0x86dd_u16.to_be();
pub const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

// Offsets in RFC 791, 826 (over Ethernet and IPv4), 8200 and 4861.
const IPV4_FRAGMENT: u32 = 6;
const IPV4_PROTOCOL: u32 = 9;
pub const IPV4_SOURCE: u32 = 12;
pub const IPV4_DESTINATION: u32 = 16;
pub const ARP_OPERATION: u32 = 6;
pub const ARP_SENDER: u32 = 14;
pub const ARP_TARGET: u32 = 24;
pub const IPV6_NEXT: u32 = 6;
pub const IPV6_SOURCE: u32 = 8;
pub const IPV6_DESTINATION: u32 = 24;
pub const IPV6_BYTES: u32 = 40;
pub const ND_TARGET: u32 = IPV6_BYTES + 8;

pub const ARP_REQUEST: u16 = 1_u16.to_be();
pub const ICMPV6: u8 = 58;
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// RFC 9293: the flags of a segment, and those that are looked at.
const TCP: u8 = 6;
const TCP_FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// All but the flags of an IPv4 fragment: where it begins in the packet.
const FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();

/// What a packet is to a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a new one.
    Opening,
    /// Answers that.
    Accepting,
    /// Belongs to one.
    Segment,
    /// No TCP, or not to be told.
    Other,
}

/// What the packet at `at` is, and its ports as they stand there.
#[inline(always)]
pub fn kind<const V4: bool>(ctx: &TcContext, at: u32, ports: &mut u32) -> Kind {
    let Some(segment) = segment::<V4>(ctx, at) else {
        return Kind::Other;
    };
    let mut flags = 0_u8;
    if !load(ctx, segment, ports) || !load(ctx, segment + TCP_FLAGS, &mut flags) {
        return Kind::Other;
    }
    if flags & SYN == 0 {
        Kind::Segment
    } else if flags & ACK == 0 {
        Kind::Opening
    } else {
        Kind::Accepting
    }
}

/// Where the TCP header stands, if there is one.
#[inline(always)]
fn segment<const V4: bool>(ctx: &TcContext, at: u32) -> Option<u32> {
    let mut protocol = 0_u8;
    if !V4 {
        let is_tcp = load(ctx, at + IPV6_NEXT, &mut protocol) && protocol == TCP;
        return is_tcp.then_some(at + IPV6_BYTES);
    }
    let (mut first, mut fragment) = (0_u8, 0_u16);
    let is_tcp = load(ctx, at + IPV4_PROTOCOL, &mut protocol)
        && protocol == TCP
        && load(ctx, at + IPV4_FRAGMENT, &mut fragment)
        && fragment & FRAGMENT_OFFSET == 0
        && load(ctx, at, &mut first);
    is_tcp.then_some(at + u32::from(first & 0x0f) * 4)
}

/// Reads an address of an IP header as the maps have it, to where it stays: what is zeroed or
/// copied as a whole may become a loop of its own, which the verifier takes from CAP_PERFMON only.
/// False when the frame is too short; then nothing was written.
#[inline(always)]
pub fn address<const V4: bool>(ctx: &TcContext, at: u32, to: &mut MaybeUninit<Address>) -> bool {
    if !V4 {
        return load(ctx, at, to);
    }
    let mut four = 0_u32;
    if !load(ctx, at, &mut four) {
        return false;
    }
    let words = to.as_mut_ptr().cast::<u32>();
    // SAFETY: an address has four words.
    unsafe {
        words.write(0);
        words.add(1).write(0);
        words.add(2).write(MAPPED);
        words.add(3).write(four);
    }
    true
}

/// Copies bytes of the frame; false when it is too short for them.
#[inline(always)]
pub fn load<T>(ctx: &TcContext, at: u32, to: &mut T) -> bool {
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

/// Writes the first `BYTES` bytes of a value into the frame.
#[inline(always)]
pub fn store<const BYTES: u32, T>(ctx: &TcContext, at: u32, from: &T) -> bool {
    // SAFETY: no caller writes more bytes than the value has.
    unsafe { bpf_skb_store_bytes(ctx.skb.skb, at, core::ptr::from_ref(from).cast(), BYTES, 0) == 0 }
}
