//! The classic BPF programs that let only frames of interest wake user space.
//!
//! A link carries thousands of ARP requests a second that concern nobody here. The programs let
//! through who speaks as one of the virtual IPs, and what is addressed to this host as an answer.
//! They are coarse (of an IPv6 address they compare the last 32 bits) and never the only check: every
//! frame is decoded in full afterwards.

use std::net::IpAddr;

use socket2::SockFilter;

// linux/bpf_common.h and linux/filter.h
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_PKTTYPE: what the kernel knows beside the bytes.
const PACKET_TYPE: u32 = -0x1000_i32 as u32 + 4;
/// PACKET_HOST: the frame is addressed to this interface alone.
const TO_THIS_HOST: u32 = 0;
/// PACKET_OTHERHOST: the frame is for somebody else, or from a VLAN that this host has no interface
/// for.
const TO_OTHERS: u32 = 3;

/// Comparisons between two places that accept: jumps reach 255 instructions far.
const GROUP: usize = 128;

const ACCEPT: SockFilter = SockFilter::new(RETURN, 0, 0, 0xffff);
const REFUSE: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// Lets through ARP that is said by one of the IPv4 addresses, and replies to this host.
pub(super) fn arp(addresses: impl Iterator<Item = IpAddr>) -> Vec<SockFilter> {
    let keys = addresses.filter_map(|address| match address {
        IpAddr::V4(address) => Some(u32::from(address)),
        IpAddr::V6(_) => None,
    });
    let mut program = not_to_others();
    // A reply (operation 2 at 20) to this host.
    program.extend([
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 0, 3, 2),
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_EQUAL, 0, 1, TO_THIS_HOST),
        ACCEPT,
    ]);
    // The sender's address.
    program.push(SockFilter::new(LOAD_WORD, 0, 0, 28));
    compare(&mut program, keys);
    program
}

/// Lets through solicitations by one of the IPv6 addresses, advertisements of one of them, and
/// advertisements to this host.
pub(super) fn discovery(addresses: impl Iterator<Item = IpAddr>) -> Vec<SockFilter> {
    let keys = addresses.filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(u128::from(address) as u32),
    });
    let mut program = not_to_others();
    // ICMPv6 (at 20, right after the IPv6 header), of type 135 or 136 (at 54).
    program.extend([
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 1, 0, 58),
        REFUSE,
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_EQUAL, 7, 0, 135),
        SockFilter::new(JUMP_EQUAL, 1, 0, 136),
        REFUSE,
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_EQUAL, 0, 1, TO_THIS_HOST),
        ACCEPT,
        // The end of an advertisement's target, at 62, or of a solicitation's source, at 22.
        SockFilter::new(LOAD_WORD, 0, 0, 74),
        SockFilter::new(JUMP, 0, 0, 1),
        SockFilter::new(LOAD_WORD, 0, 0, 34),
    ]);
    compare(&mut program, keys);
    program
}

/// Refuses what is not for this host. A frame of a VLAN speaks of another link, but the kernel has
/// taken its tag away before these sockets see it, and only left this mark. A tag with VLAN 0, which
/// carries a priority, leaves none.
fn not_to_others() -> Vec<SockFilter> {
    vec![
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_EQUAL, 0, 1, TO_OTHERS),
        REFUSE,
    ]
}

/// Accepts if the loaded word is one of the keys, else refuses.
fn compare(program: &mut Vec<SockFilter>, keys: impl Iterator<Item = u32>) {
    let keys: Vec<u32> = keys.collect();
    for group in keys.chunks(GROUP) {
        for (index, key) in group.iter().enumerate() {
            // Past the comparisons that follow, and the jump over the place that accepts.
            let distance = (group.len() - index) as u8;
            program.push(SockFilter::new(JUMP_EQUAL, distance, 0, *key));
        }
        program.push(SockFilter::new(JUMP, 0, 0, 1));
        program.push(ACCEPT);
    }
    program.push(REFUSE);
}
