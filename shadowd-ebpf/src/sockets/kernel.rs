//! What the kernel knows of a socket or a task, read field by field.

use shadowd_common::sockets::{Counters, SocketOffsets, TCP, UDP};
use shadowd_common::{Address, LEVELS_MAX, MAPPED};

use crate::context::{SCOPE, read, setting};

/// Written by user space before the load.
#[unsafe(no_mangle)]
pub static OFFSETS: SocketOffsets = SocketOffsets {
    sk_protocol: 0,
    sk_family: 0,
    sk_state: 0,
    sk_daddr: 0,
    sk_rcv_saddr: 0,
    sk_v6_daddr: 0,
    sk_v6_rcv_saddr: 0,
    sk_dport: 0,
    sk_num: 0,
    sk_flags: 0,
    sk_err: 0,
    sk_net: 0,
    sk_cgroup: 0,
    sk_ack_backlog: 0,
    sk_max_ack_backlog: 0,
    sk_drops: 0,
    inet_sport: 0,
    net_inum: 0,
    tcp_bytes_sent: 0,
    tcp_bytes_retrans: 0,
    tcp_bytes_received: 0,
    tcp_segs_in: 0,
    tcp_segs_out: 0,
    tcp_total_retrans: 0,
    tcp_srtt: 0,
    cgroup_node: 0,
    cgroup_parent: 0,
    node_id: 0,
    task_groups: 0,
    groups_default: 0,
    task_leader: 0,
    task_pid: 0,
    pid_level: 0,
    pid_numbers: 0,
    upid_namespace: 0,
    upid_bytes: 0,
    pidns_inum: 0,
    file_inode: 0,
    file_private: 0,
    inode_mode: 0,
    socket_sk: 0,
    msg_name: 0,
    skb_head: 0,
    skb_network: 0,
    skb_transport: 0,
};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
/// Bit of `sk_flags` that tcp_fin() sets: the peer's FIN was received (enum sock_flags).
const SOCK_DONE: u64 = 1 << 1;
/// Namespaces of processes nest no deeper (MAX_PID_NS_LEVEL).
const PIDNS_LEVELS: u32 = 32;

/// The transport protocol of an Internet socket that is counted.
#[inline(always)]
pub fn protocol(sk: u64) -> Option<u8> {
    let family: u16 = read(sk, setting!(OFFSETS, sk_family))?;
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    let protocol: u16 = read(sk, setting!(OFFSETS, sk_protocol))?;
    if protocol == u16::from(TCP) {
        Some(TCP)
    } else if protocol == u16::from(UDP) {
        Some(UDP)
    } else {
        None
    }
}

#[inline(always)]
pub fn state(sk: u64) -> Option<i32> {
    read::<u8>(sk, setting!(OFFSETS, sk_state)).map(i32::from)
}

#[inline(always)]
pub fn netns(sk: u64) -> Option<u32> {
    let net: u64 = read(sk, setting!(OFFSETS, sk_net))?;
    read(net, setting!(OFFSETS, net_inum))
}

/// Local port, host order.
#[inline(always)]
pub fn local_port(sk: u64) -> Option<u16> {
    let num: u16 = read(sk, setting!(OFFSETS, sk_num))?;
    if num != 0 {
        return Some(num);
    }
    read(sk, setting!(OFFSETS, inet_sport)).map(u16::from_be)
}

/// Remote port, host order.
#[inline(always)]
pub fn remote_port(sk: u64) -> Option<u16> {
    read(sk, setting!(OFFSETS, sk_dport)).map(u16::from_be)
}

/// Local and remote address, IPv4 as IPv4-mapped.
#[inline(always)]
pub fn addresses(sk: u64) -> Option<(Address, Address)> {
    let family: u16 = read(sk, setting!(OFFSETS, sk_family))?;
    if family == AF_INET6 {
        let remote: Address = read(sk, setting!(OFFSETS, sk_v6_daddr))?;
        if !(remote[0] == 0 && remote[1] == 0 && remote[2] == MAPPED) {
            return Some((read(sk, setting!(OFFSETS, sk_v6_rcv_saddr))?, remote));
        }
    } else if family != AF_INET {
        return None;
    }
    let local: u32 = read(sk, setting!(OFFSETS, sk_rcv_saddr))?;
    let remote: u32 = read(sk, setting!(OFFSETS, sk_daddr))?;
    Some(([0, 0, MAPPED, local], [0, 0, MAPPED, remote]))
}

/// The counters of a TCP socket. Never ahead of the truth: of two fields that are subtracted, the
/// one that the kernel writes last is read first, and the flag of the peer's FIN, which follows
/// its byte, at the end.
#[inline(always)]
pub fn counters(sk: u64) -> Option<Counters> {
    let received: u64 = read(sk, setting!(OFFSETS, tcp_bytes_received))?;
    let sent: u64 = read(sk, setting!(OFFSETS, tcp_bytes_sent))?;
    let again: u64 = read(sk, setting!(OFFSETS, tcp_bytes_retrans))?;
    let rtt: u32 = read(sk, setting!(OFFSETS, tcp_srtt))?;
    let rx_packets = read(sk, setting!(OFFSETS, tcp_segs_in))?;
    let tx_packets = read(sk, setting!(OFFSETS, tcp_segs_out))?;
    let retransmits = read(sk, setting!(OFFSETS, tcp_total_retrans))?;
    let flags: u64 = read(sk, setting!(OFFSETS, sk_flags))?;
    let fin = u64::from(flags & SOCK_DONE != 0);
    Some(Counters {
        rx_bytes: received.saturating_sub(fin),
        tx_bytes: sent.saturating_sub(again),
        rx_packets,
        tx_packets,
        retransmits,
        rtt_us: rtt >> 3,
    })
}

/// Id of a control group.
#[inline(always)]
fn group_id(cgroup: u64) -> Option<u64> {
    let node: u64 = read(cgroup, setting!(OFFSETS, cgroup_node))?;
    read(node, setting!(OFFSETS, node_id))
}

/// Id of a control group if it belongs to this host.
#[inline(always)]
fn group_of_host(cgroup: u64) -> Option<u64> {
    let id = group_id(cgroup)?;
    if setting!(SCOPE, root_level) == 0 {
        return Some(id);
    }
    let root = setting!(SCOPE, root_cgroup);
    let mut ancestor = cgroup;
    for _ in 0..LEVELS_MAX {
        if group_id(ancestor)? == root {
            return Some(id);
        }
        // The parent is given as its first member, which lies at its beginning.
        ancestor = read(ancestor, setting!(OFFSETS, cgroup_parent))?;
        if ancestor == 0 {
            return None;
        }
    }
    None
}

/// The control group of the task that made the socket, or its listening parent: 0 if unknown, none
/// if it belongs to another host.
#[inline(always)]
pub fn creator(sk: u64) -> Option<u64> {
    let offset = setting!(OFFSETS, sk_cgroup);
    if offset == 0 {
        let alone = setting!(SCOPE, root_level) == 0;
        return alone.then_some(0);
    }
    group_of_host(read(sk, offset)?)
}

/// Process and control group of a task that need not be the current one, if it is of this host.
#[inline(always)]
pub fn owner(task: u64) -> Option<(u32, u64)> {
    let groups: u64 = read(task, setting!(OFFSETS, task_groups))?;
    let cgroup = group_of_host(read(groups, setting!(OFFSETS, groups_default))?)?;
    let leader: u64 = read(task, setting!(OFFSETS, task_leader))?;
    let pid: u64 = read(leader, setting!(OFFSETS, task_pid))?;
    let numbers = pid + u64::from(setting!(OFFSETS, pid_numbers));
    let inode = setting!(SCOPE, pidns_inode);
    if inode == 0 {
        return Some((read(numbers, 0)?, cgroup));
    }
    let deepest: u32 = read(pid, setting!(OFFSETS, pid_level))?;
    for level in 0..PIDNS_LEVELS {
        if level > deepest {
            break;
        }
        let number = numbers + u64::from(level) * u64::from(setting!(OFFSETS, upid_bytes));
        let namespace: u64 = read(number, setting!(OFFSETS, upid_namespace))?;
        if u64::from(read::<u32>(namespace, setting!(OFFSETS, pidns_inum))?) == inode {
            return Some((read(number, 0)?, cgroup));
        }
    }
    Some((0, cgroup))
}
