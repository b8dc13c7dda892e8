//! Sockets and flows.

use crate::Address;

/// Most flows the kernel side holds, where the machine has the memory.
pub const FLOWS_MAX: u32 = 131_072;
/// Most live TCP sockets that are followed, where the machine has the memory.
pub const SOCKETS_MAX: u32 = 131_072;
/// Most listening sockets that are followed.
pub const LISTENERS_MAX: u32 = 4_096;
/// Most tasks that are inside of a send or receive with an address at one time.
pub const PEERS_MAX: u32 = 8_192;

/// Counters of loss of the `sockets` object.
pub mod loss {
    /// Happenings on connections that the full table of flows refused.
    pub const FLOWS: u32 = 0;
    /// Happenings on connections that could not be followed: the table of sockets was full.
    pub const SOCKETS: u32 = 1;
    /// Listening sockets that could not be followed.
    pub const LISTENERS: u32 = 2;
    /// Datagrams whose remote could not be noted.
    pub const PEERS: u32 = 3;
    /// Payload bytes that the full table of flows refused.
    pub const FLOW_BYTES: u32 = 4;
    /// Payload bytes of connections that could not be followed, once they ended.
    pub const SOCKET_BYTES: u32 = 5;
    /// Datagrams that the full table of flows refused.
    pub const DATAGRAMS: u32 = 6;
}

/// Offsets in kernel structures, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketOffsets {
    /// sock: protocol, 16 bits.
    pub sk_protocol: u32,
    /// sock: family, 16 bits.
    pub sk_family: u32,
    /// sock: state, 8 bits.
    pub sk_state: u32,
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
    /// sock: error, 32 bits.
    pub sk_err: u32,
    /// sock: pointer to the network namespace.
    pub sk_net: u32,
    /// sock: pointer to the control group of whoever made it; 0 where it is not a plain pointer.
    pub sk_cgroup: u32,
    /// sock: connections that wait to be accepted.
    pub sk_ack_backlog: u32,
    /// sock: how many may wait.
    pub sk_max_ack_backlog: u32,
    /// sock: what was dropped on it.
    pub sk_drops: u32,
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
    /// tcp_sock: segments received, 32 bits.
    pub tcp_segs_in: u32,
    /// tcp_sock: segments sent, 32 bits.
    pub tcp_segs_out: u32,
    /// tcp_sock: segments sent again, 32 bits.
    pub tcp_total_retrans: u32,
    /// tcp_sock: smoothed round trip in eighths of a microsecond.
    pub tcp_srtt: u32,
    /// cgroup: pointer to its kernfs node.
    pub cgroup_node: u32,
    /// cgroup: pointer to its parent.
    pub cgroup_parent: u32,
    /// kernfs_node: id.
    pub node_id: u32,
    /// task_struct: pointer to its groups.
    pub task_groups: u32,
    /// css_set: pointer to its control group of cgroup2.
    pub groups_default: u32,
    /// task_struct: pointer to the leader of its thread group.
    pub task_leader: u32,
    /// task_struct: pointer to its numbers.
    pub task_pid: u32,
    /// pid: how many namespaces it has a number in, less one.
    pub pid_level: u32,
    /// pid: its numbers.
    pub pid_numbers: u32,
    /// upid: pointer to the namespace.
    pub upid_namespace: u32,
    /// Bytes of a upid.
    pub upid_bytes: u32,
    /// pid_namespace: inode number.
    pub pidns_inum: u32,
    /// file: pointer to its inode.
    pub file_inode: u32,
    /// file: pointer to what its driver keeps.
    pub file_private: u32,
    /// inode: mode, 16 bits.
    pub inode_mode: u32,
    /// socket: pointer to the sock.
    pub socket_sk: u32,
    /// msghdr: pointer to the address.
    pub msg_name: u32,
    /// sk_buff: pointer to its bytes.
    pub skb_head: u32,
    /// sk_buff: where in its bytes the header of the network layer begins, 16 bits.
    pub skb_network: u32,
    /// sk_buff: where in its bytes the header of the transport layer begins, 16 bits.
    pub skb_transport: u32,
}

/// `direction` of a flow that this host opened.
pub const OUTBOUND: u8 = 0;
/// `direction` of a flow that the remote opened.
pub const INBOUND: u8 = 1;

/// `protocol` of TCP (IPPROTO_TCP).
pub const TCP: u8 = 6;
/// `protocol` of UDP (IPPROTO_UDP).
pub const UDP: u8 = 17;

/// Key of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Control group of the owner, 0 if unknown.
    pub cgroup: u64,
    /// Owner, 0 if unknown.
    pub tgid: u32,
    /// Port of the service: the remote one outbound, the local one inbound. Host order.
    pub service: u16,
    /// [`OUTBOUND`] or [`INBOUND`].
    pub direction: u8,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// This host's end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
}

/// What moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Volume {
    /// Payload bytes received.
    pub rx_bytes: u64,
    /// Payload bytes sent.
    pub tx_bytes: u64,
    /// Segments or datagrams received.
    pub rx_packets: u64,
    /// Segments or datagrams sent.
    pub tx_packets: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// Buckets of a histogram of times.
pub const BUCKETS: usize = 32;

/// Sums of what happened on a flow. They never go back, except `moved`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sums {
    /// Connections established.
    pub opened: u64,
    /// Connections that were there before.
    pub adopted: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Connects that ended before they were established.
    pub failed: u64,
    /// Connections that a reset ended.
    pub resets: u64,
    /// Connections that came from another flow, less those that went to one; wraps.
    pub moved: u64,
    /// Round trips read.
    pub rtt_count: u64,
    /// Their sum, ns.
    pub rtt_sum_ns: u64,
    /// Connects that were timed.
    pub connect_count: u64,
    /// Their sum, ns.
    pub connect_sum_ns: u64,
    /// Answers that were timed.
    pub responses: u64,
}

/// What happened on a flow since it is known.
///
/// What open connections moved is not in `done`. The look at them in tick `live_tick` left its sum
/// in `live`, and in `before` what `done` was then; so the flow's whole volume is `before + live`,
/// and `done` for a flow at which the newest look found no connection. A connection that ends
/// during a look is then in one of them or, until the next look, in neither, never in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowValue {
    /// What happened.
    pub sums: Sums,
    /// What connections moved that ended or changed their owner, and all datagrams.
    pub done: Volume,
    /// `done` when the newest look came to the flow.
    pub before: Volume,
    /// What open connections had moved at that look.
    pub live: Volume,
    /// Which look that was.
    pub live_tick: u64,
    /// The look at which there was something to tell last.
    pub changed: u64,
    /// What user space was told of `sums`.
    pub told: Sums,
    /// What user space was told of the whole volume.
    pub told_volume: Volume,
    /// The answers by their time, as `Histogram` counts; each wraps.
    pub response: [u32; BUCKETS],
    /// What user space was told of these.
    pub told_response: [u32; BUCKETS],
}

/// What came on a flow since user space was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowNews {
    /// Which.
    pub key: FlowKey,
    /// What happened since.
    pub sums: Sums,
    /// What moved since.
    pub volume: Volume,
    /// Connections open now; may be below 0 for a moment.
    pub open: i64,
    /// Answers since.
    pub response: [u32; BUCKETS],
}

/// Counters of a connection, as the kernel keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Payload bytes received.
    pub rx_bytes: u64,
    /// Payload bytes sent.
    pub tx_bytes: u64,
    /// Segments received; wraps.
    pub rx_packets: u32,
    /// Segments sent; wraps.
    pub tx_packets: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed round trip, us.
    pub rtt_us: u32,
}

/// `pending` of a connection that its flow counted already.
pub const COUNTED: u32 = 0;
/// `pending` of a connection that its flow has to count as opened.
pub const OPENED: u32 = 1;
/// `pending` of a connection that its flow has to count as adopted.
pub const ADOPTED: u32 = 2;
/// `pending` of a connection of which another table's loss was counted: nothing is to be counted.
pub const LATE: u32 = 3;

/// A live TCP socket.
///
/// Whoever changes the owner or settles `pending` holds `busy`: adds 1, and goes back if it then
/// reads more than 1. Whoever sees the end adds 1 to `closed` first; if `busy` is then not 0, the
/// holder finishes the entry when it lets go, else whoever removes the entry does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// The flow it belongs to.
    pub flow: FlowKey,
    /// What is no matter of this flow: moved by an earlier owner, or before capture.
    pub base: Counters,
    /// When the connect began, CLOCK_MONOTONIC; 0 if unknown.
    pub connecting_ns: u64,
    /// Inbound: when a request was received that is not answered yet; else 0.
    pub received_ns: u64,
    /// How many want to change the entry.
    pub busy: u64,
    /// Not 0 once its end was seen.
    pub closed: u64,
    /// Goes up before and after each change of the flow.
    pub version: u64,
    /// The tick of the last look.
    pub visited: u64,
    /// Segments at the last look.
    pub looked: u32,
    /// 1 once established.
    pub established: u32,
    /// 1 once a reset came or went.
    pub reset: u32,
    /// [`COUNTED`], [`OPENED`], [`ADOPTED`] or [`LATE`].
    pub pending: u32,
    /// How often the owner changed.
    pub changes: u32,
    /// Both ports, to tell this connection from a later one at the same address.
    pub ports: u32,
    /// The address of the socket, to tell this entry from a later one in the same place.
    pub sk: u64,
}

/// Key of listening sockets that share an address.
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

/// One listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Listening {
    /// Control group of the owner, 0 if unknown.
    pub cgroup: u64,
    /// Where it listens.
    pub key: ListenerKey,
    /// Owner, 0 if unknown.
    pub tgid: u32,
    /// Connections that wait to be accepted, at the last look.
    pub backlog: u32,
    /// How many may wait.
    pub backlog_max: u32,
    /// Connections refused because too many waited; wraps.
    pub drops: u32,
}

/// The address that a task sends to or received from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// The address.
    pub address: Address,
    /// The port, host order.
    pub port: u32,
}

/// Index into the settings that change: when the look began, CLOCK_BOOTTIME, ns.
pub const TICK: u32 = 0;
/// Index into the settings that change: what is being taken over, one of the `PHASE_` constants.
pub const PHASE: u32 = 1;
/// Index into the settings that change: connections that the full table of sockets refused.
pub const REFUSED: u32 = 2;
/// Index into the settings that change: flows that were idle since before that look are removed.
pub const IDLE_SINCE: u32 = 3;
/// Index into the settings that change: flows in the table, counted by each report.
pub const FLOW_COUNT: u32 = 4;
/// Settings that change.
pub const CHANGING: u32 = 5;

/// Listening sockets are being taken over.
pub const PHASE_LISTENERS: u64 = 0;
/// Connections are being taken over.
pub const PHASE_CONNECTIONS: u64 = 1;
/// All that there was before is known.
pub const PHASE_RUNNING: u64 = 2;

crate::pod!(
    SocketOffsets,
    FlowKey,
    Volume,
    Sums,
    FlowValue,
    FlowNews,
    Counters,
    Socket,
    ListenerKey,
    Owner,
    Listening,
    Peer
);

// A gap between fields would be uninitialised bytes in a map's key.
const _: () = {
    assert!(size_of::<FlowKey>() == 48);
    assert!(size_of::<FlowValue>() == 2 * 88 + 4 * 40 + 16 + 2 * 128);
    assert!(size_of::<FlowNews>() == 48 + 88 + 40 + 8 + 128);
    assert!(size_of::<Counters>() == 32);
    assert!(size_of::<Socket>() == 48 + 32 + 6 * 8 + 6 * 4 + 8);
    assert!(size_of::<ListenerKey>() == 24);
    assert!(size_of::<Owner>() == 16);
    assert!(size_of::<Listening>() == 48);
    assert!(size_of::<Peer>() == 20);
};
