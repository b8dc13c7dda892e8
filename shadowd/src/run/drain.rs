//! The end of a planned handover on the old owner: its connections, until they have ended.
//!
//! While a [`Drain`] lives the addresses stay on the interface, for the connections alone: the
//! guard lets nothing else pass. Looking for what is left takes a thread of its own, because the
//! kernel lists all sockets of the host for it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use crate::facts::{BootTime, DrainStatus, Epoch, Vip};
use crate::observe::connections;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Connections that outlast a handover.
pub struct Drain {
    /// The epoch that the addresses were held in.
    pub epoch: Epoch,
    /// The addresses end then, whatever is left.
    pub until: BootTime,
    /// How many connections there were at the last look.
    pub left: Option<usize>,
    next_look: BootTime,
    look: Option<JoinHandle<Option<usize>>>,
}

impl Drain {
    /// Begins now.
    pub fn new(epoch: Epoch, until: BootTime, now: BootTime) -> Self {
        Self {
            epoch,
            until,
            left: None,
            next_look: now.after(LOOK_EVERY),
            look: None,
        }
    }

    /// The view for people.
    pub fn status(&self) -> DrainStatus {
        DrainStatus {
            until: self.until,
            connections: self.left,
        }
    }

    /// When [`Self::ended`] is to be asked next.
    pub fn next_deadline(&self) -> BootTime {
        self.next_look.min(self.until)
    }

    /// Whether nothing is left, or time is over. Never waits.
    pub fn ended(&mut self, vips: &[Vip], now: BootTime) -> bool {
        if now >= self.until {
            return true;
        }
        if let Some(look) = self.look.take_if(|look| look.is_finished()) {
            // A look that failed tells nothing: then time ends it.
            self.left = look.now_or_never().and_then(Result::ok).flatten();
        }
        if now >= self.next_look {
            self.next_look = now.after(LOOK_EVERY);
            let addresses: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.address).collect();
            if self.look.is_none() {
                let look = move || connections(&addresses).ok();
                self.look = Some(tokio::task::spawn_blocking(look));
            }
        }
        self.left == Some(0)
    }
}
