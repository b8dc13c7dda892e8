//! Which of the datagrams sent lately a report about a refusal quotes.
//!
//! Anybody can send an ICMP message, but only who saw a datagram can quote it: its counter, and
//! the beginning of its ciphertext. So a refusal that quotes none that was sent lately is nobody's,
//! and one datagram is refused on one path once.

use std::collections::{BTreeMap, VecDeque};

use crate::facts::{Name, PathNumber};

/// Bytes of a sealed datagram that are kept: its header of 17, and 15 that nobody can guess.
const QUOTED: usize = 32;
/// Datagrams kept for each peer: a refusal comes within a round trip.
const KEPT: usize = 16;

/// Peers' datagrams, as long as they can be refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    sent: BTreeMap<Name, VecDeque<Sent>>,
}

#[derive(Debug)]
struct Sent {
    begins: [u8; QUOTED],
    refused: [bool; PathNumber::COUNT],
}

impl Refusals {
    /// `sealed` goes to `to`, who is a peer.
    pub(super) fn note(&mut self, to: &Name, sealed: &[u8]) {
        let Some(begins) = sealed.first_chunk::<QUOTED>() else {
            return;
        };
        if !self.sent.contains_key(to) {
            self.sent.insert(to.clone(), VecDeque::with_capacity(KEPT));
        }
        if let Some(sent) = self.sent.get_mut(to) {
            sent.truncate(KEPT - 1);
            sent.push_front(Sent {
                begins: *begins,
                refused: Default::default(),
            });
        }
    }

    /// Whose datagram, sent over `path`, begins with `quoted`; none if nobody's, or if that was said
    /// before.
    pub(super) fn of(&mut self, path: PathNumber, quoted: &[u8]) -> Option<Name> {
        let begins = quoted.first_chunk::<QUOTED>()?;
        self.sent.iter_mut().find_map(|(peer, sent)| {
            let sent = sent.iter_mut().find(|one| one.begins == *begins)?;
            let before = std::mem::replace(&mut sent.refused[path.place()], true);
            (!before).then(|| peer.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(number: u8) -> [u8; 60] {
        [number; 60]
    }

    #[test]
    fn only_what_was_sent_lately_is_refused_and_once_on_each_path() {
        let (mut refusals, peer) = (Refusals::default(), "b".parse::<Name>().unwrap());
        let second = PathNumber::new(1).unwrap();
        for number in 0..20 {
            refusals.note(&peer, &sealed(number));
        }
        assert_eq!(refusals.of(PathNumber::FIRST, &sealed(3)), None, "long ago");
        assert_eq!(refusals.of(PathNumber::FIRST, &sealed(99)), None, "never");
        let short = &sealed(19)[..QUOTED - 1];
        assert_eq!(refusals.of(PathNumber::FIRST, short), None, "a guess");
        for path in [PathNumber::FIRST, second] {
            assert_eq!(refusals.of(path, &sealed(19)), Some(peer.clone()));
            assert_eq!(refusals.of(path, &sealed(19)), None, "said before");
        }
        assert!(refusals.sent[&peer].len() <= KEPT);
    }
}
