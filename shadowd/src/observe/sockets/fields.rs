//! Which fields of the kernel's structures the programs read.

use shadowd_common::sockets::SocketOffsets;

use crate::observe::btf::Btf;
use crate::observe::fields::{Field, field, resolve};
use crate::observe::probes::LoadError;

const FIELDS: &[Field<SocketOffsets>] = &[
    field!("sock", ["sk_protocol"], sk_protocol),
    field!("sock", ["__sk_common", "skc_family"], sk_family),
    field!("sock", ["__sk_common", "skc_state"], sk_state),
    field!("sock", ["__sk_common", "skc_daddr"], sk_daddr),
    field!("sock", ["__sk_common", "skc_rcv_saddr"], sk_rcv_saddr),
    field!("sock", ["__sk_common", "skc_v6_daddr"], sk_v6_daddr),
    field!("sock", ["__sk_common", "skc_v6_rcv_saddr"], sk_v6_rcv_saddr),
    field!("sock", ["__sk_common", "skc_dport"], sk_dport),
    field!("sock", ["__sk_common", "skc_num"], sk_num),
    field!("sock", ["__sk_common", "skc_flags"], sk_flags),
    field!("sock", ["sk_err"], sk_err),
    field!("sock", ["__sk_common", "skc_net", "net"], sk_net),
    field!("sock", ["sk_ack_backlog"], sk_ack_backlog),
    field!("sock", ["sk_max_ack_backlog"], sk_max_ack_backlog),
    field!("sock", ["sk_drops"], sk_drops),
    field!("inet_sock", ["inet_sport"], inet_sport),
    field!("net", ["ns", "inum"], net_inum),
    field!("tcp_sock", ["bytes_sent"], tcp_bytes_sent),
    field!("tcp_sock", ["bytes_retrans"], tcp_bytes_retrans),
    field!("tcp_sock", ["bytes_received"], tcp_bytes_received),
    field!("tcp_sock", ["segs_in"], tcp_segs_in),
    field!("tcp_sock", ["segs_out"], tcp_segs_out),
    field!("tcp_sock", ["total_retrans"], tcp_total_retrans),
    field!("tcp_sock", ["srtt_us"], tcp_srtt),
    field!("cgroup", ["kn"], cgroup_node),
    field!("cgroup", ["self", "parent"], cgroup_parent),
    field!("kernfs_node", ["id"], node_id),
    field!("task_struct", ["cgroups"], task_groups),
    field!("css_set", ["dfl_cgrp"], groups_default),
    field!("task_struct", ["group_leader"], task_leader),
    field!("task_struct", ["thread_pid"], task_pid),
    field!("pid", ["level"], pid_level),
    field!("pid", ["numbers"], pid_numbers),
    field!("upid", ["ns"], upid_namespace),
    field!("pid_namespace", ["ns", "inum"], pidns_inum),
    field!("file", ["f_inode"], file_inode),
    field!("file", ["private_data"], file_private),
    field!("inode", ["i_mode"], inode_mode),
    field!("socket", ["sk"], socket_sk),
    field!("msghdr", ["msg_name"], msg_name),
    field!("sk_buff", ["head"], skb_head),
    field!("sk_buff", ["network_header"], skb_network),
    field!("sk_buff", ["transport_header"], skb_transport),
];

/// struct upid: a number, padding, and a pointer; since 2.6.24.
const UPID_BYTES: u32 = 16;

/// Where this kernel has them.
///
/// # Errors
///
/// [`LoadError::NoField`] for the first one that it lacks.
pub fn offsets(btf: &Btf) -> Result<SocketOffsets, LoadError> {
    let mut offsets = resolve(btf, FIELDS)?;
    offsets.upid_bytes = UPID_BYTES;
    // Kernels before 5.15 keep tagged bits in this word: then the socket does not tell its group.
    let creator = ["sk_cgrp_data", "cgroup"];
    if btf.is_pointer("sock", &creator) {
        offsets.sk_cgroup = btf.offset("sock", &creator).unwrap_or(0);
    }
    Ok(offsets)
}
