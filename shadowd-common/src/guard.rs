//! The kernel guard: until when each virtual IP may be answered for, and what was dropped after.
//!
//! VIPS tells the slot of an address and changes only when the configuration does; SLOTS holds
//! deadlines and counts. User space maps SLOTS into its memory: so a new deadline is one store, no
//! system call and no privilege, and a store never wipes out what the kernel side counts.

/// Most virtual IPs of one interface: 16 groups of 32, and as many again.
pub const VIPS_MAX: u32 = 1024;

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
    /// Always 0.
    pub reserved: u64,
}

crate::pod!(Slot);

const _: () = assert!(size_of::<Slot>() == 32);
