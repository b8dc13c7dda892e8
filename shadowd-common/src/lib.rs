#![no_std]
//! Types that the kernel side and the daemon share: keys, values, records and load-time settings.
//!
//! Every type is `repr(C)` without implicit padding, so both compilers lay it out alike and no
//! uninitialised byte crosses the border. This crate has no behaviour beyond that.

/// An IPv6 address in network order; IPv4 is written as ::ffff:a.b.c.d.
pub type Address = [u32; 4];

/// The third word of an IPv4-mapped address: bytes 00 00 ff ff.
pub const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Most records of syscalls between two drains.
pub const SYSCALLS_MAX: u32 = 16_384;
/// Most flows between two drains.
pub const FLOWS_MAX: u32 = 8_192;
/// Most live sockets that are followed.
pub const SOCKETS_MAX: u32 = 65_536;
/// Most listening sockets that are followed.
pub const LISTENERS_MAX: u32 = 4_096;
/// Bytes of the ring buffer.
pub const EVENTS_BYTES: u32 = 1 << 18;
/// Bytes kept of a control group's path, the closing NUL included.
pub const PATH_BYTES: usize = 256;
/// Deepest level of a control group that `locate` looks at.
pub const LEVELS_MAX: u32 = 24;

/// Which generation of the counting maps the kernel side writes to: index 0 of `GENERATION`.
pub const GENERATIONS: usize = 2;

/// Index into the per-CPU counters of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// System calls that the full table refused.
    Syscalls = 0,
    /// Happenings on flows that the full table refused.
    Flows = 1,
    /// Sockets that could not be followed: their owner is unknown at the end.
    Sockets = 2,
    /// Listening sockets that could not be followed.
    Listeners = 3,
    /// Records that the full ring buffer refused.
    Events = 4,
}

/// How many counters of loss there are.
pub const LOSSES: u32 = 5;

/// Key of a count of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallKey {
    /// Control group.
    pub cgroup: u64,
    /// Process, in the daemon's pid namespace.
    pub tgid: u32,
    /// Number of the call.
    pub number: u32,
}

/// A count of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SyscallValue {
    /// Calls that returned.
    pub calls: u64,
    /// Of these, with an error.
    pub errors: u64,
}

/// `direction` of a flow that this host opened.
pub const OUTBOUND: u16 = 0;
/// `direction` of a flow that the remote opened.
pub const INBOUND: u16 = 1;

/// Key of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey {
    /// Control group of the owner, 0 if unknown.
    pub cgroup: u64,
    /// Owner, 0 if unknown.
    pub tgid: u32,
    /// Port of the service: the remote one outbound, the local one inbound. Host order.
    pub service: u16,
    /// [`OUTBOUND`] or [`INBOUND`].
    pub direction: u16,
    /// This host's end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
}

/// What happened on a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowValue {
    /// Connections established.
    pub opened: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Connects that ended before they were established.
    pub failed: u64,
    /// Payload bytes received on those that ended.
    pub rx_bytes: u64,
    /// Payload bytes sent on those that ended.
    pub tx_bytes: u64,
}

/// A live socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// The flow it belongs to.
    pub flow: FlowKey,
    /// 1 once established.
    pub established: u64,
}

/// Key of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ListenerKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host order.
    pub port: u32,
    /// Local address; unspecified addresses as they are (`::`, `::ffff:0.0.0.0`).
    pub address: Address,
}

/// Who listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Control group, 0 if unknown.
    pub cgroup: u64,
    /// Process, 0 if unknown.
    pub tgid: u32,
    /// Sockets that share the key (SO_REUSEPORT).
    pub sockets: u32,
}

/// `kind` of a [`ProcessEvent`] for execve.
pub const EVENT_EXEC: u32 = 1;
/// `kind` of a [`ProcessEvent`] for the end of a process.
pub const EVENT_EXIT: u32 = 2;
/// `kind` of a [`CgroupEvent`].
pub const EVENT_CGROUP: u32 = 3;

/// A process began a program or ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessEvent {
    /// [`EVENT_EXEC`] or [`EVENT_EXIT`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// Control group.
    pub cgroup: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at: u64,
    /// Short name, closed by NUL.
    pub command: [u8; 16],
    /// Status as wait(2) gives it.
    pub status: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A control group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CgroupEvent {
    /// [`EVENT_CGROUP`].
    pub kind: u32,
    /// Bytes of `path` that are used, the closing NUL included.
    pub length: u32,
    /// Its id.
    pub id: u64,
    /// Path from the root of the hierarchy, closed by NUL.
    pub path: [u8; PATH_BYTES],
}

/// What user space tells the kernel side before it is loaded: offsets in kernel structures, in
/// bytes, and what belongs to this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Id of the control group whose subtree is this host.
    pub root_cgroup: u64,
    /// Device of the daemon's pid namespace.
    pub pidns_device: u64,
    /// Inode of the daemon's pid namespace; 0 in the initial one, where nothing is translated.
    pub pidns_inode: u64,
    /// Level of `root_cgroup`; 0 is the real root, where nothing is filtered.
    pub root_level: u32,
    /// Inode of the daemon's network namespace.
    pub netns: u32,
    /// Whether `sched_process_exit` tells that the whole group is dead.
    pub exit_tells_group: u32,
    /// pt_regs: number of the system call.
    pub regs_number: u32,
    /// sock: protocol, 16 bits.
    pub sk_protocol: u32,
    /// sock: family, 16 bits.
    pub sk_family: u32,
    /// sock: remote IPv4 address.
    pub sk_daddr: u32,
    /// sock: local IPv4 address.
    pub sk_rcv_saddr: u32,
    /// sock: remote IPv6 address.
    pub sk_v6_daddr: u32,
    /// sock: local IPv6 address.
    pub sk_v6_rcv_saddr: u32,
    /// sock: remote port, network order.
    pub sk_dport: u32,
    /// sock: local port, host order; gone when an ephemeral port was given back.
    pub sk_num: u32,
    /// sock: flags.
    pub sk_flags: u32,
    /// sock: pointer to the network namespace.
    pub sk_net: u32,
    /// sock: pointer to the control group of whoever made it; 0 where it is not a plain pointer.
    pub sk_cgroup: u32,
    /// inet_sock: local port, network order.
    pub inet_sport: u32,
    /// net: inode number.
    pub net_inum: u32,
    /// tcp_sock: payload bytes sent, 64 bits.
    pub tcp_bytes_sent: u32,
    /// tcp_sock: payload bytes sent again, 64 bits.
    pub tcp_bytes_retrans: u32,
    /// tcp_sock: bytes received in order, 64 bits, the peer's FIN among them.
    pub tcp_bytes_received: u32,
    /// task_struct: exit code.
    pub task_exit_code: u32,
    /// cgroup: pointer to its kernfs node.
    pub cgroup_node: u32,
    /// cgroup: pointer to its hierarchy's root.
    pub cgroup_root: u32,
    /// cgroup_root: id of the hierarchy, 0 for cgroup2.
    pub root_hierarchy: u32,
    /// kernfs_node: id.
    pub node_id: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What user space tells `locate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LocateSettings {
    /// Id of the control group to find among the ancestors of the daemon's.
    pub root_cgroup: u64,
    /// Device of the daemon's pid namespace.
    pub pidns_device: u64,
    /// Inode of the daemon's pid namespace.
    pub pidns_inode: u64,
    /// The daemon's pid there.
    pub tgid: u64,
}

#[cfg(feature = "user")]
mod user {
    //! Marks the types as plain old data: any bytes are a value of them.

    macro_rules! pod {
        ($($name:ident),* $(,)?) => {
            $(
                // SAFETY: repr(C), Copy, only integers and arrays of integers, no padding.
                unsafe impl aya::Pod for super::$name {}
            )*
        };
    }

    pod!(
        SyscallKey,
        SyscallValue,
        FlowKey,
        FlowValue,
        Socket,
        ListenerKey,
        Owner,
        ProcessEvent,
        CgroupEvent,
        Settings,
        LocateSettings,
    );
}

// A gap between fields would be uninitialised bytes in a map's key.
const _: () = {
    assert!(size_of::<SyscallKey>() == 16);
    assert!(size_of::<FlowKey>() == 48);
    assert!(size_of::<Socket>() == 56);
    assert!(size_of::<ListenerKey>() == 24);
    assert!(size_of::<Owner>() == 16);
    assert!(size_of::<ProcessEvent>() == 48);
    assert!(size_of::<CgroupEvent>() == 16 + PATH_BYTES);
    assert!(size_of::<Settings>() == 24 + 26 * 4);
};
