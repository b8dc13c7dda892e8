//! How much work strangers may cause: buckets of tokens, by source and for all of them together.
//!
//! A limit that an attacker can use up is a weapon against whom it limits. So an address that is
//! configured for a peer, or from which an authentic datagram came, is never limited: its sender
//! may be forged, and heartbeats come from there. All others share a budget. Nothing here reads a
//! clock or decides what is authentic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Sources whose buckets are kept at once; a further one takes the place of the fullest.
const SOURCES: usize = 256;
/// Addresses kept from which authentic datagrams came, beyond the configured ones.
const LEARNT: usize = 64;

/// So many at once, and then one each `pause`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) pause: Duration,
}

/// A bucket of tokens: full at first, one more each pause.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it will be full again; in the past when it is.
    full: Instant,
}

impl Bucket {
    const fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes a token, if there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full = self.full.max(now) + rate.pause;
        let is_there = full.duration_since(now) <= rate.pause * rate.burst;
        if is_there {
            self.full = full;
        }
        is_there
    }
}

/// Who may cause work now.
#[derive(Debug)]
pub(super) struct Admission {
    configured: BTreeSet<IpAddr>,
    learnt: VecDeque<IpAddr>,
    by_source: Rate,
    by_all: Rate,
    sources: BTreeMap<IpAddr, Bucket>,
    all: Option<Bucket>,
}

impl Admission {
    /// Limits every source but those of `configured`.
    pub(super) fn new(
        configured: impl IntoIterator<Item = IpAddr>,
        by_source: Rate,
        by_all: Rate,
    ) -> Self {
        Self {
            configured: configured
                .into_iter()
                .map(|one| one.to_canonical())
                .collect(),
            learnt: VecDeque::new(),
            by_source,
            by_all,
            sources: BTreeMap::new(),
            all: None,
        }
    }

    /// Whether `source` is a peer's.
    pub(super) fn knows(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.configured.contains(&source) || self.learnt.contains(&source)
    }

    /// Something authentic came from `source`.
    pub(super) fn learn(&mut self, source: IpAddr) {
        if self.knows(source) {
            return;
        }
        self.learnt.truncate(LEARNT - 1);
        self.learnt.push_front(source.to_canonical());
    }

    /// Whether something from `source` may cause work, which it then has used up.
    pub(super) fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.knows(source) {
            return true;
        }
        let source = source.to_canonical();
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            // The fullest has nothing to forget, or the least.
            let fullest = self.sources.iter().min_by_key(|(_, bucket)| bucket.full);
            if let Some(fullest) = fullest.map(|(source, _)| *source) {
                self.sources.remove(&fullest);
            }
        }
        let bucket = self.sources.entry(source).or_insert(Bucket::new(now));
        bucket.take(self.by_source, now)
            && self
                .all
                .get_or_insert(Bucket::new(now))
                .take(self.by_all, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);

    fn rate(burst: u32) -> Rate {
        Rate {
            burst,
            pause: PAUSE,
        }
    }

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate_and_peers_have_no_limit() {
        let now = Instant::now();
        let mut admission = Admission::new([source(9)], rate(3), rate(100));
        let admitted = |admission: &mut Admission, from: u32, now: Instant| {
            (0..10)
                .filter(|_| admission.admits(source(from), now))
                .count()
        };
        assert_eq!(admitted(&mut admission, 1, now), 3);
        assert_eq!(admitted(&mut admission, 2, now), 3, "each its own");
        assert_eq!(admitted(&mut admission, 1, now + PAUSE), 1);
        assert_eq!(
            admitted(&mut admission, 1, now + PAUSE * 50),
            3,
            "no more than full"
        );
        assert_eq!(admitted(&mut admission, 9, now), 10);
        let mapped = Ipv4Addr::from(9).to_ipv6_mapped().into();
        assert!((0..10).all(|_| admission.admits(mapped, now)));
        admission.learn(source(1));
        assert_eq!(admitted(&mut admission, 1, now), 10);
    }

    #[test]
    fn any_number_of_sources_shares_one_budget_and_a_bounded_table() {
        let now = Instant::now();
        let mut admission = Admission::new([], rate(3), rate(50));
        let admitted = (0..10_000).filter(|from| admission.admits(source(*from), now));
        assert_eq!(admitted.count(), 50);
        assert!(admission.sources.len() <= SOURCES);
        for from in 0..10_000 {
            admission.learn(source(from));
        }
        assert!(admission.learnt.len() <= LEARNT);
        assert!(admission.knows(source(9_999)) && !admission.knows(source(0)));
    }
}
