//! Drains the counts of flows.

use std::io;
use std::os::fd::AsFd;

use aya::include_bytes_aligned;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use shadowd_common::sockets::{
    FlowKey, FlowValue, INBOUND, ListenerKey, Owner, SocketOffsets, loss,
};

use super::fields::{Field, field, resolve};
use super::probes::{self, Attached, LoadError, Losses, Object, Prepared};
use super::{seed, sys};
use crate::facts::{Direction, FlowCounts, FlowDelta, Protocol, Sample};

/// Do not replace an entry (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

const FIELDS: &[Field<SocketOffsets>] = &[
    field!("sock", ["sk_protocol"], sk_protocol),
    field!("sock", ["__sk_common", "skc_family"], sk_family),
    field!("sock", ["__sk_common", "skc_daddr"], sk_daddr),
    field!("sock", ["__sk_common", "skc_rcv_saddr"], sk_rcv_saddr),
    field!("sock", ["__sk_common", "skc_v6_daddr"], sk_v6_daddr),
    field!("sock", ["__sk_common", "skc_v6_rcv_saddr"], sk_v6_rcv_saddr),
    field!("sock", ["__sk_common", "skc_dport"], sk_dport),
    field!("sock", ["__sk_common", "skc_num"], sk_num),
    field!("sock", ["__sk_common", "skc_flags"], sk_flags),
    field!("sock", ["__sk_common", "skc_net", "net"], sk_net),
    field!("inet_sock", ["inet_sport"], inet_sport),
    field!("net", ["ns", "inum"], net_inum),
    field!("tcp_sock", ["bytes_sent"], tcp_bytes_sent),
    field!("tcp_sock", ["bytes_retrans"], tcp_bytes_retrans),
    field!("tcp_sock", ["bytes_received"], tcp_bytes_received),
    field!("cgroup", ["kn"], cgroup_node),
    field!("kernfs_node", ["id"], node_id),
];

const SENTENCES: &[(u32, &str)] = &[
    (loss::FLOWS, "the table of flows is full"),
    (loss::SOCKETS, "the table of sockets is full"),
    (loss::LISTENERS, "the table of listening sockets is full"),
];

/// The probe and its maps.
pub struct SocketProbes {
    object: Object,
    generation: Array<MapData, u32>,
    open: usize,
    flows: [Map; 2],
    listeners: HashMap<MapData, ListenerKey, Owner>,
    losses: Losses,
}

impl SocketProbes {
    /// Loads and attaches it.
    ///
    /// # Errors
    ///
    /// When the object cannot be used at all.
    pub fn start(prepared: &Prepared) -> Result<(Self, Attached), LoadError> {
        let mut offsets = resolve(&prepared.btf, FIELDS)?;
        // Kernels before 5.15 keep tagged bits in this word: then the socket does not tell its group.
        let creator = ["sk_cgrp_data", "cgroup"];
        if prepared.btf.is_pointer("sock", &creator) {
            offsets.sk_cgroup = prepared.btf.offset("sock", &creator).unwrap_or(0);
        }
        let bytes = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.bpf.o"));
        let mut object = prepared.object("sockets", bytes, &offsets, &[])?;
        let attached = prepared.attach(&mut object, &probes::TCP);
        let mut take = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let mut probes = Self {
            generation: take("GENERATION")?.try_into()?,
            open: 0,
            flows: [take("FLOWS_0")?, take("FLOWS_1")?],
            listeners: take("LISTENERS")?.try_into()?,
            losses: Losses::take(&mut object, SENTENCES)?,
            object,
        };
        probes.object.settle();
        Ok((probes, attached))
    }

    /// The object, for what a successor needs.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Adds listening sockets that were there before; returns how many did not fit.
    pub fn seed(&mut self, owners: impl IntoIterator<Item = (ListenerKey, Owner)>) -> u64 {
        let mut refused = 0;
        for (key, owner) in owners {
            if let Err(error) = self.listeners.insert(key, owner, BPF_NOEXIST) {
                // The kernel side was first: its entry is the better one.
                let known = matches!(&error, MapError::SyscallError(call)
                    if call.io_error.raw_os_error() == Some(libc::EEXIST));
                refused += u64::from(!known);
            }
        }
        refused
    }

    /// Turns the kernel side to the other generation, before the rest of the sample is taken.
    pub fn turn(&mut self) {
        let next = (self.open + 1) % 2;
        if self.generation.set(0, next as u32, 0).is_ok() {
            self.open = next;
        }
    }

    /// Adds what was counted to a sample.
    ///
    /// # Errors
    ///
    /// The kernel's; what was taken until then is in the sample.
    pub fn drain(&mut self, sample: &mut Sample) -> io::Result<()> {
        let (Map::HashMap(map) | Map::PerCpuHashMap(map)) = &self.flows[(self.open + 1) % 2] else {
            return Ok(()); // the build of the object fixes its type
        };
        sys::drain(
            map.fd().as_fd(),
            1,
            |key: &FlowKey, values: &[FlowValue]| {
                sample
                    .flows
                    .extend(values.first().map(|value| flow_delta(key, value)));
            },
        )
    }

    /// Happenings that full tables refused.
    pub fn lost(&mut self) -> u64 {
        self.losses.total()
    }
}

fn flow_delta(key: &FlowKey, value: &FlowValue) -> FlowDelta {
    let inbound = key.direction == INBOUND;
    let (local_port, remote_port) = if inbound {
        (key.service, 0)
    } else {
        (0, key.service)
    };
    FlowDelta {
        pid: key.tgid,
        cgroup: key.cgroup,
        protocol: Protocol::Tcp,
        direction: if inbound {
            Direction::Inbound
        } else {
            Direction::Outbound
        },
        local: (seed::address(key.local), local_port).into(),
        remote: (seed::address(key.remote), remote_port).into(),
        counts: FlowCounts {
            opened: value.opened,
            closed: value.closed,
            failed: value.failed,
            rx_bytes: value.rx_bytes,
            tx_bytes: value.tx_bytes,
            ..FlowCounts::default()
        },
        open: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_names_the_service_port_only() {
        let key = FlowKey {
            service: 80,
            direction: INBOUND,
            local: seed::kernel_address([192, 0, 2, 1].into()),
            remote: seed::kernel_address([192, 0, 2, 9].into()),
            ..FlowKey::default()
        };
        let delta = flow_delta(&key, &FlowValue::default());
        assert_eq!(delta.local.to_string(), "192.0.2.1:80");
        assert_eq!(delta.remote.to_string(), "192.0.2.9:0");
    }
}
