//! The kernel guard: until when each virtual IP may be answered for, what was dropped after, and
//! which other host serves a part of its connections.
//!
//! VIPS tells the slot of an address and changes only when the configuration does; SLOTS holds
//! deadlines and counts. User space maps SLOTS into its memory: so a new deadline is one store, no
//! system call and no privilege, and a store never wipes out what the kernel side counts.

use crate::Address;

/// Most virtual IPs of one interface: 16 groups of 32, and as many again.
pub const VIPS_MAX: u32 = 1024;

/// Most connections whose beginning is remembered while an address changes its owner; the least
/// recently used one is forgotten for a new one.
pub const FLOWS_MAX: u32 = 16_384;

/// Flag of SLOTS: user space may map it (BPF_F_MMAPABLE, include/uapi/linux/bpf.h).
pub const MMAPABLE: u32 = 1 << 10;

/// What is known of one virtual IP on one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// CLOCK_BOOTTIME, nanoseconds; from then on nothing passes. 0 is long past: closed.
    pub deadline_ns: u64,
    /// Packets for the address that were dropped on arrival.
    pub dropped_rx: u64,
    /// Packets in the name of the address that were dropped instead of sent.
    pub dropped_tx: u64,
    /// Packets for the address that were passed on to the other host that serves them.
    pub passed: u64,
    /// Who has the closed address now: an Ethernet address, its first byte lowest; 0: not known.
    pub successor: u64,
    /// CLOCK_BOOTTIME, nanoseconds; from when on the successor is the one.
    pub successor_since_ns: u64,
    /// The same; until then the connections of the closed address are served here, and all that is
    /// new is passed on to the successor.
    pub successor_until_ns: u64,
    /// Who had the address before, in the same form.
    pub predecessor: u64,
    /// CLOCK_BOOTTIME, nanoseconds; from when on the predecessor is the one.
    pub predecessor_since_ns: u64,
    /// The same; until then segments of connections that this host does not know are passed on to
    /// the predecessor.
    pub predecessor_until_ns: u64,
}

crate::pod!(Slot);

const _: () = assert!(size_of::<Slot>() == 80);

/// Who serves a connection that began while its address changed its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Holder {
    /// An Ethernet address, its first byte lowest; 0: this host.
    pub mac: u64,
    /// When the connection began, CLOCK_BOOTTIME, nanoseconds: a client uses its ports again.
    pub since_ns: u64,
}

crate::pod!(Holder);

/// One TCP connection to a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The other end.
    pub client: Address,
    /// Slot of the virtual IP.
    pub vip: u32,
    /// Both ports as they stand in the segment: the client's, the service's.
    pub ports: u32,
}

crate::pod!(Flow);
