//! Sockets and flows.

use crate::Address;

/// Most flows between two drains.
pub const FLOWS_MAX: u32 = 8_192;
/// Most live sockets that are followed.
pub const SOCKETS_MAX: u32 = 65_536;
/// Most listening sockets that are followed.
pub const LISTENERS_MAX: u32 = 4_096;

/// Counters of loss of the `sockets` object.
pub mod loss {
    /// Happenings on flows that the full table refused.
    pub const FLOWS: u32 = 0;
    /// Sockets that could not be followed: their owner is unknown at the end.
    pub const SOCKETS: u32 = 1;
    /// Listening sockets that could not be followed.
    pub const LISTENERS: u32 = 2;
}

/// Offsets in kernel structures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketOffsets {
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
    /// cgroup: pointer to its kernfs node.
    pub cgroup_node: u32,
    /// kernfs_node: id.
    pub node_id: u32,
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

crate::pod!(
    SocketOffsets,
    FlowKey,
    FlowValue,
    Socket,
    ListenerKey,
    Owner
);

// A gap between fields would be uninitialised bytes in a map's key.
const _: () = {
    assert!(size_of::<FlowKey>() == 48);
    assert!(size_of::<Socket>() == 56);
    assert!(size_of::<ListenerKey>() == 24);
    assert!(size_of::<Owner>() == 16);
};
