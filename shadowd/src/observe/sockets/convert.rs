//! What the kernel side tells, in the words of the facts.

use shadowd_common::sockets::{FlowNews, INBOUND, Listening, UDP};

use crate::facts::{
    Direction, FlowCounts, FlowDelta, Histogram, ListenerReading, Protocol, Timing,
};
use crate::observe::seed;

/// What came on a flow.
pub fn flow_delta(news: &FlowNews) -> FlowDelta {
    let key = &news.key;
    let inbound = key.direction == INBOUND;
    let (local_port, remote_port) = if inbound {
        (key.service, 0)
    } else {
        (0, key.service)
    };
    let (sums, volume) = (&news.sums, &news.volume);
    FlowDelta {
        pid: key.tgid,
        cgroup: key.cgroup,
        protocol: if key.protocol == UDP {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        direction: if inbound {
            Direction::Inbound
        } else {
            Direction::Outbound
        },
        local: (seed::address(key.local), local_port).into(),
        remote: (seed::address(key.remote), remote_port).into(),
        counts: FlowCounts {
            opened: sums.opened,
            adopted: sums.adopted,
            closed: sums.closed,
            failed: sums.failed,
            resets: sums.resets,
            rx_bytes: volume.rx_bytes,
            tx_bytes: volume.tx_bytes,
            rx_packets: volume.rx_packets,
            tx_packets: volume.tx_packets,
            retransmits: volume.retransmits,
            rtt: Timing {
                count: sums.rtt_count,
                sum_ns: sums.rtt_sum_ns,
            },
            connect: Timing {
                count: sums.connect_count,
                sum_ns: sums.connect_sum_ns,
            },
            response: Histogram::from_counts(news.response.map(u64::from)),
        },
        open: u64::try_from(news.open).unwrap_or(0),
    }
}

/// What a listening socket's queue shows.
pub fn listener_reading(listening: &Listening) -> ListenerReading {
    let port = u16::try_from(listening.key.port).unwrap_or(0);
    ListenerReading {
        pid: listening.tgid,
        cgroup: listening.cgroup,
        local: (seed::address(listening.key.address), port).into(),
        backlog: listening.backlog,
        backlog_max: listening.backlog_max,
        overflows: u64::from(listening.drops),
    }
}

#[cfg(test)]
mod tests {
    use shadowd_common::sockets::{FlowKey, OUTBOUND, TCP};

    use super::*;

    #[test]
    fn a_flow_names_the_service_port_only() {
        let mut news = FlowNews {
            key: FlowKey {
                service: 80,
                direction: INBOUND,
                protocol: TCP,
                local: seed::kernel_address([192, 0, 2, 1].into()),
                remote: seed::kernel_address([192, 0, 2, 9].into()),
                ..FlowKey::default()
            },
            open: -1,
            ..FlowNews::default()
        };
        let delta = flow_delta(&news);
        assert_eq!(delta.local.to_string(), "192.0.2.1:80");
        assert_eq!(delta.remote.to_string(), "192.0.2.9:0");
        assert_eq!((delta.protocol, delta.open), (Protocol::Tcp, 0));
        news.key.direction = OUTBOUND;
        news.key.protocol = UDP;
        let delta = flow_delta(&news);
        assert_eq!(delta.local.to_string(), "192.0.2.1:0");
        assert_eq!(delta.remote.to_string(), "192.0.2.9:80");
        assert_eq!(delta.protocol, Protocol::Udp);
    }
}
