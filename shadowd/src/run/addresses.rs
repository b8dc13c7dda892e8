//! The virtual IPs of one group on this host: taken, announced, given up, kept for their connections.
//!
//! The kernel changes addresses under a lock that all changes of the host's network share, which
//! others may hold for long. So nothing here waits: changes stand in line, one is under way, and
//! what came of it is polled for, while heartbeats and answers of all groups go on.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::drain::Drain;
use crate::act::announce::{AnnounceError, Announcer, Repeats};
use crate::act::vip::{VipError, Vips};
use crate::facts::{BootTime, Epoch, Mac, Vip};
use crate::observe::sys::boot_time;

/// A change of the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They come to this host.
    Take(Epoch),
    /// They go.
    Drop(Epoch),
    /// They stay for their connections, if the guard can pass the others on; else they go.
    HandOn {
        /// In which epoch they were held.
        epoch: Epoch,
        /// Where the next owner is on the link.
        successor: Mac,
        /// They go then.
        until: BootTime,
    },
    /// No connection needs them any more.
    EndDrain {
        /// In which epoch they were held.
        epoch: Epoch,
        /// How many connections were left, if that is known.
        left: Option<usize>,
    },
}

/// What came of a change.
pub struct Outcome {
    /// Of which.
    pub change: Change,
    /// What the kernel said.
    pub result: Result<(), VipError>,
    /// When.
    pub at: BootTime,
    /// Those that are there: of a [`Change::Take`] only.
    held: Vec<Vip>,
}

/// The addresses of one group.
pub struct Addresses {
    vips: Arc<Vips>,
    wanted: Vec<Vip>,
    announcer: Announcer,
    /// The running series of announcements; none while this host does not hold the addresses.
    repeats: Option<Repeats>,
    held: Vec<Vip>,
    /// Connections of an ownership that was handed on.
    drain: Option<Drain>,
    /// At most one of each kind: the core asks for the next when it heard of the last.
    waiting: VecDeque<Change>,
    running: Option<Pin<Box<dyn Future<Output = Outcome> + Send>>>,
    /// Those that went while a change was under way, which may have been its doing.
    gone: BTreeSet<IpAddr>,
}

impl Addresses {
    /// None is here yet.
    pub fn new(vips: Vips, wanted: Vec<Vip>, announcer: Announcer) -> Self {
        Self {
            vips: Arc::new(vips),
            wanted,
            announcer,
            repeats: None,
            held: Vec::new(),
            drain: None,
            waiting: VecDeque::new(),
            running: None,
            gone: BTreeSet::new(),
        }
    }

    /// The daemon before this one left these here.
    pub fn holding(self, held: Vec<Vip>) -> Self {
        Self { held, ..self }
    }

    /// Those that this host holds.
    pub fn held(&self) -> &[Vip] {
        &self.held
    }

    /// What is left of an ownership that was handed on.
    pub fn drain(&self) -> Option<&Drain> {
        self.drain.as_ref()
    }

    /// Whether a change is under way or waits.
    pub fn is_busy(&self) -> bool {
        self.running.is_some() || !self.waiting.is_empty()
    }

    /// When time matters here next, if it does.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let repeats = self.repeats.as_ref().map(Repeats::next_deadline);
        let drain = self.drain.as_ref().map(Drain::next_deadline);
        repeats.into_iter().chain(drain).min()
    }

    /// Begins a change, after those that wait.
    pub fn change(&mut self, change: Change) {
        if let Change::Take(_) = change {
            // They are all this host's again, and so are the connections.
            self.drain = None;
        }
        if !self.waiting.contains(&change) {
            self.waiting.push_back(change);
        }
    }

    /// As [`Self::change`], before those that wait.
    pub fn change_first(&mut self, change: Change) {
        self.waiting.push_front(change);
    }

    fn start(&mut self, change: Change) {
        let (vips, wanted) = (Arc::clone(&self.vips), self.wanted.clone());
        self.running = Some(Box::pin(async move {
            let result = match &change {
                Change::Take(epoch) => vips.add(&wanted, *epoch).await,
                Change::Drop(epoch) | Change::EndDrain { epoch, .. } => {
                    vips.remove(&wanted, *epoch).await
                }
                // It was only its turn that it waited for.
                Change::HandOn { .. } => Ok(()),
            };
            let at = boot_time();
            let held = match (&change, &result) {
                // Some may be there all the same, and whoever has an address answers for it.
                (Change::Take(_), Err(_)) => vips.held(&wanted).await.unwrap_or_default(),
                _ => wanted,
            };
            Outcome {
                change,
                result,
                at,
                held,
            }
        }));
    }

    /// What came of the change that is under way; begins the next one.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        if self.running.is_none()
            && let Some(change) = self.waiting.pop_front()
        {
            self.start(change);
        }
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        let outcome = ready!(running.as_mut().poll(context));
        self.running = None;
        let gone = std::mem::take(&mut self.gone);
        if let (Change::Take(epoch), false) = (&outcome.change, gone.is_empty()) {
            // Something may have removed one just after it came: what is there comes to no harm.
            self.change(Change::Take(*epoch));
        }
        Poll::Ready(outcome)
    }

    /// They have come, or some of them: gives those that are new, and how many frames announced them.
    /// None are announced when they are to go again.
    pub fn taken(&mut self, outcome: &Outcome) -> (Vec<Vip>, Result<usize, AnnounceError>) {
        let before = std::mem::replace(&mut self.held, outcome.held.clone());
        let new = self.held.iter().filter(|vip| !before.contains(vip));
        let new = new.copied().collect();
        if !self
            .waiting
            .iter()
            .all(|next| matches!(next, Change::Take(_)))
        {
            return (new, Ok(0));
        }
        let mut repeats = Repeats::new(outcome.at);
        repeats.poll(outcome.at);
        self.repeats = Some(repeats);
        (new, self.announce())
    }

    /// They have gone, or are there for their connections alone: gives those that were held.
    pub fn given_up(&mut self) -> Vec<Vip> {
        self.repeats = None;
        std::mem::take(&mut self.held)
    }

    /// They stay, silent but for their connections.
    pub fn keep_for_connections(&mut self, drain: Drain) {
        self.drain = Some(drain);
    }

    /// Removes addresses that were kept for connections which have ended; whether that begins now.
    /// With `at_once` nothing is waited for.
    pub fn end_drain(&mut self, at_once: bool, now: BootTime) -> bool {
        let Some(drain) = &mut self.drain else {
            return false;
        };
        if !at_once && !drain.ended(&self.wanted, now) {
            return false;
        }
        let (epoch, left) = (drain.epoch, drain.left);
        self.drain = None;
        self.change(Change::EndDrain { epoch, left });
        true
    }

    /// Says it once more to the neighbours, from now on again and again.
    pub fn announce_anew(&mut self, now: BootTime) {
        self.repeats = Some(Repeats::new(now));
    }

    /// Announces them if it is time.
    ///
    /// # Errors
    /// As [`Announcer::announce`].
    pub fn announce_if_due(&mut self, now: BootTime) -> Result<(), AnnounceError> {
        let due = self.repeats.as_mut().is_some_and(|one| one.poll(now));
        if due {
            self.announce()?;
        }
        Ok(())
    }

    fn announce(&mut self) -> Result<usize, AnnounceError> {
        self.announcer.announce(&self.held)
    }

    /// One came to the interface or went: gives it if it was held and something else removed it.
    pub fn on_address(&mut self, address: IpAddr, present: bool) -> Option<Vip> {
        let at = self.held.iter().position(|vip| vip.address == address);
        if self.is_busy() {
            match present {
                true => drop(self.gone.remove(&address)),
                false if self.wanted.iter().any(|vip| vip.address == address) => {
                    self.gone.insert(address);
                }
                false => {}
            }
            return None;
        }
        at.filter(|_| !present).map(|at| self.held.remove(at))
    }
}
