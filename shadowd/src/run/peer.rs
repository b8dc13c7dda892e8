//! What the failover loop knows of a peer's datagrams: when they come, over which paths, and how
//! long they take.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::board::PeerReading;
use crate::config::settings::PeerSettings;
use crate::decide::cluster::Echo;
use crate::decide::paths::Paths;
use crate::facts::{BootTime, Name, PathNumber, PathStatus};
use crate::link::Arrival;

/// Round trips are told apart to two digits from 1 us to 10 s: 12 KiB a peer.
const ROUND_TRIPS_NS: (u64, u64, u8) = (1_000, 10_000_000_000, 2);

/// A peer's datagrams.
pub struct PeerLink {
    /// The peer.
    pub name: Name,
    /// Where its daemon listens, on each path.
    pub addresses: Vec<SocketAddr>,
    /// Which paths carry.
    pub paths: Paths,
    /// By then something is to be said to it.
    pub next_word: BootTime,
    /// The run of its daemon that was heard last, as the keyring counts them.
    run: u64,
    echo: Echo,
    round_trip: Option<Duration>,
    round_trips_ns: Histogram<u64>,
    ends: Vec<Ends>,
}

/// Both ends of a path, and what went between them.
struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
    echo: Echo,
    round_trip: Option<Duration>,
    refused: u64,
}

impl PeerLink {
    /// A peer that was not heard yet, reached from `listen`.
    pub fn new(peer: &PeerSettings, listen: &[SocketAddr], now: BootTime) -> Self {
        let (low, high, digits) = ROUND_TRIPS_NS;
        let ends = listen.iter().zip(&peer.addresses);
        let ends = ends.map(|(local, remote)| Ends {
            local: *local,
            remote: *remote,
            echo: Echo::default(),
            round_trip: None,
            refused: 0,
        });
        let ends: Vec<Ends> = ends.take(PathNumber::COUNT).collect();
        Self {
            name: peer.name.clone(),
            addresses: peer.addresses.clone(),
            paths: Paths::new(ends.len()),
            next_word: now,
            run: 0,
            echo: Echo::default(),
            round_trip: None,
            round_trips_ns: Histogram::new_with_bounds(low, high, digits)
                .expect("the bounds are constants that the library accepts"),
            ends,
        }
    }

    /// An authentic datagram of the peer came. True when it is the first of another run of the
    /// peer's daemon: its clock may have begun anew.
    pub fn on_arrival(&mut self, arrival: &Arrival, now: BootTime) -> bool {
        let began = std::mem::replace(&mut self.run, arrival.run) != arrival.run;
        if began {
            self.echo = Echo::default();
            for ends in &mut self.ends {
                ends.echo = Echo::default();
            }
        }
        self.hear(arrival, now);
        began
    }

    fn hear(&mut self, arrival: &Arrival, now: BootTime) {
        let (path, datagram) = (arrival.path, &arrival.datagram);
        self.paths.on_arrival(path, arrival.copy, now);
        if let Some(ends) = self.ends.get_mut(path.place())
            && ends.echo.on_datagram(datagram.sent, now)
        {
            let echoed = datagram.echoes[path.place()];
            ends.round_trip = round_trip(echoed, now);
        }
        if arrival.copy || !self.echo.on_datagram(datagram.sent, now) {
            return;
        }
        self.round_trip = round_trip(datagram.heard, now);
        if let Some(round_trip) = self.round_trip {
            self.round_trips_ns.saturating_record(nanos(round_trip));
        }
    }

    /// Its kernel says that nobody listens there.
    pub fn on_refusal(&mut self, path: PathNumber) {
        if let Some(ends) = self.ends.get_mut(path.place()) {
            ends.refused += 1;
        }
    }

    /// The peer's clock, as it is to be echoed to it.
    pub fn echo(&self, now: BootTime) -> Option<BootTime> {
        self.echo.at(now)
    }

    /// The same for each path alone.
    pub fn echoes(&self, now: BootTime) -> [Option<BootTime>; PathNumber::COUNT] {
        let mut echoes = [None; PathNumber::COUNT];
        for (echo, ends) in echoes.iter_mut().zip(&self.ends) {
            *echo = ends.echo.at(now);
        }
        echoes
    }

    /// Both ends of a path, in words.
    pub fn ends(&self, path: PathNumber) -> String {
        let ends = self.ends.get(path.place());
        ends.map_or_else(String::new, |ends| {
            format!("{} - {}", ends.local, ends.remote)
        })
    }

    /// The view for people.
    pub fn reading(&self, now: BootTime) -> PeerReading {
        let paths = self.ends.iter().enumerate().filter_map(|(place, ends)| {
            let path = PathNumber::new(place)?;
            let (arrived, missed) = self.paths.counts(path);
            Some(PathStatus {
                local: ends.local.to_string(),
                remote: ends.remote.to_string(),
                state: self.paths.state(path, now),
                last_heard: self.paths.last_heard(path),
                round_trip_ns: ends.round_trip.map(nanos),
                loss: self.paths.loss(path),
                arrived,
                missed,
                refused: ends.refused,
            })
        });
        PeerReading {
            name: self.name.clone(),
            paths: paths.collect(),
            last_heard: self.echo.heard(),
            round_trip_ns: self.round_trip.map(nanos),
            round_trip_p99_ns: (!self.round_trips_ns.is_empty())
                .then(|| self.round_trips_ns.value_at_quantile(0.99)),
        }
    }
}

/// The echo of this host's own clock: only a time that has passed can be one.
fn round_trip(echoed: Option<BootTime>, now: BootTime) -> Option<Duration> {
    let sent = echoed.filter(|sent| *sent <= now)?;
    Some(now.since(sent))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Datagram, HostId};

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    fn link(paths: usize) -> PeerLink {
        let listen: Vec<SocketAddr> = ["192.0.2.1:7373", "198.51.100.1:7373"]
            .map(|address| address.parse().unwrap())
            .into();
        let remote: Vec<SocketAddr> = ["192.0.2.2:7373", "198.51.100.2:7373"]
            .map(|address| address.parse().unwrap())
            .into();
        let peer = PeerSettings {
            name: "b".parse().unwrap(),
            id: HostId::from_bytes([2; 32]),
            addresses: remote[..paths].to_vec(),
        };
        PeerLink::new(&peer, &listen, at(0))
    }

    fn arrival(place: usize, copy: bool, sent: u64, heard: [Option<u64>; 2]) -> Arrival {
        let [first, second] = heard.map(|millis| millis.map(at));
        Arrival {
            from: "b".parse().unwrap(),
            path: PathNumber::new(place).unwrap(),
            datagram: Datagram {
                sent: at(sent),
                heard: first.max(second),
                echoes: [first, second, None, None],
                messages: vec![],
            },
            copy,
            run: 1,
        }
    }

    #[test]
    fn a_round_trip_leaves_out_the_time_the_peer_kept_it() {
        let mut link = link(1);
        assert_eq!(link.echo(at(1)), None);
        // Sent by the peer at 500 on its clock, heard here at 1000: echoed 7 ms later as 507.
        link.on_arrival(&arrival(0, false, 500, [None; 2]), at(1_000));
        assert_eq!(link.echo(at(1_007)), Some(at(507)));
        assert_eq!(link.reading(at(1_007)).round_trip_ns, None);
        // This host sent at 1000; the peer kept it and says 1009; it is 1010 now: 1 ms.
        link.on_arrival(&arrival(0, false, 510, [Some(1_009), None]), at(1_010));
        let reading = link.reading(at(1_010));
        assert_eq!(reading.round_trip_ns, Some(1_000_000));
        let p99 = reading.round_trip_p99_ns.unwrap();
        assert!((990_000..1_010_000).contains(&p99), "{p99}");
        // A claim to have heard the future is no round trip, and an overtaken one changes nothing.
        link.on_arrival(&arrival(0, false, 511, [Some(9_999), None]), at(1_011));
        assert_eq!(link.reading(at(1_011)).round_trip_ns, None);
        link.on_arrival(&arrival(0, false, 505, [None; 2]), at(1_012));
        assert_eq!(link.echo(at(1_012)), Some(at(512)));
    }

    #[test]
    fn each_path_has_its_own_round_trip() {
        let mut link = link(2);
        // Heard over the first at once, over the second 4 ms later: both are echoed as they came.
        link.on_arrival(&arrival(0, false, 500, [None; 2]), at(1_000));
        link.on_arrival(&arrival(1, true, 500, [None; 2]), at(1_004));
        let echoes = link.echoes(at(1_010));
        assert_eq!(echoes[..2], [Some(at(510)), Some(at(506))]);
        assert_eq!(link.echo(at(1_010)), Some(at(510)));
        link.on_arrival(
            &arrival(0, false, 520, [Some(1_019), Some(1_011)]),
            at(1_020),
        );
        link.on_arrival(
            &arrival(1, true, 520, [Some(1_019), Some(1_011)]),
            at(1_024),
        );
        let reading = link.reading(at(1_024));
        let round_trips: Vec<_> = reading
            .paths
            .iter()
            .map(|path| path.round_trip_ns)
            .collect();
        assert_eq!(round_trips, [Some(1_000_000), Some(13_000_000)]);
        assert_eq!(reading.round_trip_ns, Some(1_000_000));
    }
}
