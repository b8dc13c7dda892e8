//! Flows from repeated looks at the open sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::diag::{DiagSocket, TcpCounts};
use crate::facts::{Direction, FlowCounts, FlowDelta, ListenerReading, Protocol, Timing};

// include/net/tcp_states.h
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;
const CLOSING: u8 = 11;
const NEW_SYN_RECV: u8 = 12;

/// Looks in which the holder of a socket is searched for; then it has none.
const SEARCHES: u8 = 3;

/// Who holds a socket: process and control group, 0 if unknown.
pub type Holder = (u32, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    holder: Holder,
    protocol: Protocol,
    direction: Direction,
    local: SocketAddr,
    remote: SocketAddr,
}

/// A connection of the last look.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: Key,
    counts: TcpCounts,
}

/// All sockets of the last look.
#[derive(Debug, Default)]
pub struct Flows {
    looks: u64,
    connections: BTreeMap<u64, Known>,
    /// By cookie; with the number of searches for those that were not found.
    holders: HashMap<u64, (Holder, u8)>,
}

impl Flows {
    /// Takes a look, and tells what changed since the one before. `find` finds the holders of
    /// sockets by their inodes, and is asked only about those that it was not asked about often.
    pub fn look(
        &mut self,
        sockets: &[DiagSocket],
        find: impl FnOnce(&HashSet<u64>) -> HashMap<u64, Holder>,
    ) -> (Vec<FlowDelta>, Vec<ListenerReading>) {
        self.looks += 1;
        self.find_holders(sockets, find);
        let services: HashSet<SocketAddr> = sockets
            .iter()
            .filter(|socket| is_listening(socket))
            .map(|socket| socket.local)
            .collect();
        let listeners = sockets
            .iter()
            .filter(|socket| is_listening(socket))
            .map(|socket| self.listener(socket))
            .collect();
        let mut before = mem::take(&mut self.connections);
        let mut changes = BTreeMap::<Key, FlowCounts>::new();
        for socket in sockets.iter().filter(|socket| is_connected(socket)) {
            let known = before.remove(&socket.cookie);
            let now = Known {
                key: self.key(socket, known.as_ref(), &services),
                counts: counts(socket),
            };
            let change = changes.entry(now.key).or_default();
            if socket.protocol == Protocol::Tcp {
                change.adopted += u64::from(known.is_none() && self.looks == 1);
                change.opened += u64::from(known.is_none() && self.looks > 1);
            }
            add(
                change,
                known
                    .unwrap_or(Known {
                        counts: TcpCounts::default(),
                        ..now
                    })
                    .counts,
                now.counts,
            );
            self.connections.insert(socket.cookie, now);
        }
        for gone in before
            .values()
            .filter(|gone| gone.key.protocol == Protocol::Tcp)
        {
            changes.entry(gone.key).or_default().closed += 1;
        }
        (self.deltas(changes), listeners)
    }

    fn find_holders(
        &mut self,
        sockets: &[DiagSocket],
        find: impl FnOnce(&HashSet<u64>) -> HashMap<u64, Holder>,
    ) {
        let living: HashSet<u64> = sockets.iter().map(|socket| socket.cookie).collect();
        self.holders.retain(|cookie, _| living.contains(cookie));
        let mut wanted = HashSet::new();
        for socket in sockets.iter().filter(|socket| socket.inode != 0) {
            let (holder, searches) = self.holders.entry(socket.cookie).or_default();
            if holder.0 == 0 && *searches < SEARCHES {
                *searches += 1;
                wanted.insert(socket.inode);
            }
        }
        if wanted.is_empty() {
            return;
        }
        let found = find(&wanted);
        for socket in sockets {
            if let Some(holder) = found.get(&socket.inode)
                && let Some(entry) = self.holders.get_mut(&socket.cookie)
            {
                entry.0 = *holder;
            }
        }
    }

    fn holder(&self, socket: &DiagSocket) -> Holder {
        self.holders
            .get(&socket.cookie)
            .map_or((0, 0), |(holder, _)| *holder)
    }

    fn listener(&self, socket: &DiagSocket) -> ListenerReading {
        let (pid, cgroup) = self.holder(socket);
        ListenerReading {
            pid,
            cgroup,
            local: socket.local,
            backlog: socket.receive_queue,
            backlog_max: socket.send_queue,
            overflows: 0,
        }
    }

    /// Which flow a connection belongs to. Once told, its direction stays: the service may end.
    fn key(
        &self,
        socket: &DiagSocket,
        known: Option<&Known>,
        services: &HashSet<SocketAddr>,
    ) -> Key {
        let direction =
            known.map_or_else(|| direction(socket, services), |known| known.key.direction);
        let mut key = Key {
            holder: self.holder(socket),
            protocol: socket.protocol,
            direction,
            local: socket.local,
            remote: socket.remote,
        };
        if let (Some(known), (0, _)) = (known, key.holder) {
            key.holder = known.key.holder; // closed by its holder, not ended yet
        }
        match direction {
            Direction::Inbound => key.remote.set_port(0),
            Direction::Outbound => key.local.set_port(0),
        }
        key
    }

    fn deltas(&self, changes: BTreeMap<Key, FlowCounts>) -> Vec<FlowDelta> {
        let mut open = BTreeMap::<Key, u64>::new();
        for known in self.connections.values() {
            *open.entry(known.key).or_default() += u64::from(known.key.protocol == Protocol::Tcp);
        }
        changes
            .into_iter()
            .filter(|(key, counts)| {
                *counts != FlowCounts::default() || key.protocol == Protocol::Udp
            })
            .map(|(key, counts)| FlowDelta {
                pid: key.holder.0,
                cgroup: key.holder.1,
                protocol: key.protocol,
                direction: key.direction,
                local: key.local,
                remote: key.remote,
                counts,
                open: open.get(&key).copied().unwrap_or(0),
            })
            .collect()
    }
}

fn is_listening(socket: &DiagSocket) -> bool {
    socket.protocol == Protocol::Tcp && socket.state == LISTEN
}

/// Whether it has another end, and is past the handshake.
fn is_connected(socket: &DiagSocket) -> bool {
    let early = matches!(
        socket.state,
        SYN_SENT | SYN_RECV | NEW_SYN_RECV | CLOSE | LISTEN
    );
    socket.remote.port() != 0 && !(socket.protocol == Protocol::Tcp && early)
}

fn direction(socket: &DiagSocket, services: &HashSet<SocketAddr>) -> Direction {
    let any = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        socket.local.ip(),
    ];
    let listens = any
        .iter()
        .any(|address| services.contains(&SocketAddr::new(*address, socket.local.port())));
    if listens {
        Direction::Inbound
    } else {
        Direction::Outbound
    }
}

fn counts(socket: &DiagSocket) -> TcpCounts {
    // The peer's FIN counts as a byte received.
    let ended = matches!(socket.state, CLOSE_WAIT | LAST_ACK | CLOSING);
    TcpCounts {
        rx_bytes: socket.tcp.rx_bytes.saturating_sub(u64::from(ended)),
        ..socket.tcp
    }
}

fn add(change: &mut FlowCounts, before: TcpCounts, now: TcpCounts) {
    let more = |before: u32, now: u32| u64::from(now.wrapping_sub(before));
    let more_packets = more(before.rx_packets, now.rx_packets);
    change.rx_bytes += now.rx_bytes.saturating_sub(before.rx_bytes);
    change.tx_bytes += now.tx_bytes.saturating_sub(before.tx_bytes);
    change.rx_packets += more_packets;
    change.tx_packets += more(before.tx_packets, now.tx_packets);
    change.retransmits += more(before.retransmits, now.retransmits);
    if more_packets > 0 && now.rtt_us > 0 {
        change.rtt.add(Timing {
            count: 1,
            sum_ns: u64::from(now.rtt_us) * 1_000,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTABLISHED: u8 = 1;

    fn socket(cookie: u64, state: u8, local: &str, remote: &str, rx_bytes: u64) -> DiagSocket {
        DiagSocket {
            cookie,
            protocol: Protocol::Tcp,
            state,
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            inode: cookie + 100,
            receive_queue: 0,
            send_queue: 8,
            tcp: TcpCounts {
                rx_bytes,
                ..TcpCounts::default()
            },
        }
    }

    fn find(wanted: &HashSet<u64>) -> HashMap<u64, Holder> {
        wanted.iter().map(|inode| (*inode, (7, 9))).collect()
    }

    #[test]
    fn a_connection_is_adopted_or_opened_grows_and_closes() {
        let mut flows = Flows::default();
        let service = socket(1, LISTEN, "0.0.0.0:80", "0.0.0.0:0", 0);
        let first = socket(2, ESTABLISHED, "192.0.2.1:80", "192.0.2.9:4001", 10);
        let (deltas, listeners) = flows.look(&[service.clone(), first], find);
        assert_eq!(listeners[0].pid, 7);
        assert_eq!(deltas.len(), 1);
        let delta = deltas[0];
        assert_eq!((delta.pid, delta.cgroup, delta.open), (7, 9, 1));
        assert_eq!(delta.direction, Direction::Inbound);
        assert_eq!(delta.remote.to_string(), "192.0.2.9:0");
        assert_eq!((delta.counts.adopted, delta.counts.rx_bytes), (1, 10));

        let grown = socket(2, CLOSE_WAIT, "192.0.2.1:80", "192.0.2.9:4001", 16);
        let out = socket(3, ESTABLISHED, "192.0.2.1:5000", "192.0.2.7:443", 4);
        let (deltas, _) = flows.look(&[service.clone(), grown, out], find);
        let inbound = deltas
            .iter()
            .find(|delta| delta.direction == Direction::Inbound);
        assert_eq!(
            inbound.map(|delta| delta.counts.rx_bytes),
            Some(5),
            "the FIN is no byte"
        );
        let outbound = deltas
            .iter()
            .find(|delta| delta.direction == Direction::Outbound);
        let outbound = outbound.expect("it was opened");
        assert_eq!(outbound.local.to_string(), "192.0.2.1:0");
        assert_eq!((outbound.counts.opened, outbound.counts.adopted), (1, 0));

        let (deltas, _) = flows.look(&[service], |_| panic!("all were searched for"));
        assert_eq!(deltas.len(), 2);
        assert!(
            deltas
                .iter()
                .all(|delta| (delta.counts.closed, delta.open) == (1, 0))
        );
    }

    #[test]
    fn a_quiet_connection_says_nothing_and_a_handshake_is_none() {
        let mut flows = Flows::default();
        let open = socket(2, ESTABLISHED, "192.0.2.1:5000", "192.0.2.9:80", 10);
        let begun = socket(3, SYN_SENT, "192.0.2.1:5001", "192.0.2.9:80", 0);
        flows.look(&[open.clone(), begun.clone()], find);
        let (deltas, _) = flows.look(&[open, begun], find);
        assert_eq!(deltas, []);
    }

    #[test]
    fn a_holder_that_cannot_be_found_is_not_searched_for_ever() {
        let mut flows = Flows::default();
        let open = socket(2, ESTABLISHED, "192.0.2.1:5000", "192.0.2.9:80", 10);
        let mut searches = 0;
        for _ in 0..10 {
            flows.look(std::slice::from_ref(&open), |_| {
                searches += 1;
                HashMap::new()
            });
        }
        assert_eq!(searches, SEARCHES);
    }
}
