//! What the failover loop knows of a peer's datagrams: when they come and how long they take.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::board::PeerReading;
use crate::config::settings::PeerSettings;
use crate::decide::cluster::Echo;
use crate::facts::{BootTime, Datagram, Name};

/// Round trips are told apart to two digits from 1 us to 10 s: 12 KiB a peer.
const ROUND_TRIPS_NS: (u64, u64, u8) = (1_000, 10_000_000_000, 2);

/// A peer's datagrams.
pub struct PeerLink {
    /// The peer.
    pub name: Name,
    /// Where its daemon listens.
    pub address: SocketAddr,
    echo: Echo,
    round_trip: Option<Duration>,
    round_trips_ns: Histogram<u64>,
}

impl PeerLink {
    /// A peer that was not heard yet.
    pub fn new(peer: &PeerSettings) -> Self {
        let (low, high, digits) = ROUND_TRIPS_NS;
        Self {
            name: peer.name.clone(),
            address: peer.address,
            echo: Echo::default(),
            round_trip: None,
            round_trips_ns: Histogram::new_with_bounds(low, high, digits)
                .expect("the bounds are constants that the library accepts"),
        }
    }

    /// An authentic datagram of the peer came.
    pub fn on_datagram(&mut self, datagram: &Datagram, now: BootTime) {
        if !self.echo.on_datagram(datagram.sent, now) {
            return;
        }
        // The echo of this host's own clock: only a time that has passed can be one.
        self.round_trip = datagram
            .heard
            .filter(|sent| *sent <= now)
            .map(|sent| now.since(sent));
        if let Some(round_trip) = self.round_trip {
            self.round_trips_ns.saturating_record(nanos(round_trip));
        }
    }

    /// The peer's clock, as it is to be echoed to it.
    pub fn echo(&self, now: BootTime) -> Option<BootTime> {
        self.echo.at(now)
    }

    /// The view for people.
    pub fn reading(&self) -> PeerReading {
        PeerReading {
            name: self.name.clone(),
            last_heard: self.echo.heard(),
            round_trip_ns: self.round_trip.map(nanos),
            round_trip_p99_ns: (!self.round_trips_ns.is_empty())
                .then(|| self.round_trips_ns.value_at_quantile(0.99)),
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostId;

    #[test]
    fn a_round_trip_leaves_out_the_time_the_peer_kept_it() {
        let mut link = PeerLink::new(&PeerSettings {
            name: "b".parse().unwrap(),
            id: HostId::from_bytes([2; 32]),
            address: "192.0.2.2:7373".parse().unwrap(),
        });
        let at = |millis: u64| BootTime::from_nanos(millis * 1_000_000);
        assert_eq!(link.echo(at(1)), None);
        // Sent by the peer at 500 on its clock, heard here at 1000: echoed 7 ms later as 507.
        link.on_datagram(
            &Datagram {
                sent: at(500),
                heard: None,
                messages: vec![],
            },
            at(1_000),
        );
        assert_eq!(link.echo(at(1_007)), Some(at(507)));
        assert_eq!(link.reading().round_trip_ns, None);
        // This host sent at 1000; the peer kept it and says 1009; it is 1010 now: 1 ms.
        let echoed = Datagram {
            sent: at(510),
            heard: Some(at(1_009)),
            messages: vec![],
        };
        link.on_datagram(&echoed, at(1_010));
        assert_eq!(link.reading().round_trip_ns, Some(1_000_000));
        let p99 = link.reading().round_trip_p99_ns.unwrap();
        assert!((990_000..1_010_000).contains(&p99), "{p99}");
        // A claim to have heard the future is no round trip, and an overtaken one changes nothing.
        let lie = Datagram {
            sent: at(511),
            heard: Some(at(9_999)),
            messages: vec![],
        };
        link.on_datagram(&lie, at(1_011));
        assert_eq!(link.reading().round_trip_ns, None);
        link.on_datagram(
            &Datagram {
                sent: at(505),
                heard: None,
                messages: vec![],
            },
            at(1_012),
        );
        assert_eq!(link.echo(at(1_012)), Some(at(512)));
    }
}
