//! Letters: what is bulky and can wait, over the streams between hosts.
//!
//! A letter is cut into frames, between which pings pass. It arrives whole or not at all, and after
//! those sent before it on the same stream; one that is under way when its stream ends is lost, and
//! so is one that finds no room. Whoever writes letters says them again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Mutex, mpsc};

use crate::facts::Name;

/// A longer letter (bytes) is not sent, and ends a stream on which it comes.
pub const LETTER_BYTES_MAX: usize = 24 << 20;
/// Bytes of a letter in one frame.
const PART: usize = 48 * 1024;
/// Letters that wait for a peer, and that wait to be read.
const WAITING: usize = 32;
/// Bytes of the letters that wait for a peer.
const WAITING_BYTES: usize = 2 * LETTER_BYTES_MAX;

/// A letter that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who sent it: authenticated.
    pub from: Name,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The post of this host.
#[derive(Debug)]
pub struct Post {
    boxes: BTreeMap<Name, Outbox>,
    inbox: mpsc::Sender<Letter>,
    refused: AtomicU64,
    unread: AtomicU64,
}

#[derive(Debug)]
struct Outbox {
    put: mpsc::Sender<Vec<u8>>,
    /// While a stream is renewed there are two: one of them takes letters.
    take: Mutex<mpsc::Receiver<Vec<u8>>>,
    /// Bytes of those that wait.
    bytes: AtomicUsize,
}

impl Post {
    /// A post to these peers, and where their letters arrive.
    pub fn new(peers: impl IntoIterator<Item = Name>) -> (Self, mpsc::Receiver<Letter>) {
        let (inbox, letters) = mpsc::channel(WAITING);
        let outbox = |name: Name| {
            let (put, take) = mpsc::channel(WAITING);
            let outbox = Outbox {
                put,
                take: Mutex::new(take),
                bytes: AtomicUsize::new(0),
            };
            (name, outbox)
        };
        let post = Self {
            boxes: peers.into_iter().map(outbox).collect(),
            inbox,
            refused: AtomicU64::new(0),
            unread: AtomicU64::new(0),
        };
        (post, letters)
    }

    /// Sends a letter when there is a stream; false when there is no room for it, or no such peer.
    pub fn send(&self, to: &Name, bytes: Vec<u8>) -> bool {
        let fits = bytes.len() <= LETTER_BYTES_MAX;
        let outbox = self.boxes.get(to).filter(|_| fits);
        let sent = outbox.is_some_and(|outbox| {
            let (length, waiting) = (bytes.len(), outbox.bytes.load(Ordering::Relaxed));
            let room = waiting + length <= WAITING_BYTES;
            let sent = room && outbox.put.try_send(bytes).is_ok();
            if sent {
                outbox.bytes.fetch_add(length, Ordering::Relaxed);
            }
            sent
        });
        if !sent {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Letters that could not be sent for want of room, and those that came and nobody read.
    pub fn dropped(&self) -> [u64; 2] {
        [&self.refused, &self.unread].map(|count| count.load(Ordering::Relaxed))
    }

    /// The next letter to `peer`. Cancel-safe.
    pub(super) async fn next(&self, peer: &Name) -> Vec<u8> {
        if let Some(outbox) = self.boxes.get(peer)
            && let Some(letter) = outbox.take.lock().await.recv().await
        {
            let _ = outbox
                .bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                    Some(waiting.saturating_sub(letter.len()))
                });
            return letter;
        }
        std::future::pending().await
    }

    /// A letter of `peer` came whole.
    pub(super) fn deliver(&self, peer: &Name, bytes: Vec<u8>) {
        let from = peer.clone();
        if self.inbox.try_send(Letter { from, bytes }).is_err() {
            self.unread.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A letter on its way out.
#[derive(Debug)]
pub(super) struct Sending {
    bytes: Vec<u8>,
    at: usize,
}

impl Sending {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next part and how many bytes follow it; none once all was given.
    pub fn next(&mut self) -> Option<(Vec<u8>, u32)> {
        // A letter without a byte has one part as well.
        if self.at >= self.bytes.len().max(1) {
            return None;
        }
        let end = (self.at + PART).min(self.bytes.len());
        let part = self.bytes[self.at..end].to_vec();
        self.at = end.max(1);
        let left = u32::try_from(self.bytes.len() - end).unwrap_or(u32::MAX);
        Some((part, left))
    }
}

/// A letter that is coming in, part by part.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    bytes: Vec<u8>,
    /// How many bytes the last part announced.
    left: Option<usize>,
}

/// Parts that are of no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoLetter;

impl Receiving {
    /// Takes the next part, which `left` bytes follow; the letter once it is whole.
    pub fn take(&mut self, part: &[u8], left: u32) -> Result<Option<Vec<u8>>, NoLetter> {
        let left = left as usize;
        if self
            .left
            .is_some_and(|expected| expected != part.len() + left)
            || self.bytes.len() + part.len() + left > LETTER_BYTES_MAX
            || (part.is_empty() && left > 0)
        {
            return Err(NoLetter);
        }
        self.bytes.extend_from_slice(part);
        self.left = (left > 0).then_some(left);
        Ok((left == 0).then(|| std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn letters_come_together_again(lengths in proptest::collection::vec(0_usize..200_000, 1..4)) {
            let mut receiving = Receiving::default();
            for length in lengths {
                let letter: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let mut sending = Sending::new(letter.clone());
                let mut whole = None;
                while let Some((part, left)) = sending.next() {
                    prop_assert!(part.len() <= PART && whole.is_none());
                    whole = receiving.take(&part, left).unwrap();
                }
                prop_assert_eq!(whole, Some(letter));
            }
        }

        #[test]
        fn any_parts_are_bounded(parts in proptest::collection::vec((0_usize..99, any::<u32>()), 0..40)) {
            let mut receiving = Receiving::default();
            for (length, left) in parts {
                if receiving.take(&vec![0; length], left) == Err(NoLetter) {
                    break;
                }
                prop_assert!(receiving.bytes.len() <= LETTER_BYTES_MAX);
            }
        }
    }

    #[tokio::test]
    async fn a_full_box_refuses_and_a_stranger_has_none() {
        let (post, mut letters) = Post::new([name("b")]);
        assert!(!post.send(&name("c"), vec![1]));
        let sent = (0..100).filter(|_| post.send(&name("b"), vec![1])).count();
        assert_eq!(sent, WAITING);
        assert_eq!(post.next(&name("b")).await, [1]);
        assert!(post.send(&name("b"), vec![2]));
        assert!(!post.send(&name("b"), vec![0; LETTER_BYTES_MAX + 1]));
        for _ in 0..WAITING + 5 {
            post.deliver(&name("b"), vec![3]);
        }
        assert_eq!(post.dropped(), [1 + (100 - WAITING as u64) + 1, 5]);
        let first = letters.recv().await;
        assert_eq!(
            first,
            Some(Letter {
                from: name("b"),
                bytes: vec![3]
            })
        );
    }
}
